//! The one shape of a reconcile loop: events become keys, keys wait in a queue, workers reconcile them.

use crate::informer::{Event, Informer};
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

/// A loop that brings what is closer to what should be.
pub struct Controller<K = ObjectKey> {
    name: &'static str,
    queue: WorkQueue<K>,
    synced: Vec<BoxFuture<'static, ()>>,
}

impl<K: Eq + Hash + Clone + Debug + Send + Sync + 'static> Controller<K> {
    /// A loop without sources.
    pub fn new(name: &'static str) -> Self {
        Controller { name, queue: WorkQueue::new(), synced: Vec::new() }
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

    /// Reconciles with so many workers until shutdown, then lets them finish. A result may ask for the same
    /// key again later; an error is logged and the key tried again after its back-off.
    pub async fn run<F, R, E>(self, workers: usize, shutdown: CancellationToken, reconcile: F)
    where
        F: Fn(K) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Option<Duration>, E>> + Send,
        E: Display + Send,
    {
        if shutdown.run_until_cancelled(join_all(self.synced)).await.is_none() {
            return;
        }
        tracing::info!("{}: caches are filled, starting {workers} workers", self.name);
        let reconcile = Arc::new(reconcile);
        let mut running = JoinSet::new();
        for _ in 0..workers.max(1) {
            let (name, queue, reconcile) = (self.name, self.queue.clone(), reconcile.clone());
            running.spawn(async move {
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
            });
        }
        shutdown.cancelled().await;
        self.queue.shut_down();
        while running.join_next().await.is_some() {}
    }
}

impl Controller<ObjectKey> {
    /// Reconciles every object of a collection that changes.
    pub fn each<T: Meta>(self, informer: &Informer<T>) -> Self {
        self.on(informer, |event, queue| queue.add(event.object().key()))
    }
}
