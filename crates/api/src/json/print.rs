//! Typed objects as canonical JSON, written in one go: what [`omit_zeros`](super::omit_zeros) makes of an object's
//! values, without making them. A field that turns out to say nothing is cut off again. Start at [`print`].

use crate::object::Object;
use crate::schema::{Field, Schema, Shape, Struct};
use serde::Serialize;
use serde::ser::{self, Error as _, Impossible, Serializer};
use serde_json::{Error, Value};

/// An object's JSON in the order in which the server keeps it: `apiVersion`, `kind`, `metadata`, the rest; without
/// resourceVersion, which the store's revision is. `fields` is JSON that stands in place of its managedFields;
/// empty for none.
pub fn print(object: &Object, schema: &Schema, fields: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let schema = declared(schema);
    let metadata = schema.and_then(|s| s.field(METADATA)).and_then(|f| declared(&f.schema));
    let (api_version, kind) = object.type_meta();
    super::written(|out| {
        out.extend_from_slice(b"{\"apiVersion\":");
        text(out, api_version);
        out.extend_from_slice(b",\"kind\":");
        text(out, kind);
        out.extend_from_slice(b",\"metadata\":");
        object.meta().serialize(Printer { out, schema: metadata, part: Part::Metadata(fields) })?;
        object.print_rest(Printer { out, schema, part: Part::Rest })?;
        out.push(b'}');
        Ok(())
    })
}

const METADATA: &str = "metadata";
const MANAGED_FIELDS: &str = "managedFields";

/// What stands before the rest of an object.
fn is_head(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | METADATA)
}

/// The schema, if zeros are to be left out by it: what a custom resource holds is its author's business.
fn declared(schema: &Schema) -> Option<&Schema> {
    (!schema.custom).then_some(schema)
}

/// The [`Serializer`] of one value.
pub struct Printer<'a> {
    out: &'a mut Vec<u8>,
    schema: Option<&'a Schema>,
    part: Part<'a>,
}

/// What a value is to the whole object.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// Something in it.
    Value,
    /// Its metadata, with managedFields to be put in or its own.
    Metadata(Option<&'a [u8]>),
    /// The same, once they are in.
    Settled,
    /// The object itself, behind its metadata: the braces are there.
    Rest,
}

impl<'a> Printer<'a> {
    /// Begins an object.
    pub fn members(self) -> Members<'a> {
        let Printer { out, schema, part } = self;
        if !matches!(part, Part::Rest) {
            out.push(b'{');
        }
        let start = out.len();
        Members { out, schema, part, start, at: 0, last: "", disordered: false }
    }

    fn put(self, json: &str) -> Result<(), Error> {
        self.out.extend_from_slice(json.as_bytes());
        Ok(())
    }

    fn plainly<T: Serialize>(self, value: T) -> Result<(), Error> {
        serde_json::to_writer(self.out, &value)
    }

    fn items(self) -> Items<'a> {
        let schema = match self.schema.map(|s| &s.shape) {
            Some(Shape::List(list)) => declared(&list.item),
            _ => None,
        };
        self.out.push(b'[');
        Items { start: self.out.len(), out: self.out, schema }
    }
}

/// The members of an object, which come in the order of their names.
pub struct Members<'a> {
    out: &'a mut Vec<u8>,
    schema: Option<&'a Schema>,
    part: Part<'a>,
    /// Where the first one stands.
    start: usize,
    /// The first field of the schema that was not passed.
    at: usize,
    last: &'a str,
    disordered: bool,
}

/// A member whose value is to be written.
struct Member<'a> {
    /// Where its comma stands, and its value.
    start: usize,
    value: usize,
    schema: Option<&'a Schema>,
    /// Whether it is left out if it is zero.
    optional: bool,
}

impl<'a> Members<'a> {
    /// Writes a member.
    pub fn member<T: Serialize + ?Sized>(&mut self, name: &'a str, value: &T) -> Result<(), Error> {
        let Some(member) = self.open(name) else { return Ok(()) };
        value.serialize(Printer { out: &mut *self.out, schema: member.schema, part: Part::Value })?;
        if member.optional && is_zero(&self.out[member.value..]) {
            self.out.truncate(member.start);
        }
        Ok(())
    }

    fn open(&mut self, name: &'a str) -> Option<Member<'a>> {
        match self.part {
            Part::Rest if is_head(name) => return None,
            Part::Metadata(_) | Part::Settled if matches!(name, "resourceVersion" | "selfLink") => {
                return None;
            }
            Part::Metadata(Some(fields)) if name >= MANAGED_FIELDS => self.put_fields(fields),
            _ => {}
        }
        if matches!(self.part, Part::Settled) && name == MANAGED_FIELDS {
            return None;
        }
        Some(self.place(name))
    }

    /// Writes what comes before a member, and its name.
    fn place(&mut self, name: &'a str) -> Member<'a> {
        let (mut schema, mut optional) = (None, false);
        let before = name < self.last;
        match self.schema.map(|s| &s.shape) {
            Some(Shape::Struct(s)) => {
                let field = if before { s.field(name) } else { self.pass(s, Some(name)) };
                if let Some(f) = field {
                    schema = declared(&f.schema);
                    optional = !f.pointer && !f.always && !f.required && f.schema.as_struct().is_none();
                }
            }
            Some(Shape::Map(item)) => schema = declared(item),
            _ => {}
        }
        self.disordered |= before;
        self.last = name;
        let start = self.out.len();
        self.name(name);
        Member { start, value: self.out.len(), schema, optional }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > self.start || matches!(self.part, Part::Rest) {
            self.out.push(b',');
        }
        text(self.out, name);
        self.out.push(b':');
    }

    /// Passes the fields before `name`, and writes those that are always there. Answers the one of that name.
    fn pass(&mut self, s: &'a Struct, name: Option<&str>) -> Option<&'a Field> {
        while let Some(field) = s.fields.get(self.at) {
            if let Some(name) = name {
                if *field.name == *name {
                    self.at += 1;
                    return Some(field);
                }
                if *field.name > *name {
                    return None;
                }
            }
            self.at += 1;
            if field.is_printed() && !(matches!(self.part, Part::Rest) && is_head(&field.name)) {
                self.zero(field);
            }
        }
        None
    }

    fn zero(&mut self, field: &'a Field) {
        self.name(&field.name);
        match field.schema.shape {
            Shape::Struct(_) => {
                let schema = declared(&field.schema);
                Printer { out: &mut *self.out, schema, part: Part::Value }.members().close();
            }
            Shape::Bool => self.out.extend_from_slice(b"false"),
            Shape::String => self.out.extend_from_slice(b"\"\""),
            _ => self.out.push(b'0'),
        }
    }

    /// Puts managedFields in their place.
    fn put_fields(&mut self, fields: &[u8]) {
        self.part = Part::Settled;
        if !fields.is_empty() {
            self.place(MANAGED_FIELDS);
            self.out.extend_from_slice(fields);
        }
    }

    /// Ends the object.
    pub fn finish(mut self) -> Result<(), Error> {
        if let Part::Metadata(Some(fields)) = self.part {
            self.put_fields(fields);
        }
        self.close();
        if self.disordered { self.sort() } else { Ok(()) }
    }

    fn close(&mut self) {
        if let Some(Shape::Struct(s)) = self.schema.map(|s| &s.shape) {
            self.pass(s, None);
        }
        if !matches!(self.part, Part::Rest) {
            self.out.push(b'}');
        }
    }
}

impl Members<'_> {
    /// Writes the members again, in order. `k8s-openapi` writes none in another order, but promises nothing.
    fn sort(self) -> Result<(), Error> {
        let rest = matches!(self.part, Part::Rest);
        let members = self.out.get(self.start..).unwrap_or_default();
        let members = match rest {
            true => [b"{", members.strip_prefix(b",").unwrap_or(members), b"}"].concat(),
            false => [b"{", members].concat(),
        };
        // Of a field that was thought absent when its place was passed, the value that came later counts.
        let sorted = serde_json::to_vec(&serde_json::from_slice::<Value>(&members)?)?;
        self.out.truncate(self.start);
        match sorted.as_slice() {
            [b'{', sorted @ .., b'}'] if rest && !sorted.is_empty() => {
                self.out.push(b',');
                self.out.extend_from_slice(sorted);
            }
            [b'{', sorted @ ..] if !rest => self.out.extend_from_slice(sorted),
            _ => {}
        }
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.member(name, value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

/// A map, whose keys come sorted: `k8s-openapi` and `serde_json` have `BTreeMap`s.
pub struct Entries<'a> {
    out: &'a mut Vec<u8>,
    schema: Option<&'a Schema>,
    start: usize,
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        let at = self.out.len();
        key.serialize(Printer { out: &mut *self.out, schema: None, part: Part::Value })?;
        match self.out.get(at) {
            Some(b'"') => {}
            Some(b'-' | b'0'..=b'9' | b't' | b'f') => {
                self.out.insert(at, b'"');
                self.out.push(b'"');
            }
            _ => return Err(Error::custom("key must be a string")),
        }
        self.out.push(b':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let schema = match self.schema.map(|s| &s.shape) {
            Some(Shape::Map(item)) => declared(item),
            _ => None,
        };
        value.serialize(Printer { out: &mut *self.out, schema, part: Part::Value })
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(b'}');
        let Some(schema) = self.schema.filter(|s| s.as_struct().is_some()) else { return Ok(()) };
        // Fields whose type in Rust is a map: there are none, so it need not be quick.
        let start = self.start.saturating_sub(1);
        let mut value: Value = serde_json::from_slice(self.out.get(start..).unwrap_or_default())?;
        super::omit_zeros(&mut value, schema);
        self.out.truncate(start);
        serde_json::to_writer(self.out, &value)
    }
}

/// A list.
pub struct Items<'a> {
    out: &'a mut Vec<u8>,
    schema: Option<&'a Schema>,
    start: usize,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        value.serialize(Printer { out: &mut *self.out, schema: self.schema, part: Part::Value })
    }

    fn close(self) -> Result<(), Error> {
        self.out.push(b']');
        Ok(())
    }
}

macro_rules! items {
    ($($kind:ident $method:ident),*) => {$(
        impl ser::$kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

items!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field);

macro_rules! plain {
    ($($method:ident: $from:ty => $to:ty),*) => {$(
        fn $method(self, value: $from) -> Result<(), Error> {
            self.plainly(<$to>::from(value))
        }
    )*};
}

impl<'a> Serializer for Printer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    plain!(
        serialize_i8: i8 => i64, serialize_i16: i16 => i64, serialize_i32: i32 => i64, serialize_i64: i64 => i64,
        serialize_u8: u8 => u64, serialize_u16: u16 => u64, serialize_u32: u32 => u64, serialize_u64: u64 => u64,
        serialize_f32: f32 => f64, serialize_f64: f64 => f64, serialize_char: char => String
    );

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.put(if value { "true" } else { "false" })
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        text(self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.plainly(value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let mut members = self.members();
        members.member(variant, value)?;
        members.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(self.items())
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Error> {
        Ok(self.items())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(self.items())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(unknown_variant(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'a>, Error> {
        self.out.push(b'{');
        Ok(Entries { start: self.out.len(), out: self.out, schema: self.schema })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Error> {
        Ok(self.members())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(unknown_variant(variant))
    }
}

/// No kind has enums whose variants have fields.
fn unknown_variant(variant: &str) -> Error {
    Error::custom(format!("{variant:?} has no form in an object"))
}

/// Writes text. Most has nothing in it to be escaped, which is seen quickest by looking at all of it.
fn text(out: &mut Vec<u8>, text: &str) {
    let escaped = |b: &u8| (*b < 0x20) | (*b == b'"') | (*b == b'\\');
    if text.as_bytes().iter().fold(false, |any, b| any | escaped(b)) {
        let written = serde_json::to_writer(out, text);
        debug_assert!(written.is_ok(), "a vector takes everything");
    } else {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// Whether JSON is what Go takes for nothing.
fn is_zero(json: &[u8]) -> bool {
    matches!(json, b"null" | b"false" | b"0" | b"0.0" | b"-0.0" | b"\"\"" | b"[]" | b"{}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GroupVersionKind;
    use crate::schema::builtin;

    #[derive(Serialize)]
    struct Container {
        name: &'static str,
        image: &'static str,
        command: &'static [&'static str],
        resources: Resources,
        args: &'static [&'static str],
    }

    #[derive(Serialize)]
    struct Resources {
        requests: Option<()>,
        limits: std::collections::BTreeMap<u8, f64>,
    }

    const CONTAINER: Container = Container {
        name: "c",
        image: "\"",
        command: &[],
        resources: Resources { requests: None, limits: std::collections::BTreeMap::new() },
        args: &["a"],
    };

    fn printed(part: Part<'_>) -> String {
        let schema = builtin().kind(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
        let schema = schema.at(&["spec", "containers", "*"]).unwrap();
        let mut out = Vec::new();
        CONTAINER.serialize(Printer { out: &mut out, schema: Some(schema), part }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_in_any_order_are_sorted() {
        let want = r#""args":["a"],"image":"\"","name":"c","resources":{}"#;
        assert_eq!(printed(Part::Value), format!("{{{want}}}"));
        assert_eq!(printed(Part::Rest), format!(",{want}"));
        let want = want.replace(r#""name""#, r#""managedFields":[1],"name""#);
        assert_eq!(printed(Part::Metadata(Some(b"[1]"))), format!("{{{want}}}"));
    }

    #[test]
    fn what_no_kind_has_is_as_in_values() {
        fn same<T: Serialize>(value: T) {
            let mut out = Vec::new();
            value.serialize(Printer { out: &mut out, schema: None, part: Part::Value }).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_value(value).unwrap().to_string());
        }
        #[derive(Serialize)]
        enum Variant {
            Unit,
            New(Option<u8>),
        }
        same((1u8, -1i8, 'ü', "\u{1}\\", 1.0f32, 0.1f32, f64::NAN, 1e300));
        same(std::collections::BTreeMap::from([(1, true), (2, false)]));
        same(std::collections::BTreeMap::from([(true, ())]));
        same([Variant::Unit, Variant::New(Some(1)), Variant::New(None)]);
        same([u64::MAX]);
    }
}
