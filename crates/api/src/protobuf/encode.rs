//! JSON to protobuf messages.

use super::MAX_DEPTH;
use super::tree::{At, Node, Source, Tree};
use crate::json::scalar;
use crate::schema::{List, Or, Schema, Shape, Slot, Struct};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
    /// What should be JSON is not.
    #[error("{0}")]
    Syntax(String),
    /// Objects within objects within objects.
    #[error("exceeded max depth")]
    TooDeep,
}

/// An error on its way out: small, as there is hardly ever one.
type Fault = Box<EncodeError>;

/// The message for an object, without the envelope.
pub fn encode(object: &(impl Source + ?Sized), schema: &Schema) -> Result<Vec<u8>, EncodeError> {
    encode_new(&object.tree()?, schema)
}

/// Appends the message for an object.
pub fn encode_into(
    out: &mut Vec<u8>,
    object: &(impl Source + ?Sized),
    schema: &Schema,
) -> Result<(), EncodeError> {
    encode_tree(out, &object.tree()?, schema)
}

/// The message for a tree.
pub(super) fn encode_new(tree: &Tree<'_>, schema: &Schema) -> Result<Vec<u8>, EncodeError> {
    // about what a typical object takes, so that hardly any is moved while it grows
    let mut out = Vec::with_capacity(tree.len() * 8);
    encode_tree(&mut out, tree, schema)?;
    Ok(out)
}

/// Appends the message for a tree.
fn encode_tree(out: &mut Vec<u8>, tree: &Tree<'_>, schema: &Schema) -> Result<(), EncodeError> {
    match &schema.shape {
        Shape::Struct(s) if s.slots.is_empty() && !s.fields.is_empty() => {
            Err(EncodeError::NoProtobuf(schema.type_name().to_string()))
        }
        _ => Encoder { out, tree, places: Vec::with_capacity(128) }
            .message(tree.root(), schema, 0)
            .map_err(|e| *e),
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

fn mismatch(schema: &Schema) -> Fault {
    Fault::from(EncodeError::Mismatch { field: String::new(), go_type: schema.go_type() })
}

fn under(mut e: Fault, name: &str) -> Fault {
    if let EncodeError::Mismatch { field, .. } = &mut *e {
        *field = if field.is_empty() { name.into() } else { format!("{name}.{field}") };
    }
    e
}

/// Whether an encoded field is a message of length zero.
fn is_empty(field: &[u8]) -> bool {
    let key_end = field.iter().position(|b| b & 0x80 == 0).map_or(0, |i| i + 1);
    field.get(key_end..) == Some(&[0])
}

struct Encoder<'o, 't> {
    out: &'o mut Vec<u8>,
    tree: &'t Tree<'t>,
    /// Where the values of the structs' fields stand that are about to be written, those of the innermost at the
    /// end. Zero is for those that are not there: that is where the root stands.
    places: Vec<usize>,
}

impl<'t> Encoder<'_, 't> {
    fn put(&mut self, tag: u32, bytes: &[u8]) {
        super::put_message(self.out, tag, bytes);
    }

    fn int(&mut self, tag: u32, n: i64) {
        key(self.out, tag, 0);
        varint(self.out, n as u64);
    }

    fn double(&mut self, tag: u32, n: f64) {
        key(self.out, tag, 1);
        self.out.extend_from_slice(&n.to_le_bytes());
    }

    /// A length-delimited field whose content `write` appends. The length goes in front once it is known.
    fn delimited(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        key(self.out, tag, 2);
        let start = self.out.len();
        self.out.push(0);
        write(self)?;
        let end = self.out.len();
        let length = end - start - 1;
        if length >= 0x80 {
            // room for the bytes of the length beyond the first
            varint(self.out, length as u64 >> 7);
            let room = self.out.len() - end;
            self.out.copy_within(start + 1..end, start + 1 + room);
        }
        let mut rest = length;
        for byte in self.out.iter_mut().skip(start) {
            *byte = rest as u8 & 0x7f;
            rest >>= 7;
            if rest == 0 {
                break;
            }
            *byte |= 0x80;
        }
        Ok(())
    }

    /// The content of a message.
    fn message(&mut self, value: At<'t>, schema: &Schema, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(EncodeError::TooDeep.into());
        }
        match (&schema.shape, value.node()) {
            (Shape::Struct(s), Node::Object(_)) => self.fields(value, s, depth),
            _ => self.other(value, schema, depth),
        }
    }

    /// The content of a message that is not a struct: apart, as it is rare and has much to remember.
    #[inline(never)]
    fn other(&mut self, value: At<'t>, schema: &Schema, depth: usize) -> Result<(), Fault> {
        match (&schema.shape, value.node()) {
            (Shape::Quantity, Node::Text(text)) => self.put(1, text.as_bytes()),
            (Shape::IntOrString, Node::Text(text)) => {
                self.int(1, 1);
                self.int(2, 0);
                self.put(3, text.as_bytes());
            }
            (Shape::IntOrString, Node::Int(n)) => {
                self.int(1, 0);
                self.int(2, *n);
                self.put(3, b"");
            }
            (Shape::Time | Shape::MicroTime, Node::Text(text)) => {
                let t = scalar::parse_time(text).map_err(|_| mismatch(schema))?;
                // floor, so that the nanoseconds are not negative
                let mut seconds = t.as_second();
                let mut nanos = t.subsec_nanosecond();
                if nanos < 0 {
                    (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
                }
                self.int(1, seconds);
                self.int(2, if matches!(schema.shape, Shape::Time) { 0 } else { i64::from(nanos) });
            }
            (Shape::Raw | Shape::Any | Shape::FieldsV1, _) => {
                self.delimited(1, |this| {
                    serde_json::to_writer(&mut *this.out, &value).map_err(|_| mismatch(schema))
                })?;
            }
            (Shape::Or(Or::Bool, _), Node::Bool(b)) => self.int(1, i64::from(*b)),
            (Shape::Or(Or::Bool, props), Node::Object(_)) => {
                self.int(1, 1);
                self.delimited(2, |this| this.message(value, props, depth + 1))?;
            }
            (Shape::Or(Or::Schemas, props), Node::List(_)) => {
                for item in value.items() {
                    self.delimited(2, |this| this.message(item, props, depth + 1))?;
                }
            }
            (Shape::Or(Or::Strings, _), Node::List(_)) => {
                for item in value.items() {
                    self.put(2, item.text().ok_or_else(|| mismatch(schema))?.as_bytes());
                }
            }
            (Shape::Or(_, props), Node::Object(_)) => {
                self.delimited(1, |this| this.message(value, props, depth + 1))?;
            }
            (Shape::List(list), Node::List(_)) if list.wrapped => self.repeated(1, value, list, depth)?,
            _ => return Err(mismatch(schema)),
        }
        Ok(())
    }

    /// The fields of a struct: found by name first, as they are written by tag.
    fn fields(&mut self, value: At<'t>, s: &Struct, depth: usize) -> Result<(), Fault> {
        let base = self.places.len();
        self.places.resize(base + s.fields.len(), 0);
        let mut next = 0;
        for (name, value) in value.members() {
            if let Some(i) = s.find(name, next) {
                next = i + 1;
                if let Some(place) = self.places.get_mut(base + i) {
                    *place = if matches!(value.node(), Node::Null) { 0 } else { value.place };
                }
            }
        }
        let written = self.slots(base, s, &s.slots, depth);
        self.places.truncate(base);
        written
    }

    fn slots(&mut self, base: usize, s: &Struct, slots: &[Slot], depth: usize) -> Result<(), Fault> {
        for slot in slots {
            match slot {
                Slot::Field(tag, at) => {
                    let place = self.places.get(base + at).copied().unwrap_or(0);
                    if let (1.., Some(f)) = (place, s.fields.get(*at)) {
                        let value = self.tree.at(place);
                        self.field(*tag, value, &f.schema, depth).map_err(|e| under(e, &f.name))?;
                    }
                }
                Slot::Inline(tag, inner) => {
                    let start = self.out.len();
                    self.delimited(*tag, |this| this.slots(base, s, inner, depth + 1))?;
                    if self.out.get(start..).is_some_and(is_empty) {
                        self.out.truncate(start);
                    }
                }
            }
        }
        Ok(())
    }

    /// A field with its key.
    fn field(&mut self, tag: u32, value: At<'t>, schema: &Schema, depth: usize) -> Result<(), Fault> {
        match (&schema.shape, value.node()) {
            (Shape::String, Node::Text(text)) => self.put(tag, text.as_bytes()),
            (Shape::Int32 | Shape::Int64, Node::Int(n)) => self.int(tag, *n),
            (Shape::Bool, Node::Bool(b)) => self.int(tag, i64::from(*b)),
            (Shape::Double, Node::Int(n)) => self.double(tag, *n as f64),
            (Shape::Double, Node::Large(n)) => self.double(tag, *n as f64),
            (Shape::Double, Node::Float(n)) => self.double(tag, *n),
            (Shape::Bytes, Node::Text(text)) => self.base64(tag, text, schema)?,
            (Shape::List(list), Node::List(_)) if !list.wrapped => self.repeated(tag, value, list, depth)?,
            (Shape::Map(item), Node::Object(_)) => self.map(tag, value, item, depth)?,
            _ => self.delimited(tag, |this| this.message(value, schema, depth + 1))?,
        }
        Ok(())
    }

    #[inline(never)]
    fn base64(&mut self, tag: u32, text: &str, schema: &Schema) -> Result<(), Fault> {
        self.delimited(tag, |this| STANDARD.decode_vec(text, this.out).map_err(|_| mismatch(schema)))
    }

    #[inline(never)]
    fn map(&mut self, tag: u32, map: At<'t>, item: &Schema, depth: usize) -> Result<(), Fault> {
        map.each_by_name(|name, value| {
            self.delimited(tag, |this| {
                this.put(1, name.as_bytes());
                this.field(2, value, item, depth + 1)
            })
        })
    }

    fn repeated(&mut self, tag: u32, items: At<'t>, list: &List, depth: usize) -> Result<(), Fault> {
        items.items().try_for_each(|item| self.field(tag, item, &list.item, depth))
    }
}
