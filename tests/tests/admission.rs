//! What the API server refuses, fills in and counts before it keeps an object.

use ferrokube_tests::{Cluster, Store};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("kubectl prints JSON")
}

fn prepare(c: &Cluster, namespace: &str) {
    c.kubectl(&["create", "namespace", namespace]).unwrap();
    c.kubectl(&["-n", namespace, "create", "serviceaccount", "default"]).unwrap();
}

#[test]
fn namespaces_say_how_secure_pods_are() {
    let c = Cluster::start(Store::Embedded);
    prepare(&c, "strict");
    c.kubectl(&["label", "ns", "strict", "pod-security.kubernetes.io/enforce=restricted"]).unwrap();
    let refused = c.kubectl(&["-n", "strict", "run", "a", "--image=x"]).unwrap_err();
    assert!(
        refused.contains("violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false")
    );
    let label = ["label", "ns", "strict", "--overwrite", "pod-security.kubernetes.io/enforce=high"];
    assert!(c.kubectl(&label).unwrap_err().contains("must be one of privileged, baseline, restricted"));
    // A workload is kept; its pods would not be.
    c.kubectl(&["-n", "strict", "create", "deployment", "d", "--image=x"]).unwrap();
}

#[test]
fn limits_are_filled_in_and_kept() {
    let c = Cluster::start(Store::Embedded);
    prepare(&c, "n");
    let range = r#"{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": "n"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}}]}}"#;
    c.kubectl_with(&["create", "-f", "-"], range).unwrap();
    c.kubectl(&["-n", "n", "run", "a", "--image=x"]).unwrap();
    let pod = json(&c.kubectl(&["-n", "n", "get", "pod", "a", "-o", "json"]).unwrap());
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "500m");
    let large = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "namespace": "n"},
        "spec": {"containers": [{"name": "b", "image": "x", "resources": {"limits": {"cpu": "2"}}}]}}"#;
    let refused = c.kubectl_with(&["create", "-f", "-"], large).unwrap_err();
    assert!(refused.contains("maximum cpu usage per Container is 1, but limit is 2"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_however_many_ask_at_once() {
    let c = Cluster::start(Store::Embedded);
    prepare(&c, "n");
    c.kubectl(&["-n", "n", "create", "quota", "q", "--hard=configmaps=5"]).unwrap();
    // What the controller does when it sees a new quota.
    let status = r#"{"status": {"hard": {"configmaps": "5"}, "used": {"configmaps": "0"}}}"#;
    c.kubectl(&["-n", "n", "patch", "quota", "q", "--subresource=status", "--type=merge", "-p", status])
        .unwrap();
    let client = c.client();
    let made = (0..30).map(|i| {
        let client = client.clone();
        tokio::spawn(async move {
            let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{i}")}});
            client.post::<_, Value>("/api/v1/namespaces/n/configmaps", &map).await
        })
    });
    let (mut kept, mut refused) = (0, 0);
    for one in made.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => kept += 1,
            Err(e) => {
                assert!(e.to_string().contains("exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5"), "{e}");
                refused += 1;
            }
        }
    }
    assert_eq!((kept, refused), (5, 25));
}

#[test]
fn nobody_grants_what_they_have_not() {
    let c = Cluster::start(Store::Embedded);
    let roles = "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io";
    c.kubectl(&["create", "clusterrole", "r", "--verb=create", roles]).unwrap();
    c.kubectl(&["create", "clusterrolebinding", "r", "--clusterrole=r", "--user=jane"]).unwrap();
    let jane = |args: &[&str]| c.kubectl(&[&["--context", "jane", "-n", "default"], args].concat());
    let refused = jane(&["create", "role", "pods", "--verb=get,list", "--resource=pods"]).unwrap_err();
    assert!(
        refused.contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}"),
        "{refused}"
    );
    jane(&["create", "role", "own", "--verb=create", "--resource=roles.rbac.authorization.k8s.io"]).unwrap();
    let bind = ["create", "rolebinding", "b", "--clusterrole=cluster-admin", "--user=jane"];
    assert!(jane(&bind).unwrap_err().contains("not currently held"));
    c.kubectl(&[
        "create",
        "clusterrole",
        "binder",
        "--verb=bind",
        "--resource=clusterroles.rbac.authorization.k8s.io",
    ])
    .unwrap();
    c.kubectl(&["create", "clusterrolebinding", "binder", "--clusterrole=binder", "--user=jane"]).unwrap();
    jane(&bind).unwrap();
}
