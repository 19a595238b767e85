//! All pods of the node: which there should be, and a worker for each.

use crate::context::Context;
use crate::pod::PodExt;
use crate::pod_worker::{self, Desired, End, Handle};
use crate::resize::{self, Allocation, Pending, Waiting};
use crate::runtime::labels::names;
use crate::runtime::observed::Observed;
use cri::events::{Event as RuntimeEvent, What};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

/// Which source a pod came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Files on this node.
    File,
    /// The API server.
    Api,
}

#[derive(Default)]
struct State {
    workers: HashMap<String, (Source, Handle)>,
    /// Static pods that wait for an earlier one of their name to end.
    waiting: BTreeMap<api::ObjectKey, Arc<Pod>>,
    /// Pods whose change is not allocated, by uid.
    resizes: HashMap<String, Waiting>,
    ready: HashSet<Source>,
    /// Static pods that ran when the kubelet started: their uids and names.
    leftovers: Vec<(String, api::ObjectKey)>,
}

/// The workers of all pods.
pub struct Pods {
    cx: Arc<Context>,
    state: Mutex<State>,
    done: Arc<Notify>,
}

impl Pods {
    /// None yet.
    pub fn new(cx: Arc<Context>) -> Arc<Self> {
        Arc::new(Pods { cx, state: Mutex::default(), done: Arc::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the end of static pods that ran before under a name that another manifest may use now: two of
    /// one name never run at once.
    pub async fn find_leftovers(&self) {
        let Ok(sandboxes) = self.cx.runtime.list_pod_sandboxes(None).await else { return };
        let mut s = self.lock();
        for sandbox in sandboxes {
            let static_pod =
                sandbox.annotations.get(crate::pod::SOURCE_ANNOTATION).is_some_and(|v| v == "file");
            let label = |n: &str| sandbox.labels.get(n).cloned();
            if let (true, Some(uid), Some(name), Some(ns)) =
                (static_pod, label(names::POD_UID), label(names::POD_NAME), label(names::POD_NAMESPACE))
            {
                s.leftovers.push((uid, api::ObjectKey::new(ns, name)));
            }
        }
    }

    /// Takes all pods of a source: others that came from it are gone.
    pub fn replace(&self, source: Source, pods: &[Arc<Pod>]) {
        let uids: HashSet<&str> = pods.iter().map(|p| p.uid()).collect();
        let gone: Vec<String> = {
            let s = self.lock();
            s.workers
                .iter()
                .filter(|(uid, (from, _))| *from == source && !uids.contains(uid.as_str()))
                .map(|(uid, _)| uid.clone())
                .collect()
        };
        if source == Source::File {
            self.lock().waiting.retain(|_, p| uids.contains(p.uid()));
        }
        for uid in gone {
            self.remove(&uid);
        }
        for p in pods {
            self.update(source, p.clone());
        }
        self.mark_ready(source);
    }

    /// Takes one pod as it should be now.
    pub fn update(&self, source: Source, pod: Arc<Pod>) {
        let mut s = self.lock();
        if s.workers.contains_key(pod.uid()) {
            self.change(&mut s, pod);
            self.allocate(&mut s);
            return;
        }
        if source == Source::File {
            let (own, all) = (pod.key(), std::mem::take(&mut s.leftovers));
            let (same, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, key)| *key == own);
            s.leftovers = rest;
            for (uid, key) in same {
                if uid != pod.uid() && !s.workers.contains_key(&uid) {
                    let metadata = ObjectMeta {
                        name: Some(key.name),
                        namespace: Some(key.namespace),
                        uid: Some(uid),
                        ..Default::default()
                    };
                    self.start(&mut s, Source::File, Arc::new(Pod { metadata, ..Default::default() }), true);
                }
            }
            let busy = s.workers.values().any(|(_, h)| h.desired.borrow().pod.key() == pod.key());
            if busy {
                s.waiting.insert(pod.key(), pod);
                return;
            }
        }
        let allocated = self.cx.records.allocated(pod.uid()).map_or(pod.clone(), |a| a.applied(&pod));
        let end = if source == Source::Api { self.rejected(&s, &allocated) } else { None };
        if end.is_none() && !pod.is_terminal() && !pod.is_deleted() {
            self.cx.records.allocate(pod.uid(), Allocation::of(&allocated));
        }
        self.start_ending(&mut s, source, allocated, false, end);
        self.change(&mut s, pod);
    }

    /// Takes a change to a pod that has a worker: but for what it may use, which is allocated first.
    fn change(&self, s: &mut State, pod: Arc<Pod>) {
        let Some((_, h)) = s.workers.get(pod.uid()) else { return };
        let allocated = self.cx.records.allocated(pod.uid()).unwrap_or_else(|| Allocation::of(&pod));
        let as_allocated = allocated.applied(&pod);
        let is_pending = !allocated.is_of(&pod) && !pod.is_terminal() && !pod.is_deleted();
        h.desired.send_if_modified(|d| {
            let settled = !is_pending && d.pending.take().is_some();
            let changed = *d.pod != *as_allocated;
            // what is still judged is told with the verdict
            if changed && !is_pending {
                d.pod = as_allocated.clone();
            }
            settled || changed && !is_pending
        });
        if is_pending {
            let since = s.resizes.get(pod.uid()).map_or_else(Instant::now, |w| w.since);
            s.resizes.insert(pod.uid().to_owned(), Waiting { wanted: pod, since });
        } else {
            s.resizes.remove(pod.uid());
        }
    }

    /// Allocates what pods wait for, as far as there is room, the first in line first.
    fn allocate(&self, s: &mut State) {
        if s.resizes.is_empty() || !s.ready.contains(&Source::Api) {
            return;
        }
        let State { workers, resizes, .. } = s;
        resizes.retain(|uid, _| workers.get(uid).is_some_and(|(_, h)| !h.desired.borrow().gone));
        let mut line: Vec<(String, Allocation)> = resizes
            .iter()
            .map(|(uid, w)| {
                (uid.clone(), self.cx.records.allocated(uid).unwrap_or_else(|| Allocation::of(&w.wanted)))
            })
            .collect();
        line.sort_by_cached_key(|(uid, a)| resizes.get(uid).map(|w| resize::rank(w, a)));
        for (uid, allocated) in line {
            let (Some(w), Some((_, h))) = (resizes.get(&uid), workers.get(&uid)) else { continue };
            let verdict = {
                let (allocatable, labels) = (
                    self.cx.allocatable.read().unwrap_or_else(PoisonError::into_inner),
                    self.cx.labels.read().unwrap_or_else(PoisonError::into_inner),
                );
                resize::judge(&self.cx.config, &w.wanted, &here(workers), &allocatable, &labels)
            };
            let wanted = w.wanted.clone();
            match verdict {
                Ok(()) => {
                    self.cx.records.allocate(&uid, Allocation::of(&wanted));
                    h.desired.send_modify(|d| (d.pod, d.pending) = (wanted.clone(), None));
                    self.cx.events.pod(
                        &wanted,
                        "Normal",
                        "ResizeStarted",
                        &resize::summary("started", &wanted, ""),
                    );
                    resizes.remove(&uid);
                }
                Err(p) => self.defer(h, &wanted, allocated.applied(&wanted), p),
            }
        }
    }

    /// A pod keeps what it has for now.
    fn defer(&self, h: &Handle, wanted: &Pod, allocated: Arc<Pod>, pending: Pending) {
        let news = {
            let d = h.desired.borrow();
            d.pending.as_ref().is_none_or(|p| p.reason != pending.reason)
                || d.pod.metadata.generation != allocated.metadata.generation
        };
        if news {
            let text = resize::summary(pending.reason, wanted, &pending.message);
            self.cx.events.pod(wanted, "Warning", &format!("Resize{}", pending.reason), &text);
        }
        h.desired.send_if_modified(|d| {
            let changed = *d.pod != *allocated || d.pending.as_ref() != Some(&pending);
            (d.pod, d.pending) = (allocated, Some(pending));
            changed
        });
    }

    /// Looks whether there is room now for what pods wait for.
    pub fn retry_resizes(&self) {
        self.allocate(&mut self.lock());
    }

    /// How a pod ends that cannot run here. One that has begun already is not judged again.
    fn rejected(&self, s: &State, pod: &Pod) -> Option<End> {
        let status = pod.api_status();
        if pod.phase() != "Pending" || status.container_statuses.is_some() || pod.is_deleted() {
            return None;
        }
        let read = |e| PoisonError::into_inner(e);
        let (allocatable, labels) = (
            self.cx.allocatable.read().unwrap_or_else(PoisonError::into_inner),
            self.cx.labels.read().unwrap_or_else(read),
        );
        let r = crate::admit::admit(&self.cx.config, pod, &here(&s.workers), &allocatable, &labels).err()?;
        self.cx.events.pod(pod, "Warning", &r.reason, &r.message);
        Some(End { grace: Some(Duration::ZERO), failed: Some((r.reason, r.message)), rejected: true })
    }

    fn start(&self, s: &mut State, source: Source, pod: Arc<Pod>, gone: bool) {
        self.start_ending(s, source, pod, gone, None);
    }

    fn start_ending(&self, s: &mut State, source: Source, pod: Arc<Pod>, gone: bool, end: Option<End>) {
        let uid = pod.uid().to_owned();
        let handle =
            pod_worker::spawn(self.cx.clone(), Desired { pod, end, gone, pending: None }, self.done.clone());
        s.workers.insert(uid, (source, handle));
    }

    /// A pod is not wanted any more.
    pub fn remove(&self, uid: &str) {
        let mut s = self.lock();
        if let Some((_, h)) = s.workers.get(uid) {
            h.desired.send_modify(|d| d.gone = true);
        }
        self.allocate(&mut s);
    }

    /// Ends a pod by the kubelet's own decision; it fails with this reason and message.
    pub fn evict(&self, uid: &str, grace: Option<Duration>, reason: &str, message: &str) {
        if let Some((_, h)) = self.lock().workers.get(uid) {
            let failed = Some((reason.to_owned(), message.to_owned()));
            h.desired.send_modify(|d| d.end = Some(End { grace, failed, rejected: false }));
        }
    }

    /// All pods, as they should be, with what was last seen of each.
    pub fn list(&self) -> Vec<(Arc<Pod>, Observed)> {
        self.lock()
            .workers
            .values()
            .map(|(_, h)| (h.desired.borrow().pod.clone(), h.seen.borrow().clone()))
            .collect()
    }

    /// The pod of this namespace and name, with what was last seen of it.
    pub fn find(&self, namespace: &str, name: &str) -> Option<(Arc<Pod>, Observed)> {
        let s = self.lock();
        let mut found: Vec<_> = s
            .workers
            .values()
            .filter(|(_, h)| {
                let d = h.desired.borrow();
                d.pod.namespace() == namespace && d.pod.name() == name
            })
            .collect();
        found.sort_by_key(|(_, h)| h.desired.borrow().gone);
        found.first().map(|(_, h)| (h.desired.borrow().pod.clone(), h.seen.borrow().clone()))
    }

    /// A source has told of all its pods.
    pub fn mark_ready(&self, source: Source) {
        let mut s = self.lock();
        s.ready.insert(source);
        self.allocate(&mut s);
    }

    /// Has the volumes of pods that match brought up to date, and what waits for them tried again.
    pub fn refresh(&self, which: impl Fn(&Pod) -> bool) {
        for (_, h) in self.lock().workers.values() {
            if which(&h.desired.borrow().pod) {
                h.refresh();
            }
        }
    }

    /// All that pods here refer to.
    pub fn references(&self) -> std::collections::BTreeSet<crate::objects::Reference> {
        self.lock()
            .workers
            .values()
            .flat_map(|(_, h)| crate::objects::references(&h.desired.borrow().pod))
            .collect()
    }

    /// What is seen of a pod, as it changes.
    pub fn watch(&self, uid: &str) -> Option<watch::Receiver<Observed>> {
        self.lock().workers.get(uid).map(|(_, h)| h.seen.clone())
    }

    /// Has the workers of pods that match look again.
    pub fn poke(&self, which: impl Fn(&Pod) -> bool) {
        for (_, h) in self.lock().workers.values() {
            if which(&h.desired.borrow().pod) {
                h.poke();
            }
        }
    }

    /// Takes an event of the runtime to the worker it concerns.
    pub fn runtime_event(&self, event: &RuntimeEvent) {
        let s = self.lock();
        let RuntimeEvent::Container { id, what } = event else {
            s.workers.values().for_each(|(_, h)| h.poke());
            return;
        };
        match what {
            What::Stopped => self.cx.exits.ended(id),
            What::OutOfMemory => self.cx.exits.out_of_memory(id),
            _ => {}
        }
        let concerns = |h: &Handle| {
            let seen = h.seen.borrow();
            seen.containers.iter().any(|c| c.id == *id) || seen.sandboxes.iter().any(|s| s.id == *id)
        };
        match s.workers.values().find(|(_, h)| concerns(h)) {
            Some((_, h)) => h.poke(),
            // one that was only just made may have ended before its worker saw it
            None if *what == What::Stopped => s.workers.values().for_each(|(_, h)| h.poke()),
            None => {}
        }
    }

    /// Clears away workers that ended, for as long as it is polled; starts pods that waited for them.
    pub async fn reap(&self) {
        loop {
            self.done.notified().await;
            self.reap_now();
            // a worker tells of its end just before its task is over
            tokio::task::yield_now().await;
            if self.lock().workers.values().any(|(_, h)| h.is_done()) {
                self.done.notify_one();
            }
        }
    }

    fn reap_now(&self) {
        let mut s = self.lock();
        s.workers.retain(|_, (_, h)| !h.is_done());
        self.allocate(&mut s);
        let names: HashSet<api::ObjectKey> =
            s.workers.values().map(|(_, h)| h.desired.borrow().pod.key()).collect();
        let free: Vec<api::ObjectKey> = s.waiting.keys().filter(|k| !names.contains(k)).cloned().collect();
        for k in free {
            if let Some(pod) = s.waiting.remove(&k) {
                self.start(&mut s, Source::File, pod, false);
            }
        }
    }

    /// Ends what runs on the node and no source wants, once all sources have spoken.
    pub async fn adopt_orphans(&self, sources: &[Source]) {
        {
            let s = self.lock();
            if !sources.iter().all(|x| s.ready.contains(x)) {
                return;
            }
        }
        let sandboxes = match self.cx.runtime.list_pod_sandboxes(None).await {
            Ok(list) => list,
            Err(e) => {
                warn!(error = %e, "sandboxes could not be listed");
                return;
            }
        };
        for sandbox in sandboxes {
            let label = |n: &str| sandbox.labels.get(n).cloned();
            let (Some(uid), Some(name), Some(namespace)) =
                (label(names::POD_UID), label(names::POD_NAME), label(names::POD_NAMESPACE))
            else {
                continue;
            };
            let mut s = self.lock();
            if s.workers.contains_key(&uid) || s.waiting.values().any(|p| p.uid() == uid) {
                continue;
            }
            info!(pod = format!("{namespace}/{name}"), uid, "ending a pod that nobody wants");
            let metadata = ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                uid: Some(uid),
                ..Default::default()
            };
            let pod = Pod { metadata, ..Default::default() };
            self.start(&mut s, Source::Api, Arc::new(pod), true);
        }
        self.sweep_directories();
    }

    /// Clears away what pods left on disk and in cgroups when no kubelet watched.
    fn sweep_directories(&self) {
        let known: HashSet<String> = {
            let s = self.lock();
            s.workers.keys().cloned().chain(s.waiting.values().map(|p| p.uid().to_owned())).collect()
        };
        let dir = self.cx.config.root_dir.join("pods");
        for e in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let uid = e.file_name().to_string_lossy().into_owned();
            if !known.contains(&uid)
                && let Err(e) = crate::volumes::tear_down(&self.cx.config, &uid)
            {
                warn!(uid, error = %e, "an orphaned pod directory could not be removed");
            }
        }
        for (qos, uid) in self.cx.cgroups.pods() {
            if !known.contains(&uid) {
                let _ = self.cx.cgroups.remove_pod(qos, &uid);
            }
        }
    }
}

/// The pods that count when another asks for room, as allocated.
fn here(workers: &HashMap<String, (Source, Handle)>) -> Vec<Arc<Pod>> {
    workers
        .values()
        .map(|(_, h)| h.desired.borrow())
        .filter(|d| !d.gone && d.end.is_none())
        .map(|d| d.pod.clone())
        .collect()
}
