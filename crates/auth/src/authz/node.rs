//! The Node authorizer: what a kubelet may do is what its own node and the pods on it need.

use crate::{Attributes, Decision, User};
use api::read::{self, ObjectReader};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, PodSpec};

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
            allow_if(pods_on(node, asked.namespace, reader).any(|p| refers(&p, asked)), no_path)
        }
        ("", "persistentvolumeclaims", "") if asked.verb == "get" => allow_if(
            pods_on(node, asked.namespace, reader).any(|p| claims(&p).any(|c| c == asked.name)),
            no_path,
        ),
        ("", "persistentvolumes", "") if asked.verb == "get" => {
            let bound: Option<PersistentVolume> = read::get(reader, "", asked.name);
            let claim = bound.and_then(|v| v.spec).and_then(|s| s.claim_ref);
            let used = claim.is_some_and(|c| {
                let (namespace, name) = (c.namespace.unwrap_or_default(), c.name.unwrap_or_default());
                let there: Option<PersistentVolumeClaim> = read::get(reader, &namespace, &name);
                there.is_some() && pods_on(node, &namespace, reader).any(|p| claims(&p).any(|c| c == name))
            });
            allow_if(used, no_path)
        }
        ("", "serviceaccounts", "token") if asked.verb == "create" => {
            allow_if(pods_on(node, asked.namespace, reader).any(|p| account(&p) == asked.name), no_path)
        }
        ("", "serviceaccounts", "") if asked.verb == "get" => {
            allow_if(pods_on(node, asked.namespace, reader).any(|p| account(&p) == asked.name), no_path)
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

fn pods_on(node: &str, namespace: &str, reader: &dyn ObjectReader) -> impl Iterator<Item = PodSpec> {
    let namespace = namespace.to_string();
    read::select::<Pod>(reader, "spec.nodeName", node)
        .into_iter()
        .filter(move |p| p.metadata.namespace.as_deref() == Some(&namespace))
        .filter_map(|p| p.spec)
}

fn account(pod: &PodSpec) -> &str {
    pod.service_account_name.as_deref().unwrap_or("default")
}

fn claims(pod: &PodSpec) -> impl Iterator<Item = &str> {
    pod.volumes.iter().flatten().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// Whether a pod refers to the secret or config map that is asked for.
fn refers(pod: &PodSpec, asked: &Attributes<'_>) -> bool {
    let secret = asked.resource == "secrets";
    let is = |name: Option<&str>| name == Some(asked.name);
    let containers = pod.containers.iter().map(|c| (&c.env, &c.env_from));
    let init = pod.init_containers.iter().flatten().map(|c| (&c.env, &c.env_from));
    let ephemeral = pod.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from));
    let in_env = containers.chain(init).chain(ephemeral).any(|(env, from)| {
        let single = env.iter().flatten().filter_map(|e| e.value_from.as_ref()).any(|v| match secret {
            true => is(v.secret_key_ref.as_ref().map(|r| r.name.as_str())),
            false => is(v.config_map_key_ref.as_ref().map(|r| r.name.as_str())),
        });
        let whole = from.iter().flatten().any(|f| match secret {
            true => is(f.secret_ref.as_ref().map(|r| r.name.as_str())),
            false => is(f.config_map_ref.as_ref().map(|r| r.name.as_str())),
        });
        single || whole
    });
    let pulls = secret && pod.image_pull_secrets.iter().flatten().any(|s| s.name == asked.name);
    let mounted = pod.volumes.iter().flatten().any(|v| {
        let projected = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
        if secret {
            is(v.secret.as_ref().and_then(|s| s.secret_name.as_deref()))
                || is(v
                    .csi
                    .as_ref()
                    .and_then(|c| c.node_publish_secret_ref.as_ref())
                    .map(|r| r.name.as_str()))
                || projected.into_iter().any(|s| is(s.secret.as_ref().map(|s| s.name.as_str())))
        } else {
            is(v.config_map.as_ref().map(|c| c.name.as_str()))
                || projected.into_iter().any(|s| is(s.config_map.as_ref().map(|c| c.name.as_str())))
        }
    });
    in_env || pulls || mounted
}
