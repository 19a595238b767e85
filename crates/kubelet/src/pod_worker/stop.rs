//! The job that ends a pod: hooks, signals, sandboxes.

use super::JobEnd;
use crate::context::Context;
use crate::lifecycle;
use crate::pod::{Kind, PodExt};
use crate::runtime::observed::{Container, Observed, State};
use crate::runtime::sandbox_config::log_directory;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::{debug, warn};

/// What is left for a container to end in when its hook took all the time.
const LEAST_AFTER_HOOK: Duration = Duration::from_secs(2);

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
        if ok { JobEnd::Done } else { JobEnd::Retry(None) }
    }
}

/// Stops all containers of a pod, sidecars after the others and in the opposite order of their start, then
/// its sandboxes. All share the grace.
pub(super) async fn stop_pod(cx: &Context, pod: &Pod, seen: &Observed, grace: Duration) -> bool {
    let deadline = Instant::now() + grace;
    let alive = |c: &&Container| matches!(c.state, State::Running | State::Unknown);
    let kind = |c: &Container| pod.container(&c.name).map_or(Kind::Regular, |(k, _)| k);
    let (sidecars, others): (Vec<_>, Vec<_>) =
        seen.containers.iter().filter(alive).partition(|c| kind(c) == Kind::Sidecar);
    let stop = async |c: &Container| {
        let left = deadline.saturating_duration_since(Instant::now());
        stop_container(cx, pod, &c.name, &c.id, &format!("Stopping container {}", c.name), left).await
    };
    let mut ok = join_all(others.into_iter().map(&stop)).await.into_iter().all(|done| done);
    let order = |c: &&Container| pod.init_containers().iter().position(|i| i.name == c.name);
    let mut sidecars = sidecars;
    sidecars.sort_by_key(|c| std::cmp::Reverse(order(c)));
    for c in sidecars {
        ok &= stop(c).await;
    }
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

/// Stops one container: its hook first, then the signal; both within the grace.
pub(super) async fn stop_container(
    cx: &Context,
    pod: &Pod,
    name: &str,
    id: &str,
    message: &str,
    grace: Duration,
) -> bool {
    let path = crate::events::container_path(pod, name);
    cx.events.container(pod, &path, "Normal", "Killing", message);
    let started = Instant::now();
    let found = pod.container(name).map(|(_, c)| c);
    let hook = found.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|h| (c, h)));
    let mut left = grace;
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
        left = grace.saturating_sub(started.elapsed()).max(LEAST_AFTER_HOOK);
    }
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
pub(super) fn log_link(pod: &Pod, name: &str, id: &str) -> PathBuf {
    PathBuf::from("/var/log/containers").join(format!("{}_{}_{name}-{id}.log", pod.name(), pod.namespace()))
}

/// Removes the log of a container that is gone.
pub(super) fn remove_log(cx: &Context, pod: &Pod, c: &Container) {
    let _ = std::fs::remove_file(log_link(pod, &c.name, &c.id));
    let folder = log_directory(cx, pod).join(&c.name);
    let own = format!("{}.log", c.restarts);
    for e in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // rotated parts have a time after the name
        let file = e.file_name().to_string_lossy().into_owned();
        if file == own || file.starts_with(&format!("{own}.")) {
            let _ = std::fs::remove_file(e.path());
        }
    }
}

/// Removes all logs of a pod that is gone.
pub(super) fn remove_logs(cx: &Context, pod: &Pod, seen: &Observed) {
    for c in &seen.containers {
        let _ = std::fs::remove_file(log_link(pod, &c.name, &c.id));
    }
    if let Err(e) = std::fs::remove_dir_all(log_directory(cx, pod)) {
        debug!(error = %e, "no logs to remove");
    }
}
