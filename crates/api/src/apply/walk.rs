//! Walks over objects by their schema: what fields they set, how two differ, how one is merged into the
//! other, and how fields are taken out.

use super::set::{FieldSet, Tree, attach, elements, is_member, item_element};
use crate::schema::{Field, List, ListKind, Schema, Shape, Struct, any};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How appliers see a type.
enum Form<'a> {
    Leaf,
    Struct(&'a Struct),
    /// An object with values of one type.
    Map(&'a Schema),
    List(&'a List),
}

fn form<'a>(schema: &'a Schema, atomic: bool, values: [Option<&Value>; 2]) -> Form<'a> {
    let all = |is: fn(&Value) -> bool| values.into_iter().flatten().all(|v| v.is_null() || is(v));
    if atomic {
        return Form::Leaf;
    }
    match &schema.shape {
        Shape::Struct(s) if all(Value::is_object) => Form::Struct(s),
        Shape::Map(item) if all(Value::is_object) => Form::Map(item),
        Shape::List(list) if list.kind != ListKind::Atomic && all(Value::is_array) => Form::List(list),
        // of a custom resource, where nothing is declared: objects field by field, the rest as a whole
        Shape::Any if all(Value::is_object) => Form::Map(schema),
        _ => Form::Leaf,
    }
}

/// The type of a struct's field, if the struct allows such a field.
fn child<'a>(s: &'a Struct, name: &str, untyped: &'a Schema) -> Option<(&'a Schema, bool, bool)> {
    match s.field(name) {
        Some(f) => Some((&f.schema, f.is_atomic(), true)),
        None => s.preserve_unknown.then_some((untyped, false, false)),
    }
}

fn field_key(name: &str) -> String {
    ["f:", name].concat()
}

// ---- what an object sets

/// The fields that an applied configuration sets, or why it cannot be applied.
pub(super) fn fields_of(value: &Value, schema: &Schema) -> Result<FieldSet, String> {
    let mut out = Tree::new();
    set_of(value, schema, false, true, &mut out).map_err(|(path, why)| format!("{path}: {why}"))?;
    Ok(FieldSet(out))
}

/// The fields that an object sets, which may hold what a configuration may not.
pub(super) fn fields_of_live(value: &Value, schema: &Schema) -> FieldSet {
    let mut out = Tree::new();
    let _ = set_of(value, schema, false, false, &mut out); // refuses nothing unless it is strict
    FieldSet(out)
}

type At<T> = Result<T, (String, String)>;

fn within<T>(result: At<T>, element: impl Fn() -> String) -> At<T> {
    result.map_err(|(path, why)| (format!("{}{path}", element()), why))
}

/// Collects what is below a value; true if the value itself is one field. Only a strict walk refuses fields
/// that are not declared and items that stand twice or lack their key.
fn set_of(value: &Value, schema: &Schema, atomic: bool, strict: bool, out: &mut Tree) -> At<bool> {
    let untyped = any();
    let mut entry = |name: &str, v: &Value, schema: &Schema, atomic: bool, declared: bool| -> At<()> {
        let mut node = Tree::new();
        let leaf = within(set_of(v, schema, atomic, strict, &mut node), || format!(".{name}"))?;
        let empty = v.is_null() || v.as_object().is_some_and(Map::is_empty);
        attach(out, field_key(name), node, leaf || empty || !declared);
        Ok(())
    };
    match (form(schema, atomic, [Some(value), None]), value) {
        (Form::Struct(s), Value::Object(map)) => {
            for (name, v) in map {
                let Some((schema, atomic, declared)) = child(s, name, &untyped) else {
                    if !strict {
                        continue;
                    }
                    return Err((format!(".{name}"), "field not declared in schema".into()));
                };
                entry(name, v, schema, atomic, declared)?;
            }
            Ok(false)
        }
        (Form::Map(item), Value::Object(map)) => {
            map.iter().try_for_each(|(name, v)| entry(name, v, item, item.atomic, false))?;
            Ok(false)
        }
        (Form::List(list), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                let key = match item_element(list, item) {
                    Ok(key) => key,
                    Err(_) if !strict => continue,
                    Err(why) => return Err((String::new(), format!("element {i}: {why}"))),
                };
                if out.contains_key(&key) {
                    if !strict {
                        out.insert(key, Value::Object(Tree::new())); // owned as one
                        continue;
                    }
                    let name = FieldSet(Tree::from_iter([(key, Value::Object(Tree::new()))])).paths();
                    return Err((String::new(), format!("duplicate entries for key {}", name.join(""))));
                }
                let mut node = Tree::new();
                within(set_of(item, &list.item, list.item.atomic, strict, &mut node), || format!("[{i}]"))?;
                attach(out, key, node, true);
            }
            Ok(false)
        }
        (Form::Leaf, _) => Ok(true),
        _ => Ok(false),
    }
}

// ---- how two objects differ

/// What one object has, lacks and has otherwise than another.
#[derive(Default, Debug)]
pub(super) struct Difference {
    pub added: FieldSet,
    pub removed: FieldSet,
    pub modified: FieldSet,
}

impl Difference {
    /// What was added or modified.
    pub fn written(&self) -> FieldSet {
        let mut set = self.added.clone();
        set.add(&self.modified);
        set
    }

    /// The same, of a difference that nobody needs any more.
    pub fn into_written(mut self) -> FieldSet {
        self.added.add(&self.modified);
        self.added
    }
}

#[derive(PartialEq, Clone, Copy)]
enum Mark {
    Same,
    Added,
    Removed,
    Modified,
}

/// Compares two objects; `managedFields` are left out.
pub(super) fn compare(old: &Value, new: &Value, schema: &Schema) -> Difference {
    let mut out = Difference::default();
    differ(Some(old), Some(new), schema, false, &mut out);
    out
}

/// What upstream, which compares Go structs, sees in place of a field that JSON leaves out of a struct.
pub(super) fn absent(f: &Field) -> Option<&'static Value> {
    static NULL: Value = Value::Null;
    match f.schema.shape {
        _ if f.schema.custom => None,
        Shape::Struct(_) if !f.pointer => Some(&EMPTY),
        Shape::Struct(_) | Shape::List(_) | Shape::Map(_) if f.required => Some(&NULL),
        _ => None,
    }
}

pub(super) static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

pub(super) fn held_by_value(s: &Struct) -> impl Iterator<Item = &Field> {
    s.fields.iter().filter(|f| is_held_by_value(f))
}

pub(super) fn is_held_by_value(f: &Field) -> bool {
    matches!(f.schema.shape, Shape::Struct(_)) && !f.pointer && !f.schema.custom
}

fn is_empty(v: Option<&Value>, form: &Form<'_>) -> bool {
    match (v, form) {
        (Some(Value::Object(map)), Form::Struct(s)) => map.is_empty() && held_by_value(s).next().is_none(),
        (Some(Value::Object(map)), _) => map.is_empty(),
        (Some(Value::Array(items)), _) => items.is_empty(),
        _ => true,
    }
}

/// The keys of either object, once each.
fn keys<'a>(
    a: Option<&'a Map<String, Value>>,
    b: Option<&'a Map<String, Value>>,
) -> impl Iterator<Item = &'a String> {
    let only_b = b.into_iter().flat_map(Map::keys).filter(move |k| !a.is_some_and(|a| a.contains_key(*k)));
    a.into_iter().flat_map(Map::keys).chain(only_b)
}

/// All fields of a value that comes or goes as a whole.
pub(super) fn whole(value: &Value, schema: &Schema, atomic: bool) -> Tree {
    let mut out = Tree::new();
    match (form(schema, atomic, [Some(value), None]), value) {
        (Form::Struct(s), Value::Object(map)) => {
            let untyped = any();
            for (name, v) in map {
                if let Some((schema, atomic, _)) = child(s, name, &untyped) {
                    attach(&mut out, field_key(name), whole(v, schema, atomic), true);
                }
            }
            // what upstream holds by value comes and goes with its parent
            for f in held_by_value(s).filter(|f| !map.contains_key(&*f.name)) {
                attach(&mut out, field_key(&f.name), whole(&EMPTY, &f.schema, f.is_atomic()), true);
            }
        }
        (Form::Map(item), Value::Object(map)) => {
            for (name, v) in map {
                attach(&mut out, field_key(name), whole(v, item, item.atomic), true);
            }
        }
        (Form::List(list), Value::Array(items)) => {
            for item in items {
                let Ok(key) = item_element(list, item) else { continue };
                let again = out.contains_key(&key);
                let below = if again { Tree::new() } else { whole(item, &list.item, list.item.atomic) };
                attach(&mut out, key, below, true);
            }
        }
        _ => {}
    }
    out
}

/// Collects the differences below two values; says how they differ themselves.
fn differ(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: &Schema,
    atomic: bool,
    out: &mut Difference,
) -> Mark {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) => {
            out.added.0 = whole(new, schema, atomic);
            return Mark::Added;
        }
        (Some(old), None) => {
            out.removed.0 = whole(old, schema, atomic);
            return Mark::Removed;
        }
        (None, None) => return Mark::Same,
    };
    let form = form(schema, atomic, [Some(old), Some(new)]);
    let leaf = matches!(form, Form::Leaf) || (is_empty(Some(old), &form) && is_empty(Some(new), &form));
    let (o, n) = (old.as_object(), new.as_object());
    match form {
        _ if leaf && old != new => return Mark::Modified,
        _ if leaf => {}
        Form::Struct(s) => {
            let untyped = any();
            for name in keys(o, n) {
                if name == "managedFields" && schema.type_name() == "ObjectMeta" {
                    continue;
                }
                let Some((schema, atomic, _)) = child(s, name, &untyped) else { continue };
                let stand_in = s.field(name).and_then(absent);
                let side = |m: Option<&'_ Map<String, Value>>| m.is_some().then_some(stand_in).flatten();
                let a = o.and_then(|m| m.get(name)).or(side(o));
                let b = n.and_then(|m| m.get(name)).or(side(n));
                step(|| field_key(name), a, b, schema, atomic, out);
            }
        }
        Form::Map(item) => {
            for name in keys(o, n) {
                let (a, b) = (o.and_then(|m| m.get(name)), n.and_then(|m| m.get(name)));
                step(|| field_key(name), a, b, item, item.atomic, out);
            }
        }
        Form::List(list) => {
            let mut both: BTreeMap<String, [Vec<&Value>; 2]> = BTreeMap::new();
            for (side, items) in [old, new].into_iter().enumerate() {
                for item in items.as_array().into_iter().flatten() {
                    if let Ok(key) = item_element(list, item) {
                        both.entry(key).or_default()[side].push(item);
                    }
                }
            }
            for (key, [o, n]) in both {
                items_differ(&key, &o, &n, list, out);
            }
        }
        Form::Leaf => {}
    }
    Mark::Same
}

/// The differences of one child, hung below `key`.
fn step(
    key: impl Fn() -> String,
    old: Option<&Value>,
    new: Option<&Value>,
    schema: &Schema,
    atomic: bool,
    out: &mut Difference,
) {
    if old == new {
        return;
    }
    let mut below = Difference::default();
    let mark = differ(old, new, schema, atomic, &mut below);
    for (set, below, mine) in [
        (&mut out.added, below.added, Mark::Added),
        (&mut out.removed, below.removed, Mark::Removed),
        (&mut out.modified, below.modified, Mark::Modified),
    ] {
        if mark == mine || !below.0.is_empty() {
            attach(&mut set.0, key(), below.0, mark == mine);
        }
    }
}

/// The items of one key. There may be several, since lists may have come to be before their keys were
/// declared; those are compared as one value.
fn items_differ(key: &str, old: &[&Value], new: &[&Value], list: &List, out: &mut Difference) {
    let key = || key.to_string();
    match (old, new) {
        ([] | [_], [] | [_]) => {
            step(key, old.first().copied(), new.first().copied(), &list.item, list.item.atomic, out)
        }
        ([_, _, ..], [_, _, ..]) => {
            if old != new {
                attach(&mut out.modified.0, key(), Tree::new(), true);
            }
        }
        ([_, _, ..], _) => {
            step(key, None, new.first().copied(), &list.item, list.item.atomic, out);
            attach(&mut out.removed.0, key(), Tree::new(), true);
        }
        (_, [_, _, ..]) => {
            step(key, old.first().copied(), None, &list.item, list.item.atomic, out);
            attach(&mut out.added.0, key(), Tree::new(), true);
        }
    }
}

// ---- merging a configuration into an object

/// The object with the configuration merged into it.
pub(super) fn merged(
    live: Option<&Value>,
    config: Option<&Value>,
    schema: &Schema,
    atomic: bool,
) -> Option<Value> {
    let form = form(schema, atomic, [live, config]);
    let (Some(l), Some(c)) = (live, config) else {
        return config.map(without_nulls(schema)).or_else(|| live.cloned());
    };
    if matches!(form, Form::Leaf) || (is_empty(live, &form) && is_empty(config, &form)) {
        return Some(c.clone());
    }
    let (lm, cm) = (l.as_object(), c.as_object());
    Some(match form {
        Form::Struct(_) | Form::Map(_) => {
            let untyped = any();
            let mut out = Map::new();
            for name in keys(lm, cm) {
                let (schema, atomic) = match &form {
                    Form::Struct(s) => match child(s, name, &untyped) {
                        Some((schema, atomic, _)) => (schema, atomic),
                        None => continue,
                    },
                    Form::Map(item) => (*item, item.atomic),
                    _ => continue,
                };
                let (a, b) = (lm.and_then(|m| m.get(name)), cm.and_then(|m| m.get(name)));
                match merged(a, b, schema, atomic) {
                    None => {}
                    Some(Value::Null) if !keeps_nulls(schema) => {}
                    Some(v) => {
                        out.insert(name.clone(), v);
                    }
                }
            }
            Value::Object(out)
        }
        Form::List(list) => match c {
            Value::Array(items) => Value::Array(merged_items(l.as_array().map_or(&[], |v| v), items, list)),
            _ => l.clone(),
        },
        Form::Leaf => c.clone(),
    })
}

/// A configured value that is new to the object; for built-in kinds null is nothing.
fn without_nulls(schema: &Schema) -> impl Fn(&Value) -> Value {
    fn strip(v: &Value) -> Value {
        match v {
            Value::Object(map) => map
                .iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k.clone(), strip(v)))
                .collect::<Map<_, _>>()
                .into(),
            Value::Array(items) => items.iter().map(strip).collect(),
            other => other.clone(),
        }
    }
    let plain = keeps_nulls(schema);
    move |v| if plain { v.clone() } else { strip(v) }
}

/// Whether null is a value: where nobody has declared what may stand.
fn keeps_nulls(schema: &Schema) -> bool {
    schema.custom || matches!(schema.shape, Shape::Any | Shape::Raw | Shape::FieldsV1)
}

/// The items of both lists: those of the configuration in its order, the others where they were.
fn merged_items(live: &[Value], config: &[Value], list: &List) -> Vec<Value> {
    let keyed = |items: &[Value]| -> Vec<String> {
        items
            .iter()
            .enumerate()
            .map(|(i, v)| item_element(list, v).unwrap_or_else(|_| format!("?{i}")))
            .collect()
    };
    let (lk, ck) = (keyed(live), keyed(config));
    let in_config = |key: &String| ck.contains(key);
    let mut shared = ck.iter().filter(|k| lk.contains(k)).peekable();
    let mut taken: Vec<&String> = Vec::with_capacity(ck.len());
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut li, mut ci) = (0, 0);
    let pair = |key: &String, c: &Value| {
        // items that stand twice in the object are not merged with, but replaced
        let mut same = lk.iter().zip(live).filter(|(k, _)| *k == key).map(|(_, v)| v);
        let one = same.next().filter(|_| same.next().is_none());
        merged(one, Some(c), &list.item, list.item.atomic)
    };
    while li < live.len() || ci < config.len() {
        if let (Some(l), Some(c)) = (lk.get(li), ck.get(ci)) {
            if l == c {
                out.extend(pair(c, &config[ci]));
                taken.push(c);
                (li, ci) = (li + 1, ci + 1);
                shared.next();
                continue;
            }
            if in_config(l) && shared.peek().is_some_and(|s| *s != l) {
                li += 1; // it comes later, where the configuration has it
                continue;
            }
        }
        if let Some(l) = lk.get(li) {
            if !in_config(l) {
                out.push(live[li].clone());
                li += 1;
                continue;
            }
            if taken.contains(&l) {
                li += 1;
            }
        }
        if let Some(c) = ck.get(ci) {
            out.extend(pair(c, &config[ci]));
            taken.push(c);
            ci += 1;
            if shared.peek().is_some_and(|s| *s == c) {
                shared.next();
            }
        }
    }
    out
}

// ---- taking fields out

/// Takes the members of `set` out of a value. What is emptied by that stays, empty.
pub(super) fn remove(value: &mut Value, set: &FieldSet, schema: &Schema) {
    take_out(value, &set.0, schema, false);
}

fn take_out(value: &mut Value, set: &Tree, schema: &Schema, atomic: bool) {
    let form = form(schema, atomic, [Some(&*value), None]);
    match (form, value) {
        (form @ (Form::Struct(_) | Form::Map(_)), Value::Object(map)) => {
            let untyped = any();
            for (key, node) in elements(set) {
                let Some(name) = key.strip_prefix("f:") else { continue };
                let (schema, atomic) = match &form {
                    Form::Struct(s) => {
                        child(s, name, &untyped).map_or((&*untyped, false), |(s, a, _)| (s, a))
                    }
                    Form::Map(item) => (*item, item.atomic),
                    _ => continue,
                };
                if is_member(node) {
                    map.remove(name);
                } else if let Some(v) = map.get_mut(name) {
                    take_out(v, node, schema, atomic);
                }
            }
        }
        (Form::List(list), Value::Array(items)) => {
            items.retain_mut(|item| {
                let Ok(key) = item_element(list, item) else { return true };
                match set.get(&key).and_then(Value::as_object) {
                    Some(node) if is_member(node) => false,
                    Some(node) => {
                        take_out(item, node, &list.item, list.item.atomic);
                        true
                    }
                    None => true,
                }
            });
        }
        _ => {}
    }
}

/// The set with the declared fields made members that only lead to members.
pub(super) fn with_named(set: &FieldSet, schema: &Schema) -> FieldSet {
    FieldSet(named(&set.0, Some(schema), false))
}

fn named(tree: &Tree, schema: Option<&Schema>, atomic: bool) -> Tree {
    let untyped = any();
    let form = schema.map_or(Form::Leaf, |s| form(s, atomic, [None, None]));
    let mut out = Tree::new();
    for (key, node) in elements(tree) {
        let (next, declared) = match (&form, key.strip_prefix("f:")) {
            (Form::Struct(s), Some(name)) => match child(s, name, &untyped) {
                Some((schema, atomic, declared)) => (Some((schema, atomic)), declared),
                None => (None, false),
            },
            (Form::Map(item), Some(_)) => (Some((*item, item.atomic)), false),
            (Form::List(list), None) => (Some((&*list.item, list.item.atomic)), false),
            _ => (None, false),
        };
        let inner = named(node, next.map(|n| n.0), next.is_some_and(|n| n.1));
        attach(&mut out, key.clone(), inner, is_member(node) || declared);
    }
    out
}

/// The set with what lies below fields that are now atomic drawn up to those fields.
pub(super) fn reconciled(set: FieldSet, schema: &Schema) -> FieldSet {
    FieldSet(drawn_up(set.0, schema, false))
}

fn drawn_up(tree: Tree, schema: &Schema, atomic: bool) -> Tree {
    let untyped = any();
    let form = form(schema, atomic, [None, None]);
    let mut out = Tree::new();
    for (key, node) in tree {
        let Value::Object(node) = node else { continue };
        let next = match (&form, key.strip_prefix("f:")) {
            (Form::Struct(s), Some(name)) => child(s, name, &untyped).map(|(s, a, _)| (s, a)),
            (Form::Map(item), Some(_)) => Some((*item, item.atomic)),
            (Form::List(list), None) => Some((&*list.item, list.item.atomic)),
            _ => None,
        };
        let node = match next {
            Some((schema, atomic)) if matches!(self::form(schema, atomic, [None, None]), Form::Leaf) => {
                Tree::new()
            }
            Some((schema, atomic)) => drawn_up(node, schema, atomic),
            None => node,
        };
        out.insert(key, Value::Object(node));
    }
    out
}
