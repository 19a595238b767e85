//! JSON values to protobuf messages.

use super::MAX_DEPTH;
use crate::json::scalar;
use crate::schema::{List, Or, Schema, Shape, Slot, Struct};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Why a value has no protobuf form.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// Its kind only exists as JSON.
    #[error("{0} has no protobuf form")]
    NoProtobuf(String),
    /// A value is not of its field's type.
    #[error("{field}: not a value of type {go_type}")]
    Mismatch {
        /// The field's path.
        field: String,
        /// The type.
        go_type: String,
    },
    /// Objects within objects within objects.
    #[error("exceeded max depth")]
    TooDeep,
}

/// The message for a value, without the envelope.
pub fn encode(value: &Value, schema: &Schema) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(512);
    encode_into(&mut out, value, schema)?;
    Ok(out)
}

/// Appends the message for a value.
pub fn encode_into(out: &mut Vec<u8>, value: &Value, schema: &Schema) -> Result<(), EncodeError> {
    match &schema.shape {
        Shape::Struct(s) if s.slots.is_empty() && !s.fields.is_empty() => {
            Err(EncodeError::NoProtobuf(schema.type_name().to_string()))
        }
        _ => message(out, value, schema, 0),
    }
}

pub(crate) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn key(out: &mut Vec<u8>, tag: u32, wire: u32) {
    varint(out, u64::from(tag << 3 | wire));
}

fn mismatch(schema: &Schema) -> EncodeError {
    EncodeError::Mismatch { field: String::new(), go_type: schema.go_type() }
}

fn under(e: EncodeError, name: &str) -> EncodeError {
    match e {
        EncodeError::Mismatch { field, go_type } if field.is_empty() => {
            EncodeError::Mismatch { field: name.into(), go_type }
        }
        EncodeError::Mismatch { field, go_type } => {
            EncodeError::Mismatch { field: format!("{name}.{field}"), go_type }
        }
        other => other,
    }
}

/// A length-delimited field whose content `write` appends. The length goes in front once it is known.
fn delimited(
    out: &mut Vec<u8>,
    tag: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    key(out, tag, 2);
    let start = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return Ok(());
    }
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, length as u64);
    out.splice(start..=start, prefix);
    Ok(())
}

fn put(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    super::put_message(out, tag, bytes);
}

fn int(out: &mut Vec<u8>, tag: u32, n: i64) {
    key(out, tag, 0);
    varint(out, n as u64);
}

/// The content of a message.
fn message(out: &mut Vec<u8>, value: &Value, schema: &Schema, depth: usize) -> Result<(), EncodeError> {
    if depth > MAX_DEPTH {
        return Err(EncodeError::TooDeep);
    }
    match (&schema.shape, value) {
        (Shape::Struct(s), Value::Object(map)) => slots(out, map, s, &s.slots, depth),
        (Shape::Quantity, Value::String(text)) => {
            put(out, 1, text.as_bytes());
            Ok(())
        }
        (Shape::IntOrString, Value::String(text)) => {
            int(out, 1, 1);
            int(out, 2, 0);
            put(out, 3, text.as_bytes());
            Ok(())
        }
        (Shape::IntOrString, Value::Number(n)) => {
            int(out, 1, 0);
            int(out, 2, n.as_i64().ok_or_else(|| mismatch(schema))?);
            put(out, 3, b"");
            Ok(())
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let t = scalar::parse_time(text).map_err(|_| mismatch(schema))?;
            // floor, so that the nanoseconds are not negative
            let mut seconds = t.as_second();
            let mut nanos = t.subsec_nanosecond();
            if nanos < 0 {
                (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
            }
            int(out, 1, seconds);
            int(out, 2, if matches!(schema.shape, Shape::Time) { 0 } else { i64::from(nanos) });
            Ok(())
        }
        (Shape::Raw | Shape::Any | Shape::FieldsV1, value) => {
            put(out, 1, &serde_json::to_vec(value).map_err(|_| mismatch(schema))?);
            Ok(())
        }
        (Shape::Or(Or::Bool, _), Value::Bool(b)) => {
            int(out, 1, i64::from(*b));
            Ok(())
        }
        (Shape::Or(Or::Bool, props), value @ Value::Object(_)) => {
            int(out, 1, 1);
            delimited(out, 2, |out| message(out, value, props, depth + 1))
        }
        (Shape::Or(Or::Schemas, props), Value::Array(items)) => {
            items.iter().try_for_each(|v| delimited(out, 2, |out| message(out, v, props, depth + 1)))
        }
        (Shape::Or(Or::Strings, _), Value::Array(items)) => items
            .iter()
            .try_for_each(|v| v.as_str().map(|t| put(out, 2, t.as_bytes())).ok_or_else(|| mismatch(schema))),
        (Shape::Or(_, props), value @ Value::Object(_)) => {
            delimited(out, 1, |out| message(out, value, props, depth + 1))
        }
        (Shape::List(list), Value::Array(items)) if list.wrapped => repeated(out, 1, items, list, depth),
        _ => Err(mismatch(schema)),
    }
}

fn slots(
    out: &mut Vec<u8>,
    map: &Map<String, Value>,
    s: &Struct,
    slots: &[Slot],
    depth: usize,
) -> Result<(), EncodeError> {
    for slot in slots {
        match slot {
            Slot::Field(tag, at) => {
                let Some(f) = s.fields.get(*at) else { continue };
                let Some(value) = map.get(&*f.name).filter(|v| !v.is_null()) else { continue };
                field(out, *tag, value, &f.schema, depth).map_err(|e| under(e, &f.name))?;
            }
            Slot::Inline(tag, inner) => {
                let start = out.len();
                delimited(out, *tag, |out| self::slots(out, map, s, inner, depth + 1))?;
                if out.last() == Some(&0) && out.len() - start <= 4 && is_empty(&out[start..]) {
                    out.truncate(start);
                }
            }
        }
    }
    Ok(())
}

/// Whether an encoded field is a message of length zero.
fn is_empty(field: &[u8]) -> bool {
    let key_end = field.iter().position(|b| b & 0x80 == 0).map_or(0, |i| i + 1);
    field.get(key_end..) == Some(&[0])
}

/// A field with its key.
fn field(
    out: &mut Vec<u8>,
    tag: u32,
    value: &Value,
    schema: &Schema,
    depth: usize,
) -> Result<(), EncodeError> {
    match (&schema.shape, value) {
        (Shape::String, Value::String(text)) => put(out, tag, text.as_bytes()),
        (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
            int(out, tag, n.as_i64().ok_or_else(|| mismatch(schema))?)
        }
        (Shape::Bool, Value::Bool(b)) => int(out, tag, i64::from(*b)),
        (Shape::Double, Value::Number(n)) => {
            key(out, tag, 1);
            out.extend_from_slice(&n.as_f64().ok_or_else(|| mismatch(schema))?.to_le_bytes());
        }
        (Shape::Bytes, Value::String(text)) => {
            put(out, tag, &STANDARD.decode(text).map_err(|_| mismatch(schema))?)
        }
        (Shape::List(list), Value::Array(items)) if !list.wrapped => repeated(out, tag, items, list, depth)?,
        (Shape::Map(item), Value::Object(map)) => {
            for (k, v) in map {
                delimited(out, tag, |out| {
                    put(out, 1, k.as_bytes());
                    field(out, 2, v, item, depth + 1)
                })?;
            }
        }
        _ => delimited(out, tag, |out| message(out, value, schema, depth + 1))?,
    }
    Ok(())
}

fn repeated(
    out: &mut Vec<u8>,
    tag: u32,
    items: &[Value],
    list: &List,
    depth: usize,
) -> Result<(), EncodeError> {
    items.iter().try_for_each(|item| field(out, tag, item, &list.item, depth))
}
