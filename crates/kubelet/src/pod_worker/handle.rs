//! The hold on a pod's worker, and what is told through it.

use super::Worker;
use super::progress::Progress;
use crate::context::Context;
use crate::pod::PodExt;
use crate::resize::Pending;
use crate::runtime::observed::Observed;
use k8s_openapi::api::core::v1::Pod;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, info_span};

/// What should become of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The pod as it should be, with what it was allocated.
    pub pod: Arc<Pod>,
    /// Why it was not allocated what it wants.
    pub pending: Option<Pending>,
    /// It has to end.
    pub end: Option<End>,
    /// Nobody wants it any more: what is left of it can go.
    pub gone: bool,
}

/// Why and how fast a pod ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct End {
    /// A shorter time than the pod's own.
    pub grace: Option<Duration>,
    /// The reason and message it fails with, when the kubelet decided so.
    pub failed: Option<(String, String)>,
    /// It was never let run: there is nothing to say of its containers.
    pub rejected: bool,
}

/// The hold on a pod's worker. Dropping it does not stop the pod.
pub(crate) struct Handle {
    /// What should become of the pod.
    pub desired: watch::Sender<Desired>,
    poke: Arc<Notify>,
    flags: Arc<Flags>,
    progress: Arc<Progress>,
    /// What was last seen of it.
    pub seen: watch::Receiver<Observed>,
    task: JoinHandle<()>,
}

/// What a worker and who holds it tell each other.
#[derive(Default)]
pub(super) struct Flags {
    /// What the pod's volumes are made from has changed.
    pub(super) stale: AtomicBool,
    /// The pod has ended: it needs nothing any more.
    pub(super) ended: AtomicBool,
    /// The worker has done all there was to do.
    pub(super) done: AtomicBool,
}

impl Handle {
    /// Has the worker look again.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    /// What the pod's volumes are made from has changed.
    pub(crate) fn refresh(&self) {
        self.flags.stale.store(true, Ordering::Relaxed);
        self.poke.notify_one();
    }

    /// Ends the worker as a fault of ours would.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.task.abort();
    }

    /// Whether the worker is over.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether the pod is gone without a trace; a worker that is over without this was lost.
    pub(crate) fn is_done(&self) -> bool {
        self.flags.done.load(Ordering::Relaxed)
    }

    /// Whether nothing of the pod runs any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.flags.ended.load(Ordering::Relaxed)
    }

    /// Whether the pod may still need what it refers to.
    pub(crate) fn is_live(&self) -> bool {
        !self.has_ended() && !self.desired.borrow().gone
    }

    /// Whether a container or sandbox is this pod's.
    pub(crate) fn owns(&self, id: &str) -> bool {
        let seen = self.seen.borrow();
        seen.containers.iter().any(|c| c.id == id)
            || seen.sandboxes.iter().any(|s| s.id == id)
            || self.progress.made.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// Starts a worker after `pause`; `done` is told when it is over, however it came to that.
pub(crate) fn spawn(cx: Arc<Context>, desired: Desired, done: Arc<Notify>, pause: Duration) -> Handle {
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let poke = Arc::new(Notify::new());
    let (desired_out, desired_in) = watch::channel(desired);
    let (seen_out, seen_in) = watch::channel(Observed::default());
    let flags = Arc::<Flags>::default();
    let worker = Worker::new(cx, desired_in, poke.clone(), flags.clone(), seen_out);
    let progress = worker.progress.clone();
    let span = info_span!("pod", pod = %worker.pod.key());
    let (tell, own) = (Tell(done), flags.clone());
    let task = tokio::spawn(
        async move {
            let _tell = tell;
            tokio::time::sleep(pause).await;
            worker.run().await;
            own.done.store(true, Ordering::Relaxed);
        }
        .instrument(span),
    );
    Handle { desired: desired_out, poke, flags, progress, seen: seen_in, task }
}
