//! Pods that wait: for their turn, for a back-off to end, or for something to change.

use crate::pod::PodInfo;
use client::ObjectExt;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A pod that could not be placed is tried again at the latest after this.
const LEFTOVER: Duration = Duration::from_secs(300);

/// Something that can make room for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// A node is new or became more welcoming.
    Node,
    /// A pod left its node.
    PodGone,
    /// A pod came to a node, or its labels changed.
    PodPlaced,
    /// A claim, volume or storage class changed.
    Volume,
    /// A namespace's labels changed.
    Namespace,
}

impl Wake {
    /// Whether it may change a plugin's mind.
    fn concerns(self, plugin: &str) -> bool {
        match self {
            Wake::Node => true,
            Wake::PodGone => matches!(
                plugin,
                "NodeResourcesFit" | "NodePorts" | "InterPodAffinity" | "PodTopologySpread" | "VolumeBinding"
            ),
            Wake::PodPlaced => matches!(plugin, "InterPodAffinity" | "PodTopologySpread"),
            Wake::Volume => plugin == "VolumeBinding",
            Wake::Namespace => plugin == "InterPodAffinity",
        }
    }
}

/// A pod that waits.
#[derive(Clone)]
pub struct Waiting {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// When it first came.
    pub since: Instant,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last: its back-off counts from there.
    failed: Instant,
}

struct Turn(i32, Instant, u64, String);

impl Turn {
    /// The most important first, then the one that waits longest.
    fn rank(&self) -> (i32, Reverse<Instant>, Reverse<u64>) {
        (self.0, Reverse(self.1), Reverse(self.2))
    }
}
impl PartialEq for Turn {
    fn eq(&self, o: &Self) -> bool {
        self.rank() == o.rank()
    }
}
impl Eq for Turn {}
impl PartialOrd for Turn {
    fn partial_cmp(&self, o: &Self) -> Option<Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Turn {
    fn cmp(&self, o: &Self) -> Ordering {
        self.rank().cmp(&o.rank())
    }
}

enum State {
    /// Waits for its turn; the number finds its entry among those that were left behind.
    Active(u64),
    BackOff(u64),
    /// Waits for a change that concerns these plugins.
    Parked {
        plugins: BTreeSet<&'static str>,
        until: Instant,
    },
    /// Somebody has it.
    Taken {
        at: u64,
    },
}

/// All waiting pods, by uid.
pub struct Queue {
    pods: HashMap<String, (Waiting, State)>,
    active: BinaryHeap<Turn>,
    /// By when they are due.
    backing_off: BinaryHeap<Reverse<(Instant, u64, String)>>,
    /// Those of them that failed by an error, by number: they are not tried early.
    errors: HashSet<u64>,
    number: u64,
    parked: HashSet<String>,
    /// When each kind of change happened last, in numbers: what happens while a pod is looked at is not lost.
    last: HashMap<Wake, u64>,
    first_backoff: Duration,
    max_backoff: Duration,
}

impl Queue {
    /// An empty queue.
    pub fn new(first_backoff: Duration, max_backoff: Duration) -> Self {
        Queue {
            pods: HashMap::new(),
            active: BinaryHeap::new(),
            backing_off: BinaryHeap::new(),
            errors: HashSet::new(),
            number: 0,
            parked: HashSet::new(),
            last: HashMap::new(),
            first_backoff,
            max_backoff,
        }
    }

    /// How many wait for their turn, for a back-off, for a change.
    pub fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (_, state) in self.pods.values() {
            match state {
                State::Active(_) => counts[0] += 1,
                State::BackOff(_) => counts[1] += 1,
                State::Parked { .. } => counts[2] += 1,
                State::Taken { .. } => {}
            }
        }
        counts
    }

    /// A pod is new or changed. One that could not be placed gets another chance.
    pub fn add(&mut self, info: Arc<PodInfo>, retry: bool) {
        let uid = info.pod.uid().to_string();
        if let Some((waiting, state)) = self.pods.get_mut(&uid) {
            waiting.info = info;
            if retry && matches!(state, State::Parked { .. }) {
                self.wake_one(&uid);
            }
            return;
        }
        let now = Instant::now();
        let waiting = Waiting { info, since: now, attempts: 0, failed: now };
        self.pods.insert(uid.clone(), (waiting, State::Active(0)));
        self.activate(&uid);
    }

    /// A pod is gone, or has its place.
    pub fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    fn activate(&mut self, uid: &str) {
        self.number += 1;
        if let Some((waiting, state)) = self.pods.get_mut(uid) {
            *state = State::Active(self.number);
            self.active.push(Turn(waiting.info.priority, waiting.since, self.number, uid.into()));
        }
    }

    /// The next pod. It stays known until it is removed or handed back. Where none is due, one that backs off comes early
    /// (upstream: SchedulerPopFromBackoffQ), unless it failed by an error.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        while self.backing_off.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            self.end_back_off();
        }
        self.take().or_else(|| {
            let mut held = Vec::new();
            let mut found = None;
            while let Some(Reverse((_, number, _))) = self.backing_off.peek() {
                if self.errors.contains(number) {
                    held.extend(self.backing_off.pop());
                } else if self.end_back_off() {
                    found = self.take();
                    break;
                }
            }
            self.backing_off.extend(held);
            found
        })
    }

    /// The first that backs off may be tried. False if it was only a trace of one that went another way.
    fn end_back_off(&mut self) -> bool {
        let Some(Reverse((_, number, uid))) = self.backing_off.pop() else { return false };
        self.errors.remove(&number);
        let current = matches!(self.pods.get(&uid), Some((_, State::BackOff(n))) if *n == number);
        if current {
            self.activate(&uid);
        }
        current
    }

    fn take(&mut self) -> Option<Waiting> {
        while let Some(Turn(.., number, uid)) = self.active.pop() {
            if let Some((waiting, state)) = self.pods.get_mut(&uid)
                && matches!(state, State::Active(n) if *n == number)
            {
                waiting.attempts += 1;
                *state = State::Taken { at: self.number };
                return Some(waiting.clone());
            }
        }
        None
    }

    /// When something will be due.
    pub fn next_due(&self) -> Option<Instant> {
        let parked = self.parked.iter().filter_map(|uid| match self.pods.get(uid) {
            Some((_, State::Parked { until, .. })) => Some(*until),
            _ => None,
        });
        self.backing_off.peek().map(|Reverse((at, ..))| *at).into_iter().chain(parked.min()).min()
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_backoff.saturating_mul(factor).min(self.max_backoff)
    }

    fn back_off(&mut self, uid: &str) {
        let Some((waiting, _)) = self.pods.get(uid) else { return };
        let due = waiting.failed + self.backoff(waiting.attempts);
        if due <= Instant::now() {
            return self.activate(uid);
        }
        self.number += 1;
        self.backing_off.push(Reverse((due, self.number, uid.into())));
        if let Some((_, state)) = self.pods.get_mut(uid) {
            *state = State::BackOff(self.number);
        }
    }

    /// A pod that was taken could not be placed: it waits for a change that concerns the plugins that said no.
    /// Without any it only backs off.
    pub fn hand_back(&mut self, uid: &str, plugins: BTreeSet<&'static str>) {
        let Some((waiting, State::Taken { at })) = self.pods.get_mut(uid) else { return };
        waiting.failed = Instant::now();
        let concerned = self.last.iter().any(|(w, when)| when > at && plugins.iter().any(|p| w.concerns(p)));
        if plugins.is_empty() {
            self.errors.insert(self.number + 1);
        }
        if plugins.is_empty() || concerned {
            return self.back_off(uid);
        }
        self.parked.insert(uid.into());
        if let Some((_, state)) = self.pods.get_mut(uid) {
            *state = State::Parked { plugins, until: Instant::now() + LEFTOVER };
        }
    }

    /// Something changed.
    pub fn wake(&mut self, what: Wake) {
        self.number += 1;
        self.last.insert(what, self.number);
        let concerned = |uid: &&String| match self.pods.get(*uid) {
            Some((_, State::Parked { plugins, .. })) => plugins.iter().any(|p| what.concerns(p)),
            _ => true, // no longer parked: forget it
        };
        let concerned: Vec<String> = self.parked.iter().filter(concerned).cloned().collect();
        for uid in concerned {
            if matches!(self.pods.get(&uid), Some((_, State::Parked { .. }))) {
                self.wake_one(&uid);
            }
            self.parked.remove(&uid);
        }
    }

    fn wake_one(&mut self, uid: &str) {
        self.back_off(uid);
    }

    /// Wakes what waited too long.
    pub fn wake_leftovers(&mut self, now: Instant) {
        let old = |s: &State| matches!(s, State::Parked { until, .. } if *until <= now);
        let uids: Vec<String> =
            self.pods.iter().filter(|(_, (_, s))| old(s)).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            self.activate(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn info(name: &str, priority: i32) -> Arc<PodInfo> {
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.uid) = (Some(name.into()), Some(name.into()));
        pod.spec.get_or_insert_default().priority = Some(priority);
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn queue() -> Queue {
        Queue::new(Duration::from_secs(1), Duration::from_secs(10))
    }

    fn next(q: &mut Queue) -> Option<String> {
        q.pop(Instant::now()).map(|w| w.info.pod.uid().to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_important_first_then_the_oldest() {
        let mut q = queue();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            q.add(info(name, priority), false);
        }
        let order: Vec<_> = std::iter::from_fn(|| next(&mut q)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_pod_wakes_for_what_concerns_it() {
        let mut q = queue();
        q.add(info("a", 0), false);
        assert_eq!(next(&mut q).as_deref(), Some("a"));
        q.hand_back("a", BTreeSet::from(["NodeResourcesFit"]));
        q.wake(Wake::PodPlaced);
        assert_eq!(q.counts(), [0, 0, 1]);
        q.wake(Wake::PodGone);
        assert_eq!(q.counts(), [0, 1, 0]);
        // Nothing else waits: it need not wait for the end of its back-off. What happens while it is looked at is not lost.
        assert_eq!(next(&mut q).as_deref(), Some("a"));
        q.wake(Wake::Node);
        q.hand_back("a", BTreeSet::from(["NodeAffinity"]));
        assert_eq!(q.counts(), [0, 1, 0]);
        q.remove("a");
        q.hand_back("a", BTreeSet::new());
        assert_eq!((q.counts(), next(&mut q)), ([0, 0, 0], None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_back_off_counts_from_the_failure_and_doubles() {
        let mut q = queue();
        q.add(info("a", 0), false);
        assert_eq!(next(&mut q).as_deref(), Some("a"));
        q.hand_back("a", BTreeSet::from(["NodeResourcesFit"]));
        tokio::time::advance(Duration::from_secs(60)).await;
        q.wake(Wake::Node);
        assert_eq!(q.counts(), [1, 0, 0]);
        assert_eq!(next(&mut q).as_deref(), Some("a"));
        // After an error the second pause is two seconds, whatever else waits or not.
        q.hand_back("a", BTreeSet::new());
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(next(&mut q), None);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(next(&mut q).as_deref(), Some("a"));
    }
}
