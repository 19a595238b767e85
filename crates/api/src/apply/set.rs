//! Sets of fields, as managedFields entries hold them. A set is kept in the very form of `fieldsV1`: an
//! object whose keys name path elements (`f:<field>`, `k:{<keys>}`, `v:<value>`) and whose values are the
//! sets below. An element is a member if its object is empty or holds `.`. So an entry that an operation
//! does not touch is never parsed.

use crate::schema::{List, ListKind};
use serde_json::{Map, Value};

/// The inside of a set.
pub(super) type Tree = Map<String, Value>;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(pub(super) Tree);

pub(super) fn is_member(node: &Tree) -> bool {
    node.is_empty() || node.contains_key(".")
}

/// Puts `node` into `tree` under `key`, as a member or only for what is below it.
pub(super) fn attach(tree: &mut Tree, key: String, mut node: Tree, member: bool) {
    if node.is_empty() {
        if !member {
            return;
        }
    } else if member {
        node.insert(".".into(), Value::Object(Tree::new()));
    }
    tree.insert(key, Value::Object(node));
}

fn below<'a>(tree: &'a Tree, key: &str) -> Option<&'a Tree> {
    tree.get(key).and_then(Value::as_object)
}

/// The elements below a node.
pub(super) fn elements(tree: &Tree) -> impl Iterator<Item = (&String, &Tree)> {
    tree.iter().filter(|(k, _)| *k != ".").filter_map(|(k, v)| Some((k, v.as_object()?)))
}

/// The path element of a list's item, unless it has none.
pub(super) fn item_element(list: &List, item: &Value) -> Result<String, String> {
    match &list.kind {
        ListKind::Map(keys) => {
            let Value::Object(map) = item else {
                return Err("associative list with keys may not have non-map elements".into());
            };
            let mut id = Tree::new();
            for key in keys {
                let default = || list.item.field(key).and_then(|f| f.default.as_deref());
                if let Some(v) = map.get(&**key).or_else(default) {
                    id.insert(key.to_string(), v.clone());
                }
            }
            if id.is_empty() {
                let names = keys.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(" ");
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{names}] \
                     (and doesn't have default values for any key fields)"
                ));
            }
            Ok(format!("k:{}", Value::Object(id)))
        }
        _ if item.is_object() => Err("associative list without keys has an element that's a map type".into()),
        _ if item.is_array() => Err("not supported: associative list with lists as elements".into()),
        _ if item.is_null() => {
            Err("associative list without keys has an element that's an explicit null".into())
        }
        _ => Ok(format!("v:{item}")),
    }
}

fn difference(node: &mut Tree, other: &Tree) -> bool {
    let member = is_member(node) && !is_member(other);
    below_difference(node, other);
    settle(node, member)
}

fn below_difference(node: &mut Tree, other: &Tree) {
    for (key, theirs) in elements(other) {
        if let Some(Value::Object(ours)) = node.get_mut(key)
            && !difference(ours, theirs)
        {
            node.remove(key);
        }
    }
}

/// Writes down whether a node is a member, given its remaining children; false if nothing remains.
fn settle(node: &mut Tree, member: bool) -> bool {
    node.remove(".");
    if !node.is_empty() && member {
        node.insert(".".into(), Value::Object(Tree::new()));
    }
    !node.is_empty() || member
}

fn below_recursive_difference(node: &mut Tree, other: &Tree) {
    for (key, theirs) in elements(other) {
        if is_member(theirs) {
            node.remove(key);
        } else if let Some(Value::Object(ours)) = node.get_mut(key) {
            let member = is_member(ours);
            below_recursive_difference(ours, theirs);
            if !settle(ours, member) {
                node.remove(key);
            }
        }
    }
}

fn below_union(node: &mut Tree, other: &Tree) {
    for (key, theirs) in elements(other) {
        match node.get_mut(key) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                below_union(ours, theirs);
                settle(ours, member);
            }
            _ => {
                node.insert(key.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

fn below_intersection(a: &Tree, b: &Tree) -> Tree {
    let mut out = Tree::new();
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    for (key, x) in elements(small) {
        if let Some(y) = below(large, key) {
            attach(&mut out, key.clone(), below_intersection(x, y), is_member(x) && is_member(y));
        }
    }
    out
}

impl FieldSet {
    /// The set of these paths of fields, such as `status` or `spec.replicas`.
    pub fn of_paths(paths: &[&str]) -> Self {
        let mut set = FieldSet::default();
        for path in paths {
            let elements: Vec<String> = path.split('.').map(|f| format!("f:{f}")).collect();
            set.insert(&elements);
        }
        set
    }

    pub(super) fn insert(&mut self, path: &[String]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut tree = &mut self.0;
        for key in parents {
            let fresh = !tree.contains_key(key);
            let entry = tree.entry(key).or_insert_with(|| Value::Object(Tree::new()));
            let Value::Object(node) = entry else { return };
            if !fresh && node.is_empty() {
                node.insert(".".into(), Value::Object(Tree::new()));
            }
            tree = node;
        }
        match tree.get_mut(last) {
            Some(Value::Object(node)) if !node.is_empty() => {
                node.insert(".".into(), Value::Object(Tree::new()));
            }
            _ => {
                tree.insert(last.clone(), Value::Object(Tree::new()));
            }
        }
    }

    /// Reads `fieldsV1`. Elements of kinds we do not know are dropped.
    pub fn from_json(fields: &Value) -> Result<Self, String> {
        match fields {
            Value::Object(map) => Ok(FieldSet(canonical(map)?)),
            Value::Null => Ok(FieldSet::default()),
            _ => Err("fieldsV1 is not an object".into()),
        }
    }

    /// Its `fieldsV1`.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        elements(&self.0).next().is_none()
    }

    /// Whether the element at the end of `path`, such as `["f:spec", "f:replicas"]`, is a member.
    pub fn has(&self, path: &[&str]) -> bool {
        let mut tree = &self.0;
        for key in path {
            match below(tree, key) {
                Some(t) => tree = t,
                None => return false,
            }
        }
        !path.is_empty() && is_member(tree)
    }

    /// Takes away the members of `other`. What is below a member stays.
    pub fn subtract(&mut self, other: &FieldSet) {
        below_difference(&mut self.0, &other.0);
    }

    /// Takes away the members of `other` and all that is below them.
    pub fn subtract_below(&mut self, other: &FieldSet) {
        below_recursive_difference(&mut self.0, &other.0);
    }

    /// Adds the members of `other`.
    pub fn add(&mut self, other: &FieldSet) {
        below_union(&mut self.0, &other.0);
    }

    /// The members that both have.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        FieldSet(below_intersection(&self.0, &other.0))
    }

    /// Every member's path as people read it, such as `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        fn walk(tree: &Tree, at: &str, out: &mut Vec<String>) {
            let here = |key: &str| format!("{at}{}", readable(key));
            out.extend(elements(tree).filter(|(_, node)| is_member(node)).map(|(key, _)| here(key)));
            elements(tree).for_each(|(key, node)| walk(node, &here(key), out));
        }
        let mut out = Vec::new();
        walk(&self.0, "", &mut out);
        out
    }
}

/// A path element as people read it.
fn readable(key: &str) -> String {
    match key.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", i)) => format!("[{i}]"),
        Some(("k:", keys)) => match serde_json::from_str::<Tree>(keys) {
            Ok(map) => {
                let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", pairs.join(","))
            }
            Err(_) => format!("[{keys}]"),
        },
        _ => key.to_string(),
    }
}

/// The same set with its elements spelled as we spell them.
fn canonical(map: &Tree) -> Result<Tree, String> {
    let mut out = Tree::new();
    for (key, value) in map {
        let Value::Object(node) = value else { return Err(format!("field {key:?} is not an object")) };
        let key = match key.split_at_checked(2) {
            _ if key == "." => key.clone(),
            Some(("f:", _)) => key.clone(),
            Some(("i:", i)) if i.parse::<i64>().is_ok() => key.clone(),
            Some((kind @ ("k:" | "v:"), json)) => {
                let v: Value = serde_json::from_str(json).map_err(|e| format!("field {key:?}: {e}"))?;
                format!("{kind}{v}")
            }
            Some((kind, _)) if kind.ends_with(':') => continue,
            _ => return Err(format!("field {key:?} is not understood")),
        };
        out.insert(key, Value::Object(canonical(node)?));
    }
    Ok(out)
}
