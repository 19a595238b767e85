//! The visitor that turns a stream of JSON (or YAML, or a value) into a value of a schema.

use super::scalar;
use super::{DecodeError, Decoded, MAX_DEPTH};
use crate::schema::{Or, Schema, Shape, Struct};
use crate::yaml::{Plain, Scalar};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// What is collected on the way.
#[derive(Default)]
pub(crate) struct Context {
    faults: Vec<String>,
    error: Option<DecodeError>,
    /// Set if it is YAML that is read.
    yaml: Option<Plain>,
}

/// Upstream stops counting there.
const MAX_STRICT: usize = 100;

impl Context {
    /// For what is read as YAML.
    pub(crate) fn of_yaml(text: Option<Plain>) -> Self {
        Context { yaml: text, ..Context::default() }
    }

    fn strict(list: &mut Vec<String>, what: &str, path: &Path<'_>, name: &str) {
        let message = format!("{what} field {:?}", path.child(name));
        if list.len() < MAX_STRICT && !list.contains(&message) {
            list.push(message);
        }
    }

    /// The result: our own error, if there is one, says more than the reader's.
    pub(crate) fn finish(self, value: Result<Value, DecodeError>) -> Result<Decoded, DecodeError> {
        match (self.error, value) {
            (Some(e), _) | (None, Err(e)) => Err(e),
            (None, Ok(value)) => Ok(Decoded { value, faults: self.faults }),
        }
    }
}

/// Where the reader stands: printed only when there is something to say.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str, /* of a struct, not a key of a map */ bool),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn child(&self, name: &str) -> String {
        Path::Field(self, name, true).to_string()
    }

    /// Only the fields of structs, as Go's type errors name them.
    fn fields(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Index(parent, _) | Path::Field(parent, _, false) => parent.fields(),
            Path::Field(parent, name, true) => {
                let head = parent.fields();
                if head.is_empty() { name.to_string() } else { format!("{head}.{name}") }
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name, _) => f.write_str(name),
            Path::Field(parent, name, _) => write!(f, "{parent}.{name}"),
            Path::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

/// One value about to be read.
pub(crate) struct Node<'a> {
    schema: &'a Schema,
    cx: &'a mut Context,
    path: Path<'a>,
    holder: &'a str,
    depth: usize,
}

impl<'a> Node<'a> {
    /// The whole document.
    pub(crate) fn root(schema: &'a Schema, cx: &'a mut Context) -> Self {
        Node { schema, cx, path: Path::Root, holder: "", depth: 0 }
    }

    fn mismatch<E: Error>(self, found: String) -> Result<Value, E> {
        let field = self.path.fields();
        let target = match field.is_empty() {
            true => "value".to_string(),
            false => format!("struct field {}.{field}", self.holder),
        };
        self.cx.error = Some(DecodeError::Type { value: found, target, go_type: self.schema.go_type() });
        Err(E::custom("type mismatch"))
    }

    fn refuse<E: Error>(self, why: String) -> Result<Value, E> {
        self.cx.error = Some(DecodeError::Invalid(why));
        Err(E::custom("invalid value"))
    }

    fn too_deep<E: Error>(self) -> Result<Value, E> {
        self.cx.error = Some(DecodeError::TooDeep);
        Err(E::custom("too deep"))
    }

    fn number<E: Error>(self, n: Number) -> Result<Value, E> {
        match self.schema.shape {
            _ if self.schema.custom => Ok(Value::Number(n)),
            Shape::Double | Shape::Any | Shape::Raw | Shape::FieldsV1 => Ok(Value::Number(n)),
            Shape::Int64 if n.is_i64() => Ok(Value::Number(n)),
            Shape::Int32 | Shape::IntOrString if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => {
                Ok(Value::Number(n))
            }
            Shape::Quantity => match scalar::quantity(&n.to_string()) {
                Ok(text) => Ok(Value::String(text.unwrap_or_else(|| n.to_string()))),
                Err(why) => self.refuse(why),
            },
            Shape::Int32 | Shape::Int64 | Shape::IntOrString => self.mismatch(format!("number {n}")),
            _ => self.mismatch("number".into()),
        }
    }

    fn text<E: Error>(self, text: std::borrow::Cow<'_, str>) -> Result<Value, E> {
        let same = |t: std::borrow::Cow<'_, str>| Ok(Value::String(t.into_owned()));
        if self.schema.custom {
            return same(text);
        }
        let read = match self.schema.shape {
            Shape::String | Shape::Any | Shape::Raw | Shape::FieldsV1 | Shape::IntOrString => {
                return same(text);
            }
            Shape::Quantity => scalar::quantity(&text),
            Shape::Time => scalar::time(&text),
            Shape::MicroTime => scalar::micro_time(&text),
            Shape::Bytes => scalar::base64(&text),
            _ => return self.mismatch("string".into()),
        };
        match read {
            Ok(None) => same(text),
            Ok(Some(canonical)) => Ok(Value::String(canonical)),
            Err(why) => self.refuse(why),
        }
    }

    fn list<'de, A: SeqAccess<'de>>(self, item: &Schema, mut seq: A) -> Result<Value, A::Error> {
        let Node { cx, path, holder, depth, .. } = self;
        let depth = depth + 1;
        let mut list = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        loop {
            let at = Path::Index(&path, list.len());
            let Some(value) = seq.next_element_seed(Node { schema: item, cx, path: at, holder, depth })?
            else {
                break;
            };
            list.push(filled(value, item));
        }
        Ok(Value::Array(list))
    }

    fn map<'de, A: MapAccess<'de>>(self, item: &Schema, mut map: A) -> Result<Value, A::Error> {
        let Node { schema, cx, path, holder, depth } = self;
        let depth = depth + 1;
        let mut out = Map::new();
        let mut merged = Value::Null;
        while let Some(key) = map.next_key_seed(Key)? {
            let at = Path::Field(&path, &key, false);
            if key == MERGE && cx.yaml.is_some() {
                merged = map.next_value_seed(Node { schema, cx, path: at, holder, depth })?;
                continue;
            }
            let value =
                filled(map.next_value_seed(Node { schema: item, cx, path: at, holder, depth })?, item);
            if !matches!(schema.shape, Shape::Raw | Shape::FieldsV1) && out.contains_key(&key) {
                Context::strict(&mut cx.faults, "duplicate", &path, &key);
            }
            out.insert(key, value);
        }
        merge(&mut out, merged);
        Ok(Value::Object(out))
    }

    fn fields<'de, A: MapAccess<'de>>(self, s: &Struct, mut map: A) -> Result<Value, A::Error> {
        let Node { schema, cx, path, depth, .. } = self;
        let depth = depth + 1;
        let holder = schema.type_name();
        let mut out = Map::new();
        let mut merged = Value::Null;
        while let Some(found) = map.next_key_seed(FieldKey(s))? {
            match found {
                Found::Known(i) => {
                    let Some(field) = s.fields.get(i) else { continue };
                    let at = Path::Field(&path, &field.name, true);
                    let value =
                        map.next_value_seed(Node { schema: &field.schema, cx, path: at, holder, depth })?;
                    if value.is_null() && !field.schema.custom {
                        continue; // for Go, null is not there
                    }
                    if out.insert(field.name.to_string(), value).is_some() {
                        Context::strict(&mut cx.faults, "duplicate", &path, &field.name);
                    }
                }
                Found::Unknown(name) if name == MERGE && cx.yaml.is_some() => {
                    let at = Path::Field(&path, &name, false);
                    merged = map.next_value_seed(Node { schema, cx, path: at, holder, depth })?;
                }
                Found::Unknown(name) if s.preserve_unknown => {
                    let at = Path::Field(&path, &name, false);
                    let value = map.next_value_seed(Node {
                        schema: &crate::schema::any(),
                        cx,
                        path: at,
                        holder,
                        depth,
                    })?;
                    if out.contains_key(&name) {
                        Context::strict(&mut cx.faults, "duplicate", &path, &name);
                    }
                    out.insert(name, value);
                }
                Found::Unknown(name) => {
                    map.next_value::<IgnoredAny>()?;
                    Context::strict(&mut cx.faults, "unknown", &path, &name);
                }
            }
        }
        merge(&mut out, merged);
        Ok(Value::Object(out))
    }
}

/// A key of YAML 1.1 whose value's members are its map's own, but for those that the map has itself.
const MERGE: &str = "<<";

fn merge(own: &mut Map<String, Value>, merged: Value) {
    let Value::Object(merged) = merged else { return };
    for (key, value) in merged {
        own.entry(key).or_insert(value);
    }
}

/// An item that is null has Go's zero value.
fn filled(value: Value, schema: &Schema) -> Value {
    if !value.is_null() || schema.custom {
        return value;
    }
    match schema.shape {
        Shape::Struct(_) => Value::Object(Map::new()),
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Quantity => Value::String("0".into()),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString | Shape::Double => Value::Number(0.into()),
        Shape::Bool => Value::Bool(false),
        _ => Value::Null,
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.schema.go_type())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Value, E> {
        match self.schema.shape {
            Shape::Bool | Shape::Any | Shape::Raw | Shape::FieldsV1 | Shape::Or(Or::Bool, _) => {
                Ok(Value::Bool(b))
            }
            _ if self.schema.custom => Ok(Value::Bool(b)),
            _ => self.mismatch("bool".into()),
        }
    }

    fn visit_i64<E: Error>(self, i: i64) -> Result<Value, E> {
        self.number(i.into())
    }

    fn visit_u64<E: Error>(self, u: u64) -> Result<Value, E> {
        match i64::try_from(u) {
            Ok(i) => self.number(i.into()),
            Err(_) => self.visit_f64(u as f64),
        }
    }

    fn visit_f64<E: Error>(self, f: f64) -> Result<Value, E> {
        match Number::from_f64(f) {
            Some(n) => self.number(n),
            None => self.refuse(format!("json: unsupported value: {f}")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.text(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        self.text(text.into())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value, E> {
        match self.cx.yaml.as_ref().and_then(|yaml| yaml.scalar(text)) {
            None => self.visit_str(text),
            Some(Scalar::Bool(b)) => self.visit_bool(b),
            Some(Scalar::Int(i)) => self.visit_i64(i),
            Some(Scalar::Float(f)) => self.visit_f64(f),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        if self.depth >= MAX_DEPTH {
            return self.too_deep();
        }
        let schema = self.schema;
        match &schema.shape {
            Shape::List(list) => self.list(&list.item, seq),
            Shape::Any | Shape::Raw | Shape::FieldsV1 => self.list(schema, seq),
            Shape::Or(Or::Schemas, item) => self.list(item, seq),
            Shape::Or(Or::Strings, _) => self.list(&Schema::of(Shape::String), seq),
            _ if schema.custom => self.list(&crate::schema::any(), seq),
            _ => self.mismatch("array".into()),
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<Value, A::Error> {
        if self.depth >= MAX_DEPTH {
            return self.too_deep();
        }
        let schema = self.schema;
        match &schema.shape {
            Shape::Struct(s) => self.fields(s, map),
            Shape::Map(value) => self.map(value, map),
            Shape::Any | Shape::Raw | Shape::FieldsV1 => self.map(schema, map),
            Shape::Or(_, props) => {
                self.schema = props;
                self.visit_map(map)
            }
            _ if schema.custom => self.map(&crate::schema::any(), map),
            _ => self.mismatch("object".into()),
        }
    }
}

/// A key of a map. YAML also has keys that are not text.
struct Key;

enum Found {
    Known(usize),
    Unknown(String),
}

/// A key of a struct: known ones are not copied.
struct FieldKey<'a>(&'a Struct);

macro_rules! keys {
    ($seed:ty, $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<$value, D::Error> {
                d.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $seed {
            type Value = $value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<$value, E> {
                Ok(self.found(key))
            }
            fn visit_string<E: Error>(self, key: String) -> Result<$value, E> {
                Ok(self.found(&key))
            }
            fn visit_i64<E: Error>(self, key: i64) -> Result<$value, E> {
                Ok(self.found(&key.to_string()))
            }
            fn visit_u64<E: Error>(self, key: u64) -> Result<$value, E> {
                Ok(self.found(&key.to_string()))
            }
            fn visit_f64<E: Error>(self, key: f64) -> Result<$value, E> {
                Ok(self.found(&key.to_string()))
            }
            fn visit_bool<E: Error>(self, key: bool) -> Result<$value, E> {
                Ok(self.found(&key.to_string()))
            }
        }
    };
}

keys!(Key, String);
keys!(FieldKey<'_>, Found);

impl Key {
    fn found(self, key: &str) -> String {
        key.to_string()
    }
}

impl FieldKey<'_> {
    fn found(self, key: &str) -> Found {
        self.0.index(key).map_or_else(|| Found::Unknown(key.to_string()), Found::Known)
    }
}
