//! The job that brings a pod towards what it should be: volumes, sandbox, containers.

use super::{JobEnd, Progress, resize, stop};
use crate::context::Context;
use crate::images::ImageError;
use crate::lifecycle;
use crate::plan::Step;
use crate::pod::{Kind, PodExt};
use crate::runtime::env::Addresses;
use crate::runtime::observed::{Observed, State};
use crate::runtime::{container_config, dns, resources, sandbox_config};
use crate::volumes;
use cri::types::{DnsConfig, PodSandboxConfig};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::{debug, warn};

/// How many dead containers of a name are kept beside the newest.
const KEEP_DEAD: usize = 1;

pub(super) struct Job {
    pub cx: Arc<Context>,
    pub pod: Arc<Pod>,
    pub seen: Observed,
    pub steps: Vec<Step>,
    pub progress: Arc<Progress>,
    pub poke: Arc<Notify>,
}

/// The sandbox a job works in.
struct Sandbox {
    id: String,
    config: PodSandboxConfig,
    addresses: Addresses,
}

impl Job {
    pub async fn run(mut self) -> JobEnd {
        // a change of bounds has an order of its own
        let resizes = self.steps.contains(&Step::Resize);
        let starts = self.steps.iter().any(|s| matches!(s, Step::Start { .. } | Step::CreateSandbox(_)));
        if starts && !self.prepare(resizes).await {
            return JobEnd::Retry(None);
        }
        let mut sandbox =
            self.seen.sandbox().filter(|s| s.ready).map(|s| (s.id.clone(), s.attempt, s.ips.clone()));
        let mut failed = None;
        let mut ready: Option<Sandbox> = None;
        let mut blocked = HashSet::new();
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::StopAll => {
                    let note = "Pod sandbox changed, it will be killed and re-created.";
                    self.cx.events.pod(&self.pod, "Normal", "SandboxChanged", note);
                    stop::stop_pod(&self.cx, &self.pod, &self.seen, self.pod.grace()).await;
                    self.poke.notify_one();
                }
                Step::CreateSandbox(attempt) => match self.create_sandbox(attempt).await {
                    Some(made) => {
                        sandbox = Some(made);
                        self.poke.notify_one();
                    }
                    None => return JobEnd::Retry(None),
                },
                Step::Kill { id, name, message } => {
                    let ok =
                        stop::stop_container(&self.cx, &self.pod, &name, &id, &message, self.pod.grace())
                            .await;
                    self.poke.notify_one();
                    if !ok {
                        blocked.insert(name);
                    }
                }
                Step::Remove(id) => {
                    if let Err(e) = self.cx.runtime.remove_container(&id).await {
                        debug!(container = id, error = %e, "container could not be removed");
                    }
                }
                Step::Resize => {
                    let error = resize::run(&self.cx, &self.pod, &self.seen).await.err();
                    if error.is_some() {
                        failed = failed.or(Some(None));
                    }
                    let before = self.progress.resize(error.clone());
                    if let Some(e) = error.filter(|e| before.as_ref() != Some(e)) {
                        let text = crate::resize::summary("error", &self.pod, &e);
                        self.cx.events.pod(&self.pod, "Warning", "ResizeError", &text);
                    }
                    self.poke.notify_one();
                }
                Step::Start { kind, name, restarts } => {
                    if blocked.contains(&name) {
                        continue;
                    }
                    if ready.is_none() {
                        let Some((id, attempt, ips)) = sandbox.clone() else { return JobEnd::Retry(None) };
                        ready = Some(self.sandbox(id, attempt, ips));
                    }
                    let Some(s) = &ready else { return JobEnd::Retry(None) };
                    match self.start(s, kind, &name, restarts).await {
                        Ok(()) => {}
                        Err(again) => {
                            failed = Some(match (failed, again) {
                                (Some(Some(a)), Some(b)) => Some(Instant::min(a, b)),
                                (_, again) => again,
                            });
                        }
                    }
                    self.poke.notify_one();
                }
            }
        }
        match failed {
            Some(again) => JobEnd::Retry(again),
            None => JobEnd::Done,
        }
    }

    /// Directories, cgroup and volumes.
    async fn prepare(&self, resizes: bool) -> bool {
        let (cx, pod) = (&self.cx, &self.pod);
        let dir = cx.config.pod_dir(pod.uid());
        for sub in ["volumes", "containers", "plugins"] {
            if let Err(e) = std::fs::create_dir_all(dir.join(sub)) {
                let note = format!("error making pod data directories: {e}");
                cx.events.pod(pod, "Warning", "Failed", &note);
                return false;
            }
        }
        let limits = resources::of_pod(pod, &cx.config);
        if resizes {
            // the pod's cgroup is there, and changes with its containers
        } else if let Err(e) = cx.cgroups.set_up_pod(pod.qos(), pod.uid(), &limits) {
            let cause = std::error::Error::source(&e).map(|s| s.to_string()).unwrap_or_default();
            warn!(error = %e, cause, "the pod's cgroup could not be made");
            cx.events.pod(
                pod,
                "Warning",
                "FailedCreatePodContainer",
                &format!("unable to ensure pod container exists: {e}: {cause}"),
            );
            return false;
        }
        if !resizes {
            cx.records.actuate_pod(pod.uid(), pod.spec().resources.clone());
        }
        if let Err(e) = volumes::set_up(cx, pod).await {
            cx.events.pod(pod, "Warning", "FailedMount", &e.to_string());
            return false;
        }
        true
    }

    fn node_dns(&self) -> DnsConfig {
        std::fs::read_to_string(&self.cx.config.resolv_conf).map(|t| dns::parse(&t)).unwrap_or_default()
    }

    async fn create_sandbox(&self, attempt: u32) -> Option<(String, u32, Vec<String>)> {
        let (cx, pod) = (&self.cx, &self.pod);
        let (config, notes) = sandbox_config::build(cx, pod, attempt, &self.node_dns());
        for n in notes {
            let (reason, text) = match n {
                dns::Note::MissingClusterDns(t) => ("MissingClusterDNS", t),
                dns::Note::Forming(t) => ("DNSConfigForming", t),
            };
            cx.events.pod(pod, "Warning", reason, &text);
        }
        let _ = std::fs::create_dir_all(&config.log_directory);
        let handler = match &pod.spec().runtime_class_name {
            Some(class) if !class.is_empty() => match cx.objects.runtime_handler(class).await {
                Ok(h) => h,
                Err(e) => {
                    let note = format!("Failed to create pod sandbox: {e}");
                    cx.events.pod(pod, "Warning", "FailedCreatePodSandBox", &note);
                    return None;
                }
            },
            _ => String::new(),
        };
        let made = match cx.runtime.run_pod_sandbox(config, &handler).await {
            Ok(id) => id,
            Err(e) => {
                warn!(error = %e, "sandbox could not be made");
                cx.events.pod(
                    pod,
                    "Warning",
                    "FailedCreatePodSandBox",
                    &format!("Failed to create pod sandbox: {e}"),
                );
                return None;
            }
        };
        let ips = match cx.runtime.pod_sandbox_status(&made).await {
            Ok(s) => {
                let n = s.network.unwrap_or_default();
                std::iter::once(n.ip)
                    .chain(n.additional_ips.into_iter().map(|a| a.ip))
                    .filter(|i| !i.is_empty())
                    .collect()
            }
            Err(e) => {
                cx.events.pod(
                    pod,
                    "Warning",
                    "FailedPodSandBoxStatus",
                    &format!("Unable to get pod sandbox status: {e}"),
                );
                return None;
            }
        };
        Some((made, attempt, ips))
    }

    fn sandbox(&self, id: String, attempt: u32, ips: Vec<String>) -> Sandbox {
        let host = self.cx.host_ips();
        let pod = if self.pod.host_network() { host.clone() } else { ips };
        let (config, _) = sandbox_config::build(&self.cx, &self.pod, attempt, &self.node_dns());
        Sandbox { id, config, addresses: Addresses { pod, host } }
    }

    /// Starts one container; an error says when to try again, if that is known.
    async fn start(
        &self,
        sandbox: &Sandbox,
        kind: Kind,
        name: &str,
        restarts: u32,
    ) -> Result<(), Option<Instant>> {
        let (cx, pod) = (&self.cx, &self.pod);
        let Some((_, c)) = pod.container(name) else { return Ok(()) };
        let path = crate::events::container_path(pod, name);
        let fail = |reason: &str, message: &str| {
            debug!(container = name, reason, message, "container did not start");
            self.progress.wait(name, reason, message);
            cx.events.container(pod, &path, "Warning", "Failed", &format!("Error: {message}"));
            Err(None)
        };
        let image = match cx.images.ensure(cx, pod, &c, &sandbox.config).await {
            Ok(i) => i,
            Err(e) => {
                self.progress.wait(name, e.reason(), &e.to_string());
                return Err(match e {
                    ImageError::BackOff { until, .. } => Some(until),
                    _ => None,
                });
            }
        };
        let target = pod
            .spec()
            .ephemeral_containers
            .iter()
            .flatten()
            .find(|e| e.name == name)
            .and_then(|e| e.target_container_name.clone());
        let target = target.and_then(|t| {
            self.seen.container(&t).filter(|c| c.state == State::Running).map(|c| c.id.clone())
        });
        let inputs = container_config::Inputs {
            kind,
            restarts,
            image_ref: &image.id,
            user: &image.user,
            addresses: &sandbox.addresses,
            target: target.as_deref(),
        };
        let (config, skipped) = match container_config::build(cx, pod, &c, &inputs).await {
            Ok(made) => made,
            Err(e) => {
                let cause = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
                return fail("CreateContainerConfigError", &format!("{e}{cause}"));
            }
        };
        if !skipped.is_empty() {
            let note = format!(
                "Keys [{}] were skipped since they are considered invalid environment variable names.",
                skipped.join(", ")
            );
            cx.events.pod(pod, "Warning", "InvalidEnvironmentVariableNames", &note);
        }
        let id = match cx.runtime.create_container(&sandbox.id, config, sandbox.config.clone()).await {
            Ok(id) => id,
            Err(e) => return fail("CreateContainerError", &e.message()),
        };
        cx.events.container(pod, &path, "Normal", "Created", "Container created");
        if let Err(e) = cx.runtime.start_container(&id).await {
            return fail("RunContainerError", &e.message());
        }
        cx.records.actuate(pod.uid(), name, c.resources.clone().unwrap_or_default());
        cx.events.container(pod, &path, "Normal", "Started", "Container started");
        self.progress.clear(name);
        self.poke.notify_one();
        link_log(cx, pod, name, &id, restarts);
        self.sweep(name).await;
        if let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
            let ip = sandbox.addresses.pod.first().map_or("", String::as_str);
            if let Err(e) = lifecycle::run(cx, &id, &c, ip, hook, None).await {
                cx.events.container(pod, &path, "Warning", "FailedPostStartHook", "PostStartHook failed");
                warn!(container = name, error = %e, "postStart hook failed");
                self.progress.wait(name, "PostStartHookError", &e.to_string());
                stop::stop_container(cx, pod, name, &id, "FailedPostStartHook", pod.grace()).await;
                return Err(Some(Instant::now() + Duration::from_millis(100)));
            }
        }
        Ok(())
    }

    /// Removes old runs of a container beyond those that are kept for their logs.
    async fn sweep(&self, name: &str) {
        let dead = self.seen.containers.iter().filter(|c| c.name == name && c.state == State::Exited);
        for c in dead.skip(KEEP_DEAD) {
            if self.cx.runtime.remove_container(&c.id).await.is_ok() {
                stop::remove_log(&self.cx, &self.pod, c);
            }
        }
        let in_use: HashSet<&str> = self.seen.containers.iter().map(|c| c.sandbox.as_str()).collect();
        for s in self.seen.sandboxes.iter().skip(1).filter(|s| !s.ready && !in_use.contains(s.id.as_str())) {
            let _ = self.cx.runtime.remove_pod_sandbox(&s.id).await;
        }
    }
}

/// Shows the log under the name that log collectors look for.
fn link_log(cx: &Context, pod: &Pod, name: &str, id: &str, restarts: u32) {
    let log = sandbox_config::log_directory(cx, pod).join(name).join(format!("{restarts}.log"));
    let link = stop::log_link(pod, name, id);
    let folder = link.parent().map(std::fs::create_dir_all);
    if let Some(Err(e)) = folder {
        debug!(error = %e, "no directory for log links");
        return;
    }
    if let Err(e) = std::os::unix::fs::symlink(&log, &link) {
        debug!(link = %link.display(), error = %e, "log could not be linked");
    }
}
