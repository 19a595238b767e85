use super::*;
use crate::schema::{Schema, builtin};

fn deployments(path: &str, collection: bool, verbs: &[Verb]) -> Route {
    Route {
        path: path.into(),
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        namespaced: true,
        collection,
        resource: "deployments".into(),
        subresource: String::new(),
        parent_kind: "Deployment".into(),
        verbs: verbs.to_vec(),
        schema: builtin().kind_of("apps", "v1", "Deployment").unwrap().clone(),
        list: builtin().kind_of("apps", "v1", "DeploymentList").cloned(),
    }
}

fn routes() -> Vec<Route> {
    let base = "/apis/apps/v1/namespaces/{namespace}/deployments";
    vec![
        deployments("/apis/apps/v1/deployments", true, &[Verb::List]),
        deployments(base, true, &[Verb::List, Verb::Create, Verb::DeleteCollection]),
        deployments(
            &format!("{base}/{{name}}"),
            false,
            &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete],
        ),
    ]
}

/// Every reference leads somewhere.
fn check_references(v: &Value, root: &Value) {
    match v {
        Value::Object(map) => {
            if let Some(Value::String(r)) = map.get("$ref") {
                assert!(root.pointer(r.trim_start_matches('#')).is_some_and(|d| !d.is_null()), "{r}");
            }
            map.values().for_each(|v| check_references(v, root));
        }
        Value::Array(items) => items.iter().for_each(|v| check_references(v, root)),
        _ => {}
    }
}

#[test]
fn version_3() {
    let doc = v3("v1.36.0", &routes());
    check_references(&doc, &doc);
    let schemas = &doc["components"]["schemas"];
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &spec["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["items"], json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}));
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(
        strategy["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}])
    );
    assert_eq!(strategy["default"], json!({}));
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"];
    assert_eq!((&port["containerPort"]["default"], &port["protocol"]["default"]), (&json!(0), &json!("TCP")));
    let patch = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let names: Vec<_> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let list = &doc["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(list["operationId"], "listAppsV1DeploymentForAllNamespaces");
    assert_eq!(list["tags"], json!(["apps_v1"]));
}

#[test]
fn version_2() {
    let doc = v2("v1.36.0", &routes());
    check_references(&doc, &doc);
    let spec = &doc["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
    assert_eq!(spec["selector"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector");
    assert_eq!(spec["strategy"].get("default"), None);
    let kinds = &doc["definitions"]["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"];
    assert_eq!(kinds, &json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]));
}

#[test]
fn custom_resources_are_published() {
    let source = json!({"type": "object", "properties": {"spec": {"type": "object", "nullable": true, "properties": {"n": {"type": "integer", "minimum": 1}}}}});
    let schema = Schema::custom("example.com", "v1", "Thing", Some(&source), false).unwrap();
    let list = Schema::list_of("ThingList", &schema);
    let mut route =
        deployments("/apis/example.com/v1/namespaces/{namespace}/things", true, &[Verb::List, Verb::Create]);
    (route.group, route.kind, route.schema, route.list) =
        ("example.com".into(), "Thing".into(), schema, Some(list));
    let doc = v3("v1.36.0", &[route.clone()]);
    check_references(&doc, &doc);
    let thing = &doc["components"]["schemas"]["com.example.v1.Thing"];
    assert_eq!(thing["properties"]["spec"]["properties"]["n"]["minimum"], 1);
    assert_eq!(
        thing["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Thing"}])
    );
    assert!(doc["components"]["schemas"]["com.example.v1.ThingList"]["properties"]["items"].is_object());
    let doc = v2("v1.36.0", &[route]);
    check_references(&doc, &doc);
    assert_eq!(doc["definitions"]["com.example.v1.Thing"]["properties"]["spec"].get("nullable"), None);
}

/// Set `OPENAPI_OUT` to have a document of every kind written there, to be compared with another server's.
#[test]
fn documents_of_everything_hold_together() {
    let routes: Vec<Route> = builtin()
        .kinds()
        .map(|k| Route {
            path: format!("/apis/{}/{}/{}", k.group, k.version, k.kind),
            group: k.group.into(),
            version: k.version.into(),
            kind: k.kind.into(),
            schema: k.schema.clone(),
            list: None,
            verbs: vec![Verb::Get, Verb::Delete],
            ..deployments("", false, &[])
        })
        .collect();
    let docs = [v2("v1.36.0", &routes), v3("v1.36.0", &routes)];
    docs.iter().for_each(|d| check_references(d, d));
    if let Ok(out) = std::env::var("OPENAPI_OUT") {
        std::fs::write(out, Value::from(docs.to_vec()).to_string()).unwrap();
    }
}
