//! Protobuf messages to JSON values.

use super::{DecodeError, MAX_DEPTH};
use crate::json::scalar;
use crate::schema::{Field, Or, Schema, Shape, Slot, Struct};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

/// The value of a message, without the envelope: `apiVersion` and `kind` are not in it.
pub fn decode(bytes: &[u8], schema: &Schema) -> Result<Value, DecodeError> {
    match &schema.shape {
        Shape::Struct(s) if s.slots.is_empty() && !s.fields.is_empty() => {
            Err(DecodeError::Syntax(format!("{} has no protobuf form", schema.type_name())))
        }
        _ => {
            // what is embedded as JSON nests on its own
            let value = message(bytes, schema, 0)?;
            if crate::json::depth(&value) > crate::json::MAX_DEPTH {
                Err(DecodeError::TooDeep)
            } else {
                Ok(value)
            }
        }
    }
}

fn fault(what: &str) -> DecodeError {
    DecodeError::Syntax(format!("proto: {what}"))
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| fault("invalid UTF-8"))
}

/// What is left to be read of a message.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or_else(|| fault("unexpected EOF"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().unwrap_or(&0);
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(fault("integer overflow"))
    }

    /// The next field's tag and wire type, unless the message ends here.
    pub(crate) fn key(&mut self) -> Result<Option<(u32, u8)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        match u32::try_from(key >> 3) {
            Ok(tag) if tag > 0 => Ok(Some((tag, (key & 7) as u8))),
            _ => Err(fault("illegal tag")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = usize::try_from(self.varint()?).map_err(|_| fault("invalid length"))?;
        self.take(n)
    }

    pub(crate) fn skip(&mut self, wire: u8) -> Result<(), DecodeError> {
        match wire {
            0 => self.varint().map(|_| ()),
            1 => self.take(8).map(|_| ()),
            2 => self.bytes().map(|_| ()),
            5 => self.take(4).map(|_| ()),
            _ => Err(fault("illegal wire type")),
        }
    }
}

fn message(bytes: &[u8], schema: &Schema, depth: usize) -> Result<Value, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    match &schema.shape {
        Shape::Struct(s) => {
            let mut map = Map::new();
            fields(bytes, s, &s.slots, &mut map, depth)?;
            Ok(Value::Object(map))
        }
        Shape::Or(or, props) => alternative(bytes, *or, props, depth),
        Shape::List(list) if list.wrapped => {
            let (mut reader, mut items) = (Reader(bytes), Vec::new());
            while let Some((tag, wire)) = reader.key()? {
                match tag {
                    1 => elements(&mut reader, wire, &list.item, &mut items, depth)?,
                    _ => reader.skip(wire)?,
                }
            }
            Ok(Value::Array(items))
        }
        _ => leaf(bytes, schema),
    }
}

/// A message that stands for something JSON has as one value.
fn leaf(bytes: &[u8], schema: &Schema) -> Result<Value, DecodeError> {
    let mut reader = Reader(bytes);
    match &schema.shape {
        Shape::Quantity => {
            let mut out = "0".to_string();
            while let Some((tag, wire)) = reader.key()? {
                match (tag, wire) {
                    (1, 2) => out = text(reader.bytes()?)?.to_string(),
                    _ => reader.skip(wire)?,
                }
            }
            if out.is_empty() {
                out.push('0');
            }
            match scalar::quantity(&out).map_err(DecodeError::Invalid)? {
                Some(canonical) => Ok(canonical.into()),
                None => Ok(out.into()),
            }
        }
        Shape::IntOrString => {
            let (mut is_text, mut number, mut string) = (false, 0, "");
            while let Some((tag, wire)) = reader.key()? {
                match (tag, wire) {
                    (1, 0) => is_text = reader.varint()? == 1,
                    (2, 0) => number = reader.varint()? as i32,
                    (3, 2) => string = text(reader.bytes()?)?,
                    _ => reader.skip(wire)?,
                }
            }
            Ok(if is_text { string.into() } else { number.into() })
        }
        Shape::Time | Shape::MicroTime => {
            if bytes.is_empty() {
                return Ok(Value::Null); // the zero time
            }
            let (mut seconds, mut nanos) = (0, 0);
            while let Some((tag, wire)) = reader.key()? {
                match (tag, wire) {
                    (1, 0) => seconds = reader.varint()? as i64,
                    (2, 0) => nanos = reader.varint()? as i32,
                    _ => reader.skip(wire)?,
                }
            }
            let t = scalar::from_parts(seconds, nanos).ok_or_else(|| fault("time out of range"))?;
            let micro = matches!(schema.shape, Shape::MicroTime);
            Ok(if micro { scalar::micros(t) } else { scalar::seconds(t) }.into())
        }
        Shape::Raw | Shape::Any | Shape::FieldsV1 => {
            let mut raw: &[u8] = b"";
            while let Some((tag, wire)) = reader.key()? {
                match (tag, wire) {
                    (1, 2) => raw = reader.bytes()?,
                    _ => reader.skip(wire)?,
                }
            }
            if raw.is_empty() { Ok(Value::Null) } else { crate::json::decode_any(raw) }
        }
        _ => Err(fault("a scalar where a message belongs")),
    }
}

/// A JSON schema, or what stands in its place.
fn alternative(bytes: &[u8], or: Or, props: &Schema, depth: usize) -> Result<Value, DecodeError> {
    let mut reader = Reader(bytes);
    let (mut allows, mut found, mut list) = (false, None, None);
    let [schema_tag, list_tag] = if or == Or::Bool { [2, 0] } else { [1, 2] };
    while let Some((tag, wire)) = reader.key()? {
        if tag == schema_tag && wire == 2 {
            found = Some(message(reader.bytes()?, props, depth + 1)?);
        } else if tag == list_tag && wire == 2 {
            let bytes = reader.bytes()?;
            let item =
                if or == Or::Strings { text(bytes)?.into() } else { message(bytes, props, depth + 1)? };
            list.get_or_insert_with(Vec::new).push(item);
        } else if or == Or::Bool && (tag, wire) == (1, 0) {
            allows = reader.varint()? != 0;
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(match (found, list, or) {
        (Some(schema), _, _) => schema,
        (None, Some(list), _) => Value::Array(list),
        (None, None, Or::Bool) => Value::Bool(allows),
        (None, None, _) => Value::Null,
    })
}

fn fields(
    bytes: &[u8],
    s: &Struct,
    slots: &[Slot],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    let mut reader = Reader(bytes);
    while let Some((tag, wire)) = reader.key()? {
        let slot = slots.binary_search_by_key(&tag, Slot::tag).ok().and_then(|i| slots.get(i));
        match slot {
            None => reader.skip(wire)?,
            Some(Slot::Inline(_, inner)) if wire == 2 => fields(reader.bytes()?, s, inner, map, depth + 1)?,
            Some(Slot::Inline(..)) => return Err(fault("wrong wire type for a message")),
            Some(Slot::Field(_, at)) => {
                if let Some(f) = s.fields.get(*at) {
                    field(&mut reader, wire, f, map, depth)?;
                }
            }
        }
    }
    Ok(())
}

fn field(
    reader: &mut Reader<'_>,
    wire: u8,
    f: &Field,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    match &f.schema.shape {
        Shape::List(list) if !list.wrapped => {
            let entry = map.entry(&*f.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = entry else { return Err(fault("a list that is none")) };
            elements(reader, wire, &list.item, items, depth)
        }
        Shape::Map(item) => {
            if wire != 2 {
                return Err(fault("wrong wire type for a map"));
            }
            let (mut name, mut value) = (String::new(), None);
            let mut entry = Reader(reader.bytes()?);
            while let Some((tag, wire)) = entry.key()? {
                match (tag, wire) {
                    (1, 2) => name = text(entry.bytes()?)?.to_string(),
                    (2, wire) => value = Some(single(&mut entry, wire, item, depth + 1)?),
                    _ => entry.skip(wire)?,
                }
            }
            let value = value.unwrap_or_else(|| zero(item));
            let into = map.entry(&*f.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(into) = into {
                into.insert(name, value);
            }
            Ok(())
        }
        _ => {
            let value = single(reader, wire, &f.schema, depth)?;
            let kept = match &value {
                Value::Null => false,
                v => f.pointer || f.required || f.always || !is_zero(v),
            };
            if kept {
                map.insert(f.name.to_string(), value);
            }
            Ok(())
        }
    }
}

fn zero(schema: &Schema) -> Value {
    match schema.shape {
        Shape::String | Shape::Bytes => "".into(),
        Shape::Int32 | Shape::Int64 => 0.into(),
        Shape::Bool => false.into(),
        _ => message(b"", schema, 0).unwrap_or(Value::Null),
    }
}

fn is_zero(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// The elements of a list that one field brings: one, or many numbers packed together.
fn elements(
    reader: &mut Reader<'_>,
    wire: u8,
    item: &Schema,
    items: &mut Vec<Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let plain_wire = match item.shape {
        Shape::Int32 | Shape::Int64 | Shape::Bool => 0,
        Shape::Double => 1,
        _ => 2,
    };
    if wire == 2 && plain_wire != 2 {
        let mut packed = Reader(reader.bytes()?);
        while !packed.0.is_empty() {
            items.push(single(&mut packed, plain_wire, item, depth)?);
        }
        return Ok(());
    }
    items.push(single(reader, wire, item, depth)?);
    Ok(())
}

/// One value that is not a bare list or map.
fn single(reader: &mut Reader<'_>, wire: u8, schema: &Schema, depth: usize) -> Result<Value, DecodeError> {
    Ok(match (&schema.shape, wire) {
        (Shape::String, 2) => text(reader.bytes()?)?.into(),
        (Shape::Bytes, 2) => STANDARD.encode(reader.bytes()?).into(),
        (Shape::Int32, 0) => (reader.varint()? as i32).into(),
        (Shape::Int64, 0) => (reader.varint()? as i64).into(),
        (Shape::Bool, 0) => (reader.varint()? != 0).into(),
        (Shape::Double, 1) => {
            let bytes = reader.take(8)?.try_into().unwrap_or_default();
            Number::from_f64(f64::from_le_bytes(bytes)).map_or(Value::Null, Value::Number)
        }
        (Shape::String | Shape::Bytes | Shape::Int32 | Shape::Int64 | Shape::Bool | Shape::Double, _) => {
            return Err(fault(&format!("wrong wire type {wire} for {}", schema.go_type())));
        }
        (_, 2) => message(reader.bytes()?, schema, depth + 1)?,
        _ => return Err(fault(&format!("wrong wire type {wire} for {}", schema.go_type()))),
    })
}
