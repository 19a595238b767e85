//! Who owns the fields of a new object: its creator, all of them. This is what [`update`](super::update) says of an
//! object that was not there before, read off its JSON and written as JSON, without values and sets in between.

use super::set::{FieldSet, Tree, item_element};
use super::walk::{EMPTY, absent, held_by_value, is_held_by_value, whole};
use super::{Author, UNOWNED, entries};
use crate::json::{prefixed, scalar, text};
use crate::schema::{Field, List, ListKind, Schema, Shape, Str, Struct, any};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// The managedFields of a new object, as JSON; `None` if it sets nothing that anyone owns. The object is given as
/// JSON whose members are sorted, but for `apiVersion`, `kind` and `metadata`, and without managedFields.
pub fn created(json: &[u8], schema: &Schema, by: &Author<'_>) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let whole_fields = |reset: &FieldSet| reset.0.values().all(|v| v.as_object().is_some_and(Map::is_empty));
    let usual = schema.field("metadata").is_some_and(|f| f.schema.as_struct().is_some())
        && by.reset.is_none_or(whole_fields);
    if !usual {
        let mut object = serde_json::from_slice(json)?;
        super::update(None, &mut object, schema, by);
        return entries::take(&mut object).map(|fields| serde_json::to_vec(&fields)).transpose();
    }
    let mut out = Vec::with_capacity(256 + json.len());
    out.extend_from_slice(b"[{");
    put(&mut out, "apiVersion", by.api_version);
    put(&mut out, "fieldsType", "FieldsV1");
    out.extend_from_slice(b",\"fieldsV1\":{");
    let start = out.len();
    let root = Node { out: &mut out, schema, atomic: false, old: Old::Empty, place: Place::Root(by.reset) };
    root.deserialize(&mut serde_json::Deserializer::from_slice(json))?;
    if out.len() == start {
        return Ok(None);
    }
    out.push(b'}');
    put(&mut out, "manager", if by.manager.is_empty() { "unknown" } else { by.manager });
    put(&mut out, "operation", "Update");
    put(&mut out, "subresource", by.subresource);
    put(&mut out, "time", &scalar::seconds(by.now));
    out.extend_from_slice(b"}]");
    Ok(Some(out))
}

/// Writes a member of an entry, unless it is empty.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        comma(out);
        text(out, name);
        out.push(b':');
        text(out, value);
    }
}

/// Separates what is to come from what is there.
fn comma(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

/// Writes the element of a field.
fn field_key(out: &mut Vec<u8>, name: &str) {
    comma(out);
    prefixed(out, "f:", name);
    out.push(b':');
}

/// Writes what is below an element. `inside` writes the elements and says whether this one is a member even if
/// `member` does not. Answers whether there is anything, be it the element itself.
fn below<E>(
    out: &mut Vec<u8>,
    member: bool,
    inside: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
) -> Result<bool, E> {
    out.push(b'{');
    let start = out.len();
    if member {
        out.extend_from_slice(b"\".\":{}");
    }
    let first = out.len();
    let member = inside(out)? || member;
    let empty = out.len() == first;
    if empty {
        out.truncate(start); // a member without anything below it needs no dot
    }
    out.push(b'}');
    Ok(member || !empty)
}

/// Writes the elements of a set.
fn tree(out: &mut Vec<u8>, tree: &Tree) -> Result<bool, serde_json::Error> {
    for (key, node) in tree {
        comma(out);
        text(out, key);
        out.push(b':');
        serde_json::to_writer(&mut *out, node)?;
    }
    Ok(true)
}

/// What stands in the place of a value in an object that is not there, as upstream sees it.
#[derive(Clone, Copy, PartialEq)]
enum Old {
    /// Nothing: whatever comes is owned with all that is below it.
    Absent,
    /// A struct that is held by value, and so is always there.
    Empty,
    /// A required field, whose zero is printed as null.
    Null,
}

impl Old {
    fn of(field: &Field) -> Self {
        match absent(field) {
            None => Old::Absent,
            Some(Value::Null) => Old::Null,
            Some(_) => Old::Empty,
        }
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// It is the object, some of whose fields this endpoint does not write.
    Root(Option<&'a FieldSet>),
    /// It is the object's metadata.
    Metadata,
    /// It is something in the object.
    Inner,
}

/// One value about to be read. Answers whether it is a member although there was something in its place.
struct Node<'a> {
    out: &'a mut Vec<u8>,
    schema: &'a Schema,
    atomic: bool,
    old: Old,
    place: Place<'a>,
}

impl Node<'_> {
    fn fields<'de, A: MapAccess<'de>>(
        self,
        s: &Struct,
        mut map: A,
        mut keys: Option<Keys<'_>>,
    ) -> Result<bool, A::Error> {
        let Node { out, schema, old, place, .. } = self;
        let untyped = any();
        let (mut at, mut none) = (0, true);
        // The object's metadata, which stands before what it is to stand behind.
        let mut held: Option<Vec<u8>> = None;
        while let Some(name) = map.next_key_seed(Name)? {
            none = false;
            let field = match old {
                Old::Absent => pass(out, s, &mut at, Some(&name)).map_err(A::Error::custom)?,
                _ => s.field(&name),
            };
            let managed = || &*name == "managedFields" && schema.type_name() == "ObjectMeta";
            let nobodys = match place {
                Place::Root(reset) => {
                    matches!(&*name, "apiVersion" | "kind")
                        || reset.is_some_and(|r| r.0.contains_key(&["f:", &name].concat()))
                }
                Place::Metadata => UNOWNED.iter().any(|f| f.strip_prefix("f:") == Some(&*name)),
                Place::Inner => false,
            };
            if nobodys || field.is_none() && !s.preserve_unknown || old != Old::Absent && managed() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let (schema, atomic) = field.map_or((&*untyped, false), |f| (&*f.schema, f.is_atomic()));
            if let Some(keys) = keys.as_mut().filter(|keys| keys.names.contains(&name)) {
                let value: Value = map.next_value()?;
                field_key(out, &name);
                below(out, true, |out| tree(out, &whole(&value, schema, atomic)))
                    .map_err(A::Error::custom)?;
                keys.found.insert(name.into_owned(), value);
                continue;
            }
            let now = match old {
                Old::Empty => field.map_or(Old::Absent, Old::of),
                _ => Old::Absent,
            };
            let is_metadata = matches!(place, Place::Root(_)) && name == "metadata";
            let place = if is_metadata { Place::Metadata } else { Place::Inner };
            if !is_metadata && &*name > "metadata" {
                put_held(out, &mut held);
            }
            let start = out.len();
            field_key(out, &name);
            let kept = below(out, now == Old::Absent && !is_metadata, |out| {
                map.next_value_seed(Node { out, schema, atomic, old: now, place })
                    .map(|member| member && !is_metadata)
            })?;
            if !kept {
                out.truncate(start);
            } else if is_metadata {
                held = Some(out.split_off(start));
            }
        }
        put_held(out, &mut held);
        if old == Old::Absent {
            pass(out, s, &mut at, None).map_err(A::Error::custom)?;
        }
        Ok(old == Old::Null && none && held_by_value(s).next().is_none())
    }

    fn entries<'de, A: MapAccess<'de>>(self, item: &Schema, mut map: A) -> Result<bool, A::Error> {
        let mut none = true;
        while let Some(name) = map.next_key_seed(Name)? {
            none = false;
            field_key(self.out, &name);
            below(self.out, true, |out| {
                let (schema, atomic) = (item, item.atomic);
                map.next_value_seed(Node { out, schema, atomic, old: Old::Absent, place: Place::Inner })
            })?;
        }
        Ok(none)
    }

    fn items<'de, A: SeqAccess<'de>>(self, list: &List, mut seq: A) -> Result<bool, A::Error> {
        let out = self.out;
        let start = out.len();
        let mut none = true;
        // Every item's element, and where what is below it ends; the order is that of the elements.
        let mut elements: Vec<(String, std::ops::Range<usize>)> = Vec::new();
        loop {
            let begin = out.len();
            let Some(element) = seq.next_element_seed(Item { out: &mut *out, list })? else { break };
            none = false;
            match element {
                Some(element) => elements.push((element, begin - start..out.len() - start)),
                None => out.truncate(begin),
            }
        }
        let bodies = out.split_off(start);
        elements.sort_by(|(a, _), (b, _)| a.cmp(b));
        for same in elements.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((element, body)) = same.first() else { continue };
            comma(out);
            text(out, element);
            out.push(b':');
            match same {
                [_] => out.extend_from_slice(bodies.get(body.clone()).unwrap_or_default()),
                _ => out.extend_from_slice(b"{}"), // owned as one
            }
        }
        Ok(none)
    }

    /// A value that is owned as a whole, where something was.
    fn leaf(&self, empty: bool) -> bool {
        !(empty && self.old == Old::Empty)
    }
}

fn put_held(out: &mut Vec<u8>, held: &mut Option<Vec<u8>>) {
    if let Some(held) = held.take() {
        let held = held.strip_prefix(b",").unwrap_or(&held);
        comma(out);
        out.extend_from_slice(held);
    }
}

/// Passes the fields before `name`, and writes those that upstream holds by value: they come with what they are in.
/// Answers the one of that name.
fn pass<'a>(
    out: &mut Vec<u8>,
    s: &'a Struct,
    at: &mut usize,
    name: Option<&str>,
) -> Result<Option<&'a Field>, serde_json::Error> {
    while let Some(field) = s.fields.get(*at) {
        match name.map_or(Ordering::Less, |name| (*field.name).cmp(name)) {
            Ordering::Less => *at += 1,
            Ordering::Equal => {
                *at += 1;
                return Ok(Some(field));
            }
            Ordering::Greater => return Ok(None),
        }
        if is_held_by_value(field) {
            field_key(out, &field.name);
            below(out, true, |out| tree(out, &whole(&EMPTY, &field.schema, field.is_atomic())))?;
        }
    }
    Ok(None)
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let inside = match &self.schema.shape {
            Shape::Struct(_) | Shape::Map(_) | Shape::Any => true,
            Shape::List(list) => list.kind != ListKind::Atomic,
            _ => false,
        };
        if self.old == Old::Absent && (self.atomic || !inside) {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| true);
        }
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),* => $answer:expr) => {$(
        fn $method<E: Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok($answer)
        }
    )*};
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str => true);

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(match self.old {
            Old::Absent => true,
            Old::Null => false,
            Old::Empty => {
                self.atomic || self.schema.as_struct().is_some_and(|s| held_by_value(s).next().is_none())
            }
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let schema = self.schema;
        match &schema.shape {
            Shape::Struct(s) if !self.atomic => self.fields(s, map, None),
            Shape::Map(item) if !self.atomic => self.entries(item, map),
            Shape::Any if !self.atomic => self.entries(schema, map),
            _ => {
                let mut empty = true;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    empty = false;
                }
                Ok(self.leaf(empty))
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        match &self.schema.shape {
            Shape::List(list) if !self.atomic && list.kind != ListKind::Atomic => self.items(list, seq),
            _ => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(self.leaf(false))
            }
        }
    }
}

/// The fields that an item is known by.
struct Keys<'a> {
    names: &'a [Str],
    found: &'a mut Map<String, Value>,
}

/// An item of a list. Answers its element, if it has one, and writes what is below.
struct Item<'a> {
    out: &'a mut Vec<u8>,
    list: &'a List,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        let (list, item) = (self.list, &*self.list.item);
        if matches!(list.kind, ListKind::Map(_)) && item.as_struct().is_some() && !item.atomic {
            return deserializer.deserialize_any(self);
        }
        let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
        let Ok(element) = item_element(list, &value) else { return Ok(None) };
        below(self.out, true, |out| tree(out, &whole(&value, item, item.atomic)))
            .map_err(D::Error::custom)?;
        Ok(Some(element))
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str => None);

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<String>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<String>, A::Error> {
        let Item { out, list } = self;
        let mut found = Map::new();
        if let (ListKind::Map(names), Shape::Struct(s)) = (&list.kind, &list.item.shape) {
            below(out, true, |out| {
                let (schema, place) = (&*list.item, Place::Inner);
                let node = Node { out, schema, atomic: false, old: Old::Absent, place };
                node.fields(s, map, Some(Keys { names, found: &mut found }))
            })?;
        }
        Ok(item_element(list, &Value::Object(found)).ok())
    }
}

/// The name of a member, copied only if it is written with escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_string()))
    }
}
