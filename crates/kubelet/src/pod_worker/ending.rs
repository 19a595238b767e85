//! The end of a pod: its containers are stopped, and what it had on the node is taken away.

use super::progress::{Again, Retry};
use super::{Stage, Worker, stop};
use crate::blocking;
use crate::context::Context;
use crate::pod::PodExt;
use crate::runtime::sandbox_config::log_directory;
use crate::volumes;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{Instrument, debug, info, warn};

impl Worker {
    /// `settled` says that nothing was being made any more when what is seen was asked for.
    pub(super) async fn terminate(&mut self, grace: Duration, settled: bool) {
        self.probes.ending();
        self.probes.follow(&self.cx, &self.pod, &self.seen);
        self.publish(false);
        if self.job.is_some() || self.retry.holds() {
            return;
        }
        if self.seen.any_running() {
            let job = stop::Job {
                cx: self.cx.clone(),
                pod: self.pod.clone(),
                seen: self.seen.clone(),
                grace,
                poke: self.poke.clone(),
            };
            self.job = Some(tokio::spawn(job.run().in_current_span()));
            return;
        }
        if !settled {
            return; // what is still being made is ended when it is there; its end wakes us
        }
        self.probes.clear();
        self.flags.ended.store(true, Ordering::Relaxed);
        self.stage = Stage::Terminated { cleaned: false };
        self.publish(true);
    }

    /// Takes away what the pod had on the node; answers whether the worker has to stay.
    pub(super) async fn clean_up(&mut self, cleaned: bool) -> bool {
        if self.retry.holds() {
            return true;
        }
        let uid = self.pod.uid().to_owned();
        if !cleaned {
            if let Err(e) = clear_away(&self.cx, &uid).await {
                self.retry.failed_up_to(Again::Soon, Retry::LAST_CLEARED);
                // more and more seldom, as it is tried
                warn!(error = %e, again = ?self.retry.pause, "what the pod left could not be cleared away yet");
                return true;
            }
            self.retry.worked();
            self.stage = Stage::Terminated { cleaned: true };
            info!("pod ended");
            self.cx.records.forget(&uid);
            if !self.orphan {
                self.cx.status.ended(&self.pod, self.pod.uid());
            }
        } else if self.pod.is_deleted() {
            self.cx.status.ended(&self.pod, self.pod.uid());
        }
        if !self.gone {
            return true;
        }
        if let Err(e) = self.remove_from_runtime().await {
            self.retry.failed_up_to(Again::Soon, Retry::LAST_CLEARED);
            warn!(error = %e, again = ?self.retry.pause, "what the runtime has of the pod could not be removed yet");
            return true;
        }
        let (cx, logs) = (self.cx.clone(), log_directory(&self.cx, &self.pod));
        let (pod, seen) = (self.pod.clone(), self.seen.clone());
        let key = format!("pod {uid}");
        let removed = self
            .cx
            .blocking
            .run(&key, blocking::LIMIT, move || stop::remove_logs(&cx.config.log_links, &logs, &pod, &seen));
        if let Err(e) = removed.await {
            debug!(error = %e, "logs are still being removed");
        }
        self.cx.forget(&uid);
        false
    }

    pub(super) async fn remove_from_runtime(&self) -> Result<(), cri::Error> {
        let gone = |r: Result<(), cri::Error>| match r {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        };
        // those of a sandbox go with it
        let sandboxes = &self.seen.sandboxes;
        for c in self.seen.containers.iter().filter(|c| !sandboxes.iter().any(|s| s.id == c.sandbox)) {
            gone(self.cx.runtime.remove_container(&c.id).await)?;
        }
        for s in sandboxes {
            gone(self.cx.runtime.remove_pod_sandbox(&s.id).await)?;
        }
        Ok(())
    }
}

/// Takes away a pod's volumes, directory and cgroups.
pub(crate) async fn clear_away(cx: &Context, uid: &str) -> std::io::Result<()> {
    let (pods, own) = (cx.config.pods_dir(), uid.to_owned());
    let work = move || volumes::tear_down(&pods, &own);
    cx.blocking.run(&format!("pod {uid}"), blocking::LIMIT, work).await??;
    cx.cgroups.remove_pod(&cx.blocking, uid).await.map_err(|e| {
        let cause = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
        std::io::Error::other(format!("{e}{cause}"))
    })
}
