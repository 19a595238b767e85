//! Protobuf as upstream writes it: made of JSON, be it text or a value, and read into values. Start at [`to_wire`]
//! and [`from_wire`].
//!
//! Written is what is present: upstream also writes the zeros of fields it holds by value, but reads the
//! absence the same way. On the way in such zeros are dropped again, as they would not be in its JSON.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod tree;

pub use crate::json::DecodeError;
pub use decode::decode;
pub use encode::{EncodeError, encode, encode_into};
pub(crate) use encode::{key, varint};
pub use tree::{Source, Tree};

use crate::schema::Schema;
pub(crate) use decode::Reader;
use decode::text;
use serde_json::Value;

/// What every object begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Objects nest no deeper: what comes in as protobuf can go out as JSON.
const MAX_DEPTH: usize = 100;

/// The message around every object: `runtime.Unknown`.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    /// For example `apps/v1`.
    pub api_version: &'a str,
    /// For example `Deployment`.
    pub kind: &'a str,
    /// The object's own message.
    pub raw: &'a [u8],
    /// Empty for none.
    pub content_encoding: &'a str,
    /// Empty for protobuf.
    pub content_type: &'a str,
}

/// What follows the message in its envelope: no encoding, no content type.
const TAIL: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// What stands before and after a message of this length in its envelope.
pub fn envelope(api_version: &str, kind: &str, length: usize) -> (Vec<u8>, &'static [u8]) {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_message(&mut type_meta, 1, api_version.as_bytes());
    put_message(&mut type_meta, 2, kind.as_bytes());
    let mut head = Vec::with_capacity(type_meta.len() + 20);
    head.extend_from_slice(MAGIC);
    put_message(&mut head, 1, &type_meta);
    put_head(&mut head, 2, length);
    (head, TAIL)
}

/// Puts a message into its envelope.
pub fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let (mut out, tail) = envelope(api_version, kind, raw.len());
    out.reserve_exact(raw.len() + tail.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(tail);
    out
}

/// Opens the envelope.
pub fn unwrap(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let Some(body) = bytes.strip_prefix(MAGIC) else {
        return Err(DecodeError::Syntax(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into(),
        ));
    };
    let mut envelope = Envelope::default();
    let mut reader = Reader(body);
    while let Some((tag, wire)) = reader.key()? {
        match (tag, wire) {
            (1, 2) => {
                let mut inner = Reader(reader.bytes()?);
                while let Some((tag, wire)) = inner.key()? {
                    match (tag, wire) {
                        (1, 2) => envelope.api_version = text(inner.bytes()?)?,
                        (2, 2) => envelope.kind = text(inner.bytes()?)?,
                        _ => inner.skip(wire)?,
                    }
                }
            }
            (2, 2) => envelope.raw = reader.bytes()?,
            (3, 2) => envelope.content_encoding = text(reader.bytes()?)?,
            (4, 2) => envelope.content_type = text(reader.bytes()?)?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(envelope)
}

/// An object, from its JSON to its bytes on the wire.
pub fn to_wire(object: &(impl Source + ?Sized), schema: &Schema) -> Result<Vec<u8>, EncodeError> {
    let tree = object.tree()?;
    let raw = encode::encode_new(&tree, schema)?;
    let mut type_meta = [""; 2];
    for (name, value) in tree.root().members() {
        match name {
            "apiVersion" => type_meta[0] = value.text().unwrap_or_default(),
            "kind" => type_meta[1] = value.text().unwrap_or_default(),
            _ => {}
        }
    }
    let [api_version, kind] = type_meta;
    Ok(wrap(api_version, kind, &raw))
}

/// An object, from its bytes on the wire to its JSON.
pub fn from_wire(bytes: &[u8], schema: &Schema) -> Result<Value, DecodeError> {
    let envelope = unwrap(bytes)?;
    if !matches!(envelope.content_type, "" | "application/vnd.kubernetes.protobuf")
        || !envelope.content_encoding.is_empty()
    {
        return Err(DecodeError::Syntax(format!(
            "unsupported content type {:?} in the envelope",
            envelope.content_type
        )));
    }
    let mut value = decode(envelope.raw, schema)?;
    if let Value::Object(map) = &mut value {
        for (name, v) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
            if !v.is_empty() {
                map.insert(name.to_string(), v.into());
            }
        }
    }
    Ok(value)
}

/// Appends a length-delimited field: bytes, text or a message. A list's item is field 2 of the list.
pub fn put_message(out: &mut Vec<u8>, tag: u32, message: &[u8]) {
    put_head(out, tag, message.len());
    out.extend_from_slice(message);
}

/// Appends what stands before the content of a length-delimited field.
pub fn put_head(out: &mut Vec<u8>, tag: u32, length: usize) {
    encode::key(out, tag, 2);
    encode::varint(out, length as u64);
}

/// How many bytes [`put_message`] takes for a message of this length.
pub fn message_length(tag: u32, length: usize) -> usize {
    let mut head = Vec::with_capacity(16);
    put_head(&mut head, tag, length);
    head.len() + length
}

/// One event of a watch, in the frame that it is sent in; `object` is the object's bytes on the wire.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_message(&mut raw, 1, object);
    let mut out = Vec::with_capacity(raw.len() + kind.len() + 16);
    out.extend_from_slice(&[0; 4]);
    put_message(&mut out, 1, kind.as_bytes());
    put_message(&mut out, 2, &raw);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}
