use super::*;
use crate::schema::builtin;
use crate::testing::{valid_kinds, value_of};
use proptest::prelude::*;
use serde_json::json;

/// The cases are data: a name, then the object, the patch and the result as YAML documents.
#[test]
fn cases() {
    for (file, how) in [
        (include_str!("../../tests/data/patch/strategic.yaml"), "strategic"),
        (include_str!("../../tests/data/patch/merge.yaml"), "merge"),
        (include_str!("../../tests/data/patch/json.yaml"), "json"),
    ] {
        let cases = crate::yaml::decode_any(file.as_bytes()).unwrap();
        for case in cases.as_array().unwrap() {
            let mut target = case["object"].clone();
            let kind = case["kind"].as_str().unwrap_or("Pod");
            let schema = builtin().kinds().find(|k| k.kind == kind && k.version == "v1").unwrap();
            let result = match how {
                "strategic" => strategic(&mut target, case["patch"].clone(), &schema.schema),
                "json" => json_patch(&mut target, &case["patch"]),
                _ => {
                    merge(&mut target, case["patch"].clone());
                    Ok(())
                }
            };
            match (result, case.get("fails")) {
                (Ok(()), None) => assert_eq!(target, case["result"], "{}", case["name"]),
                (Err(e), Some(why)) => {
                    assert!(e.to_string().contains(why.as_str().unwrap()), "{}: {e}", case["name"])
                }
                (result, _) => panic!("{}: {result:?}", case["name"]),
            }
        }
    }
}

#[test]
fn limits() {
    let operation = json!({"op": "test", "path": "/a", "value": 1});
    let many = Value::Array(vec![operation; MAX_OPERATIONS + 1]);
    assert_eq!(json_patch(&mut json!({"a": 1}), &many).unwrap_err().http_code(), 413);
    let double = json!([{"op": "copy", "from": "/a", "path": "/a/-"}]);
    let patch: Vec<Value> = (0..60).map(|_| double[0].clone()).collect();
    let e = json_patch(&mut json!({"a": ["x".repeat(1000)]}), &Value::Array(patch)).unwrap_err();
    assert_eq!(e.http_code(), 422);
    assert_eq!(json_patch(&mut json!({}), &json!({})).unwrap_err().http_code(), 400);
    // an object copied into itself again and again
    let nest: Vec<Value> = (0..200)
        .map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a{}", "/b".repeat(i + 1))}))
        .collect();
    let e = json_patch(&mut json!({"a": {}}), &Value::Array(nest)).unwrap_err();
    assert_eq!(e.to_string(), "exceeded max depth");
    // moving to and fro is no nesting
    let moves: Vec<Value> = (0..500)
        .flat_map(|_| {
            [
                json!({"op": "move", "from": "/a", "path": "/b/c"}),
                json!({"op": "move", "from": "/b/c", "path": "/a"}),
            ]
        })
        .collect();
    json_patch(&mut json!({"a": {"x": {}}, "b": {}}), &Value::Array(moves)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_object_patched_with_itself_stays(kind in 0..valid_kinds().len(), seed in any::<u64>()) {
        let schema = &valid_kinds()[kind];
        let value = value_of(schema, seed);
        let mut patched = value.clone();
        strategic(&mut patched, value.clone(), schema).unwrap();
        prop_assert_eq!(&patched, &value);
        merge(&mut patched, value.clone());
        prop_assert_eq!(&patched, &value);
    }

    #[test]
    fn a_patch_onto_nothing_gives_itself(kind in 0..valid_kinds().len(), seed in any::<u64>(), other in any::<u64>()) {
        let schema = &valid_kinds()[kind];
        let mut patched = json!({});
        strategic(&mut patched, value_of(schema, seed), schema).unwrap();
        merge(&mut patched, json!({}));
        // and onto something else it never panics
        let _ = strategic(&mut patched, value_of(schema, other), schema);
    }
}
