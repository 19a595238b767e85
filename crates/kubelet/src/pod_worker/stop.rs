//! The job that ends a pod: hooks, signals, sandboxes.

use super::{Again, JobEnd};
use crate::context::Context;
use crate::lifecycle;
use crate::pod::{Kind, PodExt};
use crate::runtime::observed::{Container, Observed, State};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

/// What every container is given to end in, even if others or its hook took all the time.
const LEAST: Duration = Duration::from_secs(2);

pub(super) struct Job {
    pub cx: Arc<Context>,
    pub pod: Arc<Pod>,
    pub seen: Observed,
    pub grace: Duration,
    pub poke: Arc<Notify>,
}

impl Job {
    pub async fn run(self) -> JobEnd {
        let ok = stop_pod(&self.cx, &self.pod, &self.seen, self.grace).await;
        self.poke.notify_one();
        JobEnd { pod: (!ok).then_some(Again::Soon), ..JobEnd::default() }
    }
}

/// Stops all containers of a pod: all hooks begin at once, signals go to sidecars after the others and in the
/// opposite order of their start. Then come its sandboxes. All share the grace.
pub(super) async fn stop_pod(cx: &Context, pod: &Pod, seen: &Observed, grace: Duration) -> bool {
    let alive: Vec<&Container> =
        seen.containers.iter().filter(|c| matches!(c.state, State::Running | State::Unknown)).collect();
    // how late a container's turn comes: what is not a sidecar comes first
    let rank = |c: &Container| match pod.container(&c.name) {
        Some((Kind::Sidecar, _)) => {
            let all = pod.init_containers();
            1 + all.len() - all.iter().position(|i| i.name == c.name).unwrap_or(0)
        }
        _ => 0,
    };
    let left: Vec<usize> = alive.iter().map(|c| rank(c)).collect();
    let (over, _) = watch::channel(left);
    let stop = async |c: &Container| {
        let own = rank(c);
        let mut ended = over.subscribe();
        let turn = async move {
            let _ = ended.wait_for(|left| left.iter().all(|r| *r >= own)).await;
        };
        let message = format!("Stopping container {}", c.name);
        let done = stop_container(cx, pod, &c.name, &c.id, &message, grace, turn).await;
        over.send_modify(|left| {
            if let Some(at) = left.iter().position(|r| *r == own) {
                left.swap_remove(at);
            }
        });
        done
    };
    let mut ok = join_all(alive.into_iter().map(&stop)).await.into_iter().all(|done| done);
    for s in seen.sandboxes.iter().filter(|s| s.ready) {
        if let Err(e) = cx.runtime.stop_pod_sandbox(&s.id).await
            && !e.is_not_found()
        {
            warn!(sandbox = s.id, error = %e, "sandbox could not be stopped");
            cx.events.pod(pod, "Warning", "FailedKillPod", &format!("error killing pod: {e}"));
            ok = false;
        }
    }
    ok
}

/// Stops one container: its hook first, then, when its turn has come, the signal; all within the grace, but for the
/// least that each is given.
pub(super) async fn stop_container(
    cx: &Context,
    pod: &Pod,
    name: &str,
    id: &str,
    message: &str,
    grace: Duration,
    turn: impl Future<Output = ()>,
) -> bool {
    let path = crate::events::container_path(pod, name);
    cx.events.container(pod, &path, "Normal", "Killing", message);
    let started = Instant::now();
    let found = pod.container(name).map(|(_, c)| c);
    let hook = found.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|h| (c, h)));
    if let Some((c, hook)) = hook
        && !grace.is_zero()
    {
        let ip = cx
            .status
            .get(pod.uid())
            .and_then(|s| s.pod_ip)
            .or_else(|| pod.api_status().pod_ip.clone())
            .unwrap_or_default();
        if let Err(e) = lifecycle::run(cx, id, c, &ip, hook, Some(grace)).await {
            warn!(container = name, error = %e, "preStop hook failed");
            cx.events.container(pod, &path, "Warning", "FailedPreStopHook", "PreStopHook failed");
        }
    }
    let _ = tokio::time::timeout(grace.saturating_sub(started.elapsed()), turn).await;
    let left = grace.saturating_sub(started.elapsed()).max(LEAST);
    // the runtime counts in whole seconds
    let left = Duration::from_secs(left.as_secs_f64().ceil() as u64);
    match cx.runtime.stop_container(id, left).await {
        Ok(()) => true,
        Err(e) if e.is_not_found() => true,
        Err(e) => {
            warn!(container = name, error = %e, "container could not be stopped");
            false
        }
    }
}

/// The name under which log collectors look for a container's log.
pub(super) fn log_link(links: &Path, pod: &Pod, name: &str, id: &str) -> PathBuf {
    links.join(format!("{}_{}_{name}-{id}.log", pod.name(), pod.namespace()))
}

/// Removes the log of a container that is gone. It may block.
pub(super) fn remove_log(links: &Path, logs: &Path, pod: &Pod, c: &Container) {
    let _ = std::fs::remove_file(log_link(links, pod, &c.name, &c.id));
    let folder = logs.join(&c.name);
    let own = format!("{}.log", c.restarts);
    for e in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // rotated parts have a time after the name
        let file = e.file_name().to_string_lossy().into_owned();
        if file == own || file.starts_with(&format!("{own}.")) {
            let _ = std::fs::remove_file(e.path());
        }
    }
}

/// Removes all logs of a pod that is gone. It may block.
pub(super) fn remove_logs(links: &Path, logs: &Path, pod: &Pod, seen: &Observed) {
    for c in &seen.containers {
        let _ = std::fs::remove_file(log_link(links, pod, &c.name, &c.id));
    }
    if let Err(e) = sys::dir::remove(logs) {
        debug!(error = %e, "no logs to remove");
    }
}
