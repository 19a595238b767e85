//! What a kubelet tries, and what it may: the table in `node.txt`.

use api::GroupResource;
use api::read::{Held, ObjectReader};
use api::selector::parse_fields;
use auth::authz::node;
use auth::{Attributes, Decision, User};
use serde_json::{Value, json};
use std::any::Any;
use std::sync::{Arc, OnceLock};

struct Stored(bytes::Bytes, OnceLock<Arc<dyn Any + Send + Sync>>);

impl Held for Stored {
    fn json(&self) -> &bytes::Bytes {
        &self.0
    }

    fn typed(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.1
    }
}

struct World(Vec<(&'static str, Value)>);

impl World {
    fn all(&self, resource: &GroupResource, wanted: impl Fn(&Value) -> bool) -> Vec<Arc<dyn Held>> {
        let of = self.0.iter().filter(|(plural, value)| *plural == resource.resource && wanted(value));
        of.map(|(_, v)| Arc::new(Stored(v.to_string().into(), OnceLock::new())) as Arc<dyn Held>).collect()
    }
}

impl ObjectReader for World {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<dyn Held>> {
        let meta = |v: &Value, f: &str| v["metadata"][f].as_str().unwrap_or_default().to_string();
        self.all(resource, |v| meta(v, "namespace") == namespace && meta(v, "name") == name).pop()
    }

    fn list(&self, resource: &GroupResource, _: Option<&str>) -> Vec<Arc<dyn Held>> {
        self.all(resource, |_| true)
    }

    fn select(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Arc<dyn Held>> {
        let pointer = format!("/{}", field.replace('.', "/"));
        self.all(resource, |v| v.pointer(&pointer).and_then(Value::as_str) == Some(value))
    }

    fn generation(&self, _: &GroupResource) -> u64 {
        0
    }
}

fn pod(name: &str, node: &str, n: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns0", "annotations": annotations},
        "spec": {
            "nodeName": node, "serviceAccountName": format!("sa{n}"), "containers": [],
            "imagePullSecrets": [{"name": format!("secret-{name}")}, {"name": if n == "-mirror" { "x" } else { "secret-shared" }}],
            "resourceClaims": [{"name": "a", "resourceClaimName": format!("claim-{name}")}, {"name": "b", "resourceClaimTemplateName": format!("template{n}")}],
            "volumes": [
                {"name": "c", "configMap": {"name": format!("configmap-{name}")}},
                {"name": "p", "persistentVolumeClaim": {"claimName": format!("pvc-{name}")}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ],
        },
        "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": format!("generated-{name}")}]},
    })
}

fn world() -> World {
    let mut all = Vec::new();
    all.push(("pods", pod("mirror", "node0", "-mirror", json!({"kubernetes.io/config.mirror": "x"}))));
    for n in ["0", "1"] {
        let node = format!("node{n}");
        all.push(("pods", pod(&format!("pod{n}"), &node, n, json!({}))));
        all.push(("persistentvolumeclaims", json!({"metadata": {"name": format!("pvc-pod{n}"), "namespace": "ns0"}, "spec": {"volumeName": format!("pv{n}")}})));
        let secret = |name: &str| json!({"namespace": "ns0", "name": name});
        all.push(("persistentvolumes", json!({"metadata": {"name": format!("pv{n}")}, "spec": {
            "claimRef": {"namespace": "ns0", "name": format!("pvc-pod{n}")},
            "csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": secret(&format!("secret-pv{n}")), "controllerExpandSecretRef": secret(&format!("secret-pv{n}-controller"))},
        }})));
        all.push(("volumeattachments", json!({"metadata": {"name": format!("attachment{n}")}, "spec": {"attacher": "a", "nodeName": node, "source": {}}})));
        all.push(("resourceslices", json!({"metadata": {"name": format!("slice{n}")}, "spec": {"driver": "d", "nodeName": node, "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})));
    }
    // A claim that names a volume which is not bound to it gets nothing of it.
    all.push((
        "persistentvolumeclaims",
        json!({"metadata": {"name": "pod0-scratch", "namespace": "ns0"}, "spec": {"volumeName": "pv2"}}),
    ));
    all.push(("persistentvolumes", json!({"metadata": {"name": "pv2"}, "spec": {"claimRef": {"namespace": "ns0", "name": "other"}, "csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"namespace": "ns0", "name": "secret-unclaimed"}}}})));
    World(all)
}

#[test]
fn what_a_kubelet_may() {
    let world = world();
    let user = User::new("system:node:node0", &["system:nodes"]);
    let table = include_str!("node.txt");
    for line in table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [want, verb, resource, namespace, name, rest @ ..] = columns.as_slice() else {
            panic!("{line}");
        };
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let fields = parse_fields(rest.first().copied().unwrap_or_default()).unwrap();
        let or_none = |text: &'static str| if text == "-" { "" } else { text };
        let asked = Attributes {
            verb,
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace: or_none(namespace),
            name: or_none(name),
            fields: &fields,
            ..Attributes::default()
        };
        let got = node::authorize(&user, &asked, &world);
        assert_eq!(got == Decision::Allow, *want == "+", "{line}: {got:?}");
        for stranger in [
            User::new("system:node:node0", &[]),
            User::new("system:node:", &["system:nodes"]),
            User::new("node0", &["system:nodes"]),
        ] {
            assert_ne!(node::authorize(&stranger, &asked, &world), Decision::Allow, "{line}: {stranger:?}");
        }
    }
}
