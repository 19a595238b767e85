//! Keys that wait for work: each at most once, never worked on twice at a time, later again on failure.

use crate::metrics::{Metrics, QueueMetrics};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const BACKOFF_START: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);
/// All keys of a queue together are tried again so often, after so many at once: upstream's default.
const RETRIES_PER_SECOND: u32 = 10;
const RETRIES_AT_ONCE: u32 = 100;

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
    /// When the retries that were granted so far are used up.
    retries_until: Option<Instant>,
    metered: Option<Metered<K>>,
}

/// When keys were added and taken, which only those want to know who measure.
struct Metered<K> {
    to: QueueMetrics,
    added: HashMap<K, Instant>,
    taken: HashMap<K, (u64, Instant)>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    start: Duration,
    max: Duration,
    /// Whether the retries of all keys together are limited.
    limited: bool,
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
    /// An empty queue with upstream's back-off: 5 ms, doubled with each failure, up to 1000 s; and no more than
    /// ten keys a second are tried again, after a hundred at once.
    pub fn new() -> Self {
        Self::made(BACKOFF_START, BACKOFF_MAX, true)
    }

    /// An empty queue with another back-off, and no limit on all keys together.
    pub fn with_backoff(start: Duration, max: Duration) -> Self {
        Self::made(start, max, false)
    }

    fn made(start: Duration, max: Duration, limited: bool) -> Self {
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
            retries_until: None,
            metered: None,
        };
        WorkQueue(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), start, max, limited }))
    }

    /// Measures it under a name.
    pub fn metered(self, metrics: &Metrics, name: &'static str) -> Self {
        let to = metrics.queue(name);
        self.state().metered = Some(Metered { to, added: HashMap::new(), taken: HashMap::new() });
        self
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
        let (failures, of_all) = {
            let mut state = self.state();
            if let Some(m) = &state.metered {
                m.to.retries.inc();
            }
            let of_all = if self.0.limited { state.grant_retry(Instant::now()) } else { Duration::ZERO };
            let count = state.failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            (*count, of_all)
        };
        let factor = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        self.add_after(key, self.0.start.saturating_mul(factor).min(self.0.max).max(of_all));
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
                    state.measure_taken(&key);
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
        state.measure_done(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            state.measure_depth();
            self.0.changed.notify_one();
        }
    }

    /// Ends the queue: nothing is handed out any more. What is ready is left to whoever works next.
    pub fn shut_down(&self) {
        let mut state = self.state();
        state.closed = true;
        state.ready.clear();
        state.dirty.clear();
        state.measure_depth();
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
        if self.closed || !self.dirty.insert(key.clone()) {
            return false;
        }
        if let Some(m) = &mut self.metered {
            m.to.adds.inc();
            m.added.entry(key.clone()).or_insert_with(Instant::now);
        }
        if self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        self.measure_depth();
        true
    }

    /// How long a retry has to wait so that all together are not too many.
    fn grant_retry(&mut self, now: Instant) -> Duration {
        let one = Duration::from_secs(1) / RETRIES_PER_SECOND;
        let until = self.retries_until.map_or(now, |t| t.max(now)) + one;
        self.retries_until = Some(until);
        (until - now).saturating_sub(one * RETRIES_AT_ONCE)
    }

    fn measure_depth(&self) {
        if let Some(m) = &self.metered {
            m.to.depth.set(i64::try_from(self.ready.len()).unwrap_or(i64::MAX));
        }
    }

    fn measure_taken(&mut self, key: &K) {
        self.measure_depth();
        let (Some(m), now) = (&mut self.metered, Instant::now()) else { return };
        if let Some(added) = m.added.remove(key) {
            m.to.waited.observe((now - added).as_secs_f64());
        }
        let number = self.next_number;
        self.next_number += 1;
        m.to.works(number, Some(now));
        m.taken.insert(key.clone(), (number, now));
    }

    fn measure_done(&mut self, key: &K) {
        let Some(m) = &mut self.metered else { return };
        if let Some((number, since)) = m.taken.remove(key) {
            m.to.works(number, None);
            m.to.worked.observe(since.elapsed().as_secs_f64());
        }
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
        q.add("left");
        q.shut_down();
        q.add("c");
        assert_eq!(q.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn many_failing_keys_do_not_come_back_together() {
        let q = WorkQueue::new();
        for i in 0..300 {
            q.add_rate_limited(i);
        }
        let mut came = Vec::new();
        let start = Instant::now();
        for _ in 0..300 {
            let key = q.get().await.unwrap();
            came.push(start.elapsed().as_secs());
            q.done(&key);
        }
        let within = |s: u64| came.iter().filter(|at| **at < s).count();
        assert!((100..=110).contains(&within(1)) && (195..=205).contains(&within(10)), "{came:?}");
        // It fills up again.
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        q.forget(&1);
        q.add_rate_limited(1);
        q.get().await;
        assert!(start.elapsed() < Duration::from_millis(10));
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
