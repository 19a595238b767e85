//! The loop: what the watches say goes into the cluster and the queue, pods are placed one after the other,
//! and bindings are written beside it.

use crate::cluster::Cluster;
use crate::config::{Config, ConfigError, Options, Profile};
use crate::framework::{Checks, Outcome, place};
use crate::metrics::{Attempt, Metrics, Queue as QueueLabel};
use crate::pod::PodInfo;
use crate::preemption;
use crate::queue::{Queue, Waiting, Wake};
use crate::serve::{self, ServeError};
use crate::volumes::{self, SELECTED_NODE, Step};
use client::leader::{Elector, Outcome as Led};
use client::{
    Client, Event, EventRecorder, EventType, Informers, Lister, ObjectExt, Patch, Scope, Subscription,
    object_ref,
};
use k8s_openapi::api::core::v1::{
    Binding, ContainerStatus, Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many requests are on their way at once.
const IN_FLIGHT: usize = 64;
/// How many pods are placed before the watches are looked at again.
const BATCH: usize = 32;
/// How long a volume may take to be bound.
const VOLUME_LIMIT: Duration = Duration::from_secs(600);

/// Why the scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The API server can't be reached with what we were given.
    #[error("--kubeconfig: {0}")]
    Kubeconfig(#[from] client::ConfigError),
    /// The client can't be made.
    #[error("--kubeconfig: {0}")]
    Client(#[from] client::Error),
    /// Health and metrics can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The address can't be listened on.
    #[error("--secure-port: cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Another instance may schedule now.
    #[error("lost the lease")]
    Lost,
}

/// Runs the scheduler until shutdown.
pub fn run(
    options: Options,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>>>> {
    // Boxed, the daemon is compiled here, once, and not again in its program.
    Box::pin(work(options, shutdown))
}

async fn work(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let config = Config::load(&options)?;
    let mut access = match &config.kubeconfig {
        Some(path) => client::Config::from_kubeconfig_file(path)?,
        None => client::Config::in_cluster()?,
    };
    if let Some(master) = &config.master {
        access.server.clone_from(master);
    }
    let client = Client::new(access.user_agent("kube-scheduler"))?;
    let metrics = Arc::new(Metrics::new());
    if let Some(address) = config.serve {
        let review = options.authentication_kubeconfig.as_ref().or(options.authorization_kubeconfig.as_ref());
        let reviewer = match review {
            Some(path) => {
                Client::new(client::Config::from_kubeconfig_file(path)?.user_agent("kube-scheduler"))?
            }
            None => client.clone(),
        };
        let tls = serve::acceptor(&options)?;
        let listener = TcpListener::bind(address).await.map_err(|e| Error::Listen(address, e))?;
        tokio::spawn(serve::serve(listener, tls, metrics.clone(), reviewer, shutdown.clone()));
    }
    match config.election.clone() {
        None => schedule(client, config, metrics, shutdown).await,
        Some(election) => {
            let elector = Elector::new(client.clone(), election);
            let work = |leading| schedule(client, config, metrics, leading);
            if elector.run(shutdown, work).await == Led::Lost {
                return Err(Error::Lost);
            }
        }
    }
    Ok(())
}

/// What is not needed to place a pod is not kept.
fn strip(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            (c.env, c.env_from, c.command, c.args, c.volume_mounts) = (None, None, None, None, None);
            (c.liveness_probe, c.readiness_probe, c.startup_probe, c.lifecycle) = (None, None, None, None);
        }
    }
    if let Some(status) = &mut pod.status {
        // Of containers only what they have been given counts (in-place resize).
        let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
        for status in lists.into_iter().flatten().flatten() {
            *status = ContainerStatus {
                name: std::mem::take(&mut status.name),
                allocated_resources: status.allocated_resources.take(),
                resources: status.resources.take(),
                ..ContainerStatus::default()
            };
        }
    }
}

struct Feeds {
    pods: Subscription<Pod>,
    nodes: Subscription<Node>,
    namespaces: Subscription<Namespace>,
    claims: Subscription<PersistentVolumeClaim>,
    volumes: Subscription<PersistentVolume>,
    classes: Subscription<StorageClass>,
}

async fn schedule(client: Client, config: Config, metrics: Arc<Metrics>, shutdown: CancellationToken) {
    let informers = Informers::new(client.clone(), shutdown.clone());
    let alive =
        Scope { field_selector: "status.phase!=Succeeded,status.phase!=Failed".into(), ..Scope::default() };
    let pods = informers.informer_stripped::<Pod>(alive, strip);
    let (nodes, namespaces) = (informers.informer::<Node>(), informers.informer::<Namespace>());
    let (claims, volumes) =
        (informers.informer::<PersistentVolumeClaim>(), informers.informer::<PersistentVolume>());
    let (classes, budgets) =
        (informers.informer::<StorageClass>(), informers.informer::<PodDisruptionBudget>());
    let feeds = Feeds {
        pods: pods.subscribe(),
        nodes: nodes.subscribe(),
        namespaces: namespaces.subscribe(),
        claims: claims.subscribe(),
        volumes: volumes.subscribe(),
        classes: classes.subscribe(),
    };
    let synced = async {
        tokio::join!(
            pods.synced(),
            nodes.synced(),
            namespaces.synced(),
            claims.synced(),
            volumes.synced(),
            classes.synced(),
            budgets.synced()
        )
    };
    if shutdown.run_until_cancelled(synced).await.is_none() {
        return;
    }
    let recorders =
        config.profiles.iter().map(|p| (p.name.clone(), EventRecorder::new(client.clone(), &p.name, "")));
    let (results, finished) = mpsc::channel(4 * IN_FLIGHT);
    let scheduler = Scheduler {
        recorders: recorders.collect(),
        queue: Queue::new(config.first_backoff, config.max_backoff),
        profiles: config.profiles,
        cluster: Cluster::default(),
        nominated: HashMap::new(),
        assumed: HashSet::new(),
        start: 0,
        budgets: budgets.lister(),
        binder: Binder {
            client,
            claims: claims.lister(),
            volumes: volumes.lister(),
            nodes: nodes.lister(),
            pods: pods.lister(),
            changed: watch::channel(0).0.into(),
        },
        permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        results,
        metrics,
    };
    shutdown.run_until_cancelled(scheduler.run(feeds, finished)).await;
}

/// Where a binding ended.
struct Bound {
    waiting: Waiting,
    node: String,
    started: Instant,
    result: Result<(), BindError>,
}

/// Why a pod that has its place could not be bound to it.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("{0}")]
    Api(#[from] client::Error),
    #[error("binding volumes: {0}")]
    Volumes(String),
}

struct Scheduler {
    profiles: Vec<Profile>,
    recorders: HashMap<String, EventRecorder>,
    cluster: Cluster,
    queue: Queue,
    /// Pods for which others have to leave, and where they will go.
    nominated: HashMap<String, (String, Arc<PodInfo>)>,
    /// Pods that have a place which the API server does not know yet.
    assumed: HashSet<String>,
    start: usize,
    budgets: Lister<PodDisruptionBudget>,
    binder: Binder,
    permits: Arc<Semaphore>,
    results: mpsc::Sender<Bound>,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    async fn run(mut self, mut feeds: Feeds, mut finished: mpsc::Receiver<Bound>) {
        loop {
            self.drain(&mut feeds, &mut finished);
            let now = Instant::now();
            self.queue.wake_leftovers(now);
            let mut placed = 0;
            while placed < BATCH {
                let Some(waiting) = self.queue.pop(now) else { break };
                self.attempt(waiting).await;
                placed += 1;
            }
            if placed == BATCH {
                tokio::task::yield_now().await;
                continue;
            }
            self.measure_queue();
            let due = self.queue.next_due().unwrap_or(now + Duration::from_secs(3600));
            tokio::select! {
                e = feeds.pods.next() => self.on_pod(&e),
                e = feeds.nodes.next() => self.on_node(&e),
                e = feeds.namespaces.next() => self.on_namespace(&e),
                e = feeds.claims.next() => self.on_claim(&e),
                e = feeds.volumes.next() => self.on_volume(&e),
                e = feeds.classes.next() => self.on_class(&e),
                Some(bound) = finished.recv() => self.on_bound(bound),
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Takes in what is there already.
    fn drain(&mut self, feeds: &mut Feeds, finished: &mut mpsc::Receiver<Bound>) {
        while let Some(e) = feeds.nodes.try_next() {
            self.on_node(&e);
        }
        while let Some(e) = feeds.namespaces.try_next() {
            self.on_namespace(&e);
        }
        while let Some(e) = feeds.classes.try_next() {
            self.on_class(&e);
        }
        while let Some(e) = feeds.volumes.try_next() {
            self.on_volume(&e);
        }
        while let Some(e) = feeds.claims.try_next() {
            self.on_claim(&e);
        }
        while let Some(e) = feeds.pods.try_next() {
            self.on_pod(&e);
        }
        while let Ok(bound) = finished.try_recv() {
            self.on_bound(bound);
        }
    }

    fn measure_queue(&self) {
        for (queue, n) in ["active", "backoff", "unschedulable"].into_iter().zip(self.queue.counts()) {
            self.metrics.pending.get_or_create(&QueueLabel { queue }).set(n as i64);
        }
    }

    fn on_node(&mut self, e: &Event<Node>) {
        if e.is_deleted() {
            self.cluster.remove_node(e.object().name());
            return self.queue.wake(Wake::Node);
        }
        self.cluster.set_node(e.object().clone());
        let facts = |n: &Node| {
            let allocatable = n.status.as_ref().and_then(|s| s.allocatable.clone());
            let spec = n.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
            (allocatable, spec, n.metadata.labels.clone())
        };
        if e.old().is_none_or(|old| facts(old) != facts(e.object())) {
            self.queue.wake(Wake::Node);
        }
    }

    fn on_namespace(&mut self, e: &Event<Namespace>) {
        let name = e.object().name().to_string();
        if e.is_deleted() {
            self.cluster.namespaces.remove(&name);
            return;
        }
        let labels = e.object().metadata.labels.clone().unwrap_or_default();
        if self.cluster.namespaces.get(&name) != Some(&labels) {
            self.cluster.namespaces.insert(name, labels);
            self.queue.wake(Wake::Namespace);
        }
    }

    fn on_claim(&mut self, e: &Event<PersistentVolumeClaim>) {
        let key = (e.object().namespace().to_string(), e.object().name().to_string());
        if e.is_deleted() || volumes::tells(e.object()) {
            self.cluster.claim_told(&key);
        }
        match e.is_deleted() {
            true => self.cluster.claims.remove(&key),
            false => self.cluster.claims.insert(key, e.object().clone()),
        };
        self.binder.changed.send_modify(|n| *n += 1);
        self.queue.wake(Wake::Volume);
    }

    fn on_volume(&mut self, e: &Event<PersistentVolume>) {
        let name = e.object().name().to_string();
        match e.is_deleted() {
            true => self.cluster.volumes.remove(&name),
            false => self.cluster.volumes.insert(name, e.object().clone()),
        };
        self.queue.wake(Wake::Volume);
    }

    fn on_class(&mut self, e: &Event<StorageClass>) {
        let name = e.object().name().to_string();
        match e.is_deleted() {
            true => self.cluster.classes.remove(&name),
            false => self.cluster.classes.insert(name, e.object().clone()),
        };
        self.queue.wake(Wake::Volume);
    }

    fn on_pod(&mut self, e: &Event<Pod>) {
        let pod = e.object();
        let uid = pod.uid().to_string();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        if e.is_deleted() {
            self.queue.remove(&uid);
            self.assumed.remove(&uid);
            self.binder.changed.send_modify(|n| *n += 1);
            let waited_for = self.nominated.remove(&uid).is_some();
            if self.cluster.remove_pod(&uid).is_some() || waited_for {
                self.queue.wake(Wake::PodGone);
            }
            return;
        }
        // Of the status: when it began, and what the kubelet has given it so far.
        let given = |p: &Pod| {
            let status = p.status.as_ref();
            let resize = status.and_then(|s| s.conditions.as_ref()).map(|c| {
                c.iter()
                    .filter(|c| c.type_ == "PodResizePending")
                    .map(|c| c.reason.clone())
                    .collect::<Vec<_>>()
            });
            (
                status.and_then(|s| s.start_time.clone()),
                status.and_then(|s| s.container_statuses.clone()),
                status.and_then(|s| s.init_container_statuses.clone()),
                resize,
            )
        };
        let facts = |p: &Pod| (p.spec.clone(), p.metadata.labels.clone(), p.is_deleting());
        let changed = e.old().is_none_or(|old| facts(old) != facts(pod));
        let changed = changed || (node.is_some() && e.old().is_none_or(|old| given(old) != given(pod)));
        if let Some(node) = node {
            self.queue.remove(&uid);
            self.nominated.remove(&uid);
            let confirmed = self.assumed.remove(&uid);
            if changed || confirmed || self.cluster.place_of(&uid) != Some(&node) {
                self.cluster.set_pod(Arc::new(PodInfo::new(pod.clone())), &node);
                self.queue.wake(Wake::PodPlaced);
                if e.old().is_some() && !confirmed {
                    self.queue.wake(Wake::PodGone); // it may ask for less now
                }
            }
            return;
        }
        let spec = pod.spec.as_ref();
        let gated = spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty());
        let ours = self.profile(pod).is_some();
        if gated || !ours || pod.is_deleting() {
            self.queue.remove(&uid);
            self.nominated.remove(&uid);
            return;
        }
        let info = Arc::new(PodInfo::new(pod.clone()));
        if self.assumed.contains(&uid) {
            // Should its binding fail, it is tried again as it is now.
            return self.queue.add(info, false);
        }
        let nominated =
            |p: &Pod| p.status.as_ref().and_then(|s| s.nominated_node_name.clone()).filter(|n| !n.is_empty());
        match nominated(pod) {
            Some(node) => {
                self.nominated.insert(uid, (node, info.clone()));
            }
            // Only one that was written and taken back is off: ours may still be on its way.
            None if e.old().is_some_and(|old| nominated(old).is_some()) => {
                self.nominated.remove(&uid);
                self.queue.wake(Wake::PodGone);
            }
            None => {
                if let Some((_, there)) = self.nominated.get_mut(&uid) {
                    *there = info.clone();
                }
            }
        }
        self.queue.add(info, changed);
    }

    fn profile(&self, pod: &Pod) -> Option<&Profile> {
        let name = pod.spec.as_ref()?.scheduler_name.as_deref().unwrap_or("default-scheduler");
        self.profiles.iter().find(|p| p.name == name)
    }

    async fn attempt(&mut self, waiting: Waiting) {
        let started = Instant::now();
        let info = waiting.info.clone();
        let uid = info.pod.uid().to_string();
        let Some(profile) = self.profile(&info.pod).cloned() else { return self.queue.remove(&uid) };
        // Pods that others make room for count as if they were there already.
        let expected = self.nominated.iter().filter(|(other, (_, p))| {
            **other != uid && p.priority >= info.priority && self.cluster.place_of(other).is_none()
        });
        let expected: Vec<(String, Arc<PodInfo>)> = expected.into_iter().map(|(_, at)| at.clone()).collect();
        for (node, pod) in &expected {
            if self.cluster.index(node).is_some() {
                self.cluster.set_pod(pod.clone(), node);
            }
        }
        let outcome = self.decide(&profile, &info, &uid);
        let outcome = match outcome {
            Outcome::Unplaced(diagnosis) => {
                if profile.preempts {
                    self.metrics.preemptions.inc();
                }
                let budgets = self.budgets.list();
                let found = match diagnosis.rejected {
                    _ if !profile.preempts => Err(String::new()),
                    None => {
                        preemption::find(&profile.plugins, &info, &mut self.cluster, &diagnosis, &budgets)
                    }
                    Some(_) => Err("preemption: 0/".to_string()
                        + &format!(
                            "{0} nodes are available: {0} Preemption is not helpful for scheduling.",
                            diagnosis.nodes
                        )),
                };
                Err((diagnosis, found))
            }
            Outcome::Placed(node) => Ok(node),
        };
        for (_, pod) in &expected {
            self.cluster.remove_pod(pod.pod.uid());
        }
        match outcome {
            Ok(node) => self.bind(waiting, info, node, started).await,
            Err((diagnosis, found)) => {
                let mut message = diagnosis.message();
                if let Err(why) = found.as_ref().map_err(|why| why.trim_start())
                    && !why.is_empty()
                {
                    message = format!("{message} {why}");
                }
                let waits = matches!(&found, Err(why) if why.contains(preemption::LEAVING));
                let victims = found.ok().map(|c| (c.node, c.victims));
                match &victims {
                    Some((node, _)) => {
                        self.nominated.insert(uid.clone(), (node.clone(), info.clone()));
                    }
                    // Room is kept for it no longer than others are on their way out.
                    None if !waits && self.nominated.remove(&uid).is_some() => {
                        self.queue.wake(Wake::PodGone);
                    }
                    None => {}
                }
                self.count("unschedulable", &profile.name, started);
                self.queue.hand_back(&uid, diagnosis.plugins);
                let nomination = match &victims {
                    Some((node, _)) => Nomination::Node(node.clone()),
                    None if waits => Nomination::Kept,
                    None => Nomination::Off,
                };
                self.fail(&info, message, nomination, victims.map(|(_, v)| v).unwrap_or_default()).await;
            }
        }
    }

    /// A node that others are leaving for this pod comes first.
    fn decide(&mut self, profile: &Profile, info: &PodInfo, uid: &str) -> Outcome {
        if let Some((node, _)) = self.nominated.get(uid)
            && let Some(at) = self.cluster.index(node)
            && self.cluster.rows.get(at).is_some_and(|r| r.node.is_some())
            && Checks::prepare(&profile.plugins, info, &self.cluster).is_ok_and(|c| c.ask(at).is_ok())
        {
            return Outcome::Placed(node.clone());
        }
        place(&profile.plugins, info, &self.cluster, &mut self.start)
    }

    async fn bind(&mut self, waiting: Waiting, info: Arc<PodInfo>, node: String, started: Instant) {
        let steps = volumes::steps(&info, &self.cluster, &node);
        volumes::decide(&steps, info.pod.uid(), &node, &mut self.cluster);
        self.cluster.set_pod(info.clone(), &node);
        self.assumed.insert(info.pod.uid().into());
        let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
        let (binder, results) = (self.binder.clone(), self.results.clone());
        tokio::spawn(async move {
            // Volumes may take minutes: only requests count as on their way.
            let mut permit = Some(permit);
            if !steps.is_empty() {
                permit = None;
            }
            let result = binder.bind(&info.pod, &node, steps).await;
            drop(permit);
            let _ = results.send(Bound { waiting, node, started, result }).await;
        });
    }

    fn on_bound(&mut self, bound: Bound) {
        let Bound { waiting, node, started, result } = bound;
        let pod = &waiting.info.pod;
        let (uid, name) =
            (pod.uid(), pod.spec.as_ref().and_then(|s| s.scheduler_name.clone()).unwrap_or_default());
        match result {
            Ok(()) => {
                self.queue.remove(uid);
                self.nominated.remove(uid);
                self.count("scheduled", &name, started);
                let text = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
                if let Some(recorder) = self.recorders.get(&name) {
                    recorder.event(&object_ref(&**pod), EventType::Normal, "Scheduled", text);
                }
            }
            Err(e) => {
                self.cluster.undecide(uid);
                // The answer may have been lost where the binding was not.
                if !self.assumed.contains(uid) && self.cluster.place_of(uid).is_some_and(|n| *n == node) {
                    self.count("scheduled", &name, started);
                    return self.queue.remove(uid);
                }
                tracing::warn!("cannot bind {}/{} to {node}: {e}", pod.namespace(), pod.name());
                self.count("error", &name, started);
                if self.assumed.remove(uid) && self.cluster.remove_pod(uid).is_some() {
                    self.queue.wake(Wake::PodGone);
                }
                if matches!(&e, BindError::Api(e) if e.is_not_found()) {
                    return self.queue.remove(uid); // it was deleted
                }
                if let Some(recorder) = self.recorders.get(&name) {
                    recorder.event(
                        &object_ref(&**pod),
                        EventType::Warning,
                        "FailedScheduling",
                        e.to_string(),
                    );
                }
                self.queue.hand_back(uid, BTreeSet::new());
            }
        }
    }

    fn count(&self, result: &'static str, profile: &str, started: Instant) {
        let labels = Attempt { result, profile: profile.into() };
        self.metrics.attempts.get_or_create(&labels).inc();
        self.metrics.duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }

    /// Tells why a pod has no place, and makes those leave that have to.
    async fn fail(
        &mut self,
        info: &PodInfo,
        message: String,
        nomination: Nomination,
        victims: Vec<Arc<PodInfo>>,
    ) {
        let pod = info.pod.clone();
        let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.clone()).unwrap_or_default();
        let recorder = self.recorders.get(&name).cloned();
        if let Some(recorder) = &recorder {
            recorder.event(&object_ref(&*pod), EventType::Warning, "FailedScheduling", message.clone());
        }
        let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
        let client = self.binder.client.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Some(patch) = unschedulable(&pod, &message, &nomination)
                && let Err(e) = client.patch_status::<Pod>(pod.namespace(), pod.name(), &patch).await
                && !e.is_not_found()
            {
                tracing::warn!("cannot write why {}/{} is not scheduled: {e}", pod.namespace(), pod.name());
            }
            if let Nomination::Node(node) = &nomination {
                for victim in victims.iter().filter(|v| !v.pod.is_deleting()) {
                    preempt(&client, &pod, &victim.pod, recorder.as_ref(), node).await;
                }
            }
        });
    }
}

/// What becomes of `status.nominatedNodeName` of a pod without a place.
enum Nomination {
    /// Others leave this node for it.
    Node(String),
    /// As it was: they are still leaving.
    Kept,
    /// Nobody leaves.
    Off,
}

/// The condition that says why, if the pod does not say so yet.
fn unschedulable(pod: &Pod, message: &str, nomination: &Nomination) -> Option<Patch> {
    let status = pod.status.clone().unwrap_or_default();
    let old = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled");
    let same = old.is_some_and(|c| {
        c.status == "False"
            && c.reason.as_deref() == Some("Unschedulable")
            && c.message.as_deref() == Some(message)
    });
    let now = status.nominated_node_name.as_deref().filter(|n| !n.is_empty());
    let nominated = match nomination {
        Nomination::Node(node) => Some(node.as_str()),
        Nomination::Kept => now,
        Nomination::Off => None,
    };
    if same && now == nominated {
        return None;
    }
    let since = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let mut patch = json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": { "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": since.unwrap_or_else(api::time::now),
            "observedGeneration": pod.metadata.generation,
        }] },
    });
    if now != nominated
        && let Some(status) = patch.get_mut("status").and_then(|s| s.as_object_mut())
    {
        // A null takes it away.
        status.insert("nominatedNodeName".into(), nominated.into());
    }
    Some(Patch::Strategic(patch))
}

async fn preempt(client: &Client, pod: &Pod, victim: &Pod, recorder: Option<&EventRecorder>, node: &str) {
    let (namespace, name) = (victim.namespace(), victim.name());
    let patch = Patch::Strategic(json!({
        "metadata": { "uid": victim.metadata.uid },
        "status": { "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod",
                pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler")),
            "lastProbeTime": null, "lastTransitionTime": api::time::now(),
        }] },
    }));
    if let Err(e) = client.patch_status::<Pod>(namespace, name, &patch).await
        && !e.is_not_found()
    {
        tracing::warn!("cannot mark {namespace}/{name} before it is preempted: {e}");
    }
    match client.delete::<Pod>(namespace, name, &DeleteOptions::default()).await {
        Ok(()) => {
            let text = format!("Preempted by pod {} on node {node}", pod.uid());
            if let Some(recorder) = recorder {
                recorder.event(&object_ref(victim), EventType::Normal, "Preempted", text);
            }
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => tracing::warn!("cannot preempt {namespace}/{name}: {e}"),
    }
}

/// Writes bindings, of volumes first.
#[derive(Clone)]
struct Binder {
    client: Client,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    /// Counts changes of claims, and pods that go.
    changed: Arc<watch::Sender<u64>>,
}

impl Binder {
    async fn bind(&self, pod: &Pod, node: &str, steps: Vec<Step>) -> Result<(), BindError> {
        if !steps.is_empty() {
            let volumes = self.bind_volumes(pod, &steps, node);
            let late = || BindError::Volumes("timed out waiting for volumes to be bound".into());
            tokio::time::timeout(VOLUME_LIMIT, volumes).await.map_err(|_| late())??;
        }
        let mut binding = Binding {
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.into()),
                ..ObjectReference::default()
            },
            ..Binding::default()
        };
        binding.metadata.name.clone_from(&pod.metadata.name);
        binding.metadata.namespace.clone_from(&pod.metadata.namespace);
        binding.metadata.uid.clone_from(&pod.metadata.uid);
        let (namespace, name) = (pod.namespace(), pod.name());
        self.client
            .create_subresource::<Pod, Binding, serde_json::Value>(namespace, name, "binding", &binding)
            .await?;
        Ok(())
    }

    async fn bind_volumes(&self, pod: &Pod, steps: &[Step], node: &str) -> Result<(), BindError> {
        let mut changes = self.changed.subscribe();
        // From which revision on a claim shows that we chose its node.
        let mut chosen: HashMap<(&str, &str), u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Reserve(volume, claim) => {
                    let mut volume = PersistentVolume::clone(volume);
                    if let Some(spec) = &mut volume.spec {
                        spec.claim_ref = Some(object_ref(&**claim));
                    }
                    let annotations = volume.metadata.annotations.get_or_insert_default();
                    annotations.insert("pv.kubernetes.io/bound-by-controller".into(), "yes".into());
                    self.client.update(&volume).await?;
                }
                Step::Provision(claim) => {
                    let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
                    let (namespace, name) = (claim.namespace(), claim.name());
                    let now = self
                        .client
                        .patch::<PersistentVolumeClaim>(namespace, name, &Patch::Merge(patch))
                        .await?;
                    chosen.insert((namespace, name), revision(&now));
                }
                Step::Await(_) => {}
            }
        }
        loop {
            let mut open = 0;
            for step in steps {
                let claim = step.claim();
                let gone = || BindError::Volumes(format!("claim {} is gone", claim.name()));
                let now = self.claims.get(claim.namespace(), claim.name()).ok_or_else(gone)?;
                if volumes::is_bound(&now) {
                    self.reaches(&now, node)?;
                    continue;
                }
                open += 1;
                // A provisioner that can't make the volume there takes the annotation away.
                let since = chosen.get(&(claim.namespace(), claim.name()));
                if since.is_some_and(|since| revision(&now) >= *since)
                    && now.annotation(SELECTED_NODE) != Some(node)
                {
                    return Err(BindError::Volumes(format!(
                        "provisioning failed for claim {} on {node}",
                        claim.name()
                    )));
                }
            }
            if open == 0 {
                return Ok(());
            }
            if self
                .pods
                .get(pod.namespace(), pod.name())
                .is_none_or(|p| p.is_deleting() || p.uid() != pod.uid())
            {
                return Err(BindError::Volumes("the pod was deleted while its volumes were bound".into()));
            }
            if changes.changed().await.is_err() {
                return Err(BindError::Volumes("the scheduler ends".into()));
            }
        }
    }

    /// An error if the volume that the claim got is out of the node's reach.
    fn reaches(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<(), BindError> {
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let (Some(volume), Some(there)) = (self.volumes.get("", name), self.nodes.get("", node)) else {
            return Ok(());
        };
        match volumes::reached_from(&volume, &there) {
            true => Ok(()),
            false => Err(BindError::Volumes(format!(
                "the volume of claim {} can't be reached from {node}",
                claim.name()
            ))),
        }
    }
}

/// An object's revision; 0 if it is no number.
fn revision(claim: &PersistentVolumeClaim) -> u64 {
    claim.resource_version().parse().unwrap_or(0)
}
