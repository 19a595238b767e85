//! Reads the schema file that `hack/schemagen` writes. Its lines:
//!
//! ```text
//! T <definition> [atomic] [=<shape>] | <description>               a type
//! K <group, or -> <version> <kind>                                 its kind, if it is one
//! F <name> <type> <tags, or -> [<flag>..] | <description>          a field of it, sorted by name
//! ```
//!
//! A type is a scalar, `#<definition>`, `[]<type>`, `{}<type>` for a map, or `@[]<type>` for a list in a
//! message of its own. Tags are `5`, or `2/5` for field 5 of a message that is inlined as field 2. Flags:
//! `req`, `ptr`, `always`, `atomic`, `granular`, `list=atomic|set|map:<key>,..`, `merge=<key>`, `strategy=<word>,..`,
//! `default=<JSON>`.

use super::{Field, Inner, List, ListKind, Or, Schema, SchemaRef, Shape, Slot, Strategy, Struct};
use crate::key::GroupVersionKind;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

/// The kinds of Kubernetes v1.36.
pub struct Builtin {
    names: Vec<(&'static str, SchemaRef)>,
    kinds: Vec<Kind>,
}

/// A kind and its schema.
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    /// For example `v1`.
    pub version: &'static str,
    /// For example `Pod`.
    pub kind: &'static str,
    /// What it looks like.
    pub schema: SchemaRef,
}

/// The built-in kinds; read in on first use.
pub fn builtin() -> &'static Builtin {
    static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| read(include_str!("../../schema/v1.36.txt")));
    &BUILTIN
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

impl Builtin {
    /// The schema of a kind.
    pub fn kind(&self, gvk: &GroupVersionKind) -> Option<&SchemaRef> {
        self.kind_of(&gvk.group, &gvk.version, &gvk.kind)
    }

    /// The schema of a kind. Options and results that every group knows are found under any group.
    pub fn kind_of(&self, group: &str, version: &str, kind: &str) -> Option<&SchemaRef> {
        let found =
            self.kinds.binary_search_by(|k| (k.kind, k.group, k.version).cmp(&(kind, group, version)));
        match found {
            Ok(i) => self.kinds.get(i).map(|k| &k.schema),
            Err(_) if matches!(kind, "DeleteOptions" | "Status" | "WatchEvent") => {
                self.definition(&format!("{META}{kind}"))
            }
            Err(_) => None,
        }
    }

    /// The schema of a definition such as `io.k8s.api.core.v1.PodSpec`.
    pub fn definition(&self, name: &str) -> Option<&SchemaRef> {
        let i = self.names.binary_search_by(|(n, _)| (*n).cmp(name)).ok()?;
        self.names.get(i).map(|(_, s)| s)
    }

    /// `ObjectMeta`.
    pub fn object_meta(&self) -> SchemaRef {
        self.definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").cloned().unwrap_or_else(super::any)
    }

    /// Every kind, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter()
    }

    /// Every definition, by name.
    pub fn definitions(&self) -> impl Iterator<Item = &SchemaRef> {
        self.names.iter().map(|(_, s)| s)
    }
}

type Names = HashMap<&'static str, &'static OnceLock<Schema>>;

fn read(text: &'static str) -> Builtin {
    let types = text.lines().filter(|l| l.starts_with("T ")).filter_map(|l| l[2..].split(' ').next());
    let mut names: Vec<&'static str> = types.collect();
    names.sort_unstable();
    let cells: &'static [OnceLock<Schema>] =
        Vec::leak(std::iter::repeat_with(OnceLock::new).take(names.len()).collect());
    let by_name: Names = names.iter().copied().zip(cells).collect();
    let mut kinds = Vec::new();
    let mut open: Option<Open> = None;
    for line in text.lines() {
        let (head, description) = line.split_once(" |").unwrap_or((line, ""));
        let description = description.strip_prefix(' ').unwrap_or(description);
        let mut words = head.split(' ');
        match words.next() {
            Some("T") => {
                close(open.take(), &by_name);
                open = words.next().map(|name| Open::new(name, description, words, &by_name));
            }
            Some("K") => {
                let (group, version, kind) = (words.next(), words.next(), words.next());
                let (Some(open), Some(group), Some(version), Some(kind)) = (&open, group, version, kind)
                else {
                    continue;
                };
                let group = if group == "-" { "" } else { group };
                if let Some(cell) = by_name.get(open.schema.name.as_ref()) {
                    kinds.push(Kind { group, version, kind, schema: SchemaRef(Inner::Named(cell)) });
                }
            }
            Some("F") => {
                if let (Some(open), Some(name), Some(ty), Some(tags)) =
                    (&mut open, words.next(), words.next(), words.next())
                {
                    let at = open.fields.fields.len();
                    open.fields.fields.push(field(name, ty, description, words, &by_name));
                    place(&mut open.fields.slots, tags, at);
                }
            }
            _ => {}
        }
    }
    close(open, &by_name);
    kinds.sort_unstable_by_key(|k| (k.kind, k.group, k.version));
    let names = names.into_iter().zip(cells).map(|(n, cell)| (n, SchemaRef(Inner::Named(cell)))).collect();
    Builtin { names, kinds }
}

/// A type whose fields are being read.
struct Open {
    schema: Schema,
    fields: Struct,
}

impl Open {
    fn new(
        name: &'static str,
        description: &'static str,
        flags: std::str::Split<'static, char>,
        names: &Names,
    ) -> Self {
        let mut schema = Schema::of(Shape::Struct(Struct::default()));
        (schema.name, schema.description) = (Cow::Borrowed(name), Cow::Borrowed(description));
        let props = || {
            let package = name.rsplit_once('.').map_or("", |(p, _)| p);
            names
                .get(format!("{package}.JSONSchemaProps").as_str())
                .map_or_else(super::any, |c| SchemaRef(Inner::Named(c)))
        };
        for flag in flags {
            match flag {
                "atomic" => schema.atomic = true,
                "=time" => schema.shape = Shape::Time,
                "=microtime" => schema.shape = Shape::MicroTime,
                "=quantity" => schema.shape = Shape::Quantity,
                "=intstr" => schema.shape = Shape::IntOrString,
                "=orarray" => schema.shape = Shape::Or(Or::Schemas, props()),
                "=orbool" => schema.shape = Shape::Or(Or::Bool, props()),
                "=orstrings" => schema.shape = Shape::Or(Or::Strings, props()),
                "=raw" => (schema.shape, schema.atomic) = (Shape::Raw, true),
                "=any" => (schema.shape, schema.atomic) = (Shape::Any, true),
                "=fieldsv1" => (schema.shape, schema.atomic) = (Shape::FieldsV1, true),
                _ => {}
            }
        }
        Open { schema, fields: Struct::default() }
    }
}

fn close(open: Option<Open>, names: &Names) {
    let Some(Open { mut schema, mut fields }) = open else { return };
    sort(&mut fields.slots);
    if let Shape::Struct(s) = &mut schema.shape {
        *s = fields;
    }
    if let Some(cell) = names.get(schema.name.as_ref()) {
        let _ = cell.set(schema); // a second definition of a name would be the generator's fault
    }
}

fn sort(slots: &mut [Slot]) {
    slots.sort_by_key(Slot::tag);
    for slot in slots {
        if let Slot::Inline(_, inner) = slot {
            sort(inner);
        }
    }
}

fn place(slots: &mut Vec<Slot>, tags: &str, at: usize) {
    let (tag, rest) = tags.split_once('/').map_or((tags, None), |(t, r)| (t, Some(r)));
    let Ok(tag) = tag.parse() else { return };
    let Some(rest) = rest else { return slots.push(Slot::Field(tag, at)) };
    let inline = slots.iter_mut().find_map(|s| match s {
        Slot::Inline(t, inner) if *t == tag => Some(inner),
        _ => None,
    });
    match inline {
        Some(inner) => place(inner, rest, at),
        None => {
            let mut inner = Vec::new();
            place(&mut inner, rest, at);
            slots.push(Slot::Inline(tag, inner));
        }
    }
}

fn field(
    name: &'static str,
    ty: &'static str,
    description: &'static str,
    flags: std::str::Split<'static, char>,
    names: &Names,
) -> Field {
    let mut field =
        Field { pointer: false, description: Cow::Borrowed(description), ..Field::new(name, super::any()) };
    let mut kind = None;
    for flag in flags {
        let (word, value) = flag.split_once('=').unwrap_or((flag, ""));
        match word {
            "req" => field.required = true,
            "ptr" => field.pointer = true,
            "always" => field.always = true,
            "atomic" => field.atomic = Some(true),
            "granular" => field.atomic = Some(false),
            "list" => {
                kind = Some(match value.split_once(':') {
                    Some((_, keys)) => ListKind::Map(keys.split(',').map(Cow::Borrowed).collect()),
                    None if value == "set" => ListKind::Set,
                    None => ListKind::Atomic,
                });
            }
            "merge" => field.merge_key = Some(Cow::Borrowed(value)),
            "strategy" => {
                let has = |word| value.split(',').any(|w| w == word);
                field.strategy =
                    Strategy { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys") };
            }
            "default" => field.default = serde_json::from_str(value).ok().map(Box::new),
            _ => {}
        }
    }
    field.schema = type_of(ty, kind, names);
    field
}

fn type_of(ty: &'static str, kind: Option<ListKind>, names: &Names) -> SchemaRef {
    static STRING: Schema = Schema::of(Shape::String);
    static BOOL: Schema = Schema::of(Shape::Bool);
    static INT32: Schema = Schema::of(Shape::Int32);
    static INT64: Schema = Schema::of(Shape::Int64);
    static DOUBLE: Schema = Schema::of(Shape::Double);
    static BYTES: Schema = Schema::of(Shape::Bytes);
    let fixed = |s| SchemaRef(Inner::Fixed(s));
    if let Some(name) = ty.strip_prefix('#') {
        return names.get(name).map_or_else(super::any, |cell| SchemaRef(Inner::Named(cell)));
    }
    let (wrapped, rest) = ty.strip_prefix('@').map_or((false, ty), |rest| (true, rest));
    if let Some(item) = rest.strip_prefix("[]") {
        let item = type_of(item, None, names);
        return fixed(Box::leak(Box::new(Schema::of(Shape::List(List {
            item,
            declared: kind.is_some(),
            kind: kind.unwrap_or_default(),
            wrapped,
        })))));
    }
    if let Some(value) = ty.strip_prefix("{}") {
        return fixed(Box::leak(Box::new(Schema::of(Shape::Map(type_of(value, kind, names))))));
    }
    fixed(match ty {
        "string" => &STRING,
        "bool" => &BOOL,
        "int32" => &INT32,
        "int64" => &INT64,
        "double" => &DOUBLE,
        "bytes" => &BYTES,
        _ => &super::ANY,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Str;
    use super::*;

    #[test]
    fn knows_the_kinds() {
        let started = std::time::Instant::now();
        let b = builtin();
        println!("read in {:?}: {} types, {} kinds", started.elapsed(), b.names.len(), b.kinds.len());
        for (group, version, kind) in [
            ("", "v1", "Pod"),
            ("apps", "v1", "DeploymentList"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("policy", "v1", "DeleteOptions"),
        ] {
            assert!(b.kind_of(group, version, kind).is_some(), "{kind}");
        }
        assert!(b.kind_of("", "v1", "Nothing").is_none());
        let pod = b.kind_of("", "v1", "Pod").unwrap();
        let containers = pod.at(&["spec", "containers"]).unwrap();
        let Shape::List(list) = &containers.shape else { panic!("not a list") };
        assert_eq!(list.kind, ListKind::Map(vec![Str::from("name")]));
        assert_eq!(containers.go_type(), "[]v1.Container");
        let volumes = pod.at(&["spec"]).unwrap().field("volumes").unwrap();
        assert_eq!(volumes.strategy, Strategy { merge: true, replace: false, retain_keys: true });
        assert!(pod.at(&["metadata", "labels", "x"]).is_some());
    }

    #[test]
    fn every_reference_and_field_is_in_order() {
        for schema in builtin().definitions() {
            assert!(!matches!(schema.shape, Shape::Any) || schema.atomic, "{} was never read", schema.name);
            let Some(s) = schema.as_struct() else { continue };
            for pair in s.fields.windows(2) {
                assert!(pair[0].name < pair[1].name, "{}.{}", schema.name, pair[1].name);
            }
            for pair in s.slots.windows(2) {
                assert!(pair[0].tag() < pair[1].tag(), "{} tag {}", schema.name, pair[1].tag());
            }
        }
    }
}
