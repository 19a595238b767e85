//! API server, controller manager and scheduler together, without a kubelet: what becomes of a Deployment.

use ferrokube_tests::{Cluster, Store, bin, eventually, free_port};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A daemon that ends with the test.
struct Daemon(Child, PathBuf);

impl Daemon {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let path = cluster.path(name);
        let log = std::fs::File::create(&path).expect("its log");
        let child = Command::new(bin(name))
            .arg(format!("--kubeconfig={}", cluster.path("kubeconfig").display()))
            .args(["--bind-address=127.0.0.1", &format!("--secure-port={}", free_port())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Daemon(child.expect("the daemon starts"), path)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.1.display(), std::fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/hostname: n1}}
"#;

const READY: &str = r#"{"status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
  "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": "2100-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;

#[test]
fn a_deployment_becomes_pods_on_nodes_and_goes_again() {
    for store in [Store::Embedded, Store::Etcd] {
        println!("over {store:?}");
        let mut c = Cluster::start(store);
        let _manager = Daemon::start(&c, "kube-controller-manager");
        let scheduler = Daemon::start(&c, "kube-scheduler");
        let get = |c: &Cluster, args: &[&str]| c.kubectl(args).unwrap_or_default();
        c.kubectl_with(&["create", "-f", "-"], NODE).unwrap();
        c.kubectl(&["patch", "node", "n1", "--subresource=status", "--type=merge", "-p", READY]).unwrap();
        eventually("the default service account", || c.kubectl(&["get", "serviceaccount", "default"]).ok());
        eventually("the node's taint goes", || {
            get(&c, &["get", "node", "n1", "-o", "jsonpath={.spec.taints}"]).is_empty().then_some(())
        });
        c.kubectl(&["create", "deployment", "web", "--image=nginx:1.7.9", "--replicas=3"]).unwrap();
        let bound = |c: &Cluster| {
            let nodes = get(c, &["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"]);
            nodes.split_whitespace().filter(|n| *n == "n1").count()
        };
        eventually("three pods on the node", || (bound(&c) == 3).then_some(()));
        // What does not fit says why.
        c.kubectl(&["create", "deployment", "big", "--image=nginx:1.7.9"]).unwrap();
        c.kubectl(&["set", "resources", "deployment", "big", "--requests=cpu=64"]).unwrap();
        eventually("the reason", || get(&c, &["get", "events"]).contains("Insufficient cpu").then_some(()));
        // Every daemon may be killed and started again.
        drop(scheduler);
        c.kill_server();
        c.start_server();
        let _scheduler = Daemon::start(&c, "kube-scheduler");
        c.kubectl(&["scale", "deployment", "web", "--replicas=5"]).unwrap();
        eventually("five pods on the node", || (bound(&c) == 5).then_some(()));
        c.kubectl(&["delete", "deployment", "web", "big"]).unwrap();
        eventually("the replica sets are collected", || {
            get(&c, &["get", "replicasets", "-o", "name"]).is_empty().then_some(())
        });
    }
}

const SETS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: d}
spec:
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec: {containers: [{name: c, image: "nginx:1.7.9", ports: [{containerPort: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.97.0.0/24]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: owner}
"#;

const SERVICE: &str = "---\n{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {clusterIP: 10.97.0.9, ports: [{port: 80}]}}";

#[test]
fn the_controller_manager_keeps_what_is_in_use_and_writes_what_upstream_writes() {
    let c = Cluster::start(Store::Embedded);
    let _manager = Daemon::start(&c, "kube-controller-manager");
    let raw = |path: &str| c.kubectl(&["get", "--raw", path]).ok();
    let value = |path: &str| serde_json::from_str::<serde_json::Value>(&raw(path)?).ok();
    eventually("the default service account", || c.kubectl(&["get", "serviceaccount", "default"]).ok());
    c.kubectl_with(&["create", "-f", "-"], SETS).unwrap();
    // A revision is, byte for byte, what upstream makes of the set: its clients compare it.
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let revision = eventually("the revision", || raw(revisions).filter(|r| r.contains("$patch")));
    let mut template =
        value("/apis/apps/v1/namespaces/default/daemonsets/d").unwrap()["spec"]["template"].take();
    template["$patch"] = "replace".into();
    let wanted = serde_json::json!({"spec": {"template": template}}).to_string();
    assert!(revision.contains(&wanted), "{wanted}\n{revision}");
    // A range that holds an address stays until the address is free.
    let range = "/apis/networking.k8s.io/v1/servicecidrs/more";
    let says = |word: &str| value(range).filter(|r| r["status"]["conditions"][0].to_string().contains(word));
    eventually("the range is ready", || says("\"True\""));
    c.kubectl_with(&["create", "-f", "-"], SERVICE).unwrap();
    c.kubectl(&["delete", "servicecidr", "more", "--wait=false"]).unwrap();
    eventually("it is said to be in use", || says("Terminating"));
    c.kubectl(&["delete", "service", "s"]).unwrap();
    eventually("the range is gone", || raw(range).is_none().then_some(()));
    // What has no namespace can't be owned by what has one, and is not collected for that.
    let uid = c.kubectl(&["get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}"]).unwrap();
    c.kubectl(&["create", "namespace", "b"]).unwrap();
    let refer = format!(
        "metadata: {{name: x, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]}}"
    );
    c.kubectl_with(
        &["create", "-f", "-"],
        &format!("---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, {refer}}}"),
    )
    .unwrap();
    c.kubectl_with(
        &["create", "-n", "b", "-f", "-"],
        &format!("---\n{{apiVersion: v1, kind: ConfigMap, {refer}}}"),
    )
    .unwrap();
    eventually("the stranger is collected", || {
        raw("/api/v1/namespaces/b/configmaps/x").is_none().then_some(())
    });
    eventually("the event", || {
        raw("/api/v1/namespaces/b/events").filter(|e| e.contains("OwnerRefInvalidNamespace"))
    });
    assert!(c.kubectl(&["get", "clusterrole", "x"]).is_ok());
}
