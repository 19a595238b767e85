//! What a client may not get, whatever it writes, names or repeats: the API server alone, asked without kubectl.

use ferrokube_tests::{Cluster, Store, TOKEN, eventually};
use serde_json::{Value, json};
use std::process::Command;

/// Who asks: a token, or another user by impersonation.
struct As<'a>(&'a str);

/// The HTTP code and the body of an answer.
fn ask(c: &Cluster, who: &As<'_>, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.args(["-sk", "-m", "10", "-X", method, "-w", "\n%{http_code}", "-A", "test"]);
    command.args(["-H", &format!("Authorization: Bearer {TOKEN}")]);
    if !who.0.is_empty() {
        command.args(["-H", &format!("Impersonate-User: {}", who.0)]);
        if who.0.starts_with("system:node:") {
            command.args(["-H", "Impersonate-Group: system:nodes"]);
        }
    }
    if !body.is_empty() {
        command.args(["-H", &format!("Content-Type: {kind}"), "--data-binary", body]);
    }
    let out = command.arg(format!("{}{path}", c.url())).output().expect("curl is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a code");
    // A watch is several lines.
    let value = serde_json::from_str(body).unwrap_or_else(|_| {
        let lines = body.lines().map(|l| serde_json::from_str(l).unwrap_or(Value::Null));
        Value::Array(lines.collect())
    });
    (code.parse().expect("a number"), value)
}

const JSON: &str = "application/json";
const ADMIN: As<'static> = As("");

fn make(c: &Cluster, path: &str, value: &Value) -> Value {
    let (code, made) = ask(c, &ADMIN, "POST", path, JSON, &value.to_string());
    assert_eq!(code, 201, "{path}: {made}");
    made
}

fn allow(c: &Cluster, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    make(c, "/apis/rbac.authorization.k8s.io/v1/clusterroles", &role);
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": user}, "subjects": [{"kind": "User", "apiGroup": group, "name": user}], "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user}});
    make(c, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding);
}

/// Of objects that would only be marked as well as of those that would go at once.
#[test]
fn a_dry_run_deletes_nothing() {
    let c = Cluster::start(Store::Embedded);
    make(&c, "/api/v1/namespaces", &json!({"metadata": {"name": "x"}}));
    let maps = "/api/v1/namespaces/x/configmaps";
    make(&c, maps, &json!({"metadata": {"name": "held", "finalizers": ["example.com/f"]}}));
    make(&c, maps, &json!({"metadata": {"name": "free"}}));
    let account = json!({"metadata": {"name": "default"}});
    make(&c, "/api/v1/namespaces/x/serviceaccounts", &account);
    let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    make(&c, "/api/v1/namespaces/x/pods", &pod);
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 0, "selector": {"matchLabels": {"a": "b"}}}});
    make(&c, "/apis/policy/v1/namespaces/x/poddisruptionbudgets", &budget);
    let paths = [
        "/api/v1/namespaces/x",
        &format!("{maps}/held"),
        &format!("{maps}/free"),
        maps,
        "/api/v1/namespaces/x/pods/p",
        "/api/v1/namespaces/x/pods",
        "/api/v1/namespaces/x/persistentvolumeclaims",
    ];
    let all = || paths.map(|p| ask(&c, &ADMIN, "GET", p, "", "").1);
    let items = |v: &Value| v.get("items").cloned().unwrap_or_else(|| v.clone());
    let before = all().map(|v| items(&v));
    for path in paths {
        for options in [
            r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}"#,
            r#"{"dryRun":["All"],"propagationPolicy":"Foreground"}"#,
            r#"{"dryRun":["All"],"propagationPolicy":"Orphan"}"#,
            r#"{"dryRun":["All"],"gracePeriodSeconds":0}"#,
        ] {
            let (code, answer) = ask(&c, &ADMIN, "DELETE", path, JSON, options);
            assert_eq!(code, 200, "{path} {options}: {answer}");
        }
        let (code, answer) = ask(&c, &ADMIN, "DELETE", &format!("{path}?dryRun=All"), "", "");
        assert_eq!(code, 200, "{path}: {answer}");
        let (code, answer) = ask(&c, &ADMIN, "DELETE", path, JSON, r#"{"dryRun":["all"]}"#);
        assert_eq!((code, answer["reason"].as_str()), (422, Some("Invalid")), "{path}: {answer}");
    }
    for (query, options) in [("", json!({"dryRun": ["All"]})), ("?dryRun=All", json!(null))] {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": options});
        let path = format!("/api/v1/namespaces/x/pods/p/eviction{query}");
        let (code, answer) = ask(&c, &ADMIN, "POST", &path, JSON, &eviction.to_string());
        assert_eq!(code, 201, "{answer}");
    }
    assert_eq!(all().map(|v| items(&v)), before);
    // A period that no clock reaches is no panic.
    let long = "/api/v1/namespaces/x/pods/p?gracePeriodSeconds=999999999999999";
    let (code, answer) = ask(&c, &ADMIN, "DELETE", long, "", "");
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["metadata"]["deletionTimestamp"], "9999-12-30T22:00:00Z", "{answer}");
}

#[test]
fn a_name_is_not_widened_by_selectors() {
    let c = Cluster::start(Store::Embedded);
    for name in ["allowed", "secret"] {
        make(&c, "/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": name}}));
    }
    allow(
        &c,
        "reader",
        json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"], "resourceNames": ["allowed"]}]),
    );
    let reader = As("reader");
    let one = "/api/v1/watch/namespaces/default/secrets/allowed";
    let many = "/api/v1/namespaces/default/secrets";
    let end = "timeoutSeconds=1";
    for (path, want) in [
        (format!("{one}?{end}"), 200),
        (format!("{one}?{end}&fieldSelector=metadata.name%3Dallowed"), 200),
        (format!("{one}?{end}&fieldSelector=metadata.namespace%3Ddefault"), 400),
        (format!("{one}?{end}&fieldSelector=metadata.name!%3Dallowed"), 400),
        (format!("{one}?{end}&fieldSelector=metadata.name%3Dsecret"), 400),
        (format!("/api/v1/watch/secrets/allowed?{end}&fieldSelector=type%3DOpaque"), 400),
        (format!("/api/v1/watch/secrets?{end}&fieldSelector=metadata.name%3Dallowed"), 403),
        (format!("{many}?fieldSelector=metadata.name%3Dallowed"), 200),
        (format!("{many}?fieldSelector=metadata.name%3Dallowed,metadata.name%3Dsecret"), 200),
        (format!("{many}?fieldSelector=metadata.namespace%3Ddefault"), 403),
        (format!("{many}?fieldSelector=metadata.name!%3Dallowed"), 403),
        (format!("{many}?{end}&watch=1&fieldSelector=metadata.name%3Dallowed"), 200),
        (many.to_string(), 403),
    ] {
        let (code, answer) = ask(&c, &reader, "GET", &path, "", "");
        assert_eq!(code, want, "{path}: {answer}");
        assert!(!answer.to_string().contains(r#""name":"secret""#) || code != 200, "{path}: {answer}");
    }
    // A namespace is watched by its name too.
    let (_, events) = ask(&c, &ADMIN, "GET", &format!("/api/v1/watch/namespaces/default?{end}"), "", "");
    assert!(events.to_string().contains(r#""name":"default""#), "{events}");
}

#[test]
fn verbs_are_asked_for_what_is_done() {
    let c = Cluster::start(Store::Embedded);
    allow(
        &c,
        "changer",
        json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "patch", "update", "delete"]}]),
    );
    let changer = As("changer");
    let map = "/api/v1/namespaces/default/configmaps/new";
    let apply = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"new"},"data":{"a":"b"}}"#;
    let apply_path = format!("{map}?fieldManager=m");
    let yaml = "application/apply-patch+yaml";
    let (code, answer) = ask(&c, &changer, "PATCH", &apply_path, yaml, apply);
    assert_eq!(code, 403, "{answer}");
    assert!(answer["message"].as_str().unwrap_or_default().contains("cannot create resource"), "{answer}");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let body = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"new"}}"#;
    let (code, answer) = ask(&c, &changer, "PUT", &format!("{lease}/new"), JSON, body);
    assert_eq!(code, 403, "{answer}");
    assert_eq!(ask(&c, &ADMIN, "PUT", &format!("{lease}/new"), JSON, body).0, 201);
    // It may be replaced, by who says which state is meant.
    assert_eq!(ask(&c, &changer, "PUT", &format!("{lease}/new"), JSON, body).0, 422);
    assert_eq!(ask(&c, &ADMIN, "PATCH", &apply_path, yaml, apply).0, 201);
    assert_eq!(ask(&c, &changer, "PATCH", &apply_path, yaml, apply).0, 200);
    for (path, method, body) in [
        ("/api/v1/namespaces/mine", "POST", r#"{"metadata":{"name":"other"}}"#),
        (map, "POST", r#"{"metadata":{"name":"other"}}"#),
        ("/api/v1/namespaces/default/configmaps", "PUT", r#"{"metadata":{"name":"other"}}"#),
        (
            "/api/v1/namespaces/default/services",
            "PUT",
            r#"{"metadata":{"name":"other"},"spec":{"ports":[{"port":1}]}}"#,
        ),
        ("/api/v1/namespaces/default/configmaps", "PATCH", "{}"),
        ("/api/v1/namespaces", "DELETE", "{}"),
        ("/api/v1/namespaces/default/configmaps/new", "BREW", ""),
        ("/api/v1/namespaces/default/finalize", "PATCH", "{}"),
        ("/api/v1/watch/namespaces/default/configmaps/new", "DELETE", ""),
    ] {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { JSON };
        let (code, answer) = ask(&c, &ADMIN, method, path, kind, body);
        assert_eq!(code, 405, "{method} {path}: {answer}");
    }
    let (_, list) = ask(&c, &ADMIN, "GET", "/api/v1", "", "");
    let verbs = list["resources"].as_array().into_iter().flatten().find(|r| r["name"] == "namespaces");
    assert_eq!(
        verbs.unwrap()["verbs"],
        json!(["create", "delete", "get", "list", "patch", "update", "watch"])
    );
}

#[test]
fn a_node_gets_nothing_by_a_mirror_pod() {
    let flags = ["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"];
    let c = Cluster::with_flags(Store::Embedded, &flags);
    make(&c, "/api/v1/namespaces/kube-system/secrets", &json!({"metadata": {"name": "target"}}));
    let kubelet = As("system:node:n1");
    let (code, node) = ask(&c, &kubelet, "POST", "/api/v1/nodes", JSON, r#"{"metadata":{"name":"n1"}}"#);
    assert_eq!(code, 201, "{node}");
    let pods = "/api/v1/namespaces/kube-system/pods";
    let mut pod = json!({
        "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "secret": {"secretName": "target"}}]},
    });
    let (code, answer) = ask(&c, &kubelet, "POST", pods, JSON, &pod.to_string());
    assert_eq!(code, 403, "{answer}");
    let secret = "/api/v1/namespaces/kube-system/secrets/target";
    assert_eq!(ask(&c, &kubelet, "GET", secret, "", "").0, 403);
    // Made by others it does not help either.
    let (code, answer) = ask(&c, &ADMIN, "POST", pods, JSON, &pod.to_string());
    assert_eq!(code, 403, "{answer}");
    pod["spec"]["volumes"] = json!([]);
    let (code, answer) = ask(&c, &kubelet, "POST", pods, JSON, &pod.to_string());
    assert_eq!(code, 201, "{answer}");
    let label = r#"{"metadata":{"labels":{"app":"bank"}},"status":{"phase":"Running"}}"#;
    let merge = "application/merge-patch+json";
    let (code, answer) = ask(&c, &kubelet, "PATCH", &format!("{pods}/m/status"), merge, label);
    assert_eq!(code, 403, "{answer}");
    assert_eq!(ask(&c, &kubelet, "GET", "/api/v1/pods", "", "").0, 403);
    assert_eq!(ask(&c, &kubelet, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "", "").0, 200);
    assert_eq!(ask(&c, &kubelet, "GET", "/api/v1/nodes", "", "").0, 403);
    let review = json!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": {
        "verb": "list", "resource": "pods", "version": "v1", "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]}}}});
    let answer = make(&c, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review);
    assert_eq!(answer["status"]["allowed"], true, "{answer}");
    let other = review.to_string().replace("\"n1\"]", "\"n2\"]");
    let answer =
        ask(&c, &ADMIN, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", JSON, &other).1;
    assert_eq!(answer["status"]["allowed"], false, "{answer}");
}

#[test]
fn tokens_are_for_their_audiences() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).output().unwrap();
    assert!(made.status.success());
    let flag = format!("--service-account-signing-key-file={}", key.display());
    let c = Cluster::with_flags(Store::Embedded, &[&flag, "--service-account-max-token-expiration=2h"]);
    make(&c, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "a"}}));
    let token = |audiences: Value, seconds: i64| {
        let request = json!({"spec": {"audiences": audiences, "expirationSeconds": seconds}});
        let made = make(&c, "/api/v1/namespaces/default/serviceaccounts/a/token", &request);
        (made["status"]["token"].as_str().unwrap().to_string(), made["spec"]["expirationSeconds"].clone())
    };
    let review = |token: &str, audiences: Value| {
        let asked = json!({"spec": {"token": token, "audiences": audiences}});
        make(&c, "/apis/authentication.k8s.io/v1/tokenreviews", &asked)["status"].clone()
    };
    let own = json!(["https://kubernetes.default.svc.cluster.local"]);
    let (for_a, _) = token(json!(["a"]), 3600);
    assert_eq!(review(&for_a, json!(["a", "vault"]))["audiences"], json!(["a"]));
    assert_ne!(review(&for_a, json!(["vault"]))["authenticated"], true);
    assert_ne!(review(&for_a, json!([]))["authenticated"], true);
    let (for_us, seconds) = token(json!([]), 24 * 3600);
    assert_eq!(seconds, 7200, "no longer than --service-account-max-token-expiration");
    assert_eq!(review(&for_us, json!([]))["audiences"], own);
    // A token of a file is for this server alone.
    assert_eq!(review(TOKEN, json!([]))["audiences"], own);
    assert_ne!(review(TOKEN, json!(["vault"]))["authenticated"], true);
    let (code, answer) =
        ask(&c, &ADMIN, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", JSON, r#"{"spec":{}}"#);
    assert_eq!(code, 400, "{answer}");
}

#[test]
fn who_only_reads_does_not_talk_and_proxies_lead_to_pods() {
    let c = Cluster::start(Store::Embedded);
    allow(
        &c,
        "viewer",
        json!([{"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": ["get"]}]),
    );
    make(&c, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    make(&c, "/api/v1/namespaces/default/pods", &pod);
    for sub in ["exec?command=x", "attach", "portforward"] {
        let (code, answer) =
            ask(&c, &As("viewer"), "GET", &format!("/api/v1/namespaces/default/pods/p/{sub}"), "", "");
        assert_eq!(code, 403, "{answer}");
        assert!(
            answer["message"].as_str().unwrap_or_default().contains("cannot create resource"),
            "{answer}"
        );
    }
    assert_eq!(ask(&c, &ADMIN, "POST", "/api/v1/namespaces/default/pods/p/log", JSON, "{}").0, 405);
    assert_eq!(ask(&c, &ADMIN, "DELETE", "/api/v1/namespaces/default/pods/p/exec", "", "").0, 405);
    let merge = "application/merge-patch+json";
    for ip in ["127.0.0.1", "169.254.169.254", "::1"] {
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}).to_string();
        let (code, answer) =
            ask(&c, &ADMIN, "PATCH", "/api/v1/namespaces/default/pods/p/status", merge, &status);
        assert_eq!(code, 200, "{answer}");
        let proxy =
            format!("/api/v1/namespaces/default/pods/p:{}/proxy/", c.address().rsplit(':').next().unwrap());
        let (code, answer) = ask(&c, &ADMIN, "GET", &proxy, "", "");
        assert_eq!(code, 400, "{ip}: {answer}");
        assert!(answer["message"].as_str().unwrap_or_default().contains("address not allowed"), "{answer}");
    }
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    make(&c, "/api/v1/namespaces/default/services", &service);
    let slice = json!({"metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.9.9"]}], "ports": [{"port": 80}]});
    make(&c, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice);
    let (code, answer) = ask(&c, &ADMIN, "GET", "/api/v1/namespaces/default/services/s/proxy/", "", "");
    assert_eq!(code, 503, "{answer}");
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    make(&c, "/api/v1/nodes", &node);
    let (code, answer) = ask(&c, &ADMIN, "PATCH", "/api/v1/nodes/n/status", merge, &node.to_string());
    assert_eq!(code, 200, "{answer}");
    for node in ["n", "n:9100", "https:n:22"] {
        let (code, answer) = ask(&c, &ADMIN, "GET", &format!("/api/v1/nodes/{node}/proxy/"), "", "");
        assert_eq!(code, 400, "{node}: {answer}");
    }
    assert_eq!(ask(&c, &ADMIN, "GET", "/api/v1/nodes/n:x!/proxy/", "", "").0, 400);
}

#[test]
fn strangers_are_not_let_in_where_everyone_may_everything() {
    let c = Cluster::with_flags(Store::Embedded, &["--authorization-mode=AlwaysAllow"]);
    let curl = |args: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sk", "-w", "%{http_code}", "-o", "/dev/null"]).args(args);
        let out = command.arg(format!("{}{path}", c.url())).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(curl(&[], "/api/v1/secrets"), "401");
    assert_eq!(curl(&["-H", "Authorization: Bearer user-token"], "/api/v1/secrets"), "200");
}

#[test]
fn metrics_grow_by_what_is_served_alone() {
    let c = Cluster::start(Store::Embedded);
    for i in 0..20 {
        ask(&c, &ADMIN, "GET", &format!("/apis/g{i}/v1/x"), "", "");
        ask(&c, &As("nobody"), "GET", &format!("/api/v1/namespaces/default/pods/p/s{i}"), "", "");
        ask(&c, &As("nobody"), "GET", &format!("/apis/h{i}/v1/namespaces/default/pods"), "", "");
    }
    ask(&c, &ADMIN, "GET", "/api/v1/namespaces/default/configmaps/none", "", "");
    let metrics = c.kubectl(&["get", "--raw", "/metrics"]).unwrap();
    assert!(!metrics.contains("\"g1\"") && !metrics.contains("\"h1\"") && !metrics.contains("\"s1\""));
    let counted = |l: &&str| {
        l.starts_with("apiserver_request_total") && l.contains("\"configmaps\"") && l.contains("404")
    };
    assert!(metrics.lines().any(|l| counted(&l)), "{metrics}");
}

/// What users reported of others, each with what v1.36 answers.
#[test]
fn answers_of_upstream() {
    let mut c = Cluster::start(Store::Embedded);
    let maps = "/api/v1/namespaces/default/configmaps";
    let held = json!({"metadata": {"name": "f", "finalizers": ["example.com/a"]}});
    make(&c, maps, &held);
    assert_eq!(ask(&c, &ADMIN, "DELETE", &format!("{maps}/f"), "", "").1["kind"], "ConfigMap");
    for query in ["", "?dryRun=All"] {
        let (code, answer) = ask(&c, &ADMIN, "POST", &format!("{maps}{query}"), JSON, &held.to_string());
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(code == 409 && message.starts_with("object is being deleted: "), "{answer}");
    }
    for (query, want) in [
        ("watch=1&sendInitialEvents=true", 422),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", 422),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", 200),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", 422),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersionMatch=NotOlderThan", 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ("resourceVersionMatch=Other&resourceVersion=1", 422),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=0", 200),
    ] {
        let (code, answer) = ask(&c, &ADMIN, "GET", &format!("{maps}?{query}&timeoutSeconds=1"), "", "");
        assert_eq!(code, want, "{query}: {answer}");
    }
    // A watch from what is forgotten is an event, not an HTTP error.
    c.kill_server();
    c.start_server();
    let (code, events) = ask(&c, &ADMIN, "GET", &format!("{maps}?watch=1&resourceVersion=1"), "", "");
    assert_eq!(
        (code, &events["type"], &events["object"]["code"]),
        (200, &json!("ERROR"), &json!(410)),
        "{events}"
    );
    // Kinds that upstream answers with, and those that leave what they own behind.
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    make(&c, "/api/v1/namespaces/default/services", &service);
    let merge = "application/merge-patch+json";
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]}}}"#;
    let path = "/api/v1/namespaces/default/services/s";
    let (code, answer) = ask(&c, &ADMIN, "PATCH", &format!("{path}/status"), merge, status);
    assert_eq!(
        (code, &answer["status"]["loadBalancer"]["ingress"][0]["ipMode"]),
        (200, &json!("VIP")),
        "{answer}"
    );
    assert_eq!(ask(&c, &ADMIN, "DELETE", path, "", "").1["kind"], "Service");
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    for (name, options, want) in [
        ("a", json!({}), json!(["orphan"])),
        ("b", json!({"propagationPolicy": "Foreground"}), json!(["foregroundDeletion"])),
    ] {
        make(&c, jobs, &json!({"metadata": {"name": name}, "spec": {"template": template}}));
        let (_, answer) = ask(&c, &ADMIN, "DELETE", &format!("{jobs}/{name}"), JSON, &options.to_string());
        assert_eq!(answer["metadata"]["finalizers"], want, "{answer}");
    }
    let privileged = json!({"metadata": {"name": "p"}, "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}});
    make(&c, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}));
    let (code, answer) =
        ask(&c, &ADMIN, "POST", "/api/v1/namespaces/default/pods", JSON, &privileged.to_string());
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(
        code == 422
            && message.contains(
                "spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy"
            ),
        "{answer}"
    );
    // A list for people and a table are written while they are sent, and read as any other.
    for i in 0..300 {
        make(&c, maps, &json!({"metadata": {"name": format!("m{i:03}")}}));
    }
    let (_, pretty) = ask(&c, &ADMIN, "GET", &format!("{maps}?pretty=true"), "", "");
    let (_, plain) = ask(&c, &ADMIN, "GET", maps, "", "");
    assert_eq!(pretty["items"], plain["items"]);
    assert_eq!(pretty["metadata"], plain["metadata"]);
    assert!(c.kubectl(&["get", "configmaps", "--chunk-size=0"]).unwrap().contains("m299"));
    let (mut left, mut next, mut found) = (Vec::new(), String::new(), 0);
    loop {
        let (_, page) = ask(&c, &ADMIN, "GET", &format!("{maps}?limit=100&continue={next}"), "", "");
        found += page["items"].as_array().unwrap().len();
        left.push(page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0));
        match page["metadata"]["continue"].as_str() {
            Some(token) => next = token.into(),
            None => break,
        }
    }
    assert_eq!((found, left), (301, vec![201, 101, 1, 0]));
}

#[test]
fn flags_do_what_they_say_or_the_server_does_not_start() {
    let flags = [
        "--runtime-config=batch/v1=false,apps/v1/replicasets=false",
        "--strict-transport-security-directives=max-age=31536000,includeSubDomains",
        "--tls-min-version=VersionTLS13",
        "--disable-http2-serving",
        "--etcd-prefix=/other",
        "--default-not-ready-toleration-seconds=7",
        "--allow-privileged",
        "--livez-grace-period=1.5h",
        "--event-ttl=500ms",
    ];
    let c = Cluster::with_flags(Store::Embedded, &flags);
    assert_eq!(ask(&c, &ADMIN, "GET", "/apis/batch/v1/jobs", "", "").0, 404);
    assert_eq!(ask(&c, &ADMIN, "GET", "/apis/apps/v1/replicasets", "", "").0, 404);
    assert_eq!(ask(&c, &ADMIN, "GET", "/apis/apps/v1/deployments", "", "").0, 200);
    let (head, _) = c.curl(&[], "/version");
    assert!(head.contains("strict-transport-security: max-age=31536000; includesubdomains"), "{head}");
    assert!(head.starts_with("http/1.1"), "{head}");
    let old = Command::new("curl").args(["-sk", "--tls-max", "1.2", &c.url()]).output().unwrap();
    assert!(!old.status.success());
    make(&c, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}});
    let made = make(&c, "/api/v1/namespaces/default/pods", &pod);
    assert_eq!(made["spec"]["tolerations"][0]["tolerationSeconds"], 7, "{made}");
}

/// Addresses and ports are given back when a service is written without them, not when it was only tried.
#[test]
fn a_service_keeps_what_it_has() {
    let mut c = Cluster::start(Store::Embedded);
    let services = "/api/v1/namespaces/default/services";
    let path = format!("{services}/s");
    let made = make(
        &c,
        services,
        &json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
    );
    let (ip, port) = (made["spec"]["clusterIP"].clone(), made["spec"]["ports"][0]["nodePort"].clone());
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", ip.as_str().unwrap());
    let merge = "application/merge-patch+json";
    let external = r#"{"spec":{"type":"ExternalName","externalName":"x.y"}}"#;
    let (code, answer) = ask(&c, &ADMIN, "PATCH", &format!("{path}?dryRun=All"), merge, external);
    assert_eq!(code, 200, "{answer}");
    let refused = r#"{"spec":{"type":"ExternalName","externalName":"x_!"}}"#;
    assert_eq!(ask(&c, &ADMIN, "PATCH", &path, merge, refused).0, 422);
    assert_eq!(ask(&c, &ADMIN, "GET", &address, "", "").0, 200);
    let put = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 81, "targetPort": 8080}]}});
    let (code, answer) = ask(&c, &ADMIN, "PUT", &path, JSON, &put.to_string());
    assert_eq!(
        (code, &answer["spec"]["ports"][0]["nodePort"], &answer["spec"]["clusterIP"]),
        (200, &port, &ip),
        "{answer}"
    );
    let taken = json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    let (code, answer) = ask(&c, &ADMIN, "POST", services, JSON, &taken.to_string());
    assert_eq!(code, 422, "{answer}");
    c.kill_server();
    c.start_server();
    let (code, answer) = ask(&c, &ADMIN, "POST", services, JSON, &taken.to_string());
    assert_eq!(code, 422, "after a restart: {answer}");
    assert_eq!(ask(&c, &ADMIN, "PATCH", &path, merge, external).0, 200);
    assert_eq!(ask(&c, &ADMIN, "GET", &address, "", "").0, 404);
    eventually("the port is free", || {
        (ask(&c, &ADMIN, "POST", services, JSON, &taken.to_string()).0 == 201).then_some(())
    });
    let dual = json!({"metadata": {"name": "d"}, "spec": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 1}]}});
    assert_eq!(ask(&c, &ADMIN, "POST", services, JSON, &dual.to_string()).0, 422);
    for ip in ["10.96.0.0", "10.96.255.255"] {
        let edge = json!({"metadata": {"name": "e"}, "spec": {"clusterIP": ip, "ports": [{"port": 1}]}});
        assert_eq!(ask(&c, &ADMIN, "POST", services, JSON, &edge.to_string()).0, 422, "{ip}");
    }
}
