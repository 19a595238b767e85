//! What a kind looks like: fields, types, protobuf tags, list keys, patch strategies, defaults. Start at
//! [`builtin`] for the kinds of Kubernetes, at [`Schema::custom`] for custom resources. Codecs, patches,
//! apply and OpenAPI are written once, over [`Schema`].

mod custom;
pub(crate) mod text;

pub use custom::SchemaError;
pub use text::{Builtin, Kind, builtin};

use serde_json::Value;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A name or description: borrowed from the program for built-in kinds.
pub type Str = Cow<'static, str>;

/// A schema that others share; cheap to clone. Built-in ones live as long as the program.
#[derive(Clone)]
pub struct SchemaRef(Inner);

#[derive(Clone)]
enum Inner {
    /// A definition that may be read in after those that refer to it.
    Named(&'static OnceLock<Schema>),
    Fixed(&'static Schema),
    Shared(Arc<Schema>),
}

impl std::ops::Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match &self.0 {
            Inner::Named(cell) => cell.get().unwrap_or(&ANY),
            Inner::Fixed(schema) => schema,
            Inner::Shared(schema) => schema,
        }
    }
}

impl From<Schema> for SchemaRef {
    fn from(schema: Schema) -> Self {
        SchemaRef(Inner::Shared(Arc::new(schema)))
    }
}

impl std::fmt::Debug for SchemaRef {
    /// Only the name: schemas may contain themselves.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SchemaRef({})", self.type_name())
    }
}

/// One type.
pub struct Schema {
    /// Its definition's name, such as `io.k8s.api.core.v1.Pod`; empty if it has none of its own.
    pub name: Str,
    /// Its description, with `\n` and `\\` escaped; see [`plain_text`].
    pub description: Str,
    /// What its values are.
    pub shape: Shape,
    /// Whether appliers own a value of it as a whole.
    pub atomic: bool,
    /// Whether it comes from a custom resource: mismatches and nulls are left for validation to judge.
    pub custom: bool,
    /// Of a custom resource: whether null is a value.
    pub nullable: bool,
    /// Of a custom kind: the OpenAPI schema it was made from, to be published again.
    pub source: Option<Arc<Value>>,
}

/// What the values of a type are.
pub enum Shape {
    /// An object with known fields.
    Struct(Struct),
    /// An object whose values are of one type.
    Map(SchemaRef),
    /// An array.
    List(List),
    /// Text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// True or false.
    Bool,
    /// A floating-point number.
    Double,
    /// Base64 text in JSON.
    Bytes,
    /// A `resource.Quantity`.
    Quantity,
    /// A 32-bit integer or text.
    IntOrString,
    /// RFC 3339 text of seconds.
    Time,
    /// RFC 3339 text of microseconds.
    MicroTime,
    /// `RawExtension`: an object of any kind.
    Raw,
    /// Any JSON.
    Any,
    /// The fields in a managedFields entry.
    FieldsV1,
    /// A JSON schema, or something else in its place.
    Or(Or, SchemaRef),
}

/// What may stand in place of a JSON schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Or {
    /// True or false.
    Bool,
    /// An array of schemas.
    Schemas,
    /// An array of texts.
    Strings,
}

/// The fields of an object.
#[derive(Default)]
pub struct Struct {
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// The protobuf message's fields, by tag.
    pub slots: Vec<Slot>,
    /// Whether fields that are not listed are kept.
    pub preserve_unknown: bool,
    /// The places of [`Struct::printed`], once they were asked for.
    printed: OnceLock<Box<[usize]>>,
    /// What [`Struct::find`] looks at first, once it was asked.
    marks: OnceLock<Box<[u32]>>,
}

/// The length of a name, its first byte and its last: enough to tell a struct's fields apart, but for a few.
#[inline]
fn mark(name: &str) -> u32 {
    let byte = |b: Option<&u8>| b.copied().map_or(0, u32::from);
    let bytes = name.as_bytes();
    (bytes.len() as u32) << 16 | byte(bytes.first()) << 8 | byte(bytes.last())
}

/// One field of a protobuf message.
pub enum Slot {
    /// A field of the struct: its tag, and its place in [`Struct::fields`].
    Field(u32, usize),
    /// A message that JSON shows as if its fields were the struct's own.
    Inline(u32, Vec<Slot>),
}

impl Slot {
    /// The tag.
    pub fn tag(&self) -> u32 {
        match self {
            Slot::Field(tag, _) | Slot::Inline(tag, _) => *tag,
        }
    }
}

/// A field of an object.
pub struct Field {
    /// Its name in JSON.
    pub name: Str,
    /// See [`Schema::description`].
    pub description: Str,
    /// Its type.
    pub schema: SchemaRef,
    /// Whether it must be there.
    pub required: bool,
    /// Whether upstream tells absent from zero.
    pub pointer: bool,
    /// Whether upstream prints it even when it is zero.
    pub always: bool,
    /// Whether appliers own its value as a whole, where that differs from what its type says.
    pub atomic: Option<bool>,
    /// What it is when absent.
    pub default: Option<Box<Value>>,
    /// What a strategic merge patch knows the items of this list by.
    pub merge_key: Option<Str>,
    /// How a strategic merge patch treats it.
    pub strategy: Strategy,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Strategy {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// Maps are replaced, not merged.
    pub replace: bool,
    /// Keys that the patch does not name are dropped.
    pub retain_keys: bool,
}

/// An array.
pub struct List {
    /// The type of its items.
    pub item: SchemaRef,
    /// What its items are known by.
    pub kind: ListKind,
    /// Whether its kind was declared, not assumed.
    pub declared: bool,
    /// Whether protobuf wraps it in a message of its own.
    pub wrapped: bool,
}

/// What the items of a list are known by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ListKind {
    /// Nothing: the list is one value.
    #[default]
    Atomic,
    /// Their value.
    Set,
    /// These fields.
    Map(Vec<Str>),
}

impl Schema {
    /// A type without name or description.
    pub const fn of(shape: Shape) -> Self {
        Schema {
            name: Cow::Borrowed(""),
            description: Cow::Borrowed(""),
            shape,
            atomic: false,
            custom: false,
            nullable: false,
            source: None,
        }
    }

    /// The struct, if it is one.
    pub fn as_struct(&self) -> Option<&Struct> {
        match &self.shape {
            Shape::Struct(s) => Some(s),
            _ => None,
        }
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.as_struct().and_then(|s| s.field(name))
    }

    /// The schema at the end of a path of fields; list items and map values are passed with `*`.
    pub fn at(&self, path: &[&str]) -> Option<&Schema> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let next: &Schema = match (&self.shape, *first) {
            (Shape::Map(value), _) => value,
            (Shape::List(list), "*") => &list.item,
            (Shape::Struct(s), name) => &s.field(name)?.schema,
            _ => return None,
        };
        next.at(rest)
    }

    /// The short name of the type, such as `Pod`, or of its shape.
    pub fn type_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// The type as Go's messages name it, such as `v1.PodSpec`, `[]string` or `int32`.
    pub fn go_type(&self) -> String {
        match &self.shape {
            Shape::Map(v) => format!("map[string]{}", v.go_type()),
            Shape::List(l) => format!("[]{}", l.item.go_type()),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Bool => "bool".into(),
            Shape::Double => "float64".into(),
            Shape::Bytes => "[]uint8".into(),
            _ if self.name.is_empty() => match self.shape {
                Shape::Struct(_) => "map[string]interface {}".into(),
                _ => "string".into(),
            },
            _ => {
                let mut parts = self.name.rsplit('.');
                let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                format!("{package}.{name}")
            }
        }
    }
}

impl Struct {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index(name).and_then(|i| self.fields.get(i))
    }

    /// The fields that upstream prints even when they are zero.
    pub fn printed(&self) -> impl Iterator<Item = &Field> {
        let all = || self.fields.iter().enumerate().filter(|(_, f)| f.is_printed()).map(|(i, _)| i).collect();
        self.printed.get_or_init(all).iter().filter_map(|i| self.fields.get(*i))
    }

    /// As [`Struct::index`], for who expects the field at `next` or soon after, as names come when they are sorted.
    #[inline]
    pub fn find(&self, name: &str, next: usize) -> Option<usize> {
        let marks = self.marks.get_or_init(|| self.fields.iter().map(|f| mark(&f.name)).collect());
        let mark = mark(name);
        let mut from = next;
        loop {
            match marks.get(from..)?.iter().position(|m| *m == mark) {
                Some(i) if self.fields.get(from + i).is_some_and(|f| f.name == name) => {
                    return Some(from + i);
                }
                Some(i) => from += i + 1,
                // names that are not sorted, or no such field
                None => return self.index(name),
            }
        }
    }

    /// The place in [`Struct::fields`] of the field of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|f| (*f.name).cmp(name)).ok()
    }
}

impl Field {
    /// An optional field without a protobuf tag.
    pub fn new(name: impl Into<Str>, schema: SchemaRef) -> Self {
        Field {
            name: name.into(),
            description: Cow::Borrowed(""),
            schema,
            required: false,
            pointer: true,
            always: false,
            atomic: None,
            default: None,
            merge_key: None,
            strategy: Strategy::default(),
        }
    }

    /// Whether upstream prints it even when it is zero: structs that it holds by value, and numbers, truths and text
    /// that it does not leave out.
    pub fn is_printed(&self) -> bool {
        match self.schema.shape {
            _ if self.pointer => false,
            Shape::Struct(_) => true,
            Shape::Int32 | Shape::Int64 | Shape::Bool | Shape::String => self.required || self.always,
            _ => false,
        }
    }

    /// Whether appliers own the value as a whole.
    pub fn is_atomic(&self) -> bool {
        self.atomic.unwrap_or(self.schema.atomic)
    }
}

/// A description as people read it.
pub fn plain_text(description: &str) -> Cow<'_, str> {
    if !description.contains('\\') {
        return Cow::Borrowed(description);
    }
    let mut out = String::with_capacity(description.len());
    let mut chars = description.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(c) => out.push(c),
                None => {}
            },
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

static ANY: Schema = Schema::of(Shape::Any);

/// Any JSON, owned by appliers field by field.
pub fn any() -> SchemaRef {
    SchemaRef(Inner::Fixed(&ANY))
}
