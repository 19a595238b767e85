//! The Node authorizer: what a kubelet may do is what its own node and the pods on it need.

use crate::{Attributes, Decision, User};
use api::pod_references as references;
use api::read::{self, ObjectReader};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::VolumeAttachment;

/// The name of the node whose kubelet this is.
pub fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|n| !n.is_empty() && user.is_in("system:nodes"))
}

/// Whether a kubelet may. No opinion of anyone else.
pub fn authorize(user: &User, asked: &Attributes<'_>, reader: &dyn ObjectReader) -> Decision {
    let Some(node) = node_name(user) else { return Decision::NoOpinion(String::new()) };
    if !asked.is_resource {
        return Decision::NoOpinion(String::new());
    }
    let graph = Graph { node, reader };
    match graph.judge(asked) {
        Ok(()) => Decision::Allow,
        Err(why) => Decision::NoOpinion(why),
    }
}

/// What leads from objects to a node: over pods, claims and volumes.
struct Graph<'a> {
    node: &'a str,
    reader: &'a dyn ObjectReader,
}

/// What is judged, or why it is not allowed.
type Judged = Result<(), String>;

fn only(yes: bool, why: &str) -> Judged {
    if yes { Ok(()) } else { Err(why.into()) }
}

impl Graph<'_> {
    fn judge(&self, asked: &Attributes<'_>) -> Judged {
        match (asked.group, asked.resource) {
            ("", "secrets") => self.read_named(asked, |n| n.secrets.has(asked.name)).or_else(|why| {
                let of_volume = is_read_of_named(asked).is_ok() && self.secret_of_a_volume(asked);
                if of_volume { Ok(()) } else { Err(why) }
            }),
            ("", "configmaps") => self.read_named(asked, |n| n.config_maps.has(asked.name)),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => {
                only(matches!(asked.verb, "update" | "patch"), "can only get/update/patch this type")?;
                self.path(asked, |n| n.claims.has(asked.name))
            }
            ("", "persistentvolumeclaims") => self.get(asked, |n| n.claims.has(asked.name)),
            ("resource.k8s.io", "resourceclaims") => self.get(asked, |n| n.resource_claims.has(asked.name)),
            ("", "persistentvolumes") => {
                is_get(asked)?;
                only(self.uses_volume(asked.name), &self.no_path())
            }
            ("storage.k8s.io", "volumeattachments") => {
                is_get(asked)?;
                let attachment: Option<VolumeAttachment> = read::get(self.reader, "", asked.name);
                only(attachment.is_some_and(|a| a.spec.node_name == self.node), &self.no_path())
            }
            ("", "serviceaccounts") => self.service_account(asked),
            ("coordination.k8s.io", "leases") => self.lease(asked),
            ("storage.k8s.io", "csinodes") => self.csi_node(asked),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(asked),
            ("", "nodes") => self.node(asked),
            ("", "pods") => self.pod(asked),
            // Certificates for pods are an API that is not served.
            ("certificates.k8s.io", "podcertificaterequests") => Err(String::new()),
            _ => only(general(asked), ""),
        }
    }

    fn no_path(&self) -> String {
        format!("no relationship found between node '{}' and this object", self.node)
    }

    /// Whether a pod of this node is it, or needs it.
    fn needed(&self, namespace: &str, needs: impl Fn(&Needs) -> bool) -> bool {
        let all = read::select::<Pod, Needs>(self.reader, "spec.nodeName", self.node, Needs::of);
        all.iter().any(|p| p.namespace == namespace && needs(p))
    }

    fn path(&self, asked: &Attributes<'_>, needs: impl Fn(&Needs) -> bool) -> Judged {
        only(!asked.name.is_empty(), "No Object name found")?;
        only(self.needed(asked.namespace, needs), &self.no_path())
    }

    fn get(&self, asked: &Attributes<'_>, needs: impl Fn(&Needs) -> bool) -> Judged {
        is_get(asked)?;
        self.path(asked, needs)
    }

    fn read_named(&self, asked: &Attributes<'_>, needs: impl Fn(&Needs) -> bool) -> Judged {
        is_read_of_named(asked)?;
        self.path(asked, needs)
    }

    /// Whether a volume is bound to a claim that a pod of this node uses.
    fn uses_volume(&self, name: &str) -> bool {
        let volume: Option<PersistentVolume> = read::get(self.reader, "", name);
        let claim = volume.and_then(|v| v.spec).and_then(|s| s.claim_ref);
        claim.is_some_and(|c| {
            let (namespace, name) = (c.namespace.unwrap_or_default(), c.name.unwrap_or_default());
            self.needed(&namespace, |n| n.claims.has(&name))
        })
    }

    /// Whether a volume of a pod of this node names the secret.
    fn secret_of_a_volume(&self, asked: &Attributes<'_>) -> bool {
        let pods = read::select::<Pod, Needs>(self.reader, "spec.nodeName", self.node, Needs::of);
        let claims = pods.iter().flat_map(|p| p.claims.0.iter().map(|c| (p.namespace.as_str(), c.as_str())));
        claims.into_iter().any(|(namespace, name)| {
            let claim: Option<PersistentVolumeClaim> = read::get(self.reader, namespace, name);
            let volume = claim.and_then(|c| c.spec).and_then(|s| s.volume_name).unwrap_or_default();
            let volume: Option<PersistentVolume> = read::get(self.reader, "", &volume);
            volume.is_some_and(|v| {
                let bound = v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_some_and(|c| {
                    c.namespace.as_deref() == Some(namespace) && c.name.as_deref() == Some(name)
                });
                bound && references::volume_secrets(&v).contains(&(asked.namespace, asked.name))
            })
        })
    }

    fn service_account(&self, asked: &Attributes<'_>) -> Judged {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read_named(asked, |n| n.accounts.has(asked.name));
        }
        let one = asked.verb == "create" && !asked.name.is_empty();
        only(one, "can only create tokens for individual service accounts")?;
        only(asked.subresource == "token", "can only create token subresource of serviceaccount")?;
        self.path(asked, |n| n.accounts.has(asked.name))
    }

    fn lease(&self, asked: &Attributes<'_>) -> Judged {
        let verbs = matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete");
        only(verbs, "can only get, create, update, patch, or delete a node lease")?;
        let there = asked.namespace == "kube-node-lease";
        only(there, "can only access leases in the \"kube-node-lease\" system namespace")?;
        // The name of what is made is NodeRestriction's to check.
        let own = asked.verb == "create" || asked.name == self.node;
        only(own, "can only access node lease with the same name as the requesting node")
    }

    fn csi_node(&self, asked: &Attributes<'_>) -> Judged {
        let verbs = matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete");
        only(verbs, "can only get, create, update, patch, or delete a CSINode")?;
        only(asked.subresource.is_empty(), "cannot authorize CSINode subresources")?;
        let own = asked.verb == "create" || asked.name == self.node;
        only(own, "can only access CSINode with the same name as the requesting node")
    }

    fn resource_slice(&self, asked: &Attributes<'_>) -> Judged {
        only(asked.subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
        match asked.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                only(!asked.name.is_empty(), "No Object name found")?;
                let slice: Option<ResourceSlice> = read::get(self.reader, "", asked.name);
                only(slice.is_some_and(|s| s.spec.node_name.as_deref() == Some(self.node)), &self.no_path())
            }
            "watch" | "list" | "deletecollection" => only(
                asked.requires("spec.nodeName", self.node),
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
                    .into(),
            ),
        }
    }

    fn node(&self, asked: &Attributes<'_>) -> Judged {
        match (asked.subresource, asked.verb) {
            // Which node is NodeRestriction's to say.
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") => match asked.name {
                name if name == self.node => Ok(()),
                "" => Err(format!("node '{}' cannot read all nodes, only its own Node object", self.node)),
                name => Err(format!("node '{}' cannot read '{name}', only its own Node object", self.node)),
            },
            _ => Err(String::new()),
        }
    }

    fn pod(&self, asked: &Attributes<'_>) -> Judged {
        let on_node = || only(self.needed(asked.namespace, |n| n.name == asked.name), &self.no_path());
        match (asked.subresource, asked.verb) {
            ("", "get") => on_node(),
            ("", "list" | "watch") if asked.requires("spec.nodeName", self.node) => Ok(()),
            ("", "list" | "watch") if !asked.name.is_empty() => on_node(),
            ("", "list" | "watch") => {
                Err("can only list/watch pods with spec.nodeName field selector".into())
            }
            // Which pods is NodeRestriction's to say.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

fn is_get(asked: &Attributes<'_>) -> Judged {
    only(asked.verb == "get", "can only get individual resources of this type")?;
    only(asked.subresource.is_empty(), "cannot get subresource")
}

fn is_read_of_named(asked: &Attributes<'_>) -> Judged {
    only(matches!(asked.verb, "get" | "list" | "watch"), "can only read resources of this type")?;
    only(asked.subresource.is_empty(), "cannot read subresource")?;
    only(!asked.namespace.is_empty(), "can only read namespaced object of this type")?;
    only(!asked.name.is_empty(), "No Object name found")
}

/// What every kubelet may: the rules that upstream keeps for nodes beside the graph.
fn general(asked: &Attributes<'_>) -> bool {
    let read = matches!(asked.verb, "get" | "list" | "watch");
    match (asked.group, asked.resource, asked.subresource) {
        ("authentication.k8s.io", "tokenreviews", "") => asked.verb == "create",
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            asked.verb == "create"
        }
        ("", "services", "") => read,
        ("", "endpoints", "") => asked.verb == "get",
        ("", "events", "") | ("events.k8s.io", "events", "") => {
            matches!(asked.verb, "create" | "update" | "patch")
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") => {
            matches!(asked.verb, "create" | "get" | "list" | "watch")
        }
        ("certificates.k8s.io", "clustertrustbundles", "") => read,
        ("node.k8s.io", "runtimeclasses", "") | ("storage.k8s.io", "csidrivers", "") => read,
        _ => false,
    }
}

/// Names of one kind, few and each once.
#[derive(Debug, Default, PartialEq)]
struct Names(Vec<String>);

impl Names {
    fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Names::default();
        for name in names {
            if !name.is_empty() && !all.has(name) {
                all.0.push(name.into());
            }
        }
        all
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|n| n == name)
    }
}

/// What a pod's kubelet may read for it.
#[derive(Debug, Default, PartialEq)]
struct Needs {
    namespace: String,
    name: String,
    accounts: Names,
    claims: Names,
    resource_claims: Names,
    secrets: Names,
    config_maps: Names,
}

impl Needs {
    fn of(pod: Pod) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(spec) = pod.spec.as_ref().filter(|_| !references::is_mirror(&pod)) else {
            // A node makes mirrors itself: they must not get it anything.
            return Needs { namespace, name, ..Needs::default() };
        };
        let claims: Vec<String> =
            spec.volumes.iter().flatten().filter_map(|v| references::claim(&name, v)).collect();
        Needs {
            accounts: Names::of(spec.service_account_name.as_deref()),
            claims: Names::of(claims.iter().map(String::as_str)),
            resource_claims: Names::of(references::resource_claims(&pod)),
            secrets: Names::of(references::secrets(spec)),
            config_maps: Names::of(references::config_maps(spec)),
            namespace,
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn needs_of_a_pod() {
        let mut pod = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "resourceClaims": [{"name": "r", "resourceClaimName": "rc"}, {"name": "t", "resourceClaimTemplateName": "x"}, {"name": "u", "resourceClaimTemplateName": "x"}],
            "containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "c1"}}]}],
            "initContainers": [{"name": "i", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}}], "envFrom": [{"secretRef": {"name": "s2"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s3"}},
                {"name": "b", "configMap": {"name": "c2"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "pvc"}},
                {"name": "own", "ephemeral": {}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c3"}}]}},
                {"name": "f", "iscsi": {"targetPortal": "t", "iqn": "i", "lun": 0, "secretRef": {"name": "s6"}}},
                {"name": "e", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s5"}}},
            ],
        }, "status": {"resourceClaimStatuses": [{"name": "t", "resourceClaimName": "made"}, {"name": "u"}], "extendedResourceClaimStatus": {"requestMappings": [], "resourceClaimName": "ext"}}});
        let want = Needs {
            namespace: "ns".into(),
            name: "p".into(),
            accounts: Names::of(["sa"]),
            claims: Names::of(["pvc", "p-own"]),
            resource_claims: Names::of(["rc", "made", "ext"]),
            secrets: Names::of(["pull", "s1", "s2", "s3", "s4", "s6", "s5"]),
            config_maps: Names::of(["c1", "c2", "c3"]),
        };
        assert_eq!(Needs::of(serde_json::from_value(pod.clone()).unwrap()), want);
        pod["metadata"]["annotations"] = json!({references::MIRROR: "x"});
        let nothing = Needs { namespace: "ns".into(), name: "p".into(), ..Needs::default() };
        assert_eq!(Needs::of(serde_json::from_value(pod).unwrap()), nothing);
    }
}
