//! Keys that wait for work: each at most once, never worked on twice at a time, later again on failure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const BACKOFF_START: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);

struct State<K> {
    ready: VecDeque<K>,
    /// What has to be worked on: ready, or to be ready again when its worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    delayed: BTreeSet<(Instant, u64)>,
    /// The delayed keys and their place in `delayed`: each waits for its earliest time only.
    waiting: HashMap<K, (Instant, u64)>,
    by_number: HashMap<u64, K>,
    next_number: u64,
    failures: HashMap<K, u32>,
    closed: bool,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    start: Duration,
    max: Duration,
}

/// A queue of keys. Clones share it.
pub struct WorkQueue<K>(Arc<Shared<K>>);

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue(self.0.clone())
    }
}

impl<K: Eq + Hash + Clone> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Eq + Hash + Clone> WorkQueue<K> {
    /// An empty queue with upstream's back-off: 5 ms, doubled with each failure, up to 1000 s.
    pub fn new() -> Self {
        Self::with_backoff(BACKOFF_START, BACKOFF_MAX)
    }

    /// An empty queue with another back-off.
    pub fn with_backoff(start: Duration, max: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeSet::new(),
            waiting: HashMap::new(),
            by_number: HashMap::new(),
            next_number: 0,
            failures: HashMap::new(),
            closed: false,
        };
        WorkQueue(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), start, max }))
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Asks for work on a key.
    pub fn add(&self, key: K) {
        let mut state = self.state();
        if state.add(key) {
            self.0.changed.notify_one();
        }
    }

    /// Asks for work on a key, but later. It does not take the place of an earlier wish.
    pub fn add_after(&self, key: K, after: Duration) {
        if after.is_zero() {
            return self.add(key);
        }
        // An instant beyond what the clock can tell is as good as 30 years.
        let at = Instant::now()
            .checked_add(after)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(1_000_000_000));
        let mut state = self.state();
        if state.closed || state.waiting.get(&key).is_some_and(|(t, _)| *t <= at) {
            return;
        }
        if let Some(place) = state.waiting.remove(&key) {
            state.delayed.remove(&place);
            state.by_number.remove(&place.1);
        }
        let place = (at, state.next_number);
        state.next_number += 1;
        state.delayed.insert(place);
        state.by_number.insert(place.1, key.clone());
        state.waiting.insert(key, place);
        if state.delayed.first() == Some(&place) {
            self.0.changed.notify_one(); // a worker has to wait for less long
        }
    }

    /// Asks for work on a key after a failure: the more there were, the later.
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.state();
            let count = state.failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let factor = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        self.add_after(key, self.0.start.saturating_mul(factor).min(self.0.max));
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &K) {
        self.state().failures.remove(key);
    }

    /// How often a key failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.state().failures.get(key).copied().unwrap_or_default()
    }

    /// The next key to work on; waits for one. `done` has to be called for it. None after shutdown.
    pub async fn get(&self) -> Option<K> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.0.changed.notify_one(); // another worker takes over the waiting
                    }
                    return Some(key);
                }
                if state.closed {
                    self.0.changed.notify_one();
                    return None;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match next {
                None => changed.await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
            }
        }
    }

    /// Work on a key has ended.
    pub fn done(&self, key: &K) {
        let mut state = self.state();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.0.changed.notify_one();
        }
    }

    /// Ends the queue: what is ready is still handed out, then `get` says there is no more.
    pub fn shut_down(&self) {
        let mut state = self.state();
        state.closed = true;
        state.delayed.clear();
        state.waiting.clear();
        state.by_number.clear();
        drop(state);
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.state().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    /// Whether the key became ready by it.
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn promote(&mut self, now: Instant) {
        while let Some(place) = self.delayed.first().copied().filter(|(at, _)| *at <= now) {
            self.delayed.remove(&place);
            if let Some(key) = self.by_number.remove(&place.1) {
                self.waiting.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_once() {
        let q = WorkQueue::new();
        q.add("a");
        q.add("b");
        q.add("a");
        assert_eq!((q.len(), q.get().await), (2, Some("a")));
        q.add("a"); // while it is worked on
        assert_eq!((q.get().await, q.len()), (Some("b"), 0));
        q.done(&"b");
        q.done(&"a");
        assert_eq!(q.get().await, Some("a"));
        q.done(&"a");
        q.shut_down();
        q.add("c");
        assert_eq!(q.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_the_earliest() {
        let q = WorkQueue::new();
        let start = Instant::now();
        q.add_after("slow", Duration::from_secs(60));
        q.add_after("slow", Duration::from_secs(10));
        q.add_after("slow", Duration::from_secs(30));
        q.add_after("fast", Duration::from_secs(5));
        assert_eq!((q.get().await, start.elapsed().as_secs()), (Some("fast"), 5));
        assert_eq!((q.get().await, start.elapsed().as_secs()), (Some("slow"), 10));
        assert_eq!(q.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off() {
        let q = WorkQueue::new();
        let mut waits = Vec::new();
        for _ in 0..40 {
            let start = Instant::now();
            q.add_rate_limited("a");
            q.get().await;
            q.done(&"a");
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[39], 1_000_000);
        q.forget(&"a");
        assert_eq!(q.failures(&"a"), 0);
    }

    #[tokio::test]
    async fn all_workers_end_at_shutdown() {
        let q = WorkQueue::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let q = q.clone();
                tokio::spawn(async move {
                    let mut n = 0;
                    while let Some(k) = q.get().await {
                        n += 1;
                        q.done(&k);
                    }
                    n
                })
            })
            .collect();
        for i in 0..1000 {
            q.add(i);
        }
        while !q.is_empty() {
            tokio::task::yield_now().await;
        }
        q.shut_down();
        let mut total = 0;
        for w in workers {
            total += w.await.unwrap();
        }
        assert_eq!(total, 1000);
    }
}
