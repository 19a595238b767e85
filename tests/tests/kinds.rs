//! Every kind that is served, in every version: made, read in every form, changed and removed.

use bytes::Bytes;
use client::{Client, Discovery, ResourceInfo};
use ferrokube_tests::{Cluster, Store, workspace};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

const NAMESPACE: &str = "default";

fn manifests() -> Vec<Value> {
    let text = std::fs::read_to_string(workspace().join("tests/data/kinds.yaml")).expect("the manifests");
    let read = |doc: &str| api::yaml::decode_any(doc.as_bytes()).expect("YAML");
    text.split("\n---\n").map(read).collect()
}

/// A certificate signing request, as base64 of PEM.
fn signing_request() -> String {
    let (key, csr) = ("/dev/null", "-");
    let out = std::process::Command::new("openssl")
        .args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a", "-keyout", key, "-out", csr])
        .output()
        .expect("openssl is installed");
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(out.stdout)
}

struct Asker {
    client: Client,
    path: String,
}

impl Asker {
    fn new(client: &Client, info: &ResourceInfo) -> Self {
        let r = &info.resource;
        let root = if r.group.is_empty() { "/api".into() } else { format!("/apis/{}", r.group) };
        let namespace = if r.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        Asker { client: client.clone(), path: format!("{root}/{}{namespace}/{}", r.version, r.plural) }
    }

    /// Asks for something below the collection. The code, and the answer if it is JSON.
    async fn ask(&self, method: Method, rest: &str, kind: &str, body: &Value) -> (StatusCode, Value) {
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let accept = if method == Method::GET { kind } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{rest}", self.path))
            .header("accept", accept)
            .header("content-type", kind)
            .body(bytes)
            .expect("a request");
        let answer = self.client.raw(request).await.expect("an answer");
        (answer.status(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }
}

/// Without members that say nothing: protobuf does not keep an empty struct apart from none.
fn plain(value: &Value) -> Value {
    let said = |v: &Value| v.as_object().is_none_or(|o| !o.is_empty());
    match value {
        Value::Object(o) => o.iter().map(|(k, v)| (k.clone(), plain(v))).filter(|(_, v)| said(v)).collect(),
        Value::Array(a) => a.iter().map(plain).collect(),
        other => other.clone(),
    }
}

const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn lifecycle(client: &Client, info: &ResourceInfo, manifest: &Value, statuses: &[String]) {
    let what = format!("{} {}", manifest["apiVersion"], manifest["kind"]);
    let asker = Asker::new(client, info);
    let mut object = manifest.clone();
    if object.pointer("/metadata/name").is_none() {
        object["metadata"] = json!({"name": format!("a-{}", info.resource.version)});
    }
    let name = object["metadata"]["name"].as_str().expect("a name").to_string();
    let one = format!("/{name}");

    let (code, made) = asker.ask(Method::POST, "?fieldValidation=Strict", JSON, &object).await;
    assert_eq!(code, 201, "{what}: {made:#}");
    assert_eq!((&made["apiVersion"], &made["kind"]), (&object["apiVersion"], &object["kind"]), "{what}");
    assert!(made["metadata"]["uid"].is_string(), "{what}");

    let (code, got) = asker.ask(Method::GET, &one, JSON, &Value::Null).await;
    assert_eq!((code, plain(&got)), (StatusCode::OK, plain(&made)), "{what}");
    let (code, list) = asker.ask(Method::GET, "", JSON, &Value::Null).await;
    assert_eq!(code, 200, "{what}");
    assert_eq!(list["kind"], format!("{}List", info.kind), "{what}");
    let items = list["items"].as_array().expect("items");
    // What the list says, its items do not.
    let mut item = plain(&made);
    for said in ["apiVersion", "kind"] {
        item.as_object_mut().map(|o| o.remove(said));
    }
    assert!(items.iter().any(|i| plain(i) == item), "{what}: {list:#}");
    let (code, table) = asker.ask(Method::GET, &one, TABLE, &Value::Null).await;
    assert_eq!(code, 200, "{what}: {table:#}");
    let (headings, cells) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
    assert_eq!(headings.as_array().map(Vec::len), cells.as_array().map(Vec::len), "{what}: {table:#}");
    let (code, _) = asker.ask(Method::GET, &one, PROTOBUF, &Value::Null).await;
    assert_eq!(code, 200, "{what} as protobuf");

    let mut changed = got.clone();
    changed["metadata"]["labels"]["changed"] = "yes".into();
    let (code, put) = asker.ask(Method::PUT, &one, JSON, &changed).await;
    assert_eq!(code, 200, "{what}: {put:#}");
    assert_eq!(put["metadata"]["labels"]["changed"], "yes", "{what}");
    assert_eq!(put["metadata"].get("generation"), got["metadata"].get("generation"), "{what}");
    let (code, again) = asker.ask(Method::PUT, &one, JSON, &put).await;
    assert_eq!(
        (code, plain(&again)),
        (StatusCode::OK, plain(&put)),
        "{what}: a PUT that changes nothing writes nothing"
    );
    let (code, conflict) = asker.ask(Method::PUT, &one, JSON, &got).await;
    assert_eq!(code, 409, "{what}: {conflict:#}");

    let config = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": name, "labels": {"applied": "yes"}}});
    let path = format!("{one}?fieldManager=applier");
    let (code, applied) = asker.ask(Method::PATCH, &path, APPLY, &config).await;
    assert_eq!(code, 200, "{what}: {applied:#}");
    assert_eq!(applied["metadata"]["labels"]["applied"], "yes", "{what}");
    let owners = applied["metadata"]["managedFields"].as_array().expect("managedFields");
    assert!(
        owners.iter().any(|o| o["manager"] == "applier" && o["apiVersion"] == object["apiVersion"]),
        "{what}"
    );

    if statuses.contains(&info.resource.plural) {
        let (code, status) = asker.ask(Method::GET, &format!("{one}/status"), JSON, &Value::Null).await;
        assert_eq!((code, plain(&status)), (StatusCode::OK, plain(&applied)), "{what}");
        let (code, status) = asker.ask(Method::PUT, &format!("{one}/status"), JSON, &applied).await;
        assert_eq!(code, 200, "{what}: {status:#}");
    }

    let (code, gone) =
        asker.ask(Method::DELETE, &format!("{one}?gracePeriodSeconds=0"), JSON, &Value::Null).await;
    assert_eq!(code, 200, "{what}: {gone:#}");
    let (_, left) = asker.ask(Method::GET, &one, JSON, &Value::Null).await;
    let held = left["metadata"]["deletionTimestamp"].is_string();
    assert!(held || left["reason"] == "NotFound", "{what}: {left:#}");
}

/// Resources with a `status` subresource, of one group and version.
async fn statuses(client: &Client, info: &ResourceInfo) -> Vec<String> {
    let r = &info.resource;
    let root = if r.group.is_empty() { "/api".into() } else { format!("/apis/{}", r.group) };
    let request = Request::get(format!("{root}/{}", r.version)).body(Bytes::new()).expect("a request");
    let answer = client.raw(request).await.expect("discovery");
    let list: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let names = list["resources"].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str());
    names.filter_map(|n| n.strip_suffix("/status")).map(str::to_string).collect()
}

/// Someone applies in one version, someone else in another.
#[test]
fn owners_in_several_versions() {
    let cluster = Cluster::start(Store::Embedded);
    let old = |service: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {{name: a}}\nspec: {{backend: {{serviceName: {service}, servicePort: 80}}}}\n"
        )
    };
    let new = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\nspec: {defaultBackend: {service: {name: b, port: {number: 80}}}}\n";
    let apply = |manager: &str, text: &str, force: bool| {
        let manager = format!("--field-manager={manager}");
        let force = format!("--force-conflicts={force}");
        cluster.kubectl_with(&["apply", "--server-side", &manager, &force, "-f", "-"], text)
    };
    apply("one", &old("a"), false).expect("made in v1beta1");
    let refused = apply("two", new, false).expect_err("a conflict");
    assert!(refused.contains("conflict with \"one\": .spec.backend.serviceName"), "{refused}");
    apply("two", new, true).expect("forced in v1");
    let refused = apply("one", &old("c"), false).expect_err("a conflict");
    assert!(refused.contains("conflict with \"two\": .spec.defaultBackend.service.name"), "{refused}");
    apply("one", &old("b"), false).expect("both own it");
    let less = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, labels: {part: one}}\n";
    apply("two", less, false).expect("what two gives up is still owned by one");
    let shown = cluster.kubectl(&["get", "ingresses.v1beta1.networking.k8s.io", "a", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown.expect("shown")).expect("JSON");
    assert_eq!(shown["spec"]["backend"], json!({"serviceName": "b", "servicePort": 80}));
}

fn kept(discovery: &Discovery) -> Vec<&ResourceInfo> {
    discovery.resources.iter().filter(|r| r.can(&["create", "get", "list", "update", "delete"])).collect()
}

fn run(store: Store) {
    // Nobody makes service accounts here.
    let cluster = Cluster::with_flags(store, &["--disable-admission-plugins=ServiceAccount"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = cluster.client();
        let discovery = client.discover().await.expect("discovery");
        assert_eq!(discovery.failed, []);
        let mut manifests = manifests();
        for info in kept(&discovery) {
            let is = |m: &Value| {
                m["kind"] == info.kind.as_str() && m["apiVersion"] == info.resource.api_version().as_str()
            };
            let at = manifests.iter().position(is);
            let at =
                at.unwrap_or_else(|| panic!("tests/data/kinds.yaml has no {} {}", info.resource, info.kind));
            let mut manifest = manifests.remove(at);
            if info.kind == "CertificateSigningRequest" {
                manifest["spec"]["request"] = signing_request().into();
            }
            lifecycle(&client, info, &manifest, &statuses(&client, info).await).await;
        }
        assert!(manifests.is_empty(), "these are not served: {manifests:#?}");
    });
}

#[test]
fn every_kind_lives_and_dies() {
    run(Store::Embedded);
}

#[test]
fn every_kind_lives_and_dies_in_etcd() {
    run(Store::Etcd);
}
