//! DaemonSets: a pod of a template on every node that fits.
//! Watches DaemonSets, their pods and revisions, and nodes; what changes where a daemon may run leads to all sets.

mod plan;

use crate::common::expectations::Expectations;
use crate::common::history::{self, History};
use crate::common::owned::{Owned, Owner};
use crate::common::{batch, claim, gone_is_fine, pods, pods::PodControl, scheduling};
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use api::selector::LabelSelector;
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, object_ref};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use plan::{Picture, Plan, pod_template, target, tie};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NAME: &str = "daemonset-controller";
/// At most so many pods are made or deleted at once.
const BURST: usize = 250;
/// A pod that failed on a node is replaced after a second, then after twice as long, up to 15 minutes.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_MAX: Duration = Duration::from_secs(900);

struct Sets {
    client: Client,
    events: EventRecorder,
    control: PodControl,
    sets: Lister<DaemonSet>,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    revisions: Lister<ControllerRevision>,
    expected: Arc<Expectations>,
    /// When a failed pod of a set was last replaced on a node, and how long until the next may be.
    failed: Mutex<HashMap<(String, String), (Instant, Duration)>>,
}

/// Keeps DaemonSets.
pub async fn run(ctx: Context) {
    let client = ctx.client("daemon-set-controller");
    let (sets, pods) = (ctx.informers.informer::<DaemonSet>(), ctx.pods());
    let (nodes, revisions) =
        (ctx.informers.informer::<Node>(), ctx.informers.informer::<ControllerRevision>());
    revisions.index(pods::BY_OWNER, pods::owner_keys);
    let expected = Arc::new(Expectations::default());
    let events = ctx.events(&client, NAME);
    let this = Arc::new(Sets {
        control: PodControl { client: client.clone(), events: events.clone() },
        events,
        client,
        sets: sets.lister(),
        pods: pods.lister(),
        nodes: nodes.lister(),
        revisions: revisions.lister(),
        expected: expected.clone(),
        failed: Mutex::default(),
    });
    let owned = Arc::new(Owned::by(sets.lister(), Some(expected)));
    let (by_pods, all) = (owned.clone(), sets.lister());
    ctx.controller(NAME)
        .on(&sets, move |event, queue| {
            owned.owner_changed(event);
            queue.add(event.object().key());
        })
        .on(&pods, move |event, queue| by_pods.observe(event, |key| queue.add(key)))
        .on(&nodes, move |event, queue| {
            let place = |n: &Node| (n.metadata.labels.clone(), scheduling::taints(n).to_vec());
            if event.is_deleted() || event.old().is_none_or(|old| place(old) != place(event.object())) {
                all.list().iter().for_each(|s| queue.add(s.key()));
            }
        })
        .wait_for(&revisions)
        .run(ctx.workers(NAME, 2), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

impl Sets {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            self.expected.forget(&key);
            return Ok(None);
        };
        let selector = set.selector()?;
        if selector.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.events.event(&object_ref(&*set), EventType::Warning, "SelectingAll", message);
            return Ok(None);
        }
        if set.is_deleting() {
            return Ok(None);
        }
        let history = self.history(&set, &selector).await?;
        let (mut wait, settled) = (None, self.expected.met(&key));
        if self.expected.met(&key) {
            wait = self.work(&key, &set, &selector, history.hash(), |p| p.manage()).await?;
        }
        if self.expected.met(&key) {
            self.work(&key, &set, &selector, history.hash(), |p| p.roll()).await?;
        }
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let mine = self.mine(&set, &selector).await?;
        let live = |hash: &str| mine.values().flatten().any(|p| p.label(history::HASH_LABEL) == Some(hash));
        history::clean_up(&self.client, &history, usize::try_from(limit).unwrap_or_default(), live).await?;
        let now = Timestamp::now();
        let picture = Picture { ds: &set, nodes: &self.nodes.list(), pods: &mine, hash: history.hash(), now };
        self.write_status(&set, picture.status(settled)).await?;
        let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
        let ripe = mine
            .values()
            .flatten()
            .filter_map(|p| pods::available_in(p, min_ready, now))
            .filter(|w| !w.is_zero());
        Ok(ripe.map(|w| w + Duration::from_millis(50)).chain(wait).min())
    }

    async fn history(&self, set: &DaemonSet, selector: &LabelSelector) -> Result<History, Error> {
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

    /// Its pods, by the node they are on or meant for.
    async fn mine(
        &self,
        set: &DaemonSet,
        selector: &LabelSelector,
    ) -> Result<BTreeMap<String, Vec<Arc<Pod>>>, Error> {
        let mut candidates = self.pods.by_index(pods::BY_OWNER, set.uid());
        candidates.extend(self.pods.by_index(pods::BY_OWNER, &pods::orphan_key(set.namespace())));
        candidates.retain(|p| !(pods::is_terminal(p) && p.is_deleting()));
        let matches = |p: &Pod| selector.matches_labels(p.metadata.labels.as_ref());
        let mut mine: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in claim::claim(&self.client, set, candidates, matches).await? {
            if let Some(node) = target(&pod) {
                mine.entry(node.into()).or_default().push(pod.clone());
            }
        }
        Ok(mine)
    }

    /// Plans and does; says how long to wait for a failed pod's back-off.
    async fn work(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        selector: &LabelSelector,
        hash: &str,
        plan: impl FnOnce(&Picture<'_>) -> Plan,
    ) -> Result<Option<Duration>, Error> {
        let mine = self.mine(set, selector).await?;
        let picture =
            Picture { ds: set, nodes: &self.nodes.list(), pods: &mine, hash, now: Timestamp::now() };
        let Plan { mut create, mut delete, failed, succeeded } = plan(&picture);
        let mut wait = None;
        for (node, pod) in failed {
            match self.back_off(set, &node) {
                Some(left) => wait = Some(wait.map_or(left, |w: Duration| w.min(left))),
                None => {
                    let message =
                        format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.key());
                    self.events.event(&object_ref(set), EventType::Warning, "FailedDaemonPod", message);
                    delete.push(pod);
                }
            }
        }
        for (node, pod) in succeeded {
            let message =
                format!("Found succeeded daemon pod {} on node {node}, will try to delete it", pod.key());
            self.events.event(&object_ref(set), EventType::Normal, "SucceededDaemonPod", message);
            delete.push(pod);
        }
        create.truncate(BURST);
        delete.truncate(BURST);
        if create.is_empty() && delete.is_empty() {
            return Ok(wait);
        }
        self.expected.expect(key, create.len(), delete.iter().map(|p| p.uid().to_string()));
        let template = pod_template(set, hash);
        let (good, error) = batch::slow_start(create.len(), |i| {
            let mut pod = pods::from_template(&template, set);
            tie(pod.spec.get_or_insert_default(), &create[i]);
            async move {
                match self.control.create(&pod, set).await {
                    Err(e) if e.is_namespace_terminating() => {
                        self.expected.created(key, 1);
                        Ok(())
                    }
                    other => other.map(drop),
                }
            }
        })
        .await;
        self.expected.created(key, create.len() - good);
        let deleted = join_all(delete.iter().map(|p| async {
            let result = self.control.delete(p, set).await;
            if result.is_err() {
                self.expected.deleted(key, p.uid());
            }
            gone_is_fine(result)
        }))
        .await;
        match error.or_else(|| deleted.into_iter().find_map(Result::err)) {
            Some(e) => Err(e.into()),
            None => Ok(wait),
        }
    }

    /// How long until a failed pod may be replaced on a node; none if it may be now.
    fn back_off(&self, set: &DaemonSet, node: &str) -> Option<Duration> {
        let mut failed = self.failed.lock().unwrap_or_else(|e| e.into_inner());
        failed.retain(|_, (at, pause)| at.elapsed() < *pause + FAILED_MAX * 2);
        let now = Instant::now();
        match failed.get_mut(&(set.uid().to_string(), node.to_string())) {
            Some((at, pause)) if at.elapsed() < *pause => return Some(*pause - at.elapsed()),
            Some((at, pause)) => (*at, *pause) = (now, (*pause * 2).min(FAILED_MAX)),
            None => drop(failed.insert((set.uid().into(), node.into()), (now, FAILED_FIRST))),
        }
        None
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        match self.client.update_status(&DaemonSet { status: Some(status), ..set.clone() }).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
