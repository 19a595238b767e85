//! How far jobs are, what they came to, and when what failed is tried again.

use crate::runtime::observed::Observed;
use crate::status::generate::Waiting;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::Instrument;

/// What jobs tell the worker while they run, and what they leave to it when they are broken off.
#[derive(Default)]
pub(crate) struct Progress {
    waiting: Mutex<Waiting>,
    /// Why containers were not given what they are allocated.
    resize: Mutex<Option<String>>,
    /// Calls under way that make something in the runtime.
    calls: AtomicUsize,
    /// Sandboxes and containers that were made, whether they have been seen yet or not.
    pub(super) made: Mutex<HashSet<String>>,
}

impl Progress {
    pub(super) fn wait(&self, container: &str, reason: &str, message: &str) {
        let entry = (reason.to_owned(), message.to_owned());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned(), entry);
    }

    pub(super) fn clear(&self, container: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }

    pub(super) fn resize(&self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.resize.lock().unwrap_or_else(PoisonError::into_inner), error)
    }

    pub(super) fn resize_error(&self) -> Option<String> {
        self.resize.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn read(&self) -> Waiting {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a call that makes something in the runtime. It goes on to its end even when the job is broken off: a
    /// runtime that is cut short may keep what it has made by then and tell nobody. `poke` is told of the end.
    pub(super) async fn make(
        self: &Arc<Self>,
        poke: &Arc<Notify>,
        call: impl Future<Output = Result<String, cri::Error>> + Send + 'static,
    ) -> Result<String, cri::Error> {
        struct Under(Arc<Progress>, Arc<Notify>);
        impl Drop for Under {
            fn drop(&mut self) {
                self.0.calls.fetch_sub(1, Ordering::SeqCst);
                self.1.notify_one();
            }
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let under = Under(self.clone(), poke.clone());
        let called = tokio::spawn(
            async move {
                let made = call.await;
                if let Ok(id) = &made {
                    under.0.made.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                }
                made
            }
            .in_current_span(),
        );
        called.await.unwrap_or(Err(cri::Error::Incomplete("a call", "an answer")))
    }

    pub(super) fn is_making(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > 0
    }

    /// What was seen need not be remembered.
    pub(super) fn saw(&self, seen: &Observed) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.is_empty() {
            made.retain(|id| {
                !seen.containers.iter().any(|c| c.id == *id) && !seen.sandboxes.iter().any(|s| s.id == *id)
            });
        }
    }
}

/// When to try again what failed: the earlier is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Again {
    /// After a short pause that grows.
    Soon,
    /// Then.
    At(Instant),
}

/// What a job came to.
#[derive(Debug, Default)]
pub(crate) struct JobEnd {
    /// What failed holds up the pod as a whole.
    pub pod: Option<Again>,
    /// Containers that could not be started or ended; the others go on.
    pub containers: HashMap<String, Again>,
    /// What failed is the change of what the pod and its containers may use.
    pub resize: bool,
    /// Volumes were set up, and have to be brought up to date in this time.
    pub volumes: Option<Duration>,
}

/// When to try what failed again: soon, then ever later.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) at: Option<Instant>,
    pub(super) pause: Duration,
}

impl Retry {
    pub(super) const FIRST: Duration = Duration::from_millis(500);
    pub(super) const LAST: Duration = Duration::from_secs(20);
    /// What is only cleared away has time.
    pub(super) const LAST_CLEARED: Duration = Duration::from_secs(300);

    pub(super) fn failed(&mut self, again: Again) {
        self.failed_up_to(again, Self::LAST);
    }

    pub(super) fn failed_up_to(&mut self, again: Again, last: Duration) {
        self.pause = (self.pause * 2).clamp(Self::FIRST, last);
        self.at = Some(match again {
            Again::Soon => Instant::now() + self.pause,
            Again::At(at) => at,
        });
    }

    pub(super) fn worked(&mut self) {
        *self = Retry::default();
    }

    pub(super) fn holds(&self) -> bool {
        self.at.is_some_and(|t| t > Instant::now())
    }
}
