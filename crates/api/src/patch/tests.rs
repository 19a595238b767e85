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

/// A long list is patched as a short one is, only not in the square of its length.
#[test]
fn long_lists_are_merged_as_short_ones() {
    let pod = crate::schema::builtin().kind_of("", "v1", "Pod").unwrap();
    let many = 60_000;
    let mut target = json!({"metadata": {"finalizers": ["a"]}});
    let new: Vec<String> = (0..many).map(|i| format!("f{}", i % (many - 1))).collect();
    strategic(&mut target, json!({"metadata": {"finalizers": new}}), pod).unwrap();
    let merged = target["metadata"]["finalizers"].as_array().unwrap();
    assert_eq!((merged.len(), &merged[0], &merged[many - 1]), (many, &json!("f0"), &json!("a")));
    let gone: Vec<String> = (1..many - 1).map(|i| format!("f{i}")).collect();
    strategic(&mut target, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": gone}}), pod).unwrap();
    assert_eq!(target["metadata"]["finalizers"], json!(["f0", "a"]));
    let container = |i: usize, image: &str| json!({"name": format!("c{i}"), "image": image});
    let mut target =
        json!({"spec": {"containers": (0..100).map(|i| container(i, "old")).collect::<Vec<_>>()}});
    let patch: Vec<Value> = [container(50, "new"), container(200, "new")]
        .into_iter()
        .chain((0..40).map(|i| json!({"name": format!("c{i}"), "$patch": "delete"})))
        .collect();
    strategic(&mut target, json!({"spec": {"containers": patch}}), pod).unwrap();
    let images: Vec<(String, String)> = target["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap().into(), c["image"].as_str().unwrap().into()))
        .collect();
    let want: Vec<(String, String)> = (40..51)
        .chain([200])
        .chain(51..100)
        .map(|i| (format!("c{i}"), if matches!(i, 50 | 200) { "new" } else { "old" }.into()))
        .collect();
    assert_eq!(images, want);
}
