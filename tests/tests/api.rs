//! The API server alone, with kubectl, over both stores.

use ferrokube_tests::{Cluster, Store, eventually};
use serde_json::Value;

/// Runs a test over both stores.
fn on_both(test: impl Fn(&mut Cluster)) {
    for store in [Store::Embedded, Store::Etcd] {
        println!("over {store:?}");
        test(&mut Cluster::start(store));
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("kubectl prints JSON")
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "nginx:1.7.9", ports: [{containerPort: 80}]}
"#;

#[test]
fn kubectl_makes_reads_changes_and_removes() {
    on_both(|c| {
        assert!(
            c.kubectl_with(&["apply", "-f", "-"], DEPLOYMENT)
                .unwrap()
                .contains("deployment.apps/web created")
        );
        assert!(c.kubectl_with(&["apply", "-f", "-"], DEPLOYMENT).unwrap().contains("unchanged"));
        let d = json(&c.kubectl(&["get", "deployment", "web", "-o", "json"]).unwrap());
        assert_eq!(d["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(d["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(d["metadata"]["generation"], 1);
        assert!(c.kubectl(&["scale", "deployment/web", "--replicas=5"]).unwrap().contains("scaled"));
        let d = json(&c.kubectl(&["get", "deployment", "web", "-o", "json"]).unwrap());
        assert_eq!((&d["spec"]["replicas"], &d["metadata"]["generation"]), (&5.into(), &2.into()));
        let set = DEPLOYMENT.replace("1.7.9", "1.9.1");
        assert!(
            c.kubectl_with(&["diff", "-f", "-"], &set).is_err(),
            "diff tells a difference by its exit code"
        );
        assert!(c.kubectl_with(&["apply", "-f", "-"], &set).unwrap().contains("configured"));
        assert!(c.kubectl(&["label", "deployment", "web", "tier=front"]).is_ok());
        assert!(c.kubectl(&["annotate", "deployment", "web", "note=x"]).is_ok());
        let table = c.kubectl(&["get", "deployments", "-l", "tier=front"]).unwrap();
        assert!(table.contains("READY") && table.contains("0/3"), "{table}");
        assert!(c.kubectl(&["describe", "deployment", "web"]).unwrap().contains("nginx:1.9.1"));
        assert!(
            c.kubectl(&["delete", "deployment", "web", "--cascade=background"]).unwrap().contains("deleted")
        );
        assert!(c.kubectl(&["get", "deployment", "web"]).unwrap_err().contains("NotFound"));
    });
}

#[test]
fn patches_and_server_side_apply() {
    on_both(|c| {
        c.kubectl(&["create", "configmap", "m", "--from-literal=a=1"]).unwrap();
        c.kubectl(&["patch", "configmap", "m", "--type=merge", "-p", r#"{"data":{"b":"2"}}"#]).unwrap();
        c.kubectl(&[
            "patch",
            "configmap",
            "m",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/data/a","value":"9"}]"#,
        ])
        .unwrap();
        c.kubectl(&["patch", "configmap", "m", "--type=strategic", "-p", r#"{"data":{"b":null}}"#]).unwrap();
        let m = json(&c.kubectl(&["get", "configmap", "m", "-o", "json"]).unwrap());
        assert_eq!(m["data"], serde_json::json!({"a": "9"}));
        let mine = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: mine}\n";
        let refused = c.kubectl_with(&["apply", "--server-side", "-f", "-"], mine).unwrap_err();
        assert!(refused.contains("conflict with \"kubectl-patch\""), "{refused}");
        c.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], mine).unwrap();
        let dry = c
            .kubectl_with(
                &["apply", "--server-side", "--dry-run=server", "-f", "-", "-o", "json"],
                &mine.replace("mine", "dry"),
            )
            .unwrap();
        assert_eq!(json(&dry)["data"]["a"], "dry");
        assert_eq!(json(&c.kubectl(&["get", "configmap", "m", "-o", "json"]).unwrap())["data"]["a"], "mine");
    });
}

#[test]
fn explain_and_discovery() {
    let c = Cluster::start(Store::Embedded);
    let text = c.kubectl(&["explain", "deployment.spec"]).unwrap();
    assert!(text.contains("FIELDS:") && text.contains("progressDeadlineSeconds"), "{text}");
    let text = c.kubectl(&["explain", "pods.spec.containers.resources", "--recursive"]).unwrap();
    assert!(text.contains("limits"), "{text}");
    let text = c.kubectl(&["api-resources"]).unwrap();
    assert!(text.contains("deployments") && text.contains("clusterrolebindings"), "{text}");
    assert!(c.kubectl(&["api-versions"]).unwrap().contains("apps/v1"));
    assert!(
        json(&c.kubectl(&["get", "--raw", "/version"]).unwrap())["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.36")
    );
    c.kubectl(&["get", "namespaces"]).unwrap();
    assert!(c.kubectl(&["get", "--raw", "/metrics"]).unwrap().contains("apiserver_request_total"));
    assert!(c.kubectl(&["get", "--raw", "/readyz?verbose"]).unwrap().contains("readyz check passed"));
}

#[test]
fn documents_are_tagged_and_have_a_protobuf_form() {
    let c = Cluster::start(Store::Embedded);
    for (path, accept) in [
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
        ("/openapi/v3/apis/apps/v1", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
    ] {
        let accept_header = format!("Accept: {accept}");
        let (head, body) = c.curl(&["-H", &accept_header], path);
        let kind = format!("content-type: {}", accept.replace('@', "."));
        assert!(head.contains(" 200") && head.contains(&kind), "{head}");
        // A field that has a length, or an object.
        assert_eq!(body.first().map(|b| b & 7), Some(if accept.ends_with("json") { b'{' & 7 } else { 2 }));
        let tag = head.lines().find_map(|l| l.strip_prefix("etag: ")).expect("a tag").to_uppercase();
        let (head, body) = c.curl(&["-H", &accept_header, "-H", &format!("If-None-Match: {tag}")], path);
        assert!(head.contains(" 304") && body.is_empty(), "{head}");
        let (head, body) = c.curl(&["-I", "-H", &accept_header], path);
        assert!(
            head.contains("content-length: ") && String::from_utf8_lossy(&body).contains("200"),
            "{head}"
        );
    }
    let (head, _) = c.curl(&["-H", "Accept: text/html"], "/openapi/v2");
    assert!(head.contains(" 406"), "{head}");
    let (_, index) = c.curl(&[], "/openapi/v3");
    let index = json(&String::from_utf8_lossy(&index));
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(c.curl(&[], url).0.contains("cache-control: public, immutable"));
    let (head, _) = c.curl(&[], "/openapi/v3/apis/apps/v1?hash=old");
    assert!(head.contains(" 301") && head.contains(&url.to_ascii_lowercase()), "{head}");
}

#[test]
fn large_answers_are_compressed() {
    let c = Cluster::start(Store::Embedded);
    let text = "x".repeat(100 << 10);
    for name in ["a", "b"] {
        c.kubectl(&["create", "configmap", name, &format!("--from-literal=k={text}")]).unwrap();
    }
    let table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io";
    let maps = "/api/v1/namespaces/default/configmaps";
    for (path, accept, large) in [
        (maps, "Accept: application/json", true),
        (maps, "Accept: application/yaml", true),
        (maps, "Accept: application/vnd.kubernetes.protobuf", true),
        (&format!("{maps}?includeObject=Object"), table, true),
        (maps, table, false),
        (&format!("{maps}?limit=1"), "Accept: application/json", false),
        (&format!("{maps}?watch=1&timeoutSeconds=1"), "Accept: application/json", false),
        ("/openapi/v2", "Accept: application/json", true),
    ] {
        let (head, plain) = c.curl(&["-H", accept], path);
        assert!(head.contains(" 200") && !head.contains("content-encoding"), "{path}: {head}");
        let (head, sent) = c.curl(&["-H", accept, "-H", "Accept-Encoding: gzip"], path);
        assert_eq!(head.contains("content-encoding: gzip"), large, "{path} {accept}: {head}");
        let (_, unpacked) = c.curl(&["-H", accept, "--compressed"], path);
        // The ages in a table go on.
        let same = unpacked == plain || accept == table && unpacked.len().abs_diff(plain.len()) < 8;
        assert!((sent.len() < plain.len()) == large && same, "{path} {accept}");
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let c = Cluster::start(Store::Embedded);
    for (name, manifest, wanted) in [
        (
            "unknown field",
            DEPLOYMENT.replace("replicas: 3", "replicas: 3\n  replicaz: 4"),
            "unknown field \"spec.replicaz\"",
        ),
        ("wrong type", DEPLOYMENT.replace("replicas: 3", "replicas: three"), "spec.replicas"),
        (
            "missing field",
            DEPLOYMENT.replace("selector: {matchLabels: {app: web}}", "paused: false"),
            "spec.selector",
        ),
        (
            "selector that does not fit",
            DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: {app: other}"),
            "`selector` does not match template `labels`",
        ),
        (
            "invalid name",
            DEPLOYMENT.replace("name: web, labels", "name: Web_1, labels"),
            "metadata.name: Invalid value: \"Web_1\"",
        ),
        (
            "no image",
            DEPLOYMENT.replace("image: \"nginx:1.7.9\", ", ""),
            "spec.template.spec.containers[0].image: Required value",
        ),
    ] {
        let refused = c.kubectl_with(&["create", "--validate=strict", "-f", "-"], &manifest).unwrap_err();
        assert!(refused.contains(wanted), "{name}: {refused}");
    }
    // kubectl mends some of this by itself, so it goes as it is.
    let raw = |body: &str| {
        c.kubectl_with(
            &["create", "--raw", "/api/v1/namespaces/default/configmaps?fieldValidation=Strict", "-f", "-"],
            body,
        )
    };
    let refused = raw(
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1"},"data":{"x":"2"}}"#,
    )
    .unwrap_err();
    assert!(refused.contains("duplicate field \"data\""), "{refused}");
    let deep = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a","managedFields":[{{"fieldsV1":{}1{}}}]}}}}"#,
        "{\"a\":".repeat(200),
        "}".repeat(200)
    );
    let refused = raw(&deep).unwrap_err();
    assert!(refused.contains("depth"), "{refused}");
    let large = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{{"x":"{}"}}}}"#,
        "y".repeat(4 << 20)
    );
    assert!(c.kubectl_with(&["create", "-f", "-"], &large).unwrap_err().contains("limit is 3145728"));
    assert!(c.kubectl(&["--context=jane", "get", "pods"]).unwrap_err().contains(
        "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    ));
    assert!(c.kubectl(&["--token=wrong", "get", "pods"]).unwrap_err().contains("logged in"));
    assert!(
        c.kubectl(&["get", "pods", "--field-selector=spec.nope=1"])
            .unwrap_err()
            .contains("field label not supported")
    );
}

#[test]
fn a_crash_loses_nothing() {
    on_both(|c| {
        for i in 0..20 {
            c.kubectl(&["create", "configmap", &format!("m{i}"), "--from-literal=a=1"]).unwrap();
        }
        let before = json(&c.kubectl(&["get", "configmaps", "-o", "json"]).unwrap());
        c.kill_server();
        c.start_server();
        let after = json(&c.kubectl(&["get", "configmaps", "-o", "json"]).unwrap());
        assert_eq!(before["items"], after["items"]);
        c.kubectl(&["create", "configmap", "later"]).unwrap();
        let later = json(&c.kubectl(&["get", "configmap", "later", "-o", "json"]).unwrap());
        let number = |v: &Value| v.as_str().and_then(|s| s.parse::<u64>().ok()).unwrap();
        let newest = before["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| number(&i["metadata"]["resourceVersion"]))
            .max()
            .unwrap();
        assert!(number(&later["metadata"]["resourceVersion"]) > newest, "revisions never go back");
    });
}

#[test]
fn watches_tell_of_changes() {
    on_both(|c| {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(c.path("kubeconfig"))
            .args(["get", "configmaps", "-l", "app=x", "--watch", "--output-watch-events", "--no-headers"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| drop(send.send(l))));
        let next = |wanted: &str| {
            let line = seen.recv_timeout(ferrokube_tests::PATIENCE).expect("an event");
            assert!(line.contains(wanted), "{line:?} is not {wanted:?}");
        };
        c.kubectl_with(
            &["create", "-f", "-"],
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"w","labels":{"app":"x"}}}"#,
        )
        .unwrap();
        next("ADDED");
        c.kubectl(&["annotate", "configmap", "w", "a=b"]).unwrap();
        next("MODIFIED");
        c.kubectl(&["label", "configmap", "w", "app=y", "--overwrite"]).unwrap();
        next("DELETED");
        c.kubectl(&["label", "configmap", "w", "app=x", "--overwrite"]).unwrap();
        next("ADDED");
        c.kubectl(&["delete", "configmap", "w"]).unwrap();
        next("DELETED");
        let _ = child.kill();
        let _ = child.wait();
    });
}

#[test]
fn services_get_addresses_of_their_own() {
    on_both(|c| {
        for i in 0..5 {
            c.kubectl(&["create", "service", "nodeport", &format!("s{i}"), "--tcp=80:8080"]).unwrap();
        }
        let all = json(&c.kubectl(&["get", "services", "-o", "json"]).unwrap());
        let mut addresses: Vec<String> =
            all["items"].as_array().unwrap().iter().map(|s| s["spec"]["clusterIP"].to_string()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 6, "five and the kubernetes service: {all}");
        c.kubectl(&["delete", "service", "s0"]).unwrap();
        let kept = eventually("the address is given back", || {
            let ips = json(&c.kubectl(&["get", "ipaddresses", "-o", "json"]).ok()?);
            let n = ips["items"].as_array()?.len();
            (n == 5).then_some(n)
        });
        assert_eq!(kept, 5);
    });
}
