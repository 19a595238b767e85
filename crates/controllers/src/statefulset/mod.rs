//! StatefulSets: pods with a number, a name that stays, and claims of their own.
//! Watches the sets, their pods, claims and revisions; all lead to the set.

mod plan;

use crate::common::owned::{Owned, Owner};
use crate::common::{batch, claim, controller_ref, gone_is_fine, history, history::History, pods};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::selector::LabelSelector;
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, Patch, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use plan::{Picture, REVISION, Step, claim_name, claim_owners, is_stale, may_have, ordinal, range};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "statefulset-controller";

struct Sets {
    client: Client,
    events: EventRecorder,
    sets: Lister<StatefulSet>,
    pods: Lister<Pod>,
    claims: Lister<PersistentVolumeClaim>,
    revisions: Lister<ControllerRevision>,
}

/// Keeps StatefulSets.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (sets, pods) = (ctx.informers.informer::<StatefulSet>(), ctx.pods());
    let claims = ctx.informers.informer::<PersistentVolumeClaim>();
    let revisions = ctx.informers.informer::<ControllerRevision>();
    revisions.index(pods::BY_OWNER, pods::owner_keys);
    let this = Arc::new(Sets {
        events: ctx.events(&client, NAME),
        client,
        sets: sets.lister(),
        pods: pods.lister(),
        claims: claims.lister(),
        revisions: revisions.lister(),
    });
    let (lister, by_claim) = (sets.lister(), sets.lister());
    let owned = Arc::new(Owned::by(sets.lister(), None));
    let by_pods = owned.clone();
    ctx.controller(NAME)
        .on(&sets, move |event, queue| {
            owned.owner_changed(event);
            queue.add(event.object().key());
        })
        .on(&pods, move |event, queue| {
            by_pods.observe(event, |key| queue.add(key));
            // A foreign pod that goes may have had a name that is wanted.
            let pod = event.object();
            if event.is_deleted() && by_pods.owner_of(&**pod).is_none() {
                let sets = lister.list_namespace(pod.namespace());
                sets.iter().filter(|s| ordinal(s, pod).is_some()).for_each(|s| queue.add(s.key()));
            }
        })
        .on(&claims, move |event, queue| {
            // A claim in the way of a new pod may be gone now.
            if event.is_deleted() {
                let claim = event.object();
                let sets = by_claim.list_namespace(claim.namespace());
                sets.iter().filter(|s| may_have(s, claim.name())).for_each(|s| queue.add(s.key()));
            }
        })
        .wait_for(&revisions)
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

/// The template that a revision holds.
fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

impl Sets {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        let selector = set.selector()?;
        if selector.is_empty() {
            return Ok(None);
        }
        let mut candidates = self.pods.by_index(pods::BY_OWNER, set.uid());
        candidates.extend(self.pods.by_index(pods::BY_OWNER, &pods::orphan_key(set.namespace())));
        let matches =
            |p: &Pod| selector.matches_labels(p.metadata.labels.as_ref()) && ordinal(&set, p).is_some();
        let mine = claim::claim(&self.client, &*set, candidates, matches).await?;
        let history = self.history(&set, &selector).await?;
        let update = history.current.clone();
        let named = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let old = history.old.iter().find(|r| Some(r.name()) == named);
        let current = old.map_or_else(|| update.clone(), |r| (**r).clone());
        let now = Timestamp::now();
        let picture = Picture { set: &set, pods: &mine, current: current.name(), update: update.name(), now };
        let mut trouble = None;
        if !set.is_deleting() {
            for pod in &mine {
                if let Err(e) = self.own_claims(&set, pod).await {
                    trouble.get_or_insert(e);
                }
            }
        }
        let steps = picture.steps();
        if picture.is_parallel() {
            let act = |i: usize| self.act(&set, &steps[i], &current, &update);
            let (_, failed) = batch::slow_start(steps.len(), act).await;
            trouble = trouble.or(failed);
        } else {
            for step in &steps {
                if let Err(e) = self.act(&set, step, &current, &update).await {
                    trouble.get_or_insert(e);
                    break;
                }
            }
        }
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        self.write_status(&set, picture.status(collisions)).await?;
        if let Some(e) = trouble {
            return Err(e);
        }
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let live = |hash: &str| {
            let name = format!("{}-{hash}", set.name());
            name == current.name() || mine.iter().any(|p| p.label(REVISION) == Some(&name))
        };
        history::clean_up(&self.client, &history, usize::try_from(limit).unwrap_or_default(), live).await?;
        let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
        let waits = mine.iter().filter_map(|p| pods::available_in(p, min_ready, now));
        Ok(waits.filter(|w| !w.is_zero()).min().map(|w| w + Duration::from_millis(50)))
    }

    async fn history(&self, set: &StatefulSet, selector: &LabelSelector) -> Result<History, Error> {
        let template = set.spec.as_ref().map(|s| &s.template);
        let Some(template) = template else { return Err(Error::Other("it has no template".into())) };
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let matches = |r: &ControllerRevision| selector.matches_labels(r.metadata.labels.as_ref());
        match history::keep(&self.client, set, &self.revisions, matches, template, collisions).await {
            Err(e @ Error::NameTaken(_)) => {
                let mut status = set.status.clone().unwrap_or_default();
                status.collision_count = Some(collisions.unwrap_or_default().saturating_add(1));
                self.write_status(set, status).await?;
                Err(e)
            }
            other => other,
        }
    }

    async fn act(
        &self,
        set: &StatefulSet,
        step: &Step,
        current: &ControllerRevision,
        update: &ControllerRevision,
    ) -> Result<(), Error> {
        match step {
            Step::Create { ordinal, current: old } => {
                let (ordinal, old) = (*ordinal, *old);
                let revision = if old { current } else { update };
                let own = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
                let template = if old { template(revision).unwrap_or(own) } else { own };
                self.check_claims(set, ordinal)?;
                self.make_claims(set, ordinal).await?;
                let pod = pod(set, &template, ordinal, revision.name());
                let result = match self.client.create(&pod).await {
                    // The cache is behind, or it is another's pod, whose end we may not hear of: tried again.
                    Err(e) if e.is_already_exists() => return Err(e.into()),
                    other => other.map(drop),
                };
                self.tell(set, Verb::Create, &format!("Pod {}", pod.name()), "", &result);
                match result {
                    Err(e) if e.is_namespace_terminating() => Ok(()),
                    other => Ok(other?),
                }
            }
            Step::Claims(ordinal) => self.make_claims(set, *ordinal).await,
            Step::Label(pod) => {
                let number = ordinal(set, pod).unwrap_or_default().to_string();
                let labels = json!({"statefulset.kubernetes.io/pod-name": pod.name(), "apps.kubernetes.io/pod-index": number});
                let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid(), "labels": labels}}));
                match self.client.patch::<Pod>(pod.namespace(), pod.name(), &patch).await {
                    Err(e) if !e.is_not_found() => Err(e.into()),
                    _ => Ok(()),
                }
            }
            Step::Delete(pod) => {
                let options = crate::common::delete_uid(pod.uid());
                let result = self.client.delete::<Pod>(pod.namespace(), pod.name(), &options).await;
                let result = gone_is_fine(result);
                self.tell(set, Verb::Delete, &format!("Pod {}", pod.name()), "", &result);
                Ok(result?)
            }
        }
    }

    /// `of` is the pod that a claim is for.
    fn tell(&self, set: &StatefulSet, verb: Verb, what: &str, of: &str, result: &Result<(), client::Error>) {
        let name = set.name();
        let (kind, reason, message) = match (result, of) {
            (Ok(()), "") => (
                EventType::Normal,
                format!("Successful{verb:?}"),
                format!("{verb:?} {what} in StatefulSet {name} successful"),
            ),
            (Ok(()), pod) => (
                EventType::Normal,
                format!("Successful{verb:?}"),
                format!("{verb:?} {what} Pod {pod} in StatefulSet {name} success"),
            ),
            (Err(e), pod) => (
                EventType::Warning,
                format!("Failed{verb:?}"),
                match pod {
                    "" => format!("{verb:?} {what} in StatefulSet {name} failed error: {e}"),
                    pod => format!("{verb:?} {what} for Pod {pod} in StatefulSet {name} failed error: {e}"),
                },
            ),
        };
        self.events.event(&object_ref(set), kind, &reason, message);
    }

    /// A claim that goes with an earlier pod of the name will be deleted, and what is on it: the new pod has to wait
    /// for one of its own.
    fn check_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        let templates = set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_ref());
        for template in templates.into_iter().flatten() {
            let name = claim_name(set, template, ordinal);
            if self.claims.get(set.namespace(), &name).is_some_and(|c| is_stale(set, &c, ordinal)) {
                return Err(Error::Other(format!(
                    "pvc {name} belongs to an earlier pod and will be deleted"
                )));
            }
        }
        Ok(())
    }

    async fn make_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        let Some(spec) = &set.spec else { return Ok(()) };
        for template in spec.volume_claim_templates.iter().flatten() {
            let name = claim_name(set, template, ordinal);
            match self.claims.get(set.namespace(), &name) {
                Some(there) if there.is_deleting() => {
                    return Err(Error::Other(format!("pvc {name} is being deleted")));
                }
                Some(_) => continue,
                None => {}
            }
            let mut claim =
                PersistentVolumeClaim { spec: template.spec.clone(), ..PersistentVolumeClaim::default() };
            let selected = spec.selector.match_labels.iter().flatten();
            let labels = template.metadata.labels.iter().flatten().chain(selected);
            claim.metadata.labels = Some(labels.map(|(k, v)| (k.clone(), v.clone())).collect());
            claim.metadata.annotations.clone_from(&template.metadata.annotations);
            claim.metadata.name = Some(name.clone());
            claim.metadata.namespace = Some(set.namespace().into());
            let result = match self.client.create(&claim).await {
                Err(e) if e.is_already_exists() => continue,
                other => other.map(drop),
            };
            let pod = format!("{}-{ordinal}", set.name());
            self.tell(set, Verb::Create, &format!("Claim {name}"), &pod, &result);
            result?;
        }
        Ok(())
    }

    /// Makes claims go with the pod or the set, as the retention policy says.
    async fn own_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let Some(ordinal) = ordinal(set, pod) else { return Ok(()) };
        let templates = set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_ref());
        let pod_ref = OwnerReference { ..controller_ref(pod) };
        for template in templates.into_iter().flatten() {
            let Some(claim) = self.claims.get(set.namespace(), &claim_name(set, template, ordinal)) else {
                continue;
            };
            let scaled_down = !range(set).contains(&ordinal);
            if let Some(owners) = claim_owners(set, &claim, &pod_ref, scaled_down) {
                let mut changed = (*claim).clone();
                changed.metadata.owner_references = Some(owners).filter(|o| !o.is_empty());
                match self.client.update(&changed).await {
                    Err(e) if e.is_not_found() => {}
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        match self.client.update_status(&StatefulSet { status: Some(status), ..set.clone() }).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}

/// What was done, as events say it.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Create,
    Delete,
}

/// The pod of an ordinal.
fn pod(set: &StatefulSet, template: &PodTemplateSpec, ordinal: i32, revision: &str) -> Pod {
    let mut pod = pods::from_template(template, set);
    let name = format!("{}-{ordinal}", set.name());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".into(), ordinal.to_string());
    labels.insert(REVISION.into(), revision.into());
    let own = set.spec.as_ref();
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = own.and_then(|s| s.service_name.clone()).filter(|n| !n.is_empty());
    let templates = own.and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default();
    let claims = templates.iter().map(|t| Volume {
        name: t.name().into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, t, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    });
    let mut volumes: Vec<Volume> = claims.collect();
    let others = spec.volumes.take().into_iter().flatten();
    volumes.extend(others.filter(|v| !templates.iter().any(|t| t.name() == v.name)));
    spec.volumes = Some(volumes).filter(|v| !v.is_empty());
    pod
}
