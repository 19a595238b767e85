//! The Node authorizer: what a kubelet may do is what its own node and the pods on it need.

use crate::{Attributes, Decision, User};
use api::read::{self, ObjectReader};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

/// The name of the node whose kubelet this is.
pub fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|n| !n.is_empty() && user.is_in("system:nodes"))
}

/// Whether a kubelet may. No opinion of anyone else.
pub fn authorize(user: &User, asked: &Attributes<'_>, reader: &dyn ObjectReader) -> Decision {
    let Some(node) = node_name(user) else { return Decision::NoOpinion(String::new()) };
    let allow_if = |yes: bool, why: &str| if yes { Decision::Allow } else { Decision::NoOpinion(why.into()) };
    if !asked.is_resource {
        return Decision::NoOpinion(String::new());
    }
    let no_path = "no relationship found between node and this object";
    match (asked.group, asked.resource, asked.subresource) {
        ("", "secrets" | "configmaps", "") => {
            if !matches!(asked.verb, "get" | "list" | "watch") || asked.name.is_empty() {
                return Decision::NoOpinion("can only read a named resource of this type".into());
            }
            let named = |p: &Needs| {
                if asked.resource == "secrets" {
                    p.secrets.has(asked.name)
                } else {
                    p.config_maps.has(asked.name)
                }
            };
            allow_if(any_on(node, asked.namespace, reader, named), no_path)
        }
        ("", "persistentvolumeclaims", "") if asked.verb == "get" => {
            allow_if(any_on(node, asked.namespace, reader, |p| p.claims.has(asked.name)), no_path)
        }
        ("", "persistentvolumes", "") if asked.verb == "get" => {
            let bound: Option<PersistentVolume> = read::get(reader, "", asked.name);
            let claim = bound.and_then(|v| v.spec).and_then(|s| s.claim_ref);
            let used = claim.is_some_and(|c| {
                let (namespace, name) = (c.namespace.unwrap_or_default(), c.name.unwrap_or_default());
                let there: Option<PersistentVolumeClaim> = read::get(reader, &namespace, &name);
                there.is_some() && any_on(node, &namespace, reader, |p| p.claims.has(&name))
            });
            allow_if(used, no_path)
        }
        ("", "serviceaccounts", "token") if asked.verb == "create" => {
            allow_if(any_on(node, asked.namespace, reader, |p| p.accounts.has(asked.name)), no_path)
        }
        ("", "serviceaccounts", "") if asked.verb == "get" => {
            allow_if(any_on(node, asked.namespace, reader, |p| p.accounts.has(asked.name)), no_path)
        }
        ("coordination.k8s.io", "leases", "") => {
            let own = asked.namespace == "kube-node-lease"
                && (asked.name == node || asked.verb == "create" && asked.name.is_empty());
            allow_if(
                own && matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete"),
                "can only access own lease",
            )
        }
        ("storage.k8s.io", "csinodes", "") => {
            let own = asked.name == node || asked.verb == "create" && asked.name.is_empty();
            allow_if(
                own && matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete"),
                "can only access own CSINode",
            )
        }
        ("storage.k8s.io", "volumeattachments", "") if asked.verb == "get" => Decision::Allow,
        _ => allow_if(general(asked, node), ""),
    }
}

/// What every kubelet may: the rules that upstream keeps for nodes beside the graph.
fn general(asked: &Attributes<'_>, node: &str) -> bool {
    let read = matches!(asked.verb, "get" | "list" | "watch");
    let own = asked.name == node;
    match (asked.group, asked.resource, asked.subresource) {
        ("authentication.k8s.io", "tokenreviews", "") => asked.verb == "create",
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            asked.verb == "create"
        }
        ("", "services", "") => read,
        ("", "nodes", "") => {
            (asked.verb == "create")
                || (read && (own || asked.verb != "get"))
                || (own && matches!(asked.verb, "update" | "patch"))
        }
        ("", "nodes", "status") => own && matches!(asked.verb, "update" | "patch"),
        ("", "events", "") | ("events.k8s.io", "events", "") => {
            matches!(asked.verb, "create" | "update" | "patch")
        }
        // Which pods is NodeRestriction's to say.
        ("", "pods", "") => read || matches!(asked.verb, "create" | "delete"),
        ("", "pods", "status") => matches!(asked.verb, "update" | "patch"),
        ("", "pods", "eviction") => asked.verb == "create",
        ("", "persistentvolumeclaims", "status") => matches!(asked.verb, "get" | "update" | "patch"),
        ("certificates.k8s.io", "certificatesigningrequests", "") => {
            matches!(asked.verb, "create" | "get" | "list" | "watch")
        }
        ("certificates.k8s.io", "clustertrustbundles", "") => read,
        ("node.k8s.io", "runtimeclasses", "") | ("storage.k8s.io", "csidrivers", "") => read,
        ("resource.k8s.io", "resourceclaims", "") => asked.verb == "get",
        ("resource.k8s.io", "resourceslices", "") => true,
        _ => false,
    }
}

fn any_on(node: &str, namespace: &str, reader: &dyn ObjectReader, needs: impl Fn(&Needs) -> bool) -> bool {
    let all = read::select::<Pod, Needs>(reader, "spec.nodeName", node, Needs::of);
    all.iter().any(|p| p.namespace == namespace && needs(p))
}

/// Names of one kind, few and each once.
#[derive(Debug, Default, PartialEq)]
struct Names(Vec<String>);

impl Names {
    fn add(&mut self, name: Option<String>) {
        self.0.extend(name.filter(|n| !self.has(n)));
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|n| n == name)
    }
}

/// What a pod's kubelet may read for it.
#[derive(Debug, Default, PartialEq)]
struct Needs {
    namespace: String,
    accounts: Names,
    claims: Names,
    secrets: Names,
    config_maps: Names,
}

impl Needs {
    fn of(pod: Pod) -> Self {
        let mut needs = Needs { namespace: pod.metadata.namespace.unwrap_or_default(), ..Needs::default() };
        let spec = pod.spec.unwrap_or_default();
        let account = spec.service_account_name.unwrap_or_else(|| "default".into());
        needs.accounts.add(Some(account));
        let containers = spec.containers.into_iter().map(|c| (c.env, c.env_from));
        let init = spec.init_containers.into_iter().flatten().map(|c| (c.env, c.env_from));
        let ephemeral = spec.ephemeral_containers.into_iter().flatten().map(|c| (c.env, c.env_from));
        for (env, from) in containers.chain(init).chain(ephemeral) {
            for value in env.into_iter().flatten().filter_map(|e| e.value_from) {
                needs.secrets.add(value.secret_key_ref.map(|r| r.name));
                needs.config_maps.add(value.config_map_key_ref.map(|r| r.name));
            }
            for from in from.into_iter().flatten() {
                needs.secrets.add(from.secret_ref.map(|r| r.name));
                needs.config_maps.add(from.config_map_ref.map(|r| r.name));
            }
        }
        spec.image_pull_secrets.into_iter().flatten().for_each(|s| needs.secrets.add(Some(s.name)));
        spec.volumes.into_iter().flatten().for_each(|v| needs.volume(v));
        needs
    }

    fn volume(&mut self, volume: Volume) {
        self.claims.add(volume.persistent_volume_claim.map(|c| c.claim_name));
        self.secrets.add(volume.secret.and_then(|s| s.secret_name));
        self.secrets.add(volume.csi.and_then(|c| c.node_publish_secret_ref).map(|r| r.name));
        self.secrets.add(volume.azure_file.map(|f| f.secret_name));
        self.secrets.add(volume.cephfs.and_then(|v| v.secret_ref).map(|r| r.name));
        self.secrets.add(volume.cinder.and_then(|v| v.secret_ref).map(|r| r.name));
        self.secrets.add(volume.flex_volume.and_then(|v| v.secret_ref).map(|r| r.name));
        self.secrets.add(volume.iscsi.and_then(|v| v.secret_ref).map(|r| r.name));
        self.secrets.add(volume.rbd.and_then(|v| v.secret_ref).map(|r| r.name));
        self.config_maps.add(volume.config_map.map(|c| c.name));
        for source in volume.projected.and_then(|p| p.sources).into_iter().flatten() {
            self.secrets.add(source.secret.map(|s| s.name));
            self.config_maps.add(source.config_map.map(|c| c.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn needs_of_a_pod() {
        let pod = json!({"metadata": {"namespace": "ns"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "c1"}}]}],
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}}], "envFrom": [{"secretRef": {"name": "s2"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s3"}},
                {"name": "b", "configMap": {"name": "c2"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "pvc"}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c3"}}]}},
                {"name": "f", "iscsi": {"targetPortal": "t", "iqn": "i", "lun": 0, "secretRef": {"name": "s6"}}},
                {"name": "e", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s5"}}},
            ],
        }});
        let names = |all: &[&str]| Names(all.iter().map(ToString::to_string).collect());
        let want = Needs {
            namespace: "ns".into(),
            accounts: names(&["sa"]),
            claims: names(&["pvc"]),
            secrets: names(&["s1", "s2", "pull", "s3", "s4", "s6", "s5"]),
            config_maps: names(&["c1", "c2", "c3"]),
        };
        assert_eq!(Needs::of(serde_json::from_value(pod).unwrap()), want);
    }
}
