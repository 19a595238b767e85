//! Claims, volumes and attributes classes that are deleted stay while they are used: this takes their finalizer when
//! they are not. Watches claims and the pods that use them; volumes; classes and the claims and volumes that name them.

use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{Client, ListParams, Lister, Object, ObjectExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

const CLAIMS: &str = "persistentvolumeclaim-protection-controller";
const VOLUMES: &str = "persistentvolume-protection-controller";
const OF_CLAIM: &str = "kubernetes.io/pvc-protection";
const OF_VOLUME: &str = "kubernetes.io/pv-protection";
const CLASSES: &str = "volumeattributesclass-protection-controller";
const OF_CLASS: &str = "kubernetes.io/vac-protection";
const BY_CLAIM: &str = "claim";

/// The claims a pod uses: those it names, and those made for it.
pub fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let named = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), v.name)),
        _ => None,
    });
    named.collect()
}

/// A pod that no node has yet uses nothing.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let scheduled = !crate::common::pods::node_name(pod).is_empty();
    scheduled && claims(pod).iter().any(|c| c == claim.name())
}

fn has<T: Object>(object: &T, finalizer: &str) -> bool {
    object.metadata().finalizers.iter().flatten().any(|f| f == finalizer)
}

/// Takes or gives the finalizer.
async fn set<T: Object>(client: &Client, object: &T, finalizer: &str, wanted: bool) -> Result<(), Error> {
    let mut changed = object.clone();
    let finalizers = changed.metadata_mut().finalizers.get_or_insert_default();
    match wanted {
        true => finalizers.push(finalizer.into()),
        false => finalizers.retain(|f| f != finalizer),
    }
    match client.update(&changed).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Looks after claims.
pub async fn run_claims(ctx: Context) {
    let client = ctx.client("pvc-protection-controller");
    let (all, pods) = (ctx.informers.informer::<PersistentVolumeClaim>(), ctx.pods());
    pods.index(BY_CLAIM, |p| claims(p).into_iter().map(|c| format!("{}/{c}", p.namespace())).collect());
    let (lister, users) = (all.lister(), pods.lister());
    ctx.controller(CLAIMS)
        .each(&all)
        .on(&pods, |event, queue| {
            for pod in event.old().into_iter().chain([event.object()]) {
                for claim in claims(pod) {
                    queue.add(ObjectKey::new(pod.namespace(), claim));
                }
            }
        })
        .run(ctx.workers(CLAIMS, 1), ctx.shutdown, move |key| {
            let (client, claim, users) =
                (client.clone(), lister.get(&key.namespace, &key.name), users.clone());
            async move {
                let Some(claim) = claim else { return Outcome::Ok(None) };
                match (claim.is_deleting(), has(&*claim, OF_CLAIM)) {
                    (true, true) if !is_used(&client, &users, &claim).await? => {
                        set(&client, &*claim, OF_CLAIM, false).await?;
                    }
                    (false, false) => set(&client, &*claim, OF_CLAIM, true).await?,
                    _ => {}
                }
                Ok(None)
            }
        })
        .await;
}

/// The cache may be behind: before the finalizer goes, the server is asked.
async fn is_used(client: &Client, pods: &Lister<Pod>, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
    let key = format!("{}/{}", claim.namespace(), claim.name());
    if pods.by_index(BY_CLAIM, &key).iter().any(|p| uses(p, claim)) {
        return Ok(true);
    }
    let all = client.list_all::<Pod>(claim.namespace(), &ListParams::default()).await?;
    Ok(all.items.iter().any(|p| uses(p, claim)))
}

/// Looks after volumes.
pub async fn run_volumes(ctx: Context) {
    let client = ctx.client("pv-protection-controller");
    let all = ctx.informers.informer::<PersistentVolume>();
    let lister = all.lister();
    ctx.controller(VOLUMES)
        .each(&all)
        .run(ctx.workers(VOLUMES, 1), ctx.shutdown, move |key| {
            let (client, volume) = (client.clone(), lister.get(&key.namespace, &key.name));
            async move {
                let Some(volume) = volume else { return Outcome::Ok(None) };
                let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
                match (volume.is_deleting(), has(&*volume, OF_VOLUME)) {
                    (true, true) if !bound => set(&client, &*volume, OF_VOLUME, false).await?,
                    (false, false) => set(&client, &*volume, OF_VOLUME, true).await?,
                    _ => {}
                }
                Ok(None)
            }
        })
        .await;
}

/// The classes a claim names: the one it wants, the one it has and the one on its way.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    let target = status.and_then(|s| s.modify_volume_status.as_ref());
    [
        claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()),
        status.and_then(|s| s.current_volume_attributes_class_name.as_deref()),
        target.and_then(|t| t.target_volume_attributes_class_name.as_deref()),
    ]
    .into_iter()
    .flatten()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

/// Looks after attributes classes.
pub async fn run_classes(ctx: Context) {
    let client = ctx.client("volumeattributesclass-protection-controller");
    let all = ctx.informers.informer::<VolumeAttributesClass>();
    let claims = ctx.informers.informer::<PersistentVolumeClaim>();
    let volumes = ctx.informers.informer::<PersistentVolume>();
    let (lister, users, held) = (all.lister(), claims.lister(), volumes.lister());
    ctx.controller(CLASSES)
        .each(&all)
        .on(&claims, |event, queue| {
            for claim in event.old().into_iter().chain([event.object()]) {
                classes_of_claim(claim).for_each(|c| queue.add(ObjectKey::new("", c)));
            }
        })
        .on(&volumes, |event, queue| {
            for volume in event.old().into_iter().chain([event.object()]) {
                class_of_volume(volume).into_iter().for_each(|c| queue.add(ObjectKey::new("", c)));
            }
        })
        .run(ctx.workers(CLASSES, 1), ctx.shutdown, move |key| {
            let (client, class) = (client.clone(), lister.get("", &key.name));
            let (users, held) = (users.clone(), held.clone());
            async move {
                let Some(class) = class else { return Outcome::Ok(None) };
                let name = class.name();
                let used = || {
                    users.list().iter().any(|c| classes_of_claim(c).any(|n| n == name))
                        || held.list().iter().any(|v| class_of_volume(v) == Some(name))
                };
                match (class.is_deleting(), has(&*class, OF_CLASS)) {
                    (true, true) if !used() => set(&client, &*class, OF_CLASS, false).await?,
                    (false, false) => set(&client, &*class, OF_CLASS, true).await?,
                    _ => {}
                }
                Ok(None)
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_on_nodes_use_claims() {
        let claim = |name: &str| {
            let mut c = PersistentVolumeClaim::default();
            c.metadata.name = Some(name.into());
            c
        };
        let pod = |node: &str| {
            serde_json::from_value::<Pod>(json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [],
                "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "e", "ephemeral": {}}]}}))
            .unwrap()
        };
        for (node, name, want) in [("n", "c", true), ("n", "p-e", true), ("n", "d", false), ("", "c", false)]
        {
            assert_eq!(uses(&pod(node), &claim(name)), want, "{node} {name}");
        }
    }
}
