//! Which volume a claim gets, and what a volume or a claim is to become.

use api::pod_resources;
use api::quantity::Quantity;
use api::quota::class;
use api::selector::LabelSelector;
use client::{ObjectExt, object_ref};
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use std::sync::Arc;

pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub const PROVISIONERS: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const VOLUME_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Whether a volume's reference means a claim: by name, and by its unique id if it has one.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    reference(volume).is_some_and(|r| {
        r.name.as_deref() == Some(claim.name())
            && r.namespace.as_deref() == Some(claim.namespace())
            && r.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid())
    })
}

/// The claim that a volume is for.
pub fn reference(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The class of a volume.
pub fn class_of(volume: &PersistentVolume) -> &str {
    let named = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    volume.annotation(VOLUME_CLASS).or(named).unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let amounts = pod_resources::read(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()));
    amounts.get("storage").copied().unwrap_or_default()
}

fn asked(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let amounts = pod_resources::read(resources.and_then(|r| r.requests.as_ref()));
    amounts.get("storage").copied().unwrap_or_default()
}

type VolumeSpec = PersistentVolumeSpec;
type ClaimSpec = PersistentVolumeClaimSpec;

fn text(of: &Option<String>) -> &str {
    of.as_deref().unwrap_or_default()
}

/// What both sides have to agree on, whoever chose the volume.
fn unfit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (v, c): (Option<&VolumeSpec>, Option<&ClaimSpec>) = (volume.spec.as_ref(), claim.spec.as_ref());
    let mode = |m: Option<&String>| m.is_none_or(|m| m == "Filesystem");
    if capacity(volume) < asked(claim) {
        return Some("requested PV is too small");
    }
    if mode(v.and_then(|v| v.volume_mode.as_ref())) != mode(c.and_then(|c| c.volume_mode.as_ref())) {
        return Some("incompatible volumeMode");
    }
    let of_volume = v.map_or("", |v| text(&v.volume_attributes_class_name));
    if of_volume != c.map_or("", |c| text(&c.volume_attributes_class_name)) {
        return Some("volumeAttributesClassName does not match");
    }
    None
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let has = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    let wanted = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|m| has.contains(m))
}

/// Why a claim can't have a volume that it names, if it can't.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if volume.is_deleting() {
        return Some("the volume is marked for deletion");
    }
    if class_of(volume) != class(claim) {
        return Some("storageClassName does not match");
    }
    unfit(volume, claim).or_else(|| (!has_modes(volume, claim)).then_some("incompatible accessMode"))
}

/// The volume that a claim gets: the one that is reserved for it, whatever its class, or the smallest of its class
/// that fits. Where binding waits for the first pod, only what is reserved: the scheduler knows on which node the
/// volume has to be, and reserves it.
pub fn choose(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    delayed: bool,
) -> Option<Arc<PersistentVolume>> {
    let fits =
        |v: &&Arc<PersistentVolume>| !v.is_deleting() && has_modes(v, claim) && unfit(v, claim).is_none();
    if let Some(reserved) = volumes.iter().filter(|v| is_for(v, claim)).find(fits) {
        return Some(reserved.clone());
    }
    if delayed {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.map(LabelSelector::from_object).transpose().ok()?;
    let wanted = class(claim);
    // What is cheap to see comes first.
    let free = |v: &&Arc<PersistentVolume>| {
        reference(v).is_none()
            && phase(v) == "Available"
            && class_of(v) == wanted
            && selector.as_ref().is_none_or(|s| s.matches_labels(v.metadata.labels.as_ref()))
    };
    let modes =
        |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.access_modes.as_ref()).map_or(0, Vec::len);
    let all = volumes.iter().filter(free).filter(fits);
    all.min_by_key(|v| (modes(v), capacity(v), v.name().to_string())).cloned()
}

/// The class that claims without one get: of several the newest.
pub fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    const DEFAULT: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = |c: &&Arc<StorageClass>| DEFAULT.iter().any(|a| c.annotation(a) == Some("true"));
    let made = |c: &StorageClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
    classes.iter().filter(default).min_by(|a, b| made(b).cmp(&made(a)).then_with(|| a.name().cmp(b.name())))
}

/// Whether a claim says nothing of a class: an empty one is an answer too.
pub fn lacks_class(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(VOLUME_CLASS).is_none()
        && claim.spec.as_ref().is_none_or(|s| s.storage_class_name.is_none())
}

/// A volume's phase.
pub fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The volume as it is when it is the claim's; none if it is already.
pub fn given(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let bound = reference(volume);
    if bound.is_some_and(|r| r.uid.as_deref() == Some(claim.uid())) {
        return None;
    }
    let mut changed = volume.clone();
    if bound.is_none() {
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    changed.spec.get_or_insert_default().claim_ref = Some(object_ref(claim));
    Some(changed)
}

/// The claim as it is when it has the volume; none if it is already.
pub fn taken(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    let completed = claim.annotation(BIND_COMPLETED).is_some();
    if named == volume.name() && completed {
        return None;
    }
    let mut changed = claim.clone();
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.into(), "yes".into());
    if named.is_empty() {
        annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        changed.spec.get_or_insert_default().volume_name = Some(volume.name().into());
    }
    Some(changed)
}

/// A claim with a phase, and with what its volume has if it is bound; none if that is its status already.
pub fn claim_in(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.into());
    match volume.and_then(|v| v.spec.as_ref()) {
        Some(spec) => {
            status.access_modes.clone_from(&spec.access_modes);
            // A claim that grows tells its own capacity.
            if status.capacity.as_ref().is_none_or(|c| c.is_empty()) {
                status.capacity.clone_from(&spec.capacity);
            }
            status.current_volume_attributes_class_name.clone_from(&spec.volume_attributes_class_name);
        }
        None => (status.access_modes, status.capacity) = (None, None),
    }
    (changed.status != claim.status).then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"is": name}}, "spec": spec, "status": {"phase": "Available"}}))
                .unwrap(),
        )
    }

    fn claim(more: Value) -> PersistentVolumeClaim {
        let mut spec =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn the_smallest_volume_that_fits() {
        let all = [
            volume("small", "1Gi", json!({})),
            volume("big", "20Gi", json!({})),
            volume("right", "10Gi", json!({})),
            volume("fast", "5Gi", json!({"storageClassName": "fast"})),
            volume("block", "6Gi", json!({"volumeMode": "Block"})),
            volume("taken", "5Gi", json!({"claimRef": {"namespace": "n", "name": "d"}})),
        ];
        for (more, waits, want) in [
            (json!({}), false, "right"),
            (json!({}), true, "none"),
            (json!({"storageClassName": "fast"}), false, "fast"),
            (json!({"volumeMode": "Block"}), false, "block"),
            (json!({"accessModes": ["ReadWriteMany"]}), false, "none"),
            (json!({"selector": {"matchLabels": {"is": "big"}}}), false, "big"),
        ] {
            let got = choose(&claim(more.clone()), &all, waits);
            assert_eq!(got.map_or("none".into(), |v| v.name().to_string()), want, "{more}");
        }
        let named =
            [volume("mine", "50Gi", json!({"claimRef": {"namespace": "n", "name": "c"}})), all[2].clone()];
        assert_eq!(choose(&claim(json!({})), &named, true).unwrap().name(), "mine");
        // Reserved is reserved, whatever the class that the claim was given.
        let classy = claim(json!({"storageClassName": "standard"}));
        assert_eq!(choose(&classy, &named, false).unwrap().name(), "mine");
        assert!(choose(&claim(json!({"accessModes": ["ReadWriteMany"]})), &named, false).is_none());
    }

    #[test]
    fn the_newest_default_class_is_the_default() {
        let class = |name: &str, made: &str, default: &str| {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": made,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": default}}, "provisioner": "p"}))
                .unwrap(),
            )
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let of = |all: &[Arc<StorageClass>]| default_class(all).map(|c| c.name().to_string());
        assert_eq!(
            of(&[class("a", old, "true"), class("c", new, "true"), class("b", new, "true")]),
            Some("b".into())
        );
        assert_eq!(of(&[class("a", new, "false")]), None);
        assert!(lacks_class(&claim(json!({}))) && !lacks_class(&claim(json!({"storageClassName": ""}))));
    }

    #[test]
    fn both_sides_of_a_binding() {
        let (c, v) = (claim(json!({})), volume("v", "10Gi", json!({})));
        let bound = given(&v, &c).unwrap();
        assert_eq!(reference(&bound).unwrap().uid.as_deref(), Some("u"));
        assert_eq!(bound.annotation(BOUND_BY_CONTROLLER), Some("yes"));
        assert!(given(&bound, &c).is_none());
        let has = taken(&c, &bound).unwrap();
        assert_eq!(
            (has.annotation(BIND_COMPLETED), has.annotation(BOUND_BY_CONTROLLER)),
            (Some("yes"), Some("yes"))
        );
        assert!(taken(&has, &bound).is_none());
        let told = claim_in(&has, "Bound", Some(&bound)).unwrap();
        assert_eq!(told.status.as_ref().unwrap().capacity, v.spec.as_ref().unwrap().capacity);
        assert!(claim_in(&told, "Bound", Some(&bound)).is_none());
    }
}
