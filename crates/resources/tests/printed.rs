//! Objects of every kind, printed, against the longer way: through values, from which zeros are taken out.

#[path = "../../api/src/testing.rs"]
#[expect(dead_code, reason = "made for the tests of `api`, which use more of it")]
mod testing;

use api::object::{Custom, Object};
use api::schema::{self, Schema, builtin};
use resources::AnyKind;
use serde_json::{Map, Value, json};

/// The longer way.
fn by_values(object: &Object, schema: &Schema, fields: Option<&Value>) -> String {
    let mut value = object.to_value().unwrap();
    api::json::omit_zeros(&mut value, schema);
    let Value::Object(mut rest) = value else { panic!("{value} is not an object") };
    let mut head = |name: &str| rest.remove(name).unwrap_or_default();
    let (api_version, kind, mut metadata) = (head("apiVersion"), head("kind"), head("metadata"));
    if let Value::Object(metadata) = &mut metadata {
        metadata.remove("resourceVersion");
        metadata.remove("selfLink");
        if let Some(fields) = fields {
            metadata.remove("managedFields");
            if !fields.is_null() {
                metadata.insert("managedFields".into(), fields.clone());
            }
        }
    }
    let rest = Value::Object(rest).to_string();
    let rest = rest.strip_prefix('{').filter(|r| *r != "}").map_or("}".into(), |r| format!(",{r}"));
    format!("{{\"apiVersion\":{api_version},\"kind\":{kind},\"metadata\":{metadata}{rest}")
}

fn check(object: &Object, schema: &Schema) {
    for fields in [None, Some(Value::Null), Some(json!([{"manager": "\"m\"", "fieldsV1": {"f:a": {}}}]))] {
        let json = fields.as_ref().map(|f| if f.is_null() { String::new() } else { f.to_string() });
        let printed = api::json::print(object, schema, json.as_deref().map(str::as_bytes)).unwrap();
        assert_eq!(String::from_utf8(printed).unwrap(), by_values(object, schema, fields.as_ref()));
    }
}

struct Dice(u64);

impl Dice {
    fn once_in(&mut self, n: u64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).is_multiple_of(n)
    }

    /// Makes some of what is in a value zero.
    fn empty(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) if self.once_in(9) => map.clear(),
            Value::Object(map) => map.values_mut().for_each(|v| self.empty(v)),
            Value::Array(items) if self.once_in(7) => items.clear(),
            Value::Array(items) => items.iter_mut().for_each(|v| self.empty(v)),
            _ if !self.once_in(5) => {}
            Value::String(text) => text.clear(),
            Value::Number(_) => *value = 0.into(),
            Value::Bool(_) => *value = false.into(),
            Value::Null => {}
        }
    }
}

fn schema_of(kind: &dyn AnyKind) -> &'static Schema {
    builtin().kind(&kind.names().gvk()).unwrap()
}

/// A value of a kind, as a reader would make it.
fn read(kind: &dyn AnyKind, mut value: Value) -> Option<Object> {
    value["apiVersion"] = kind.names().gvk().api_version().into();
    value["kind"] = kind.names().kind.into();
    kind.read(&value).ok()
}

#[test]
fn made_up_objects_are_printed_as_their_values() {
    let (mut tried, mut were_read) = (0, 0);
    for kind in resources::registry::kinds() {
        let schema = schema_of(*kind);
        check(&read(*kind, json!({})).unwrap(), schema);
        for seed in 0..40 {
            let mut value = testing::value_of(schema, seed * 7919 + 13);
            for _ in 0..3 {
                tried += 1;
                if let Some(mut object) = read(*kind, value.clone()) {
                    were_read += 1;
                    check(&object, schema);
                    kind.default(&mut object);
                    check(&object, schema);
                }
                Dice(seed).empty(&mut value); // not everything can be: times are not
            }
        }
    }
    assert!(were_read * 10 > tried * 8, "only {were_read} of {tried} were read");
}

#[test]
fn manifests_are_printed_as_their_values() {
    let mut found = 0;
    let mut files: Vec<_> = ["tests/cases", "../admission/tests/cases", "../../tests/data"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(format!("{}/{dir}", env!("CARGO_MANIFEST_DIR"))).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in text.split("\n---\n").filter_map(|t| api::yaml::decode_any(t.as_bytes()).ok()) {
            objects(&document, &mut |kind, value| {
                let schema = schema_of(kind);
                let mut value = api::json::check(value.clone(), schema).map(|d| d.value).unwrap_or_default();
                for _ in 0..2 {
                    if let Some(object) = read(kind, value.clone()) {
                        found += 1;
                        check(&object, schema);
                    }
                    api::json::default(&mut value, schema);
                    api::json::omit_zeros(&mut value, schema);
                }
            });
        }
    }
    assert!(found > 50, "only {found} objects");
}

/// All that is of a kind in a document.
fn objects(value: &Value, found: &mut dyn FnMut(&dyn AnyKind, &Value)) {
    let said = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let kinds = resources::registry::kinds();
    let is = |k: &&&dyn AnyKind| {
        k.names().kind == said("kind") && k.names().gvk().api_version() == said("apiVersion")
    };
    if let Some(kind) = kinds.iter().find(is) {
        found(*kind, value);
    }
    match value {
        Value::Object(map) => map.values().for_each(|v| objects(v, found)),
        Value::Array(items) => items.iter().for_each(|v| objects(v, found)),
        _ => {}
    }
}

#[test]
fn custom_objects_are_printed_as_their_values() {
    let open_api = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "count": {"type": "integer"}, "items": {"type": "array", "items": {"type": "string"}}}}}});
    let schema = Schema::custom("example.com", "v1", "Thing", Some(&open_api), true).unwrap();
    let table = [
        json!({}),
        json!({"spec": {}}),
        json!({"aa": 0, "spec": {"count": 0, "items": [], "none": null, "float": 1.0, "text": "a\"\\\u{1}\u{7f}ü"}}),
        json!({"metadata": {"name": "x", "labels": {}, "resourceVersion": "7", "selfLink": "/x", "uid": "u",
            "managedFields": [{"manager": "a"}], "ownerReferences": [{"name": "o"}]}, "zz": [[], {}, false, ""]}),
    ];
    for mut value in table {
        value["apiVersion"] = "example.com/v1".into();
        value["kind"] = "Thing".into();
        check(&Object::new(Custom::from_value(&value).unwrap()), &schema);
    }
    let nameless = Custom {
        rest: Map::from_iter([("apiVersion".into(), "v1".into()), ("kind".into(), "".into())]),
        ..Custom::default()
    };
    check(&Object::new(nameless), &schema);
}
