//! Makes the claims of pods' ephemeral volumes, which go with the pod.
//! Watches pods and claims; both lead to the pod.

use crate::common::controller_ref;
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{EventType, ObjectExt, object_ref};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

const NAME: &str = "ephemeral-volume-controller";

/// The claims that a pod's ephemeral volumes are.
fn claims(pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let of = |v: &k8s_openapi::api::core::v1::Volume| {
        let template = v.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let meta = template.metadata.clone().unwrap_or_default();
        let mut claim = PersistentVolumeClaim { spec: Some(template.spec.clone()), ..Default::default() };
        claim.metadata.name = Some(format!("{}-{}", pod.name(), v.name));
        claim.metadata.namespace = Some(pod.namespace().into());
        (claim.metadata.labels, claim.metadata.annotations) = (meta.labels, meta.annotations);
        claim.metadata.owner_references = Some(vec![controller_ref(pod)]);
        Some(claim)
    };
    volumes.filter_map(of).collect()
}

/// Makes claims.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let events = ctx.events(&client, "ephemeral_volume");
    let (pods, all) = (ctx.pods(), ctx.informers.informer::<PersistentVolumeClaim>());
    let (lister, there) = (pods.lister(), all.lister());
    ctx.controller(NAME)
        .on(&pods, |event, queue| {
            let pod = event.object();
            if !event.is_deleted() && !pod.is_deleting() && !claims(pod).is_empty() {
                queue.add(pod.key());
            }
        })
        .on(&all, |event, queue| {
            let owner = event.object().controller().filter(|c| c.kind == "Pod");
            if let Some(owner) = owner.filter(|_| event.is_deleted()) {
                queue.add(ObjectKey::new(event.object().namespace(), &owner.name));
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let (client, events, there) = (client.clone(), events.clone(), there.clone());
            let pod = lister.get(&key.namespace, &key.name);
            async move {
                let Some(pod) = pod.filter(|p| !p.is_deleting()) else { return Outcome::Ok(None) };
                for claim in claims(&pod) {
                    if let Some(other) = there.get(claim.namespace(), claim.name()) {
                        if other.controller().is_none_or(|c| c.uid != pod.uid()) {
                            return Err(Error::Other(format!(
                                "PVC {} was not created for pod {} (pod is not owner)",
                                claim.key(),
                                pod.key()
                            )));
                        }
                        continue;
                    }
                    match client.create(&claim).await {
                        Err(e) if e.is_already_exists() || e.is_namespace_terminating() => {}
                        Err(e) => {
                            let message = format!("ephemeral volume claim creation failed: {e}");
                            events.event(
                                &object_ref(&*pod),
                                EventType::Warning,
                                "FailedClaimCreation",
                                message,
                            );
                            return Err(e.into());
                        }
                        Ok(_) => {}
                    }
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
    fn each_ephemeral_volume_is_a_claim() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [], "volumes": [
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "s"}}}},
            {"name": "d", "emptyDir": {}}]}}))
        .unwrap();
        let made = claims(&pod);
        assert_eq!(made.len(), 1);
        assert_eq!(
            (made[0].name(), made[0].label("a"), made[0].controller().unwrap().uid.as_str()),
            ("p-e", Some("b"), "u")
        );
    }
}
