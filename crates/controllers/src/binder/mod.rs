//! Binds claims and volumes to each other, and says what becomes of volumes whose claim is gone.
//! Watches claims, volumes and classes. Volumes are made and deleted by provisioners of their own, which this
//! asks by annotations.

mod plan;

use crate::common::gone_is_fine;
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::quota::class;
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, WorkQueue, object_ref};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use plan::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, PROVISIONERS, SELECTED_NODE, choose, claim_in,
    default_class, given, is_for, lacks_class, mismatch, phase, reference, taken,
};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "persistentvolume-binder-controller";
const PROVISIONER_OF_NONE: &str = "kubernetes.io/no-provisioner";

/// A claim, or a volume: that has no namespace.
type Key = ObjectKey;

struct Binder {
    client: Client,
    events: EventRecorder,
    queue: WorkQueue<Key>,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    classes: Lister<StorageClass>,
    /// Claims that wait are looked at again so often.
    again: Duration,
    /// Whether provisioners are asked for volumes.
    provisions: bool,
}

/// Binds volumes.
pub async fn run(ctx: Context) {
    let client = ctx.client("persistent-volume-binder");
    let claims = ctx.informers.informer::<PersistentVolumeClaim>();
    let volumes = ctx.informers.informer::<PersistentVolume>();
    let classes = ctx.informers.informer::<StorageClass>();
    let controller = ctx.controller(NAME);
    let this = Arc::new(Binder {
        events: ctx.events(&client, "persistentvolume-controller"),
        client,
        queue: controller.queue().clone(),
        claims: claims.lister(),
        volumes: volumes.lister(),
        classes: classes.lister(),
        again: ctx.config.binder_sync_period,
        provisions: ctx.config.dynamic_provisioning,
    });
    let (waiting, without) = (claims.lister(), claims.lister());
    // One worker: two claims must not be given the same volume.
    controller
        .on(&claims, |event, queue| {
            let claim = event.object();
            queue.add(claim.key());
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
            if !volume.is_empty() {
                queue.add(ObjectKey::new("", volume));
            }
        })
        .on(&volumes, move |event, queue| {
            let volume = event.object();
            queue.add(volume.key());
            match reference(volume) {
                Some(r) => queue.add(ObjectKey::new(
                    r.namespace.as_deref().unwrap_or_default(),
                    r.name.as_deref().unwrap_or_default(),
                )),
                // It may be what a claim waits for.
                None if !event.is_deleted() && event.old().is_none_or(|o| is_freed(o, volume)) => {
                    let unbound = |c: &&Arc<PersistentVolumeClaim>| c.annotation(BIND_COMPLETED).is_none();
                    waiting.list().iter().filter(unbound).for_each(|c| queue.add(c.key()));
                }
                None => {}
            }
        })
        .on(&classes, move |event, queue| {
            // It may be the default that claims have waited for.
            let told = |c: &StorageClass| c.metadata.annotations.clone();
            if !event.is_deleted() && event.old().is_none_or(|o| told(o) != told(event.object())) {
                let waits = |c: &&Arc<PersistentVolumeClaim>| c.annotation(BIND_COMPLETED).is_none() && lacks_class(c);
                without.list().iter().filter(waits).for_each(|c| queue.add(c.key()));
            }
        })
        .run(1, ctx.shutdown, move |key: Key| {
            let this = this.clone();
            async move {
                if key.namespace.is_empty() { this.volume(&key).await } else { this.claim(&key).await }
            }
        })
        .await;
}

/// Whether a volume can be had now, or fits others than before.
fn is_freed(old: &PersistentVolume, new: &PersistentVolume) -> bool {
    let before = (phase(old), &old.spec, &old.metadata.labels);
    phase(new) == "Available" && before != (phase(new), &new.spec, &new.metadata.labels)
}

impl Binder {
    fn tell(&self, claim: &PersistentVolumeClaim, kind: EventType, reason: &str, message: &str) {
        self.events.event(&object_ref(claim), kind, reason, message);
    }

    async fn claim(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(None) };
        if claim.annotation(BIND_COMPLETED).is_some() {
            self.bound(&claim).await
        } else {
            self.unbound(&claim).await
        }
    }

    async fn unbound(&self, claim: &PersistentVolumeClaim) -> Outcome {
        if claim.is_deleting() {
            return Ok(None);
        }
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        if !named.is_empty() {
            let Some(volume) = self.volumes.get("", named) else {
                self.pend(claim).await?;
                return Ok(Some(self.again));
            };
            return match reference(&volume) {
                None => match mismatch(&volume, claim) {
                    Some(why) => {
                        let message = format!("Cannot bind to requested volume {named:?}: {why}");
                        self.tell(claim, EventType::Warning, "VolumeMismatch", &message);
                        self.pend(claim).await?;
                        Ok(None)
                    }
                    None => self.bind(&volume, claim).await,
                },
                Some(_) if is_for(&volume, claim) => self.bind(&volume, claim).await,
                Some(_) => {
                    let message = format!("volume {named:?} already bound to a different claim.");
                    self.tell(claim, EventType::Warning, "FailedBinding", &message);
                    self.pend(claim).await?;
                    Ok(Some(self.again))
                }
            };
        }
        let class = Some(class(claim)).filter(|c| !c.is_empty());
        let class = class.and_then(|c| self.classes.get("", c));
        let lazy = |c: &Arc<StorageClass>| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        let delayed = class.as_ref().is_some_and(lazy);
        let waits = delayed && claim.annotation(SELECTED_NODE).is_none();
        if let Some(volume) = choose(claim, &self.volumes.list(), delayed) {
            return self.bind(&volume, claim).await;
        }
        // It was made before there was a default class.
        if let Some(default) = default_class(&self.classes.list()).filter(|_| lacks_class(claim)) {
            let mut changed = claim.clone();
            changed.spec.get_or_insert_default().storage_class_name = Some(default.name().into());
            self.client.update(&changed).await?;
            return Ok(None);
        }
        let provisioner = class.as_ref().map(|c| c.provisioner.as_str());
        let provisioner = provisioner.filter(|p| *p != PROVISIONER_OF_NONE && self.provisions);
        if waits {
            let message = "waiting for first consumer to be created before binding";
            self.tell(claim, EventType::Normal, "WaitForFirstConsumer", message);
        } else if let Some(provisioner) = provisioner {
            self.pend(&self.provision(claim, provisioner).await?).await?;
            return Ok(Some(self.again));
        } else if api::quota::class(claim).is_empty() {
            let message = "no persistent volumes available for this claim and no storage class is set";
            self.tell(claim, EventType::Normal, "FailedBinding", message);
        } else if class.is_none() {
            let message = format!("storageclass.storage.k8s.io {:?} not found", api::quota::class(claim));
            self.tell(claim, EventType::Warning, "ProvisioningFailed", &message);
        }
        self.pend(claim).await?;
        Ok(Some(self.again))
    }

    /// Tells the provisioner of a class that a volume is wanted.
    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
    ) -> Result<PersistentVolumeClaim, Error> {
        let mut changed = claim.clone();
        if PROVISIONERS.iter().any(|a| claim.annotation(a) != Some(provisioner)) {
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.extend(PROVISIONERS.map(|a| (a.to_string(), provisioner.to_string())));
            changed = self.client.update(&changed).await?;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.tell(claim, EventType::Normal, "ExternalProvisioning", &message);
        Ok(changed)
    }

    async fn bound(&self, claim: &PersistentVolumeClaim) -> Outcome {
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let lost = match self.volumes.get("", named).filter(|_| !named.is_empty()) {
            None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
            Some(volume) if reference(&volume).is_none() || is_for(&volume, claim) => {
                return self.bind(&volume, claim).await;
            }
            Some(_) => {
                ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
            }
        };
        if let Some(changed) = claim_in(claim, "Lost", None) {
            self.tell(claim, EventType::Warning, lost.0, lost.1);
            self.write_claim(&changed).await?;
        }
        Ok(None)
    }

    /// Binds both, in an order in which it can be begun again anywhere.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Outcome {
        let mut volume = match given(volume, claim) {
            Some(changed) => self.client.update(&changed).await?,
            None => volume.clone(),
        };
        if phase(&volume) != "Bound" {
            volume = self.write_phase(&volume, "Bound", None).await?;
        }
        let claim = match taken(claim, &volume) {
            Some(changed) => self.client.update(&changed).await?,
            None => claim.clone(),
        };
        if let Some(changed) = claim_in(&claim, "Bound", Some(&volume)) {
            self.write_claim(&changed).await?;
        }
        Ok(None)
    }

    async fn pend(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        match claim_in(claim, "Pending", None) {
            Some(changed) => self.write_claim(&changed).await,
            None => Ok(()),
        }
    }

    async fn write_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let result = self.client.update_status(claim).await;
        Ok(gone_is_fine(result.map(drop))?)
    }

    async fn write_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<&str>,
    ) -> Result<PersistentVolume, Error> {
        let mut changed = volume.clone();
        let status = changed.status.get_or_insert_default();
        if status.phase.as_deref() != Some(phase) {
            status.last_phase_transition_time = Some(api::time::now());
        }
        (status.phase, status.message) = (Some(phase.into()), message.map(Into::into));
        if changed.status == volume.status {
            return Ok(changed);
        }
        Ok(self.client.update_status(&changed).await?)
    }

    async fn volume(&self, key: &ObjectKey) -> Outcome {
        let Some(volume) = self.volumes.get("", &key.name) else { return Ok(None) };
        let Some(to) = reference(&volume).cloned() else {
            self.write_phase(&volume, "Available", None).await?;
            return Ok(None);
        };
        let (namespace, name) = (to.namespace.unwrap_or_default(), to.name.unwrap_or_default());
        let uid = to.uid.unwrap_or_default();
        if uid.is_empty() {
            // It was made for a claim that is to come.
            self.write_phase(&volume, "Available", None).await?;
            self.queue.add(ObjectKey::new(namespace, name));
            return Ok(None);
        }
        let cached = self.claims.get(&namespace, &name).filter(|c| c.uid() == uid);
        let claim = match cached {
            Some(claim) => Some((*claim).clone()),
            // Data may be lost by a mistake: the server is asked.
            None => self
                .client
                .get_opt(&namespace, &name)
                .await?
                .filter(|c: &PersistentVolumeClaim| c.uid() == uid),
        };
        let Some(claim) = claim else { return self.release(&volume).await };
        match claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default() {
            "" => self.queue.add(claim.key()),
            named if named == volume.name() => {
                if claim.annotation(BIND_COMPLETED).is_none() {
                    self.queue.add(claim.key());
                }
                self.write_phase(&volume, "Bound", None).await?;
            }
            _ if volume.annotation(PROVISIONED_BY).is_some()
                && volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref())
                    == Some("Delete") =>
            {
                return self.release(&volume).await;
            }
            // The claim has another volume: this one is free again.
            _ => {
                let mut free = (*volume).clone();
                let by_us =
                    free.metadata.annotations.as_mut().and_then(|a| a.remove(BOUND_BY_CONTROLLER)).is_some();
                if let Some(spec) = &mut free.spec {
                    match (&mut spec.claim_ref, by_us) {
                        (reference, true) => *reference = None,
                        (Some(reference), false) => reference.uid = None,
                        (None, false) => {}
                    }
                }
                let free = self.client.update(&free).await?;
                self.write_phase(&free, "Available", None).await?;
            }
        }
        Ok(None)
    }

    /// The claim is gone. Whoever provisioned a volume deletes it; one that nobody did has failed.
    async fn release(&self, volume: &PersistentVolume) -> Outcome {
        if phase(volume) == "Failed" {
            return Ok(None);
        }
        let released = self.write_phase(volume, "Released", None).await?;
        let policy = released.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
        let why = match policy {
            Some("Delete") if volume.annotation(PROVISIONED_BY).is_none() => {
                "error getting deleter volume plugin for volume: no deletable volume plugin matched"
            }
            Some("Recycle") => "no recyclable volume plugin matched",
            _ => return Ok(None),
        };
        let reason = if policy == Some("Recycle") { "VolumeFailedRecycle" } else { "VolumeFailedDelete" };
        self.write_phase(&released, "Failed", Some(why)).await?;
        self.events.event(&object_ref(volume), EventType::Warning, reason, why);
        Ok(None)
    }
}
