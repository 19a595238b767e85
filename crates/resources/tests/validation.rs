//! Validation by cases in files: a manifest, perhaps with what it updates, and the faults that it has to
//! have, in upstream's words. Each document of `cases/*.yaml` is one base object with its cases.

use api::field::FieldErrors;
use api::object::Object;
use api::schema::builtin;
use resources::{AnyKind, Context, meta};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The base and its cases: `kind`, `object`, `cases: [{name, set, old, part, want}]`. `set` maps JSON
/// pointers to values; `old` is set the same way on the base to make the old object of an update; `want`
/// lists faults as they are printed, with `...` for any text at the end.
fn run(file: &str, text: &str) {
    let mut failed = Vec::new();
    for text in text.split("\n---\n") {
        let document = &api::yaml::decode_any(text.as_bytes()).unwrap_or_else(|e| panic!("{file}: {e}"));
        let kind_name = document["object"]["kind"].as_str().unwrap_or_default();
        let version = document["object"]["apiVersion"].as_str().unwrap_or_default();
        let kind = *resources::registry::kinds()
            .iter()
            .find(|k| {
                let n = k.names();
                n.kind == kind_name && n.gvk().api_version() == version
            })
            .unwrap_or_else(|| panic!("{file}: no kind {version} {kind_name}"));
        for case in document["cases"].as_array().into_iter().flatten() {
            let name = case["name"].as_str().unwrap_or_default();
            let got = check(kind, &document["object"], case);
            let want: Vec<&str> =
                case["want"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let fits = |got: &String, want: &&str| match want.strip_suffix("...") {
                Some(start) => got.starts_with(start),
                None => got == want,
            };
            let same = got.len() == want.len()
                && want.iter().all(|w| got.iter().any(|g| fits(g, w)))
                && got.iter().all(|g| want.iter().any(|w| fits(g, w)));
            if !same {
                failed.push(format!("{file}: {kind_name}: {name}\n  want {want:#?}\n  got  {got:#?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn check(kind: &dyn AnyKind, base: &Value, case: &Value) -> Vec<String> {
    let context = Context {
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        user: "test",
        uid: "",
        groups: &[],
        extra: &BTreeMap::new(),
    };
    let mut errors = FieldErrors::default();
    let part = case["part"].as_str();
    match case.get("old") {
        None => {
            let mut new = build(kind, base, &case["set"]);
            kind.prepare_create(&mut new, &context);
            meta::validate(new.meta(), kind.namespaced(), |n, p| kind.name_faults(n, p), &mut errors);
            kind.validate(&new, &mut errors);
        }
        Some(set) => {
            let old = build(kind, base, set);
            let mut new = build(kind, base, &case["set"]);
            match part {
                None => kind.prepare_update(&mut new, &old, &context),
                Some(part) => kind.prepare_part(part, &mut new, &old, &context),
            }
            meta::validate(new.meta(), kind.namespaced(), |_, _| Vec::new(), &mut errors);
            meta::validate_update(new.meta(), old.meta(), &mut errors);
            kind.validate_update(part, &new, &old, &mut errors);
        }
    }
    errors.as_slice().iter().map(|e| format!("{}: {}", e.field, e.body())).collect()
}

fn build(kind: &dyn AnyKind, base: &Value, set: &Value) -> Object {
    let mut value = base.clone();
    for (pointer, new) in set.as_object().into_iter().flatten() {
        put(&mut value, pointer, new);
    }
    let schema = builtin().kind(&kind.names().gvk()).expect("a schema");
    let mut value = api::json::check(value, schema).expect("a valid manifest").value;
    api::json::default(&mut value, schema);
    let mut object = kind.read(&value).expect("a typed object");
    kind.default(&mut object);
    object
}

/// Sets what a pointer names, making what is missing on the way; null takes it away.
fn put(value: &mut Value, pointer: &str, new: &Value) {
    let mut at = value;
    let mut steps = pointer.trim_start_matches('/').split('/').peekable();
    while let Some(step) = steps.next() {
        let step = step.replace("~1", "/");
        let last = steps.peek().is_none();
        if let Value::Array(items) = at {
            let i: usize = step.parse().expect("an index");
            if i == items.len() {
                items.push(Value::Null);
            }
            at = &mut items[i];
        } else {
            if at.is_null() {
                *at = if step == "0" { Value::Array(vec![Value::Null]) } else { Value::Object(Map::new()) };
            }
            if let Value::Array(items) = at {
                at = &mut items[0];
            } else {
                let map = at.as_object_mut().expect("an object");
                if last && new.is_null() {
                    map.remove(&step);
                    return;
                }
                at = map.entry(step).or_insert(Value::Null);
            }
        }
    }
    *at = new.clone();
}

macro_rules! files {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let file = concat!(stringify!($name), ".yaml");
            run(file, include_str!(concat!("cases/", stringify!($name), ".yaml")));
        }
    )*};
}

files!(metadata pod service);
