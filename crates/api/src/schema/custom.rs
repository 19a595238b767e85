//! Schemas of custom resources, from the OpenAPI schema in their definition.

use super::{Field, List, ListKind, Schema, SchemaRef, Shape, Str, Struct, any, builtin};
use serde_json::Value;
use std::sync::Arc;

/// Why a definition's schema cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SchemaError {
    /// It nests deeper than objects may.
    #[error("schema is nested deeper than {0} levels")]
    TooDeep(usize),
    /// A part of it is not an object, or has an unknown type.
    #[error("schema of {0:?} is not understood: {1}")]
    Unknown(String, String),
}

const MAX_DEPTH: usize = 200;

impl Schema {
    /// The schema of a custom kind from `openAPIV3Schema`, with `apiVersion`, `kind` and `metadata` as every
    /// object has them. Without a schema, or with `preserve_unknown`, unlisted fields are kept.
    pub fn custom(
        group: &str,
        version: &str,
        kind: &str,
        open_api_v3: Option<&Value>,
        preserve_unknown: bool,
    ) -> Result<SchemaRef, SchemaError> {
        let mut schema = match open_api_v3 {
            Some(source) => node(source, kind, 0)?,
            None => Schema::of(Shape::Any),
        };
        if !matches!(schema.shape, Shape::Struct(_)) {
            schema = Schema {
                shape: Shape::Struct(Struct { preserve_unknown: true, ..Struct::default() }),
                ..schema
            };
        }
        if let Shape::Struct(s) = &mut schema.shape {
            s.preserve_unknown |= preserve_unknown;
            as_object(s);
        }
        let reversed: Vec<&str> = group.rsplit('.').collect();
        schema.name = format!("{}.{version}.{kind}", reversed.join(".")).into();
        schema.custom = true;
        schema.source = open_api_v3.map(|s| Arc::new(s.clone()));
        Ok(schema.into())
    }

    /// The schema of a list of these objects, under the list kind's name.
    pub fn list_of(name: &str, item: &SchemaRef) -> SchemaRef {
        let list = List { item: item.clone(), kind: ListKind::Atomic, declared: false, wrapped: false };
        let meta = builtin().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta").cloned();
        let string = || SchemaRef::from(Schema::of(Shape::String));
        let fields = vec![
            Field::new("apiVersion", string()),
            Field { required: true, ..Field::new("items", Schema::of(Shape::List(list)).into()) },
            Field::new("kind", string()),
            Field::new("metadata", meta.unwrap_or_else(any)),
        ];
        let mut schema = Schema::of(Shape::Struct(Struct { fields, ..Struct::default() }));
        let package = item.name.rsplit_once('.').map_or("", |(p, _)| p);
        schema.name = format!("{package}.{name}").into();
        schema.into()
    }
}

/// Gives a struct the fields of an object.
fn as_object(s: &mut Struct) {
    s.fields.retain(|f| !matches!(&*f.name, "apiVersion" | "kind" | "metadata"));
    for name in ["apiVersion", "kind"] {
        s.fields.push(Field::new(name, Schema::of(Shape::String).into()));
    }
    s.fields.push(Field::new("metadata", builtin().object_meta()));
    s.fields.sort_by(|a, b| a.name.cmp(&b.name));
}

fn node(source: &Value, at: &str, depth: usize) -> Result<Schema, SchemaError> {
    if depth > MAX_DEPTH {
        return Err(SchemaError::TooDeep(MAX_DEPTH));
    }
    let unknown = |why: &str| SchemaError::Unknown(at.to_string(), why.to_string());
    if !source.is_object() {
        return Err(unknown("not an object"));
    }
    let flag = |name: &str| source[name].as_bool() == Some(true);
    let preserve_unknown = flag("x-kubernetes-preserve-unknown-fields");
    let shape = if flag("x-kubernetes-int-or-string") {
        Shape::IntOrString
    } else {
        match source["type"].as_str() {
            Some("object") => object(source, preserve_unknown, depth)?,
            Some("array") => Shape::List(List {
                item: match source.get("items") {
                    Some(items) => node(items, at, depth + 1)?.into(),
                    None => any(),
                },
                kind: match source["x-kubernetes-list-type"].as_str() {
                    Some("set") => ListKind::Set,
                    Some("map") => {
                        let keys = source["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                        ListKind::Map(
                            keys.filter_map(Value::as_str).map(|k| Str::from(k.to_string())).collect(),
                        )
                    }
                    _ => ListKind::Atomic,
                },
                declared: source.get("x-kubernetes-list-type").is_some(),
                wrapped: false,
            }),
            Some("string") => Shape::String,
            Some("integer") => Shape::Int64,
            Some("number") => Shape::Double,
            Some("boolean") => Shape::Bool,
            None | Some("") if preserve_unknown && source.get("properties").is_some() => {
                object(source, true, depth)?
            }
            None | Some("") => Shape::Any,
            Some(other) => return Err(unknown(&format!("type {other:?}"))),
        }
    };
    let mut schema = Schema::of(shape);
    schema.custom = true;
    schema.nullable = flag("nullable");
    schema.atomic = source["x-kubernetes-map-type"].as_str() == Some("atomic");
    Ok(schema)
}

fn object(source: &Value, preserve_unknown: bool, depth: usize) -> Result<Shape, SchemaError> {
    match &source["additionalProperties"] {
        Value::Bool(true) => return Ok(Shape::Map(custom_any())),
        value @ Value::Object(_) if source.get("properties").is_none() => {
            return Ok(Shape::Map(node(value, "additionalProperties", depth + 1)?.into()));
        }
        _ => {}
    }
    let required = |name: &str| source["required"].as_array().is_some_and(|r| r.iter().any(|r| r == name));
    let mut s = Struct { preserve_unknown, ..Struct::default() };
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        let mut field = Field::new(name.clone(), node(property, name, depth + 1)?.into());
        field.required = required(name);
        field.default = property.get("default").map(|d| Box::new(d.clone()));
        s.fields.push(field);
    }
    s.fields.sort_by(|a, b| a.name.cmp(&b.name));
    if source["x-kubernetes-embedded-resource"].as_bool() == Some(true) {
        as_object(&mut s);
    }
    Ok(Shape::Struct(s))
}

fn custom_any() -> SchemaRef {
    let mut schema = Schema::of(Shape::Any);
    schema.custom = true;
    schema.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_a_definition() {
        let source = json!({"type": "object", "properties": {
            "spec": {"type": "object", "required": ["n"], "properties": {
                "n": {"type": "integer", "default": 3},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                          "items": {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": true}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}}});
        let s = Schema::custom("example.com", "v1", "Thing", Some(&source), false).unwrap();
        assert_eq!(s.name, "com.example.v1.Thing");
        assert_eq!(s.at(&["spec"]).unwrap().field("n").unwrap().default.as_deref(), Some(&json!(3)));
        assert!(s.at(&["spec", "template", "metadata", "labels"]).is_some());
        assert!(s.at(&["metadata", "ownerReferences", "*", "uid"]).is_some());
        assert!(matches!(s.at(&["spec", "ports", "*", "port"]).unwrap().shape, Shape::IntOrString));
        assert!(s.at(&["spec", "free"]).unwrap().as_struct().unwrap().preserve_unknown);
        assert!(Schema::custom("g", "v1", "T", Some(&json!({"type": "strnig"})), false).is_err());
    }
}
