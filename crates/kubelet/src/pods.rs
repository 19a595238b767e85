//! All pods of the node: which there should be, and a worker for each. What else is on the node goes ([`collect`]).

mod collect;
#[cfg(test)]
mod tests;

use crate::context::Context;
use crate::pod::PodExt;
use crate::pod_worker::{self, Desired, End, Handle};
use crate::resize::{self, Allocation, Pending, Waiting};
use crate::runtime::labels::names;
use crate::runtime::observed::{Observed, State as ContainerState};
use cri::events::{Event as RuntimeEvent, What};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{error, warn};

/// Which source a pod came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
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
    /// Pods that are wanted again while what ran of them before still ends.
    returning: HashMap<String, (Source, Arc<Pod>)>,
    /// How often the worker of a pod was lost.
    lost: HashMap<String, u32>,
    /// Static pods that ran when the kubelet started: their uids and names.
    leftovers: Vec<(String, api::ObjectKey)>,
}

/// The workers of all pods.
pub(crate) struct Pods {
    cx: Arc<Context>,
    /// All there are.
    sources: Vec<Source>,
    state: Mutex<State>,
    done: Arc<Notify>,
    /// Something may be in the runtime that no worker knows of.
    collect: Notify,
}

impl Pods {
    /// None yet, and where they will come from.
    pub(crate) fn new(cx: Arc<Context>, sources: Vec<Source>) -> Arc<Self> {
        Arc::new(Pods { cx, sources, state: Mutex::default(), done: Arc::default(), collect: Notify::new() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the end of static pods that ran before under a name that another manifest may use now: two of
    /// one name never run at once.
    pub async fn find_leftovers(&self) {
        let sandboxes = loop {
            match self.cx.runtime.list_pod_sandboxes(None).await {
                Ok(list) => break list,
                Err(e) => warn!(error = %e, "the runtime cannot say yet which static pods run"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
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
        if s.workers.get(pod.uid()).is_some_and(|(_, h)| h.desired.borrow().gone) {
            s.returning.insert(pod.uid().to_owned(), (source, pod));
            return;
        }
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
            let verdict = resize::judge(&self.cx.config, &w.wanted, &here(workers), &self.cx.node_facts());
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
        let node = self.cx.node_facts();
        let r = crate::admit::admit(&self.cx.config, pod, &here(&s.workers), &node).err()?;
        self.cx.events.pod(pod, "Warning", &r.reason, &r.message);
        Some(End { grace: Some(Duration::ZERO), failed: Some((r.reason, r.message)), rejected: true })
    }

    fn start(&self, s: &mut State, source: Source, pod: Arc<Pod>, gone: bool) {
        self.start_ending(s, source, pod, gone, None);
    }

    fn start_ending(&self, s: &mut State, source: Source, pod: Arc<Pod>, gone: bool, end: Option<End>) {
        let uid = pod.uid().to_owned();
        let desired = Desired { pod, end, gone, pending: None };
        let handle = pod_worker::spawn(self.cx.clone(), desired, self.done.clone(), Duration::ZERO);
        s.workers.insert(uid, (source, handle));
    }

    /// A pod is not wanted any more.
    pub fn remove(&self, uid: &str) {
        let mut s = self.lock();
        s.returning.remove(uid);
        if let Some((_, h)) = s.workers.get(uid) {
            h.desired.send_modify(|d| d.gone = true);
        }
        self.allocate(&mut s);
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
        drop(s);
        self.collect.notify_one();
    }

    /// Whether the kubelet has not heard of a pod yet.
    pub(crate) fn is_new(&self, uid: &str) -> bool {
        !self.lock().workers.contains_key(uid)
    }

    /// Ends a pod's worker as a fault of ours would.
    #[cfg(test)]
    pub(crate) fn lose_worker(&self, uid: &str) {
        if let Some((_, h)) = self.lock().workers.get(uid) {
            h.lose();
        }
    }

    /// Whether nobody wants a pod any more.
    #[cfg(test)]
    pub(crate) fn is_gone(&self, uid: &str) -> bool {
        self.lock().workers.get(uid).is_none_or(|(_, h)| h.desired.borrow().gone)
    }

    /// What burstable pods ask for of the processor, in thousandths.
    pub(crate) fn burstable_cpu(&self) -> i64 {
        let s = self.lock();
        let all =
            s.workers.values().filter(|(_, h)| h.is_live()).map(|(_, h)| h.desired.borrow().pod.clone());
        all.filter(|p| p.qos() == crate::pod::Qos::Burstable && !p.is_terminal())
            .map(|p| crate::pod::requests(p.spec(), "cpu").milli())
            .fold(0, i64::saturating_add)
    }

    /// The containers that run, by what concerns their logs.
    pub(crate) fn running_logs(&self) -> Vec<(String, String)> {
        let s = self.lock();
        let seen = s.workers.values().flat_map(|(_, h)| {
            let seen = h.seen.borrow();
            let running = seen.containers.iter().filter(|c| c.state == ContainerState::Running);
            running.map(|c| (c.id.clone(), c.log_path.clone())).collect::<Vec<_>>()
        });
        seen.collect()
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
        // what has ended refers to nothing any more; the API server would not let it be read
        let s = self.lock();
        let live = s.workers.values().filter(|(_, h)| h.is_live());
        live.flat_map(|(_, h)| crate::objects::references(&h.desired.borrow().pod)).collect()
    }

    /// What is seen of a pod, as it changes.
    pub fn watch(&self, uid: &str) -> Option<watch::Receiver<Observed>> {
        self.lock().workers.get(uid).map(|(_, h)| h.seen.clone())
    }

    /// Takes an event of the runtime to the worker it concerns.
    pub fn runtime_event(&self, event: &RuntimeEvent) {
        let s = self.lock();
        let RuntimeEvent::Container { id, what } = event else {
            drop(s);
            self.collect.notify_one();
            return;
        };
        match what {
            What::Stopped => self.cx.exits.ended(id),
            What::OutOfMemory => self.cx.exits.out_of_memory(id),
            _ => {}
        }
        match s.workers.values().find(|(_, h)| h.owns(id)) {
            Some((_, h)) => h.poke(),
            // nobody's, or one that ended before its worker heard that it was made
            None if matches!(what, What::Stopped | What::Started) => self.collect.notify_one(),
            None => {}
        }
    }

    /// Clears away workers that ended, for as long as it is polled; starts pods that waited for them.
    pub async fn reap(&self) {
        let mut tick = tokio::time::interval(BEAT / 4);
        loop {
            tokio::select! {
                () = self.done.notified() => {}
                _ = tick.tick() => {}
            }
            self.cx.health.beat("pods", BEAT);
            self.reap_now();
            // a worker tells of its end just before its task is over
            tokio::task::yield_now().await;
            if self.lock().workers.values().any(|(_, h)| h.is_over() || h.is_done()) {
                self.done.notify_one();
            }
        }
    }

    fn reap_now(&self) {
        let mut s = self.lock();
        let over: Vec<String> =
            s.workers.iter().filter(|(_, (_, h))| h.is_over()).map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            let Some((source, h)) = s.workers.remove(&uid) else { continue };
            if h.is_done() {
                s.lost.remove(&uid);
                continue;
            }
            // it ended by a fault of ours: the pod is still to be looked after
            let desired = h.desired.borrow().clone();
            let times = s.lost.entry(uid.clone()).or_default();
            *times += 1;
            let pause = Duration::from_secs(1 << (*times).min(6));
            error!(pod = %desired.pod.key(), again = ?pause, "the worker of a pod was lost; it begins anew");
            let handle = pod_worker::spawn(self.cx.clone(), desired, self.done.clone(), pause);
            s.workers.insert(uid, (source, handle));
        }
        let back: Vec<String> =
            s.returning.keys().filter(|uid| !s.workers.contains_key(*uid)).cloned().collect();
        for uid in back {
            if let Some((source, pod)) = s.returning.remove(&uid) {
                self.start(&mut s, source, pod, false);
            }
        }
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
}

/// For so long the loop over pods may be silent.
const BEAT: Duration = Duration::from_secs(60);

/// The pods that count when another asks for room, as allocated: all that have not ended, wanted or not.
fn here(workers: &HashMap<String, (Source, Handle)>) -> Vec<Arc<Pod>> {
    workers
        .values()
        .filter(|(_, h)| !h.has_ended())
        .map(|(_, h)| h.desired.borrow())
        .filter(|d| d.end.as_ref().is_none_or(|e| !e.rejected))
        .map(|d| d.pod.clone())
        .collect()
}
