//! Takes a few values out of an object's JSON in one pass, without reading the rest into memory.

use api::schema::{Schema, Shape};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A field that selectors may name.
#[derive(Debug)]
pub struct Selectable {
    /// How selectors name it.
    pub name: String,
    path: String,
    /// Whether objects are also kept by its value.
    pub indexed: bool,
    /// The path of what stands for it where it is absent.
    pub or: Option<String>,
    /// What it is where it is absent; `None` for empty text.
    pub zero: Option<Box<str>>,
}

impl Selectable {
    /// Reads `path`, `name=path` or `name=path|other`, with dots between the fields of `schema`; with a `*` in front
    /// if it is indexed.
    pub fn new(text: &str, schema: &Schema) -> Self {
        let (indexed, text) = text.strip_prefix('*').map_or((false, text), |text| (true, text));
        let (name, path) = text.split_once('=').unwrap_or((text, text));
        let (path, or) = path.split_once('|').map_or((path, None), |(p, o)| (p, Some(o.to_string())));
        let names: Vec<&str> = path.split('.').collect();
        let zero = match schema.at(&names).map(|s| &s.shape) {
            Some(Shape::Bool) => Some("false".into()),
            Some(Shape::Int32 | Shape::Int64) => Some("0".into()),
            _ => None,
        };
        Selectable { name: name.into(), path: path.into(), indexed, or, zero }
    }
}

impl AsRef<str> for Selectable {
    fn as_ref(&self) -> &str {
        &self.path
    }
}

/// What selectors ask of an object.
#[derive(Debug, Default, PartialEq)]
pub struct Plucked {
    /// `metadata.labels`.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// The values at the paths asked for, in their order; `None` where there is nothing. Numbers and
    /// booleans as they are written.
    pub fields: Vec<Option<Box<str>>>,
}

/// Reads labels and the values at `paths` (such as `spec.nodeName`).
pub fn pluck<P: AsRef<str>>(json: &[u8], paths: &[P]) -> Result<Plucked, serde_json::Error> {
    let mut plucked = Plucked { labels: Vec::new(), fields: vec![None; paths.len()] };
    let wanted: Vec<(usize, &str)> = paths.iter().map(AsRef::as_ref).enumerate().collect();
    let mut reader = serde_json::Deserializer::from_slice(json);
    Node { out: &mut plucked, wanted, at: At::Root }.deserialize(&mut reader)?;
    Ok(plucked)
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Root,
    Metadata,
    Labels,
    Elsewhere,
}

struct Node<'a, 'p> {
    out: &'a mut Plucked,
    /// What is wanted below this node: its place in the answer and the rest of its path.
    wanted: Vec<(usize, &'p str)>,
    at: At,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl Node<'_, '_> {
    fn scalar(self, text: impl FnOnce() -> String) {
        if let Some((i, _)) = self.wanted.iter().find(|(_, rest)| rest.is_empty()) {
            let text = text().into_boxed_str();
            if let Some(field) = self.out.fields.get_mut(*i) {
                *field = Some(text);
            }
        }
    }
}

impl<'de, 'p> Visitor<'de> for Node<'_, 'p> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.scalar(|| v.to_string());
        Ok(())
    }
    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.scalar(|| v.to_string());
        Ok(())
    }
    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.scalar(|| v.to_string());
        Ok(())
    }
    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.scalar(|| v.to_string());
        Ok(())
    }
    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        self.scalar(|| v.to_string());
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.at == At::Labels {
            while let Some((k, v)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                self.out.labels.push((k.into(), v.into()));
            }
            return Ok(());
        }
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let at = match (self.at, &*key) {
                (At::Root, "metadata") => At::Metadata,
                (At::Metadata, "labels") => At::Labels,
                _ => At::Elsewhere,
            };
            let below = |&(i, path): &(usize, &'p str)| match path.strip_prefix(&*key)? {
                "" => Some((i, "")),
                rest => rest.strip_prefix('.').map(|rest| (i, rest)),
            };
            let wanted: Vec<(usize, &'p str)> = self.wanted.iter().filter_map(below).collect();
            if wanted.is_empty() && at == At::Elsewhere {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Node { out: self.out, wanted, at })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_labels_and_paths_and_passes_over_the_rest() {
        let json = br#"{"kind":"Pod","metadata":{"name":"a","labels":{"app":"x","\u0041":"y"}},"spec":{"nodeName":"n1","hostNetwork":true,
            "containers":[{"name":"labels"}]},"status":{"phase":null}}"#;
        let got = pluck(json, &["spec.nodeName", "status.phase", "spec.hostNetwork", "spec.node"]).unwrap();
        assert_eq!(got.labels, [("app".into(), "x".into()), ("A".into(), "y".into())]);
        assert_eq!(got.fields, [Some("n1".into()), None, Some("true".into()), None]);
    }
}
