//! Schemas as OpenAPI definitions, with all that they refer to.

use super::Format;
use crate::schema::{Field, ListKind, Schema, SchemaRef, Shape, Strategy, builtin, plain_text};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The definitions that a document needs.
pub(super) struct Definitions {
    format: Format,
    done: Map<String, Value>,
    wanted: Vec<SchemaRef>,
    kinds: BTreeMap<&'static str, Vec<Value>>,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

impl Definitions {
    pub(super) fn new(format: Format) -> Self {
        let mut kinds: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
        let mut versions = Vec::new();
        for k in builtin().kinds() {
            if let Some(name) = builtin().kind_of(k.group, k.version, k.kind).and(static_name(&k.schema)) {
                kinds.entry(name).or_default().push(gvk(k.group, k.version, k.kind));
            }
            versions.push((k.group, k.version));
        }
        versions.sort_unstable();
        versions.dedup();
        for shared in ["DeleteOptions", "WatchEvent"] {
            let name = builtin().definition(&format!("{META}{shared}")).and_then(static_name);
            if let Some(name) = name {
                kinds.insert(name, versions.iter().map(|(g, v)| gvk(g, v, shared)).collect());
            }
        }
        Definitions { format, done: Map::new(), wanted: Vec::new(), kinds }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// A reference to a schema, which becomes part of the document.
    pub(super) fn reference(&mut self, schema: &SchemaRef) -> Value {
        if !self.done.contains_key(&*schema.name) {
            self.done.insert(schema.name.to_string(), Value::Null);
            self.wanted.push(schema.clone());
        }
        self.format.reference(&schema.name)
    }

    /// A reference to a built-in definition of apimachinery's meta/v1.
    pub(super) fn meta(&mut self, name: &str) -> Value {
        match builtin().definition(&format!("{META}{name}")) {
            Some(schema) => self.reference(schema),
            None => json!({"type": "object"}),
        }
    }

    pub(super) fn finish(mut self) -> Value {
        while let Some(schema) = self.wanted.pop() {
            let definition = self.definition(&schema);
            self.done.insert(schema.name.to_string(), definition);
        }
        Value::Object(self.done)
    }

    fn definition(&mut self, schema: &Schema) -> Value {
        let mut out = match (&schema.shape, &schema.source) {
            (Shape::Struct(_), Some(source)) => self.custom(source),
            (Shape::Struct(s), None) => {
                let mut out = Map::new();
                out.insert("type".into(), "object".into());
                if !s.fields.is_empty() {
                    let properties = s.fields.iter().map(|f| (f.name.to_string(), self.property(f)));
                    out.insert("properties".into(), Value::Object(properties.collect()));
                }
                let required: Vec<&str> = s.fields.iter().filter(|f| f.required).map(|f| &*f.name).collect();
                if !required.is_empty() {
                    out.insert("required".into(), json!(required));
                }
                out
            }
            _ => self.plain(schema),
        };
        if !schema.description.is_empty() {
            out.insert("description".into(), plain_text(&schema.description).into());
        }
        if schema.atomic && matches!(schema.shape, Shape::Struct(_)) {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        let kinds = self.kinds.get(&*schema.name).cloned().or_else(|| custom_kind(schema));
        if let Some(kinds) = kinds {
            out.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds));
        }
        Value::Object(out)
    }

    /// A type without a name, or what stands behind the name of one that is no struct.
    fn plain(&mut self, schema: &Schema) -> Map<String, Value> {
        let v3 = self.format == Format::V3;
        let v = match &schema.shape {
            Shape::Struct(_) | Shape::Raw | Shape::FieldsV1 => json!({"type": "object"}),
            Shape::Map(value) => {
                let value = self.inner(value);
                json!({"type": "object", "additionalProperties": value})
            }
            Shape::List(list) => {
                let item = self.inner(&list.item);
                json!({"type": "array", "items": item})
            }
            Shape::String => json!({"type": "string"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Shape::Quantity => json!({"type": "string"}),
            Shape::IntOrString if v3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Shape::IntOrString => json!({"format": "int-or-string", "type": "string"}),
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::Any if schema.name.ends_with(".Patch") => json!({"type": "object"}),
            Shape::Any | Shape::Or(..) => json!({}),
        };
        match v {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// The type of a list's items or a map's values.
    fn inner(&mut self, schema: &SchemaRef) -> Value {
        if schema.name.is_empty() { Value::Object(self.plain(schema)) } else { self.reference(schema) }
    }

    fn property(&mut self, f: &Field) -> Value {
        let schema = &f.schema;
        let v3 = self.format == Format::V3;
        let default = match &f.default {
            Some(default) => Some((**default).clone()),
            None if f.pointer => None,
            None if matches!(schema.shape, Shape::Struct(_)) => Some(json!({})),
            None if f.required || f.always => zero(schema),
            None => None,
        };
        let default = default.filter(|_| v3);
        let mut v = if schema.name.is_empty() {
            self.plain(schema)
        } else {
            let reference = self.reference(schema);
            let alone = f.description.is_empty() && default.is_none() && f.atomic.is_none();
            match (v3 && !alone, reference) {
                (true, reference) => Map::from_iter([("allOf".to_string(), json!([reference]))]),
                (false, Value::Object(map)) => map,
                _ => Map::new(),
            }
        };
        if let Some(default) = default {
            v.insert("default".into(), default);
        }
        if !f.description.is_empty() {
            v.insert("description".into(), plain_text(&f.description).into());
        }
        let mut put = |name: &str, value: Value| v.insert(format!("x-kubernetes-{name}"), value);
        if let Shape::List(list) = &schema.shape {
            match &list.kind {
                ListKind::Set => drop(put("list-type", "set".into())),
                ListKind::Map(keys) => {
                    put("list-type", "map".into());
                    put("list-map-keys", json!(keys));
                }
                ListKind::Atomic if list.declared => drop(put("list-type", "atomic".into())),
                ListKind::Atomic => {}
            }
        }
        if let Some(atomic) = f.atomic {
            put("map-type", if atomic { "atomic" } else { "granular" }.into());
        }
        if let Some(key) = &f.merge_key {
            put("patch-merge-key", json!(key));
        }
        if f.strategy != Strategy::default() {
            put("patch-strategy", strategy(f.strategy).into());
        }
        Value::Object(v)
    }

    /// The schema of a custom resource, with what every object has put in.
    fn custom(&mut self, source: &Value) -> Map<String, Value> {
        let mut source = source.clone();
        if self.format == Format::V2 {
            simplify(&mut source);
        }
        let Value::Object(mut out) = source else { return Map::new() };
        let meta = self.meta("ObjectMeta");
        let properties = out.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            let standard = builtin().kind_of("", "v1", "ConfigMap");
            for name in ["apiVersion", "kind"] {
                let description = standard.and_then(|s| s.field(name)).map(|f| plain_text(&f.description));
                properties.insert(name.into(), json!({"type": "string", "description": description}));
            }
            let text = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/\
                        sig-architecture/api-conventions.md#metadata";
            let meta = match self.format {
                Format::V3 => json!({"allOf": [meta], "description": text}),
                Format::V2 => json!({"$ref": meta["$ref"], "description": text}),
            };
            properties.insert("metadata".into(), meta);
        }
        out
    }
}

/// Takes out of a custom resource's schema what OpenAPI v2 cannot say.
fn simplify(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for name in ["oneOf", "anyOf", "allOf", "not", "default", "nullable", "x-kubernetes-validations"] {
        map.remove(name);
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        for name in ["properties", "items", "type"] {
            map.remove(name);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(name) {
            simplify(inner);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
}

fn strategy(s: Strategy) -> String {
    let words = [(s.merge, "merge"), (s.replace, "replace"), (s.retain_keys, "retainKeys")];
    words.iter().filter(|(on, _)| *on).map(|(_, w)| *w).collect::<Vec<_>>().join(",")
}

fn zero(schema: &Schema) -> Option<Value> {
    Some(match schema.shape {
        Shape::String => json!(""),
        Shape::Int32 | Shape::Int64 | Shape::Double => json!(0),
        Shape::Bool => json!(false),
        _ => return None,
    })
}

fn static_name(schema: &SchemaRef) -> Option<&'static str> {
    match &schema.name {
        std::borrow::Cow::Borrowed(name) => Some(name),
        std::borrow::Cow::Owned(_) => None,
    }
}

/// The kind of a custom resource, from its name `com.example.v1.Thing`.
fn custom_kind(schema: &Schema) -> Option<Vec<Value>> {
    let (package, kind) = schema.name.rsplit_once('.')?;
    let (group, version) = package.rsplit_once('.')?;
    let is_list = kind.ends_with("List") && static_of(schema).is_none();
    let group: Vec<&str> = group.rsplit('.').collect();
    (schema.custom || is_list).then(|| vec![gvk(&group.join("."), version, kind)])
}

fn static_of(schema: &Schema) -> Option<()> {
    matches!(schema.name, std::borrow::Cow::Borrowed(_)).then_some(())
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}
