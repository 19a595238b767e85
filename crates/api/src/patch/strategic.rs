//! Strategic merge patch: a merge patch that knows which lists are merged by a key, and obeys directives:
//!
//! - `$patch: replace | delete` in an object or a list's item;
//! - `$retainKeys: [..]` in an object: every other key goes;
//! - `$deleteFromPrimitiveList/<field>: [..]`: these items go;
//! - `$setElementOrder/<field>: [..]`: the items come in this order, those it does not name keep their
//!   place among each other.

use super::PatchError;
use crate::schema::{Field, Schema, Shape, Strategy, any};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Patches an object of this schema.
pub fn strategic(target: &mut Value, patch: Value, schema: &Schema) -> Result<(), PatchError> {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => merge_map(target, patch, schema),
        _ => Err(invalid("invalid JSON document")),
    }
}

fn invalid(why: impl Into<String>) -> PatchError {
    PatchError::Invalid(why.into())
}

/// What the patch has to know of a field.
struct Meta<'a> {
    schema: &'a Schema,
    strategy: Strategy,
    merge_key: &'a str,
}

fn meta<'a>(schema: &'a Schema, name: &str, untyped: &'a Schema) -> Meta<'a> {
    let plain = |schema| Meta { schema, strategy: Strategy::default(), merge_key: "" };
    match &schema.shape {
        Shape::Map(value) => plain(value),
        Shape::Or(_, props) => meta(props, name, untyped),
        _ => schema.field(name).map_or(plain(untyped), |f: &Field| Meta {
            schema: &f.schema,
            strategy: f.strategy,
            merge_key: f.merge_key.as_deref().unwrap_or_default(),
        }),
    }
}

fn merge_map(
    original: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: &Schema,
) -> Result<(), PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => *original = patch,
            Some("delete") => original.clear(),
            _ => return Err(invalid(format!("unknown patch type: {directive} in map"))),
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    let untyped = any();
    merge_ordered(original, &mut patch, schema, &untyped)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(field) => (field.to_string(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let m = meta(schema, &key, &untyped);
        match (original.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => match m.strategy.replace {
                true => *old = new,
                false => merge_map(old, new, m.schema)?,
            },
            (Some(Value::Array(old)), Value::Array(new)) => match m.strategy.merge || deletes {
                true => merge_list(old, new, &m, deletes)?,
                false => *old = new,
            },
            (_, _) if deletes => {}
            (_, value) => match without_directives(value) {
                Some(value) => {
                    original.insert(key, value);
                }
                None => {
                    original.remove(&key);
                }
            },
        }
    }
    Ok(())
}

fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(invalid("invalid patch format of retainKeys")) };
    let kept = |key: &str| retained.iter().any(|r| r == key);
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM) || key.starts_with(ORDER);
        if !value.is_null() && !directive && !kept(key) {
            return Err(invalid("invalid patch format of retainKeys"));
        }
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// Carries out `$setElementOrder` together with the patch of the list it is about.
fn merge_ordered(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: &Schema,
    untyped: &Schema,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(invalid("invalid patch format of setElementOrder list"));
        };
        let key = &directive[ORDER.len()..];
        let m = meta(schema, key, untyped);
        let new = match patch.get(key) {
            None => None,
            Some(Value::Array(_)) => match patch.remove(key) {
                Some(Value::Array(new)) => Some(new),
                _ => None,
            },
            Some(_) => return Err(invalid(format!("expected a slice, but received another type for {key}"))),
        };
        if let Some(new) = &new {
            in_order(new, &order, m.merge_key)?;
        }
        let live: Vec<Value>;
        let merged: Vec<Value> = match (original.remove(key), new) {
            (None, None) => continue,
            (Some(Value::Array(old)), None) => {
                live = old.clone();
                old
            }
            (None, Some(new)) => {
                live = Vec::new();
                new.into_iter().filter_map(without_directives).collect()
            }
            (Some(Value::Array(mut old)), Some(new)) => {
                live = old.clone();
                match m.strategy.merge {
                    true => merge_list(&mut old, new, &m, false)?,
                    false => old = new,
                }
                old
            }
            (Some(_), _) => {
                return Err(invalid(format!("expected a slice, but received another type for {key}")));
            }
        };
        original.insert(key.to_string(), Value::Array(arranged(merged, &order, &live, m.merge_key)?));
    }
    Ok(())
}

/// The items of a patched list have to come in the order that the patch asks for.
fn in_order(new: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    for item in new.iter().filter(|v| v.get(DIRECTIVE).is_none()) {
        if !order_left.any(|o| same(o, item, key)) {
            return Err(invalid(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                Value::from(new.to_vec()),
                Value::from(order.to_vec())
            )));
        }
    }
    Ok(())
}

/// Whether two items are the same item of their list.
fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() { a == b } else { a.get(key).is_some() && a.get(key) == b.get(key) }
}

/// Where items stand in a list. A long one is looked through once, not for every item.
enum Places<'a> {
    Few(&'a [Value]),
    Many(HashMap<String, usize>),
}

/// Lists up to this long are looked through each time.
const FEW: usize = 16;

/// What an item is known by, as text.
fn identity(item: &Value, key: &str) -> Option<String> {
    if key.is_empty() { Some(item.to_string()) } else { item.get(key).map(Value::to_string) }
}

impl<'a> Places<'a> {
    fn of(list: &'a [Value], key: &str) -> Self {
        if list.len() <= FEW {
            return Places::Few(list);
        }
        let mut places = HashMap::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            if let Some(identity) = identity(item, key) {
                places.entry(identity).or_insert(i);
            }
        }
        Places::Many(places)
    }

    fn get(&self, item: &Value, key: &str) -> Option<usize> {
        match self {
            Places::Few(list) => list.iter().position(|v| same(v, item, key)),
            Places::Many(places) => places.get(&identity(item, key)?).copied(),
        }
    }
}

/// Puts the items that `order` names in its order, and the others between them as they were in `live`.
fn arranged(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    if !key.is_empty() && merged.iter().any(|v| v.get(key).is_none()) {
        return Err(invalid(format!("map does not contain declared merge key: {key}")));
    }
    let (in_order, in_live) = (Places::of(order, key), Places::of(live, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| in_order.get(v, key).is_some());
    named.sort_by_cached_key(|v| in_order.get(v, key));
    others.sort_by_cached_key(|v| in_live.get(v, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(n), Some(o)) = (named.peek(), others.peek()) {
        let other_first = match (in_live.get(o, key), in_live.get(n, key)) {
            (Some(o), Some(n)) => o < n,
            _ => false,
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
    out.extend(named);
    out.extend(others);
    Ok(out)
}

/// Merges a list into another, by key or, for scalars, as sets; or deletes scalars from it.
fn merge_list(old: &mut Vec<Value>, new: Vec<Value>, m: &Meta<'_>, deletes: bool) -> Result<(), PatchError> {
    let Some(first) = old.first().or(new.first()) else { return Ok(()) };
    let objects = first.is_object();
    if old.iter().chain(&new).any(|v| v.is_object() != objects || v.is_array()) {
        return Err(match old.iter().chain(&new).any(Value::is_array) {
            true => PatchError::NotApplicable("lists of lists are not supported".into()),
            false => invalid("invalid patch format of primitive list"),
        });
    }
    if !objects {
        if deletes {
            let gone = Places::of(&new, "");
            old.retain(|v| gone.get(v, "").is_none());
            return Ok(());
        }
        let live = old.clone();
        let mut merged = std::mem::take(old);
        merged.extend(new.iter().cloned());
        let mut seen = HashSet::with_capacity(merged.len());
        let unique: Vec<Value> = merged.into_iter().filter(|v| seen.insert(v.to_string())).collect();
        *old = arranged(unique, &new, &live, "")?;
        return Ok(());
    }
    let key = m.merge_key;
    if key.is_empty() {
        return Err(invalid(format!("cannot merge lists without merge key for {}", m.schema.go_type())));
    }
    let Shape::List(list) = &m.schema.shape else { return Err(invalid("a list that is none")) };
    let live: Vec<Value> = old.iter().map(|v| keyed(v, key)).collect();
    let mut rest = Vec::with_capacity(new.len());
    let mut deleted = Vec::new();
    let mut replace = false;
    for item in new {
        match item.get(DIRECTIVE).map(|d| d.as_str()) {
            None => rest.push(item),
            Some(Some("delete")) if item.get(key).is_none() => return Err(no_key(&item, key)),
            Some(Some("delete")) => deleted.push(item),
            Some(Some("replace")) => replace = true,
            Some(_) => return Err(invalid(format!("unknown patch type: {} in map", item[DIRECTIVE]))),
        }
    }
    if replace {
        *old = rest;
        return Ok(());
    }
    if !deleted.is_empty() {
        let gone = Places::of(&deleted, key);
        old.retain(|v| gone.get(v, key).is_none());
    }
    let order: Vec<Value> = rest.iter().map(|v| keyed(v, key)).collect();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(old.len() + rest.len());
    for (i, item) in old.iter().enumerate() {
        if let Some(identity) = identity(item, key) {
            places.entry(identity).or_insert(i);
        }
    }
    for item in rest {
        let Some(identity) = identity(&item, key) else { return Err(no_key(&item, key)) };
        let place = *places.entry(identity).or_insert(old.len());
        match (old.get_mut(place), item) {
            (Some(Value::Object(o)), Value::Object(n)) => merge_map(o, n, &list.item)?,
            (_, item) => old.push(item),
        }
    }
    *old = arranged(std::mem::take(old), &order, &live, key)?;
    Ok(())
}

fn no_key(item: &Value, key: &str) -> PatchError {
    invalid(format!("map: {item} does not contain declared merge key: {key}"))
}

/// An item cut down to its key.
fn keyed(item: &Value, key: &str) -> Value {
    let mut map = Map::new();
    if let Some(v) = item.get(key) {
        map.insert(key.to_string(), v.clone());
    }
    Value::Object(map)
}

/// What a value new to the object puts there: no directives, and no nulls.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, v)| !v.is_null());
            Some(Value::Object(kept.filter_map(|(k, v)| Some((k, without_directives(v)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}
