//! Deployments: rolls a template out over ReplicaSets, one per revision.
//! Watches Deployments, their ReplicaSets, and pods that go, for which a Recreate waits.

mod revision;
mod rollout;
mod status;

use crate::common::owned::{Owned, Owner};
use crate::common::{claim, controller_ref, delete_uid, gone_is_fine, hash, pods};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{Client, Event, EventRecorder, EventType, Lister, ObjectExt, WorkQueue, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rollout::{Bounds, Resize, bounds, replicas};
use std::sync::Arc;

const NAME: &str = "deployment-controller";

struct Deployments {
    client: Client,
    events: EventRecorder,
    deployments: Lister<Deployment>,
    sets: Lister<ReplicaSet>,
    pods: Lister<Pod>,
    owned: Owned<Deployment>,
}

/// Keeps Deployments.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let (deployments, sets, pods) =
        (ctx.informers.informer::<Deployment>(), ctx.informers.informer::<ReplicaSet>(), ctx.pods());
    sets.index(pods::BY_OWNER, pods::owner_keys);
    let this = Arc::new(Deployments {
        events: ctx.events(&client, NAME),
        client,
        deployments: deployments.lister(),
        sets: sets.lister(),
        pods: pods.lister(),
        owned: Owned::by(deployments.lister(), None),
    });
    let (by_deployments, for_sets, for_pods) = (this.clone(), this.clone(), this.clone());
    ctx.controller(NAME)
        .on(&deployments, move |event, queue| {
            by_deployments.owned.owner_changed(event);
            queue.add(event.object().key());
        })
        .on(&sets, move |event, queue| for_sets.owned.observe(event, |key| queue.add(key)))
        .on(&pods, move |event, queue| for_pods.on_pod(event, queue))
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

/// A Deployment's ReplicaSets: the newest, if there is one, and the others, oldest first.
struct Sets {
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    fn total(&self) -> i32 {
        self.old.iter().chain(&self.new).map(|rs| replicas(rs)).sum()
    }

    fn put(&mut self, changed: ReplicaSet) {
        let changed = Arc::new(changed);
        match self.old.iter_mut().find(|rs| rs.uid() == changed.uid()) {
            Some(old) => *old = changed,
            None => self.new = Some(changed),
        }
    }
}

impl Deployments {
    /// A Recreate goes on when the last old pod is gone.
    fn on_pod(&self, event: &Event<Pod>, queue: &WorkQueue<ObjectKey>) {
        let pod = event.object();
        let ended = event.is_deleted() || pods::is_terminal(pod);
        let Some(owner) = pod.controller().filter(|c| ended && c.kind == "ReplicaSet") else { return };
        let rs = self.sets.get(pod.namespace(), &owner.name).filter(|rs| rs.uid() == owner.uid);
        if let Some(d) = rs.and_then(|rs| self.owned.owner_of(&*rs))
            && bounds(&d).recreate
        {
            queue.add(d.key());
        }
    }

    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(cached) = self.deployments.get(&key.namespace, &key.name) else { return Ok(None) };
        let mut d = (*cached).clone();
        let selector = d.selector()?;
        if selector.is_empty() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.events.event(&object_ref(&d), EventType::Warning, "SelectingAll", message);
            let seen = DeploymentStatus {
                observed_generation: d.metadata.generation,
                ..d.status.clone().unwrap_or_default()
            };
            self.write_status(&mut d, seen).await?;
            return Ok(None);
        }
        let mut candidates = self.sets.by_index(pods::BY_OWNER, d.uid());
        candidates.extend(self.sets.by_index(pods::BY_OWNER, &pods::orphan_key(d.namespace())));
        let matches = |rs: &ReplicaSet| selector.matches_labels(rs.metadata.labels.as_ref());
        let mine = claim::claim(&self.client, &d, candidates, matches).await?;
        let (new, old) = revision::split(&d, mine);
        let mut sets = Sets { new, old };
        let now = Timestamp::now();
        if d.is_deleting() {
            let status = status::counts(&d, sets.new.as_deref(), &sets.all(), now);
            self.write_status(&mut d, status).await?;
            return Ok(None);
        }
        if status::note_pause(&mut d, now) {
            d = self.client.update_status(&d).await?;
        }
        let (b, paused) = (bounds(&d), d.spec.as_ref().and_then(|s| s.paused).unwrap_or_default());
        if paused || rollout::was_scaled(b, &sets.all()) {
            return self.scale(d, sets, b, paused).await;
        }
        if b.recreate {
            self.recreate(&mut d, &mut sets, b).await?
        } else {
            self.roll(&mut d, &mut sets, b).await?
        };
        if status::is_complete(&d, &d.status.clone().unwrap_or_default(), b) {
            self.clean_up(&d, &sets.old).await?;
        }
        let (status, recheck) = status::rollout(&d, sets.new.as_deref(), &sets.all(), now);
        self.write_status(&mut d, status).await?;
        Ok(recheck)
    }

    async fn scale(&self, mut d: Deployment, mut sets: Sets, b: Bounds, paused: bool) -> Outcome {
        self.newest(&mut d, &mut sets, b, false).await?;
        let in_status = d.status.as_ref().and_then(|s| s.replicas).unwrap_or_default();
        for change in rollout::proportional(b, in_status, sets.new.as_ref(), &sets.old) {
            self.resize(&d, &mut sets, b, change).await?;
        }
        if paused {
            self.clean_up(&d, &sets.old).await?;
        }
        let status = status::counts(&d, sets.new.as_deref(), &sets.all(), Timestamp::now());
        self.write_status(&mut d, status).await?;
        Ok(None)
    }

    async fn roll(&self, d: &mut Deployment, sets: &mut Sets, b: Bounds) -> Result<(), Error> {
        self.newest(d, sets, b, true).await?;
        let Some(new) = sets.new.clone() else { return Ok(()) };
        let to = rollout::newest(b, replicas(&new), sets.total());
        if self.resize(d, sets, b, Resize { set: new, to, force: false }).await? {
            return Ok(()); // its event brings us back
        }
        for change in rollout::shrink_old(b, sets.new.as_deref(), &sets.old) {
            self.resize(d, sets, b, change).await?;
        }
        Ok(())
    }

    async fn recreate(&self, d: &mut Deployment, sets: &mut Sets, b: Bounds) -> Result<(), Error> {
        self.newest(d, sets, b, false).await?;
        let running: Vec<_> = sets.old.iter().filter(|rs| replicas(rs) > 0).cloned().collect();
        for set in &running {
            self.resize(d, sets, b, Resize { set: set.clone(), to: 0, force: false }).await?;
        }
        if !running.is_empty() || self.old_pods_run(sets) {
            return Ok(());
        }
        self.newest(d, sets, b, true).await?;
        if let Some(new) = sets.new.clone() {
            self.resize(d, sets, b, Resize { set: new, to: b.replicas, force: false }).await?;
        }
        Ok(())
    }

    fn old_pods_run(&self, sets: &Sets) -> bool {
        let pods_of = |rs: &Arc<ReplicaSet>| self.pods.by_index(pods::BY_OWNER, rs.uid());
        sets.old.iter().any(|rs| {
            let counted = rs.status.as_ref().is_some_and(|s| s.replicas > 0);
            counted || pods_of(rs).iter().any(|p| !pods::is_terminal(p))
        })
    }

    /// Brings the newest ReplicaSet's annotations up to date, or makes it if there is none and `create` says so.
    async fn newest(
        &self,
        d: &mut Deployment,
        sets: &mut Sets,
        b: Bounds,
        create: bool,
    ) -> Result<(), Error> {
        let next = revision::next(&sets.old);
        match sets.new.clone() {
            Some(rs) => {
                let mut changed = (*rs).clone();
                let mut news = revision::note_newest(d, &mut changed.metadata, next, true);
                let min_ready = d.spec.as_ref().and_then(|s| s.min_ready_seconds);
                if let Some(spec) = &mut changed.spec
                    && spec.min_ready_seconds.unwrap_or_default() != min_ready.unwrap_or_default()
                {
                    (spec.min_ready_seconds, news) = (min_ready, true);
                }
                if news {
                    changed = self.client.update(&changed).await?;
                }
                let revision = revision::of(&changed.metadata);
                sets.put(changed);
                let found = !status::has_progress(d)
                    && status::note_progress(
                        d,
                        "True",
                        "FoundNewReplicaSet",
                        format!("Found new replica set {:?}", rs.name()),
                        Timestamp::now(),
                    );
                self.note(d, revision, found).await
            }
            None if create => self.create(d, sets, b, next).await,
            None => Ok(()),
        }
    }

    async fn create(
        &self,
        d: &mut Deployment,
        sets: &mut Sets,
        b: Bounds,
        revision: i64,
    ) -> Result<(), Error> {
        let Some(spec) = d.spec.clone() else { return Ok(()) };
        let collisions = d.status.as_ref().and_then(|s| s.collision_count);
        let hash = hash::template(&spec.template, collisions);
        let name = format!("{}-{hash}", d.name());
        let (mut template, mut selector) = (spec.template.clone(), spec.selector.clone());
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(revision::HASH_LABEL.into(), hash.clone());
        let labels = labels.clone();
        selector.match_labels.get_or_insert_default().insert(revision::HASH_LABEL.into(), hash);
        let size = rollout::newest(b, 0, sets.total());
        let mut metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: d.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(d)]),
            ..ObjectMeta::default()
        };
        revision::note_newest(d, &mut metadata, revision, false);
        revision::note_sizes(&mut metadata, b.replicas, b.replicas + b.surge);
        let rs = ReplicaSet {
            metadata,
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let now = Timestamp::now();
        let (made, is_new) = match self.client.create(&rs).await {
            Ok(made) => (made, true),
            Err(e) if e.is_already_exists() => {
                let there: ReplicaSet = self.client.get(d.namespace(), &name).await?;
                let mine = there.controller().is_some_and(|c| c.uid == d.uid());
                let same = there.spec.as_ref().and_then(|s| s.template.as_ref());
                if !mine || !same.is_some_and(|t| revision::same_template(t, &spec.template)) {
                    let status = d.status.get_or_insert_default();
                    status.collision_count = Some(collisions.unwrap_or_default().saturating_add(1));
                    tracing::info!("{}: {name} is taken by another template, trying another name", d.key());
                    self.client.update_status(d).await?;
                    return Err(e.into());
                }
                (there, false)
            }
            Err(e) if e.is_namespace_terminating() => return Err(e.into()),
            Err(e) => {
                let message = format!("Failed to create new replica set {name:?}: {e}");
                if status::note_progress(d, "False", "ReplicaSetCreateError", message.clone(), now) {
                    self.client.update_status(d).await?;
                }
                self.events.event(&object_ref(d), EventType::Warning, "ReplicaSetCreateError", message);
                return Err(e.into());
            }
        };
        if is_new && size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.events.event(&object_ref(d), EventType::Normal, "ScalingReplicaSet", message);
        }
        let message = format!("Created new replica set {name:?}");
        let news = is_new && status::note_progress(d, "True", "NewReplicaSetCreated", message, now);
        sets.put(made);
        self.note(d, revision, news).await
    }

    /// Writes the revision on the Deployment, and its status if there is news in it.
    async fn note(&self, d: &mut Deployment, revision: i64, news: bool) -> Result<(), Error> {
        if revision::of(&d.metadata) == revision && !news {
            return Ok(());
        }
        d.metadata
            .annotations
            .get_or_insert_default()
            .insert(revision::REVISION.into(), revision.to_string());
        // Writing the status writes annotations too, as upstream's Deployments allow.
        *d = self.client.update_status(d).await?;
        Ok(())
    }

    /// Resizes a ReplicaSet, if it does not have that size; whether it had another.
    async fn resize(
        &self,
        d: &Deployment,
        sets: &mut Sets,
        b: Bounds,
        change: Resize,
    ) -> Result<bool, Error> {
        let from = replicas(&change.set);
        if from == change.to && !change.force {
            return Ok(false);
        }
        let mut rs = (*change.set).clone();
        let noted = revision::note_sizes(&mut rs.metadata, b.replicas, b.replicas + b.surge);
        if from == change.to && !noted {
            return Ok(false);
        }
        rs.spec.get_or_insert_default().replicas = Some(change.to);
        sets.put(self.client.update(&rs).await?);
        if from != change.to {
            let direction = if from < change.to { "up" } else { "down" };
            let message =
                format!("Scaled {direction} replica set {} from {from} to {}", rs.name(), change.to);
            self.events.event(&object_ref(d), EventType::Normal, "ScalingReplicaSet", message);
        }
        Ok(from != change.to)
    }

    async fn clean_up(&self, d: &Deployment, old: &[Arc<ReplicaSet>]) -> Result<(), Error> {
        for rs in rollout::superfluous(d, old) {
            gone_is_fine(
                self.client.delete::<ReplicaSet>(rs.namespace(), rs.name(), &delete_uid(rs.uid())).await,
            )?;
        }
        Ok(())
    }

    async fn write_status(&self, d: &mut Deployment, status: DeploymentStatus) -> Result<(), Error> {
        if d.status.as_ref() == Some(&status) {
            return Ok(());
        }
        d.status = Some(status);
        match self.client.update_status(d).await {
            Ok(written) => *d = written,
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}
