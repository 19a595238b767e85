use super::*;
use crate::schema::builtin;
use crate::testing::{valid_kinds, value_of};
use proptest::prelude::*;
use serde_json::{Map, json};

fn by<'a>(manager: &'a str, api_version: &'a str) -> Author<'a> {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    Author { manager, api_version, subresource: "", now, reset: None, versions: None }
}

fn deployments() -> &'static Schema {
    builtin().kind_of("apps", "v1", "Deployment").unwrap()
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn fields(object: &Value, manager: &str) -> Value {
    let list = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    list.filter(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).next().unwrap_or_default()
}

#[test]
fn a_create_is_owned_as_upstream_would_have_it() {
    let mut d = config(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "restartPolicy": "Always"}}}));
    update(None, &mut d, deployments(), &by("kubectl-create", "apps/v1"));
    let entry = &d["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["time"], "2026-01-02T03:04:05Z");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {
        "f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}},
                "f:restartPolicy": {}}}}})
    );
}

#[test]
fn an_update_moves_what_it_changes() {
    let mut live = config(json!({"replicas": 1, "paused": true}));
    update(None, &mut live, deployments(), &by("a", "apps/v1"));
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    new["spec"].as_object_mut().unwrap().remove("paused");
    update(Some(&live), &mut new, deployments(), &by("b", "apps/v1"));
    assert_eq!(fields(&new, "b"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&new, "a"), Value::Null);
    // an update that changes nothing leaves the entries as they are, whatever the time
    let mut same = new.clone();
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    let later = Author { now: "2027-01-01T00:00:00Z".parse().unwrap(), ..by("b", "apps/v1") };
    update(Some(&new), &mut same, deployments(), &later);
    assert_eq!(same, new);
    // the same manager and version is one entry
    let mut more = new.clone();
    more["spec"]["minReadySeconds"] = json!(3);
    update(Some(&new), &mut more, deployments(), &by("b", "apps/v1"));
    assert_eq!(fields(&more, "b"), json!({"f:spec": {"f:replicas": {}, "f:minReadySeconds": {}}}));
    assert_eq!(more["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn a_sender_may_clear_them() {
    let mut live = config(json!({"replicas": 1}));
    update(None, &mut live, deployments(), &by("a", "apps/v1"));
    for cleared in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = cleared;
        new["spec"]["replicas"] = json!(5);
        update(Some(&live), &mut new, deployments(), &by("b", "apps/v1"));
        assert_eq!(new["metadata"].get("managedFields"), None);
    }
    // what is not well formed is taken from the live object
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Burn"}]);
    update(Some(&live), &mut new, deployments(), &by("b", "apps/v1"));
    assert_eq!(new, live);
}

#[test]
fn apply_conflicts_and_force() {
    let mut live = config(json!({"replicas": 1}));
    update(None, &mut live, deployments(), &by("x", "apps/v1"));
    let wanted = config(json!({"replicas": 3}));
    let e = apply(Some(&live), &wanted, deployments(), &by("me", "apps/v1"), false).unwrap_err();
    assert_eq!(
        e.to_string(),
        "Apply failed with 1 conflict: conflict with \"x\" using apps/v1: .spec.replicas"
    );
    let ApplyError::Conflicts(c) = e else { panic!() };
    let status = c.status();
    assert_eq!((status.code, &*status.reason), (409, "Conflict"));
    let cause = &status.details.unwrap().causes[0];
    assert_eq!(
        (&*cause.reason, &*cause.message, &*cause.field),
        ("FieldManagerConflict", "conflict with \"x\" using apps/v1", ".spec.replicas")
    );
    let forced = apply(Some(&live), &wanted, deployments(), &by("me", "apps/v1"), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(fields(&forced, "me"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&forced, "x"), Value::Null);
    // to want what is there is no conflict: both own it
    let same =
        apply(Some(&live), &config(json!({"replicas": 1})), deployments(), &by("me", "apps/v1"), false)
            .unwrap();
    assert_eq!(fields(&same, "x"), fields(&same, "me"));
}

#[test]
fn dropped_fields_go_unless_someone_else_owns_them() {
    let first = config(json!({"replicas": 1, "paused": true, "template": {"spec": {"containers": [
        {"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}}));
    let me = by("me", "apps/v1");
    let live = apply(None, &first, deployments(), &me, false).unwrap();
    let live =
        apply(Some(&live), &config(json!({"paused": true})), deployments(), &by("other", "apps/v1"), false)
            .unwrap();
    let now = config(json!({"template": {"spec": {"containers": [{"name": "b", "image": "y"}]}}}));
    let after = apply(Some(&live), &now, deployments(), &me, false).unwrap();
    assert_eq!(
        after["spec"],
        json!({"paused": true, "template": {"spec": {"containers": [{"name": "b", "image": "y"}]}}})
    );
    let again = apply(
        Some(&after),
        &now,
        deployments(),
        &Author { now: "2030-01-01T00:00:00Z".parse().unwrap(), ..me },
        false,
    )
    .unwrap();
    assert_eq!(again, after, "applying the same again changes nothing");
}

#[test]
fn lists_merge_by_key_in_the_order_of_the_configuration() {
    let containers = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|n| json!({"name": n, "image": "i"})).collect();
        config(json!({"template": {"spec": {"containers": list}}}))
    };
    let names = |v: &Value| -> Vec<String> {
        v["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().into())
            .collect()
    };
    for (live, applied, expect) in [
        (&["a", "b"][..], &["c"][..], &["a", "b", "c"][..]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["1", "a"], &["a", "b"], &["1", "a", "b"]),
        (&["a"], &["b", "a"], &["b", "a"]),
    ] {
        let live = apply(None, &containers(live), deployments(), &by("one", "apps/v1"), false).unwrap();
        let out =
            apply(Some(&live), &containers(applied), deployments(), &by("two", "apps/v1"), false).unwrap();
        assert_eq!(names(&out), expect);
    }
    let twice = containers(&["a", "a"]);
    let e = apply(None, &twice, deployments(), &by("m", "apps/v1"), false).unwrap_err().to_string();
    assert_eq!(
        e,
        "failed to create typed patch object: .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
    let e = apply(None, &config(json!({"foo": 1})), deployments(), &by("m", "apps/v1"), false)
        .unwrap_err()
        .to_string();
    assert_eq!(e, "failed to create typed patch object: .spec.foo: field not declared in schema");
}

#[test]
fn items_that_stand_twice_do_not_stop_an_applier() {
    let spec = |env: Value, paused: bool| {
        let mut c = config(json!({"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}));
        if paused {
            c["spec"]["paused"] = json!(true);
        }
        c
    };
    let live = apply(None, &spec(json!([]), true), deployments(), &by("me", "apps/v1"), false).unwrap();
    let mut twice = live.clone();
    let env = json!([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]);
    twice["spec"]["template"]["spec"]["containers"][0]["env"] = env.clone();
    update(Some(&live), &mut twice, deployments(), &by("old", "apps/v1"));
    let mut wanted = spec(json!([]), false);
    wanted["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
    let out = apply(Some(&twice), &wanted, deployments(), &by("me", "apps/v1"), false).unwrap();
    assert_eq!(out["spec"].get("paused"), None);
    assert_eq!(out["spec"]["template"]["spec"]["containers"][0]["env"], env);
}

#[test]
fn client_side_apply_passes_on() {
    let last = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}});
    let mut live = last.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: format!("{last}\n")});
    update(None, &mut live, deployments(), &by("kubectl-client-side-apply", "apps/v1"));
    let wanted = config(json!({"replicas": 2}));
    assert!(apply(Some(&live), &wanted, deployments(), &by("other", "apps/v1"), false).is_err());
    let out = apply(Some(&live), &wanted, deployments(), &by("kubectl", "apps/v1"), false).unwrap();
    assert_eq!(out["spec"]["replicas"], 2);
    assert_eq!(out["metadata"]["annotations"][LAST_APPLIED], format!("{wanted}\n"));
}

#[test]
fn an_object_nobody_tracked_is_owned_before_the_first_apply() {
    let live = config(json!({"replicas": 1, "paused": true}));
    let e = apply(Some(&live), &config(json!({"replicas": 2})), deployments(), &by("me", "apps/v1"), false)
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let out = apply(Some(&live), &config(json!({"replicas": 2})), deployments(), &by("me", "apps/v1"), true)
        .unwrap();
    assert_eq!(fields(&out, "before-first-apply"), json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn updaters_are_capped() {
    let mut live = json!({"metadata": {"name": "c"}, "data": {}});
    let maps = builtin().kind_of("", "v1", "ConfigMap").unwrap();
    for i in 0..30 {
        let mut new = live.clone();
        new["data"][format!("k{i}")] = json!("v");
        let manager = format!("m{i:02}");
        let at = Author { now: Timestamp::from_second(1_700_000_000 + i).unwrap(), ..by(&manager, "v1") };
        update((i > 0).then_some(&live), &mut new, maps, &at);
        live = new;
    }
    let list = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), 10);
    assert_eq!(list[0]["manager"], "ancient-changes");
    assert_eq!(list[0]["fieldsV1"]["f:data"].as_object().unwrap().len(), 22);
}

#[test]
fn reset_fields_and_subresources() {
    let reset = FieldSet::of_paths(&["status"]);
    let mut new = config(json!({"replicas": 1}));
    new["status"] = json!({"replicas": 1});
    update(None, &mut new, deployments(), &Author { reset: Some(&reset), ..by("a", "apps/v1") });
    assert_eq!(fields(&new, "a"), json!({"f:spec": {"f:replicas": {}}}));
    let mut status = new.clone();
    status["status"] = json!({"replicas": 3});
    status["metadata"].as_object_mut().unwrap().remove("managedFields");
    update(Some(&new), &mut status, deployments(), &Author { subresource: "status", ..by("a", "apps/v1") });
    assert_eq!(status["metadata"]["managedFields"].as_array().unwrap().len(), 2);
}

#[test]
fn fields_are_spelled_one_way() {
    let set = FieldSet::from_json(
        &json!({"f:a": {"k:{ \"y\":1, \"x\" : \"<\"}": {}, "q:z": {}, "v:\"\\u003c\"": {}}}),
    )
    .unwrap();
    assert_eq!(set.to_json(), json!({"f:a": {"k:{\"x\":\"<\",\"y\":1}": {}, "v:\"<\"": {}}}));
    assert_eq!(set.paths(), [".a[x=\"<\",y=1]", ".a[=\"<\"]"]);
    assert!(FieldSet::from_json(&json!({"f:a": 1})).is_err());
    assert!(FieldSet::from_json(&json!({"k:{": {}})).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Applied to nothing an object is there as it was applied, and all of it goes again.
    #[test]
    fn what_is_applied_is_there(kind in 0..valid_kinds().len(), seed in any::<u64>(), other in any::<u64>()) {
        let schema = &valid_kinds()[kind];
        let me = by("me", "v1");
        let object = |seed| {
            let mut v = value_of(schema, seed);
            if let Some(map) = v.as_object_mut() {
                map.insert("apiVersion".into(), "v1".into());
                map.remove("metadata");
            }
            v
        };
        let config = object(seed);
        let live = apply(None, &config, schema, &me, false).unwrap();
        let mut plain = live.clone();
        entries::take(&mut plain);
        plain.as_object_mut().unwrap().retain(|k, v| k != "metadata" || !v.as_object().is_some_and(|m| m.is_empty()));
        prop_assert_eq!(&plain, &config);
        prop_assert_eq!(&apply(Some(&live), &config, schema, &me, false).unwrap(), &live);
        // a second applier, by force, and an update over both never fail
        let second = apply(Some(&live), &object(other), schema, &by("you", "v1"), true).unwrap();
        let mut third = object(other);
        update(Some(&second), &mut third, schema, &me);
        // sets: (a - b) + (a & b) = a
        let a = walk::fields_of(&config, schema).unwrap();
        let b = walk::fields_of(&object(other), schema).unwrap();
        let mut rest = a.clone();
        rest.subtract(&b);
        rest.add(&a.intersection(&b));
        prop_assert_eq!(rest, a);
    }
}

/// Both ways to say who owns a new object.
fn created_both_ways(object: &Value, schema: &Schema, by: &Author<'_>) {
    let mut tracked = object.clone();
    update(None, &mut tracked, schema, by);
    let want = entries::take(&mut tracked).map(|fields| fields.to_string());
    let json = object.to_string();
    let got = created(json.as_bytes(), schema, by).unwrap().map(|json| String::from_utf8(json).unwrap());
    assert_eq!(got, want, "{json}");
    if let Value::Object(object) = object {
        // as the server writes it
        let metadata = object.get("metadata").map(|m| format!("\"metadata\":{m},")).unwrap_or_default();
        let others: Map<String, Value> =
            object.iter().filter(|(k, _)| *k != "metadata").map(|(k, v)| (k.clone(), v.clone())).collect();
        let others = Value::Object(others).to_string();
        let json = format!("{{{metadata}{}", &others[1..]).replace(",}", "}");
        if serde_json::from_str::<Value>(&json).is_ok_and(|v| v == Value::Object(object.clone())) {
            let got = created(json.as_bytes(), schema, by).unwrap().map(|j| String::from_utf8(j).unwrap());
            assert_eq!(got, want, "{json}");
        }
    }
}

#[test]
fn a_created_object_is_owned_the_same_either_way() {
    let reset = FieldSet::of_paths(&["status"]);
    let deep = FieldSet::of_paths(&["spec.replicas"]);
    let authors = [
        by("a\"", "apps/v1"),
        Author { reset: Some(&reset), manager: "", ..by("a", "v1") },
        Author { reset: Some(&deep), subresource: "scale", ..by("a", "v1") },
    ];
    for schema in valid_kinds() {
        for seed in 0..20 {
            let mut object = value_of(&schema, seed * 7919 + 1);
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            for author in &authors {
                created_both_ways(&object, &schema, author);
            }
            crate::json::default(&mut object, &schema);
            crate::json::omit_zeros(&mut object, &schema);
            created_both_ways(&object, &schema, &authors[1]);
        }
    }
}

#[test]
fn odd_objects_are_owned_the_same_either_way() {
    let odd =
        |spec: Value| json!({"kind": "Deployment", "metadata": {"name": "d", "labels": {}}, "spec": spec});
    let pod = |spec: Value| odd(json!({"template": {"spec": spec}}));
    let table = [
        json!({}),
        json!({"spec": {}, "status": {}}),
        json!({"metadata": {"name": "x", "uid": "u"}, "spec": null, "unknown": 1}),
        json!({"metadata": {"labels": {"a/b.c": "x", "\"": ""}, "finalizers": ["b", "a", "a", "\""]}}),
        odd(json!({"template": {"metadata": {"managedFields": [{}], "name": "n"}}, "selector": {}})),
        odd(json!({"template": null, "selector": null, "strategy": {"rollingUpdate": null}})),
        odd(json!({"template": "text", "selector": [], "strategy": []})),
        pod(json!({"containers": []})),
        pod(json!({"containers": null})),
        pod(json!({"containers": {"a": 1}})),
        pod(
            json!({"containers": [null, {}, [], "x", {"image": "none"}, {"name": null}, {"name": {"a": [1]}}]}),
        ),
        pod(
            json!({"containers": [{"name": "b"}, {"name": "a", "env": []}, {"name": "b", "image": "again"}, {"name": "c"}]}),
        ),
        pod(
            json!({"containers": [{"name": "b", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"},
            {"protocol": "TCP", "containerPort": 1}, {"hostPort": 2}, {"containerPort": 0, "unknown": {}}]}]}),
        ),
        pod(
            json!({"nodeSelector": {"b": "", "a": {}}, "affinity": {"nodeAffinity": {}}, "volumes": [{"name": "v", "emptyDir": {}}]}),
        ),
    ];
    for object in &table {
        created_both_ways(object, deployments(), &by("a", "apps/v1"));
    }
    let open_api = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "map": {"type": "object", "additionalProperties": {"type": "object", "x-kubernetes-map-type": "atomic"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "d"],
            "items": {"type": "object", "properties": {"k": {"type": "object"}, "d": {"type": "integer", "default": 7}}}},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic"},
        "any": {"x-kubernetes-preserve-unknown-fields": true}}}}});
    let table = [
        json!({"metadata": {"name": "x"}, "other": {"a": {"b": [{}], "": null}}}),
        json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"map": {"a": {"b": 1}, "c": null},
            "set": [3, 1, 1, {}, null, "x"], "atomic": {"a": 1}, "any": {"b": {"c": []}, "a": 1}, "gone": 1}}),
        json!({"spec": {"keyed": [{"k": {"a": 1}, "d": 1}, {"k": null}, {}, {"d": 7}, 5]}}),
    ];
    for preserve in [true, false] {
        for open_api in [Some(&open_api), None] {
            let schema = Schema::custom("example.com", "v1", "Thing", open_api, preserve).unwrap();
            table.iter().for_each(|object| created_both_ways(object, &schema, &by("a", "example.com/v1")));
        }
    }
    created_both_ways(&table[0], &crate::schema::any(), &by("a", "v1"));
}
