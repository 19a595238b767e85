//! ReplicaSets and ReplicationControllers: so many pods of a template, no more, no less.
//! Watches the sets and pods; a pod's events go to the set that owns it, or to those that may adopt it.

mod kinds;
mod plan;

use crate::common::{batch, claim, expectations::Expectations, owned::Owned, pods, pods::PodControl};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::selector::LabelSelector;
use client::{Client, Informer, Lister, ObjectExt};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kinds::ReplicaKind;
use plan::{Step, plan, status};
use std::sync::Arc;
use std::time::Duration;

/// A status that someone else changed is written once more over the newest.
const STATUS_TRIES: usize = 2;

/// Keeps ReplicaSets.
pub async fn run_replica_sets(ctx: Context) {
    run::<ReplicaSet>(ctx, "replicaset-controller", "replicaset-controller").await;
}

/// Keeps ReplicationControllers.
pub async fn run_replication_controllers(ctx: Context) {
    run::<ReplicationController>(ctx, "replicationcontroller-controller", "replication-controller").await;
}

struct Sets<T> {
    client: Client,
    control: PodControl,
    sets: Lister<T>,
    pods: Lister<Pod>,
    expected: Arc<Expectations>,
}

async fn run<T: ReplicaKind>(ctx: Context, name: &'static str, account: &str) {
    let client = ctx.client(account);
    let sets: Informer<T> = ctx.informers.informer();
    sets.index(pods::BY_OWNER, pods::owner_keys);
    let pods = ctx.pods();
    let expected = Arc::new(Expectations::default());
    let this = Arc::new(Sets {
        control: PodControl { client: client.clone(), events: ctx.events(&client, account) },
        client,
        sets: sets.lister(),
        pods: pods.lister(),
        expected: expected.clone(),
    });
    let owned = Arc::new(Owned::by(sets.lister(), Some(expected)));
    let by_pods = owned.clone();
    let workers = ctx.workers(name, 5);
    ctx.controller(name)
        .on(&sets, move |event, queue| {
            owned.owner_changed(event);
            queue.add(event.object().key());
        })
        .on(&pods, move |event, queue| by_pods.observe(event, |key| queue.add(key)))
        .run(workers, ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

impl<T: ReplicaKind> Sets<T> {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            self.expected.forget(&key);
            return Ok(None);
        };
        let selector = set.selector()?;
        let met = self.expected.met(&key);
        let candidates = self.candidates(&set, &selector);
        let (terminating, live): (Vec<_>, Vec<_>) =
            candidates.into_iter().filter(|p| !pods::is_terminal(p)).partition(|p| p.is_deleting());
        let matches = |p: &Pod| selector.matches_labels(p.metadata.labels.as_ref());
        let mine = claim::claim(&self.client, &*set, live, matches).await?;
        let terminating =
            terminating.iter().filter(|p| p.controller().is_some_and(|c| c.uid == set.uid())).count();
        let trouble = match met && !set.is_deleting() {
            true => self.manage(&key, &set, &mine).await.err(),
            false => None,
        };
        let now = Timestamp::now();
        let wanted = status(&*set, &mine, terminating, trouble.as_ref().map(|e| e.to_string()), now);
        self.write_status(&set, wanted).await?;
        if let Some(e) = trouble {
            return Err(e);
        }
        // A pod becomes available by time alone.
        let waits = mine.iter().filter_map(|p| pods::available_in(p, set.min_ready(), now));
        Ok(waits.filter(|w| !w.is_zero()).min().map(|w| w + Duration::from_millis(50)))
    }

    fn candidates(&self, set: &T, selector: &LabelSelector) -> Vec<Arc<Pod>> {
        let mut found = self.pods.by_index(pods::BY_OWNER, set.uid());
        if !selector.is_empty() {
            found.extend(self.pods.by_index(pods::BY_OWNER, &pods::orphan_key(set.namespace())));
        }
        found
    }

    /// Pods on the same node are better spread: counts those of all sets with the same owner.
    fn related(&self, set: &T) -> Vec<Arc<Pod>> {
        let Some(owner) = set.controller() else { return self.pods.by_index(pods::BY_OWNER, set.uid()) };
        let siblings = self.sets.by_index(pods::BY_OWNER, &owner.uid);
        siblings.iter().flat_map(|s| self.pods.by_index(pods::BY_OWNER, s.uid())).collect()
    }

    async fn manage(&self, key: &ObjectKey, set: &T, mine: &[Arc<Pod>]) -> Result<(), Error> {
        match plan(set.replicas(), mine, || self.related(set), Timestamp::now()) {
            Step::Nothing => Ok(()),
            Step::Create(count) => {
                let Some(template) = set.template() else { return Ok(()) };
                let pod = pods::from_template(template, set);
                self.expected.expect(key, count, []);
                let (good, error) = batch::slow_start(count, |_| async {
                    match self.control.create(&pod, set).await {
                        // Whatever is created there is refused: it is no trouble of ours.
                        Err(e) if e.is_namespace_terminating() => {
                            self.expected.created(key, 1);
                            Ok(())
                        }
                        other => other.map(drop),
                    }
                })
                .await;
                self.expected.created(key, count - good);
                error.map_or(Ok(()), |e| Err(e.into()))
            }
            Step::Delete(doomed) => {
                self.expected.expect(key, 0, doomed.iter().map(|p| p.uid().to_string()));
                let results = join_all(doomed.iter().map(|p| async {
                    let result = self.control.delete(p, set).await;
                    if result.is_err() {
                        self.expected.deleted(key, p.uid());
                    }
                    result
                }))
                .await;
                results.into_iter().try_for_each(crate::common::gone_is_fine).map_err(Into::into)
            }
        }
    }

    async fn write_status(&self, set: &T, wanted: kinds::ReplicaStatus) -> Result<(), Error> {
        if set.status() == wanted
            && set.metadata().generation.unwrap_or_default() == wanted.observed_generation
        {
            return Ok(());
        }
        let mut current = set.clone();
        for attempt in 1.. {
            match self.client.update_status(&current.with_status(&wanted)).await {
                Ok(_) => break,
                Err(e) if e.is_not_found() => break,
                Err(e) if e.is_conflict() && attempt < STATUS_TRIES => {
                    current = self.client.get(set.namespace(), set.name()).await?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
