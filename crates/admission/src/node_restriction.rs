//! A kubelet changes its own node and the pods on it, and nothing that would let it gain more.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::pod_references as references;
use api::{GroupResource, Status, read};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, Volume,
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::Value;
use std::collections::BTreeMap;

/// See the module.
pub struct NodeRestriction;

/// Labels that a kubelet may set on itself; all others of Kubernetes' own are for administrators,
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// but for those below these.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const NODE_LEASES: &str = "kube-node-lease";
/// Who signs what kubelets show, as servers and as clients.
const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let in_nodes = request.groups.iter().any(|g| g == "system:nodes");
        let Some(node) = request.user.strip_prefix("system:node:").filter(|_| in_nodes) else {
            return Ok(());
        };
        if request.operation == Operation::Connect {
            return Ok(());
        }
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", request.user);
            return Err(request.forbidden(why));
        }
        let new = object.as_deref();
        let by = Kubelet { node, request };
        let resource = (request.resource.group.as_str(), request.resource.resource.as_str());
        match (resource, request.subresource) {
            (("", "pods"), "") => by.pod(new),
            (("", "pods"), "status") => by.pod_status(new),
            (("", "pods"), "eviction") => by.eviction(),
            (("", "pods"), other) => by.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            (("", "nodes"), _) => by.node(new),
            (("", "persistentvolumeclaims"), "status") => by.claim_status(new),
            (("", "persistentvolumeclaims"), _) => by.refuse("may only update PVC status"),
            (("", "serviceaccounts"), "token") => by.token(new),
            (("coordination.k8s.io", "leases"), _) => by.lease(new),
            (("storage.k8s.io", "csinodes"), _) => {
                by.only_own_name(new, "can only access CSINode with the same name as the requesting node")
            }
            (("resource.k8s.io", "resourceslices"), _) => by.resource_slice(new),
            (("certificates.k8s.io", "certificatesigningrequests"), "") => by.signing_request(new),
            (("certificates.k8s.io", "podcertificaterequests"), _) => {
                by.refuse("PodCertificateRequest feature gate is disabled")
            }
            _ => Ok(()),
        }
    }
}

/// A request of a node's kubelet.
struct Kubelet<'a> {
    node: &'a str,
    request: &'a Request<'a>,
}

impl Kubelet<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Result<(), Status> {
        Err(self.request.forbidden(why))
    }

    fn only(&self, yes: bool, why: impl FnOnce() -> String) -> Result<(), Status> {
        if yes { Ok(()) } else { self.refuse(why()) }
    }

    fn runs(&self, pod: &Pod) -> bool {
        pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(self.node)
    }

    fn there<T>(&self, object: Option<T>) -> Result<T, Status> {
        object.ok_or_else(|| Status::not_found(self.request.resource, self.request.name))
    }

    fn pod(&self, new: Option<&Object>) -> Result<(), Status> {
        let node = self.node;
        match self.request.operation {
            Operation::Create => self.mirror(self.there(new.and_then(|o| o.get::<Pod>()))?),
            Operation::Delete => {
                let pod = self.there(self.request.old.and_then(|o| o.get::<Pod>()))?;
                self.only(self.runs(pod), || {
                    format!("node {node:?} can only delete pods with spec.nodeName set to itself")
                })
            }
            other => self.refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                format!("{other:?}").to_uppercase()
            )),
        }
    }

    /// A node makes pods that stand for its own, that are its own, and that name nothing of the API: by what a pod
    /// names a node may read it.
    fn mirror(&self, pod: &Pod) -> Result<(), Status> {
        let node = self.node;
        self.only(references::is_mirror(pod), || {
            format!(
                "pod does not have {:?} annotation, node {node:?} can only create mirror pods",
                references::MIRROR
            )
        })?;
        self.only(self.runs(pod), || {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        })?;
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        let not_owner =
            || format!("node {node:?} can only create pods with an owner reference set to itself");
        let [owner] = owners else {
            return self.only(false, || match owners {
                [] => not_owner(),
                _ => {
                    format!("node {node:?} can only create pods with a single owner reference set to itself")
                }
            });
        };
        let itself = owner.api_version == "v1" && owner.kind == "Node" && owner.name == node;
        self.only(itself, not_owner)?;
        self.only(owner.controller == Some(true), || {
            format!("node {node:?} can only create pods with a controller owner reference set to itself")
        })?;
        self.only(owner.block_owner_deletion != Some(true), || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let there: Option<Node> = read::get(self.request.reader, "", node);
        let there = there.ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), node))?;
        let uid = there.metadata.uid.unwrap_or_default();
        self.only(owner.uid == uid, || {
            format!("node {node} UID mismatch: expected {} got {uid}", owner.uid)
        })?;
        match reference(pod) {
            Some(what) => self.refuse(format!("node {node:?} can not create pods that reference {what}")),
            None => Ok(()),
        }
    }

    fn pod_status(&self, new: Option<&Object>) -> Result<(), Status> {
        let node = self.node;
        self.updates()?;
        let old = self.there(self.request.old.and_then(|o| o.get::<Pod>()))?;
        let new = self.there(new.and_then(|o| o.get::<Pod>()))?;
        self.only(self.runs(old), || {
            format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
        })?;
        let labels = |p: &Pod| p.metadata.labels.clone().unwrap_or_default();
        self.only(labels(old) == labels(new), || {
            format!("node {node:?} cannot update labels through pod status")
        })?;
        let claims = |p: &Pod| {
            let status = p.status.as_ref();
            status.and_then(|s| s.resource_claim_statuses.clone()).unwrap_or_default()
        };
        self.only(claims(old) == claims(new), || {
            format!("node {node:?} cannot update resource claim statues")
        })?;
        let extended = |p: &Pod| p.status.as_ref().and_then(|s| s.extended_resource_claim_status.clone());
        self.only(extended(old) == extended(new), || {
            format!("node {node:?} cannot update extended resource claim status")
        })
    }

    fn updates(&self) -> Result<(), Status> {
        let operation = self.request.operation;
        self.only(operation == Operation::Update, || {
            format!("unexpected operation {:?}", format!("{operation:?}").to_uppercase())
        })
    }

    fn eviction(&self) -> Result<(), Status> {
        let Request { operation, reader, namespace, name, .. } = self.request;
        self.only(*operation == Operation::Create, || {
            format!("unexpected operation {}", format!("{operation:?}").to_uppercase())
        })?;
        let pod: Pod = self.there(read::get(*reader, namespace, name))?;
        self.only(self.runs(&pod), || {
            format!("node {} can only evict pods with spec.nodeName set to itself", self.node)
        })
    }

    fn node(&self, new: Option<&Object>) -> Result<(), Status> {
        let node = self.node;
        let name = match self.request.name {
            "" => new.and_then(|o| o.meta().name.as_deref()).unwrap_or_default(),
            name => name,
        };
        self.only(name == node, || format!("node {node:?} is not allowed to modify node {name:?}"))?;
        if !matches!(self.request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let new = self.there(new.and_then(|o| o.get::<Node>()))?;
        let config = |n: &Node| n.spec.as_ref().and_then(|s| s.config_source.clone());
        let empty = BTreeMap::new();
        let after = new.metadata.labels.as_ref().unwrap_or(&empty);
        let Some(old) = self.request.old.and_then(|o| o.get::<Node>()) else {
            self.only(config(new).is_none(), || {
                format!("node {node:?} is not allowed to create pods with a non-nil configSource")
            })?;
            let refused = forbidden_labels(&empty, after);
            return self.only(refused.is_empty(), || {
                format!("node {node:?} is not allowed to set the following labels: {}", refused.join(", "))
            });
        };
        self.only(config(new).is_none() || config(new) == config(old), || {
            format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
        })?;
        let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        self.only(taints(old) == taints(new), || format!("node {node:?} is not allowed to modify taints"))?;
        // Owned by something that is not there the node would be collected, and come back without its taints.
        let owners = |n: &Node| n.metadata.owner_references.clone().unwrap_or_default();
        self.only(owners(old) == owners(new), || {
            format!("node {node:?} is not allowed to modify ownerReferences")
        })?;
        let before = old.metadata.labels.as_ref().unwrap_or(&empty);
        let refused = forbidden_labels(before, after);
        self.only(refused.is_empty(), || format!("is not allowed to modify labels: {}", refused.join(", ")))
    }

    /// Of a claim a node says how large it is, and what is done to it; no more, and nothing of its metadata.
    fn claim_status(&self, new: Option<&Object>) -> Result<(), Status> {
        self.updates()?;
        let rest = |claim: Option<&PersistentVolumeClaim>| -> Option<Value> {
            let mut claim = claim?.clone();
            claim.metadata.resource_version = None;
            claim.metadata.managed_fields = None;
            claim.status = claim.status.map(|status| PersistentVolumeClaimStatus {
                capacity: None,
                conditions: None,
                allocated_resource_statuses: None,
                allocated_resources: None,
                ..status
            });
            let mut value = serde_json::to_value(claim).ok()?;
            omit_empty(&mut value);
            Some(value)
        };
        let old = rest(self.request.old.and_then(|o| o.get()));
        let new = rest(new.and_then(|o| o.get()));
        self.only(old.is_some() && old == new, || {
            format!(
                "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
                self.node
            )
        })
    }

    /// A kubelet gets tokens for the pods on its node alone, and for audiences that they name.
    fn token(&self, new: Option<&Object>) -> Result<(), Status> {
        let Request { operation, reader, namespace, .. } = self.request;
        if *operation != Operation::Create {
            return Ok(());
        }
        let spec = new.and_then(|o| o.get::<TokenRequest>()).and_then(|t| t.spec.as_ref());
        let bound = spec.and_then(|s| s.bound_object_ref.as_ref());
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let to_pod = |b: &&k8s_openapi::api::authentication::v1::BoundObjectReference| {
            text(&b.api_version) == "v1" && text(&b.kind) == "Pod" && !text(&b.name).is_empty()
        };
        let Some(bound) = bound.filter(to_pod) else {
            return self.refuse("node requested token not bound to a pod");
        };
        let (name, uid) = (text(&bound.name), text(&bound.uid));
        self.only(!uid.is_empty(), || "node requested token with a pod binding without a uid".into())?;
        let pod: Option<Pod> = read::get(*reader, namespace, &name);
        let pod = pod.ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), &name))?;
        self.only(pod.metadata.uid.as_deref() == Some(&uid), || {
            format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )
        })?;
        self.only(self.runs(&pod), || {
            "node requested token bound to a pod scheduled on a different node".into()
        })?;
        let audiences = spec.and_then(|s| s.audiences.as_deref()).unwrap_or_default();
        let audience = match audiences {
            [] => "",
            [one] => one,
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        if self.names_audience(&pod, audience) {
            return Ok(());
        }
        let verb = "request-serviceaccounts-token-audience";
        let resource = GroupResource::new("", audience);
        let may = self.request.host.authorize(verb, &resource, "", namespace, self.request.name);
        self.only(may.is_ok(), || {
            format!(
                "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
                self.request.user
            )
        })
    }

    /// Whether a volume of the pod gives it, or the driver of the volume, tokens for an audience.
    fn names_audience(&self, pod: &Pod, audience: &str) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| {
            let mut sources = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
            let mounted = sources.any(|s| {
                let token = s.service_account_token.as_ref();
                token.is_some_and(|t| t.audience.as_deref().unwrap_or_default() == audience)
            });
            let driver = || match references::claim(name, v) {
                Some(claim) => self.driver_of_claim(namespace, &claim),
                None => driver_of_volume(v),
            };
            mounted || driver().is_some_and(|d| self.driver_wants(&d, audience))
        })
    }

    fn driver_of_claim(&self, namespace: &str, claim: &str) -> Option<String> {
        let claim: PersistentVolumeClaim = read::get(self.request.reader, namespace, claim)?;
        let volume: PersistentVolume = read::get(self.request.reader, "", &claim.spec?.volume_name?)?;
        let spec = volume.spec?;
        spec.csi.map(|c| c.driver).or_else(|| {
            let migrated = [
                (spec.aws_elastic_block_store.is_some(), "ebs.csi.aws.com"),
                (spec.azure_disk.is_some(), "disk.csi.azure.com"),
                (spec.azure_file.is_some(), "file.csi.azure.com"),
                (spec.gce_persistent_disk.is_some(), "pd.csi.storage.gke.io"),
                (spec.cinder.is_some(), "cinder.csi.openstack.org"),
                (spec.vsphere_volume.is_some(), "csi.vsphere.vmware.com"),
                (spec.portworx_volume.is_some(), "pxd.portworx.com"),
            ];
            migrated.into_iter().find(|(is, _)| *is).map(|(_, driver)| driver.into())
        })
    }

    fn driver_wants(&self, driver: &str, audience: &str) -> bool {
        let driver: Option<CSIDriver> = read::get(self.request.reader, "", driver);
        driver.and_then(|d| d.spec.token_requests).into_iter().flatten().any(|t| t.audience == audience)
    }

    fn lease(&self, new: Option<&Object>) -> Result<(), Status> {
        self.only(self.request.namespace == NODE_LEASES, || {
            format!("can only access leases in the {NODE_LEASES:?} system namespace")
        })?;
        self.only_own_name(new, "can only access node lease with the same name as the requesting node")
    }

    fn only_own_name(&self, new: Option<&Object>, why: &str) -> Result<(), Status> {
        let name = match self.request.operation {
            Operation::Create => new.and_then(|o| o.meta().name.as_deref()).unwrap_or_default(),
            _ => self.request.name,
        };
        self.only(name == self.node, || why.into())
    }

    fn resource_slice(&self, new: Option<&Object>) -> Result<(), Status> {
        let (slice, what) = match self.request.operation {
            Operation::Create => (new, "create"),
            Operation::Delete => (self.request.old, "delete"),
            _ => return Ok(()),
        };
        let slice = slice.and_then(|o| o.get::<ResourceSlice>());
        self.only(slice.is_some_and(|s| s.spec.node_name.as_deref() == Some(self.node)), || {
            format!("can only {what} ResourceSlice with the same NodeName as the requesting node")
        })
    }

    /// A kubelet's certificate is for its own node.
    fn signing_request(&self, new: Option<&Object>) -> Result<(), Status> {
        if self.request.operation != Operation::Create {
            return Ok(());
        }
        let request = self.there(new.and_then(|o| o.get::<CertificateSigningRequest>()))?;
        if !KUBELET_SIGNERS.contains(&request.spec.signer_name.as_str()) {
            return Ok(());
        }
        let subject = pki::ca::read_request(&request.spec.request.0)
            .map_err(|e| self.request.forbidden(format!("unable to parse csr: {e}")))?;
        self.only(subject.common_name == format!("system:node:{}", self.node), || {
            format!("can only create a node CSR with CN=system:node:{}", self.node)
        })
    }
}

fn driver_of_volume(volume: &Volume) -> Option<String> {
    let migrated = [
        (volume.aws_elastic_block_store.is_some(), "ebs.csi.aws.com"),
        (volume.azure_disk.is_some(), "disk.csi.azure.com"),
        (volume.azure_file.is_some(), "file.csi.azure.com"),
        (volume.gce_persistent_disk.is_some(), "pd.csi.storage.gke.io"),
        (volume.cinder.is_some(), "cinder.csi.openstack.org"),
        (volume.vsphere_volume.is_some(), "csi.vsphere.vmware.com"),
        (volume.portworx_volume.is_some(), "pxd.portworx.com"),
    ];
    let migrated = || migrated.into_iter().find(|(is, _)| *is).map(|(_, driver)| driver.into());
    volume.csi.as_ref().map(|c| c.driver.clone()).or_else(migrated)
}

/// What of the API a pod names, if anything.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_ref().is_some_and(|n| !n.is_empty()) {
        return Some("serviceaccounts");
    }
    if !references::secrets(spec).is_empty() {
        return Some("secrets");
    }
    if !references::config_maps(spec).is_empty() {
        return Some("configmaps");
    }
    if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
        return Some("resourceclaims");
    }
    spec.volumes.iter().flatten().find_map(volume_reference)
}

fn volume_reference(v: &Volume) -> Option<&'static str> {
    // What is known to need nothing is let through, so that a new sort of volume is not.
    let known = [
        v.aws_elastic_block_store.is_some(),
        v.azure_disk.is_some(),
        v.cephfs.is_some(),
        v.cinder.is_some(),
        v.downward_api.is_some(),
        v.empty_dir.is_some(),
        v.fc.is_some(),
        v.flex_volume.is_some(),
        v.flocker.is_some(),
        v.gce_persistent_disk.is_some(),
        v.git_repo.is_some(),
        v.host_path.is_some(),
        v.image.is_some(),
        v.iscsi.is_some(),
        v.nfs.is_some(),
        v.photon_persistent_disk.is_some(),
        v.portworx_volume.is_some(),
        v.quobyte.is_some(),
        v.rbd.is_some(),
        v.scale_io.is_some(),
        v.storageos.is_some(),
        v.vsphere_volume.is_some(),
    ];
    let named = [
        (v.config_map.is_some(), "configmaps (via configmap volumes)"),
        (v.secret.is_some(), "secrets (via secret volumes)"),
        (v.csi.is_some(), "csidrivers (via CSI volumes)"),
        (v.glusterfs.is_some(), "endpoints (via glusterFS volumes)"),
        (v.persistent_volume_claim.is_some(), "persistentvolumeclaims"),
        (v.ephemeral.is_some(), "persistentvolumeclaims (via ephemeral volumes)"),
        (v.azure_file.is_some(), "secrets (via azureFile volumes)"),
    ];
    if let Some((_, what)) = named.into_iter().find(|(is, _)| *is) {
        return Some(what);
    }
    if let Some(projected) = &v.projected {
        return projected.sources.iter().flatten().find_map(|s| match s {
            s if s.config_map.is_some() => Some("configmaps (via projected volumes)"),
            s if s.secret.is_some() => Some("secrets (via projected volumes)"),
            s if s.service_account_token.is_some() => Some("serviceaccounts (via projected volumes)"),
            s if s.cluster_trust_bundle.is_some() => Some("clustertrustbundles"),
            s if s.pod_certificate.is_some() => Some("podcertificates"),
            s if s.downward_api.is_some() => None,
            _ => Some("an unknown source of a projected volume"),
        });
    }
    (!known.contains(&true)).then_some("an unknown sort of volume")
}

/// Labels that differ and are not a kubelet's to set.
fn forbidden_labels(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut changed: Vec<&String> =
        before.keys().chain(after.keys()).filter(|k| before.get(*k) != after.get(*k)).collect();
    changed.sort();
    changed.dedup();
    changed.into_iter().filter(|k| is_reserved(k)).cloned().collect()
}

fn is_reserved(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let below = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if below("node-restriction.kubernetes.io") {
        return true;
    }
    (below("kubernetes.io") || below("k8s.io"))
        && !OWN_LABELS.contains(&label)
        && !OWN_DOMAINS.into_iter().any(below)
}

/// Leaves out what is empty: absent and empty say the same.
fn omit_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(omit_empty);
            map.retain(|_, v| {
                !(v.is_null()
                    || v.as_object().is_some_and(|o| o.is_empty())
                    || v.as_array().is_some_and(|a| a.is_empty()))
            });
        }
        Value::Array(items) => items.iter_mut().for_each(omit_empty),
        _ => {}
    }
}
