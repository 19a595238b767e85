//! Documents as protobuf: the messages of gnostic, which discovery clients ask for. The tables of [`v2`] and
//! [`v3`] say what number each name has; what they do not name is left out.

pub(super) mod v2;
pub(super) mod v3;

use crate::protobuf::{key, put_message, varint};
use serde_json::{Map, Value};

/// How a value is written.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    Bool,
    Integer,
    Number,
    /// Anything, as text.
    Any,
    /// One text or several, in a message of their own.
    Texts,
    Many(&'static Type),
    Message(&'static Message),
    /// One of several fields of a message, by what the value is.
    Choice(fn(&Value) -> Option<(u32, Type)>),
}

/// The numbers of a message's fields.
pub(super) struct Message {
    /// Those with a name.
    pub fields: &'static [(&'static str, u32, Type)],
    /// Those whose name starts with `x-`; 0 for none.
    pub extensions: u32,
    /// All others, as pairs of a name and a value.
    pub others: Option<(u32, Type)>,
}

impl Message {
    const fn of(fields: &'static [(&'static str, u32, Type)], extensions: u32) -> Self {
        Message { fields, extensions, others: None }
    }

    /// Pairs alone.
    const fn map(of: Type) -> Self {
        Message { fields: &[], extensions: 0, others: Some((1, of)) }
    }
}

/// Whether an object only refers to another.
fn is_reference(v: &Value) -> bool {
    v.get("$ref").is_some()
}

/// A document's bytes.
pub(super) fn write(document: &Value, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    if let Value::Object(map) = document {
        fields(&mut out, map, message);
    }
    out
}

fn fields(out: &mut Vec<u8>, map: &Map<String, Value>, message: &Message) {
    for (name, value) in map {
        if let Some((_, number, ty)) = message.fields.iter().find(|(n, ..)| n == name) {
            field(out, *number, *ty, value, false);
        } else if message.extensions > 0 && name.starts_with("x-") {
            pair(out, message.extensions, name, Type::Any, value);
        } else if let Some((number, ty)) = message.others {
            pair(out, number, name, ty, value);
        }
    }
}

fn pair(out: &mut Vec<u8>, number: u32, name: &str, ty: Type, value: &Value) {
    let mut inner = Vec::new();
    field(&mut inner, 1, Type::Text, &Value::from(name), false);
    field(&mut inner, 2, ty, value, false);
    put_message(out, number, &inner);
}

/// Zeros are written only where presence itself says something.
fn field(out: &mut Vec<u8>, number: u32, ty: Type, value: &Value, zeros: bool) {
    match (ty, value) {
        (Type::Text, Value::String(text)) if zeros || !text.is_empty() => {
            put_message(out, number, text.as_bytes());
        }
        (Type::Bool, Value::Bool(on)) if zeros || *on => {
            key(out, number, 0);
            varint(out, u64::from(*on));
        }
        (Type::Integer, Value::Number(n)) => {
            let n = n.as_i64().unwrap_or_default();
            if zeros || n != 0 {
                key(out, number, 0);
                varint(out, n.cast_unsigned());
            }
        }
        (Type::Number, Value::Number(n)) => {
            let n = n.as_f64().unwrap_or_default();
            if zeros || n != 0.0 {
                key(out, number, 1);
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        (Type::Any, value) => {
            let mut inner = Vec::new();
            // JSON is YAML.
            field(&mut inner, 2, Type::Text, &Value::from(value.to_string()), false);
            put_message(out, number, &inner);
        }
        (Type::Texts, value) => {
            let mut inner = Vec::new();
            for text in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                field(&mut inner, 1, Type::Text, text, true);
            }
            put_message(out, number, &inner);
        }
        (Type::Many(ty), Value::Array(items)) => {
            items.iter().for_each(|item| field(out, number, *ty, item, true));
        }
        (Type::Message(message), Value::Object(map)) => {
            let mut inner = Vec::new();
            fields(&mut inner, map, message);
            put_message(out, number, &inner);
        }
        (Type::Choice(choose), value) => {
            let mut inner = Vec::new();
            if let Some((chosen, ty)) = choose(value) {
                field(&mut inner, chosen, ty, value, true);
            }
            put_message(out, number, &inner);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
