//! An object as the cache holds it: bytes, and the few values that selectors ask for.

use super::pluck::{Selectable, pluck};
use api::protobuf::{self, EncodeError};
use api::read::Held;
use api::schema::Schema;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use std::any::Any;
use std::sync::{Arc, OnceLock};
use store::Revision;

/// An object at one revision. Nothing in it changes.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `namespace/name`, or `name` for a cluster-scoped object.
    pub key: Arc<str>,
    /// The revision that wrote it.
    pub revision: Revision,
    /// Its JSON, with `metadata.resourceVersion`.
    pub json: Bytes,
    /// Where the first member of its metadata stands in that.
    metadata: u32,
    /// `metadata.labels`.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The values of the kind's selectable fields, in the kind's order.
    pub fields: Box<[Option<Box<str>>]>,
    protobuf: OnceLock<Option<Bytes>>,
    protobuf_length: OnceLock<u32>,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Held for Entry {
    fn json(&self) -> &Bytes {
        &self.json
    }

    fn typed(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.typed
    }
}

impl Entry {
    /// Makes an entry of JSON written by [`canonical`].
    pub fn new(
        key: Arc<str>,
        revision: Revision,
        stored: &[u8],
        selectable: &[Selectable],
    ) -> Result<Self, serde_json::Error> {
        let mut plucked = pluck(stored, selectable)?;
        for (field, selectable) in plucked.fields.iter_mut().zip(selectable) {
            if let (None, Some(other)) = (&field, &selectable.or) {
                *field = pluck(stored, &[other])?.fields.pop().flatten();
            }
            if field.is_none() {
                field.clone_from(&selectable.zero);
            }
        }
        let (labels, fields) = (plucked.labels.into(), plucked.fields.into());
        Ok(Entry { labels, fields, ..Entry::answer(key, revision, stored) })
    }

    /// An entry that is answered and not kept, so that no selector asks it anything.
    pub fn answer(key: Arc<str>, revision: Revision, stored: &[u8]) -> Self {
        let (json, metadata) = with_revision(stored, revision);
        Entry {
            key,
            revision,
            json,
            metadata,
            labels: Box::default(),
            fields: Box::default(),
            protobuf: OnceLock::new(),
            protobuf_length: OnceLock::new(),
            typed: OnceLock::new(),
        }
    }

    /// The same object as of another revision: how a deletion shows the last state.
    pub fn at(&self, revision: Revision) -> Self {
        let old = format!("\"resourceVersion\":\"{}\",", self.revision);
        let start = self.metadata as usize;
        let mut json = Vec::with_capacity(self.json.len() + 4);
        json.extend_from_slice(&self.json[..start]);
        json.extend_from_slice(format!("\"resourceVersion\":\"{revision}\",").as_bytes());
        json.extend_from_slice(&self.json[(start + old.len()).min(self.json.len())..]);
        Entry {
            key: self.key.clone(),
            revision,
            json: json.into(),
            metadata: self.metadata,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            protobuf: OnceLock::new(),
            protobuf_length: OnceLock::new(),
            typed: OnceLock::new(),
        }
    }

    /// Its JSON as an item of a typed list: without `apiVersion` and `kind`, which the list says. To be put after
    /// an opening brace.
    pub fn item(&self) -> &[u8] {
        let start = (self.metadata as usize).saturating_sub(METADATA.len());
        self.json.get(start..).unwrap_or_default()
    }

    /// Its metadata as JSON.
    pub fn metadata(&self) -> &str {
        let start = (self.metadata as usize).saturating_sub(1);
        let rest = self.json.get(start..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
        values.next().and_then(Result::ok).map_or("{}", RawValue::get)
    }

    /// The same revision of the object in another version.
    pub fn with_object(&self, value: &Value) -> Result<Self, serde_json::Error> {
        let (json, metadata) = with_revision(&canonical(value)?, self.revision);
        let (protobuf, protobuf_length) = (OnceLock::new(), OnceLock::new());
        Ok(Entry { json, metadata, protobuf, protobuf_length, typed: OnceLock::new(), ..self.clone() })
    }

    /// The namespace; empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    /// Its JSON as a value.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }

    /// Its protobuf in the envelope, made on first demand and kept; `None` if its kind, which has this schema, has none.
    pub fn protobuf(&self, schema: &Schema) -> Option<Bytes> {
        let make = || protobuf::to_wire(&self.json[..], schema).ok().map(Bytes::from);
        self.protobuf.get_or_init(make).clone()
    }

    /// Appends its protobuf without the envelope, and keeps nothing.
    pub fn put_protobuf(&self, out: &mut Vec<u8>, schema: &Schema) -> Result<(), EncodeError> {
        match self.protobuf.get().and_then(Option::as_ref).map(|wire| protobuf::unwrap(wire)) {
            Some(Ok(envelope)) => out.extend_from_slice(envelope.raw),
            _ => protobuf::encode_into(out, &self.json[..], schema)?,
        }
        Ok(())
    }

    /// The length of that, looked for once.
    pub fn protobuf_length(&self, schema: &Schema) -> Result<usize, EncodeError> {
        match self.protobuf_length.get() {
            Some(length) => Ok(*length as usize),
            None => {
                let mut out = Vec::with_capacity(self.json.len());
                self.put_protobuf(&mut out, schema)?;
                let _ = self.protobuf_length.set(u32::try_from(out.len()).unwrap_or(u32::MAX)); // someone else was quicker
                Ok(out.len())
            }
        }
    }
}

/// An object's JSON in the order in which the server keeps it: `apiVersion`, `kind`, `metadata`, the
/// rest; without resourceVersion, which the store's revision is.
pub fn canonical(object: &Value) -> Result<Vec<u8>, serde_json::Error> {
    let empty = serde_json::Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    api::json::written(|out| {
        out.extend_from_slice(b"{\"apiVersion\":");
        serde_json::to_writer(&mut *out, text("apiVersion"))?;
        out.extend_from_slice(b",\"kind\":");
        serde_json::to_writer(&mut *out, text("kind"))?;
        out.extend_from_slice(b",\"metadata\":{");
        let mut first = true;
        for (name, value) in object.get("metadata").and_then(Value::as_object).into_iter().flatten() {
            if name == "resourceVersion" || name == "selfLink" {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            serde_json::to_writer(&mut *out, name)?;
            out.push(b':');
            serde_json::to_writer(&mut *out, value)?;
        }
        out.push(b'}');
        for (name, value) in object {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                out.push(b',');
                serde_json::to_writer(&mut *out, name)?;
                out.push(b':');
                serde_json::to_writer(&mut *out, value)?;
            }
        }
        out.push(b'}');
        Ok(())
    })
}

const METADATA: &[u8] = b"\"metadata\":{";

/// Where the first member of `metadata` stands. [`canonical`] puts only two names before it, and no name of
/// an API version or a kind contains a quote.
fn metadata_start(json: &[u8]) -> usize {
    memchr::memmem::find(json, METADATA).map_or(json.len(), |at| at + METADATA.len())
}

/// Puts `metadata.resourceVersion` into JSON written by [`canonical`]. Answers also where it stands.
fn with_revision(json: &[u8], revision: Revision) -> (Bytes, u32) {
    let start = metadata_start(json);
    let (head, tail) = json.split_at(start);
    let mut out = Vec::with_capacity(json.len() + 40);
    out.extend_from_slice(head);
    let comma = if tail.first() == Some(&b'}') { "" } else { "," };
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"{comma}").as_bytes());
    out.extend_from_slice(tail);
    (out.into(), u32::try_from(start).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revision_is_put_in_and_replaced() {
        let object = json!({"kind": "ConfigMap", "data": {"a": "b"}, "apiVersion": "v1", "metadata": {"name": "x", "resourceVersion": "1"}});
        let stored = canonical(&object).unwrap();
        assert_eq!(
            stored,
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"}}"#
        );
        let entry =
            Entry::new("ns/x".into(), 7, &stored, &[Selectable::new("data.a", &api::schema::any())]).unwrap();
        assert_eq!(entry.json, br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"7","name":"x"},"data":{"a":"b"}}"#[..]);
        assert_eq!(entry.at(123).json, br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"123","name":"x"},"data":{"a":"b"}}"#[..]);
        assert_eq!(entry.metadata(), r#"{"resourceVersion":"7","name":"x"}"#);
        assert_eq!(entry.item(), br#""metadata":{"resourceVersion":"7","name":"x"},"data":{"a":"b"}}"#);
        assert_eq!(entry.fields[0].as_deref(), Some("b"));
        assert_eq!((entry.namespace(), entry.name()), ("ns", "x"));
    }
}
