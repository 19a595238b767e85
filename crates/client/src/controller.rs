//! The one shape of a reconcile loop: events become keys, keys wait in a queue, workers reconcile them.

use crate::informer::{Event, Informer};
use crate::metrics::Metrics;
use crate::object::{Meta, ObjectExt};
use crate::workqueue::WorkQueue;
use api::ObjectKey;
use futures::future::{BoxFuture, join_all};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long keys that are at work may take to end when the loop has to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A loop that brings what is closer to what should be.
pub struct Controller<K = ObjectKey> {
    name: &'static str,
    queue: WorkQueue<K>,
    synced: Vec<BoxFuture<'static, ()>>,
    sync_within: Option<Duration>,
    drain: Duration,
}

impl<K: Eq + Hash + Clone + Debug + Send + Sync + 'static> Controller<K> {
    /// A loop without sources.
    pub fn new(name: &'static str) -> Self {
        Controller { name, queue: WorkQueue::new(), synced: Vec::new(), sync_within: None, drain: DRAIN }
    }

    /// Another queue, such as one with another back-off. To be said before there are sources.
    pub fn with_queue(mut self, queue: WorkQueue<K>) -> Self {
        self.queue = queue;
        self
    }

    /// Measures its queue.
    pub fn metered(mut self, metrics: &Metrics) -> Self {
        self.queue = self.queue.metered(metrics, self.name);
        self
    }

    /// How long keys that are at work may take to end when the loop has to stop.
    pub fn drain_within(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Begins after so long even if some collection can't be listed.
    pub fn sync_within(mut self, limit: Duration) -> Self {
        self.sync_within = Some(limit);
        self
    }

    /// Its queue.
    pub fn queue(&self) -> &WorkQueue<K> {
        &self.queue
    }

    /// Lets `map` turn a collection's events into keys.
    pub fn on<T: Meta>(
        self,
        informer: &Informer<T>,
        map: impl Fn(&Event<T>, &WorkQueue<K>) + Send + 'static,
    ) -> Self {
        let queue = self.queue.clone();
        informer.on(move |event| map(event, &queue));
        self.wait_for(informer)
    }

    /// Waits for a collection, which reconciling reads, before it begins.
    pub fn wait_for<T: Meta>(mut self, informer: &Informer<T>) -> Self {
        let informer = informer.clone();
        self.synced.push(Box::pin(async move { informer.synced().await }));
        self
    }

    /// Reconciles with so many workers until shutdown, then gives what they are at some time to end. A result may
    /// ask for the same key again later; an error is logged and the key tried again after its back-off. A worker
    /// that panics takes the loop with it: what it knew may be half changed.
    pub async fn run<F, R, E>(self, workers: usize, shutdown: CancellationToken, reconcile: F)
    where
        F: Fn(K) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let synced = async {
            let all = join_all(self.synced);
            match self.sync_within {
                None => drop(all.await),
                Some(limit) => {
                    if tokio::time::timeout(limit, all).await.is_err() {
                        tracing::warn!("{}: not all caches are filled, going on without", self.name);
                    }
                }
            }
        };
        if shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        tracing::info!("{}: caches are filled, starting {workers} workers", self.name);
        let reconcile = Arc::new(reconcile);
        let mut running = JoinSet::new();
        for _ in 0..workers.max(1) {
            running.spawn(work(self.name, self.queue.clone(), reconcile.clone()));
        }
        shutdown.run_until_cancelled(ended(&mut running)).await;
        self.queue.shut_down();
        if tokio::time::timeout(self.drain, ended(&mut running)).await.is_err() {
            tracing::warn!("{}: {} workers did not end in time", self.name, running.len());
        }
        // Dropping the set ends those that are left.
    }
}

/// Waits until all workers have ended, and panics if one did.
async fn ended(workers: &mut JoinSet<()>) {
    while let Some(ended) = workers.join_next().await {
        if let Err(e) = ended
            && e.is_panic()
        {
            std::panic::resume_unwind(e.into_panic());
        }
    }
}

/// One worker: takes keys until there are no more.
async fn work<K, F, R, E>(name: &'static str, queue: WorkQueue<K>, reconcile: Arc<F>)
where
    K: Eq + Hash + Clone + Debug,
    F: Fn(K) -> R,
    R: Future<Output = Result<Option<Duration>, E>>,
    E: Display,
{
    while let Some(key) = queue.get().await {
        match reconcile(key.clone()).await {
            Ok(again) => {
                queue.forget(&key);
                if let Some(after) = again {
                    queue.add_after(key.clone(), after);
                }
            }
            Err(e) => {
                // What goes well the second time, such as a conflict, is no news.
                match queue.failures(&key) {
                    0 => tracing::debug!("{name}: {key:?}: {e}"),
                    n => tracing::warn!("{name}: {key:?}, attempt {}: {e}", n + 1),
                }
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}

impl Controller<ObjectKey> {
    /// Reconciles every object of a collection that changes.
    pub fn each<T: Meta>(self, informer: &Informer<T>) -> Self {
        self.on(informer, |event, queue| queue.add(event.object().key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    type Result = std::result::Result<Option<Duration>, String>;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_ends_the_loop() {
        let controller = Controller::<u32>::new("test");
        let queue = controller.queue().clone();
        queue.add(1);
        let run = controller.run(3, CancellationToken::new(), |key: u32| async move {
            assert!(key != 1, "no such key");
            Result::Ok(None)
        });
        let ended = tokio::time::timeout(Duration::from_secs(5), tokio::spawn(run)).await.expect("it ends");
        assert!(ended.is_err_and(|e| e.is_panic()));
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_leaves_what_is_ready_and_waits_for_what_is_at_work_only_so_long() {
        for (takes, ends_after, finished) in [(3, 3, 1), (3600, 10, 0)] {
            let controller = Controller::<u32>::new("test");
            let queue = controller.queue().clone();
            (0..100).for_each(|i| queue.add(i));
            let (shutdown, done) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
            let count = done.clone();
            let running = tokio::spawn(controller.run(1, shutdown.clone(), move |_| {
                let count = count.clone();
                async move {
                    tokio::time::sleep(Duration::from_secs(takes)).await;
                    count.fetch_add(1, Ordering::Relaxed);
                    Result::Ok(None)
                }
            }));
            tokio::task::yield_now().await;
            while queue.len() == 100 {
                tokio::task::yield_now().await;
            }
            let start = tokio::time::Instant::now();
            shutdown.cancel();
            running.await.unwrap();
            assert_eq!((start.elapsed().as_secs(), done.load(Ordering::Relaxed)), (ends_after, finished));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_that_never_fills_can_be_done_without() {
        let never = Informer::<k8s_openapi::api::core::v1::Pod>::empty();
        let controller = Controller::<u32>::new("test").wait_for(&never).sync_within(Duration::from_secs(30));
        controller.queue().add(1);
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let run = controller.run(1, shutdown, move |_| {
            stop.cancel();
            async { Result::Ok(None) }
        });
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("it begins");
    }
}
