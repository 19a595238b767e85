//! JSON in and out of objects: one pass from bytes to a [`Value`] that obeys a [`Schema`]. Start at
//! [`decode`]. Messages are those of upstream's strict decoder, since clients print them.

mod buffer;
mod defaults;
mod node;
mod print;
pub(crate) mod scalar;
mod zeros;

pub use buffer::written;
pub use defaults::default;
pub(crate) use node::{Context, Node};
pub use print::{Members, Printer, print};
pub use zeros::{fill_condition_times, fill_times, omit_zeros};

use crate::schema::Schema;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// What was read, and what the reader took offence at without refusing it.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    /// The object, without the fields its schema does not know.
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in the order in which they were found; of fields
    /// that are there twice the last counts.
    pub faults: Vec<String>,
}

/// Why bytes are not an object of a schema. `Display` is the message upstream gives.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// They are not JSON, YAML or protobuf at all.
    #[error("{0}")]
    Syntax(String),
    /// A value is of another type than its field.
    #[error("json: cannot unmarshal {value} into Go {target} of type {go_type}")]
    Type {
        /// What is there: `string`, `number 1.5`, ..
        value: String,
        /// `struct field DeploymentSpec.spec.replicas`, or `value` at the root.
        target: String,
        /// What should be there.
        go_type: String,
    },
    /// Text that its field's type cannot read.
    #[error("{0}")]
    Invalid(String),
    /// Objects within objects within objects.
    #[error("exceeded max depth")]
    TooDeep,
}

/// Reads an object of this schema.
pub fn decode(bytes: &[u8], schema: &Schema) -> Result<Decoded, DecodeError> {
    let mut cx = Context::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node::root(schema, &mut cx).deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    cx.finish(value.map_err(|e| syntax(bytes, e)))
}

/// Reads any JSON. Integers stay integers.
pub fn decode_any(bytes: &[u8]) -> Result<Value, DecodeError> {
    decode(bytes, &crate::schema::any()).map(|d| d.value)
}

/// Puts a value made elsewhere, such as by a patch, to the same test.
pub fn check(value: Value, schema: &Schema) -> Result<Decoded, DecodeError> {
    let mut cx = Context::default();
    let value = Node::root(schema, &mut cx).deserialize(value);
    cx.finish(value.map_err(|e| DecodeError::Syntax(e.to_string())))
}

/// Objects nest no deeper than this, in whatever form they come: it is what the reader of JSON allows.
pub(crate) const MAX_DEPTH: usize = 125;

/// How deep a value nests.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What a reader's error says of the bytes that it read.
pub(crate) fn syntax(bytes: &[u8], e: serde_json::Error) -> DecodeError {
    let text = e.to_string();
    if e.is_eof() {
        DecodeError::Syntax("unexpected end of JSON input".into())
    } else if text.starts_with("recursion limit exceeded") {
        DecodeError::TooDeep
    } else if let Err(at) = std::str::from_utf8(bytes) {
        DecodeError::Syntax(format!("invalid UTF-8 at byte {}", at.valid_up_to()))
    } else if text.starts_with("trailing characters") {
        DecodeError::Syntax(format!("invalid character after top-level value ({text})"))
    } else {
        DecodeError::Syntax(text)
    }
}

/// The version and kind that an object says it has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TypeMeta {
    /// For example `apps/v1`; empty if it does not say.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
}

/// Reads no more of an object than it takes to learn its version and kind.
pub fn type_meta(bytes: &[u8]) -> Result<TypeMeta, DecodeError> {
    struct Peek<'a>(&'a mut [Option<String>; 2]);
    impl<'de> Visitor<'de> for Peek<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                let slot = match &*key {
                    "apiVersion" => 0,
                    "kind" => 1,
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                };
                self.0[slot] = map.next_value::<Option<String>>()?.or(Some(String::new()));
                if self.0.iter().all(Option::is_some) {
                    return Err(A::Error::custom("seen enough")); // no need to read on
                }
            }
            Ok(())
        }
    }
    let mut found = [None, None];
    let result = serde_json::Deserializer::from_slice(bytes).deserialize_map(Peek(&mut found));
    if let (Err(e), false) = (result, found.iter().all(Option::is_some)) {
        return Err(syntax(bytes, e));
    }
    let [api_version, kind] = found.map(Option::unwrap_or_default);
    Ok(TypeMeta { api_version, kind })
}

#[cfg(test)]
mod tests;
