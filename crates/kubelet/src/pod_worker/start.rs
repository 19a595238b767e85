//! The job that brings a pod towards what it should be: volumes, sandbox, containers.

use super::{Again, JobEnd, Progress, resize, stop};
use crate::blocking;
use crate::context::Context;
use crate::images::{ImageError, Present};
use crate::lifecycle;
use crate::plan::Step;
use crate::pod::{Kind, PodExt};
use crate::runtime::env::Addresses;
use crate::runtime::observed::{Observed, State};
use crate::runtime::{container_config, dns, resources, sandbox_config};
use crate::volumes;
use cri::types::{DnsConfig, PodSandboxConfig};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug, warn};

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

/// An image being pulled, for as long as it is wanted.
type Pull = AbortOnDropHandle<Result<Present, ImageError>>;

impl Job {
    pub async fn run(mut self) -> JobEnd {
        let mut end = JobEnd::default();
        // a change of bounds has an order of its own
        let resizes = self.steps.contains(&Step::Resize);
        let starts = self.steps.iter().any(|s| matches!(s, Step::Start { .. } | Step::CreateSandbox(_)));
        let mut pulls = if starts { self.pull_ahead() } else { HashMap::new() };
        if starts {
            match self.prepare(resizes).await {
                Some(renew) => end.volumes = Some(renew),
                None => return JobEnd { pod: Some(Again::Soon), ..end },
            }
        }
        let mut sandbox =
            self.seen.sandbox().filter(|s| s.ready).map(|s| (s.id.clone(), s.attempt, s.ips.clone()));
        let mut ready: Option<Sandbox> = None;
        let mut started = Vec::new();
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
                    None => return JobEnd { pod: Some(Again::Soon), ..end },
                },
                Step::Kill { id, name, message, grace } => {
                    let grace = grace.unwrap_or_else(|| self.pod.grace());
                    let at_once = std::future::ready(());
                    let ok =
                        stop::stop_container(&self.cx, &self.pod, &name, &id, &message, grace, at_once).await;
                    self.poke.notify_one();
                    if !ok {
                        end.containers.insert(name, Again::Soon);
                    }
                }
                Step::Remove { id, .. } => {
                    if let Err(e) = self.cx.runtime.remove_container(&id).await {
                        debug!(container = id, error = %e, "container could not be removed");
                    }
                }
                Step::Resize => {
                    let error = resize::run(&self.cx, &self.pod, &self.seen).await.err();
                    end.resize = error.is_some();
                    let before = self.progress.resize(error.clone());
                    if let Some(e) = error.filter(|e| before.as_ref() != Some(e)) {
                        let text = crate::resize::summary("error", &self.pod, &e);
                        self.cx.events.pod(&self.pod, "Warning", "ResizeError", &text);
                    }
                    self.poke.notify_one();
                }
                Step::Start { kind, name, restarts } => {
                    if end.containers.contains_key(&name) {
                        continue;
                    }
                    if ready.is_none() {
                        ready = match sandbox.clone() {
                            Some((id, attempt, ips)) => Some(self.sandbox(id, attempt, ips).await),
                            None => None,
                        };
                    }
                    let Some(s) = &ready else { return JobEnd { pod: Some(Again::Soon), ..end } };
                    match self.start(s, kind, &name, restarts, pulls.remove(&name)).await {
                        Ok(()) => started.push(name),
                        Err(again) => drop(end.containers.insert(name, again)),
                    }
                    self.poke.notify_one();
                }
            }
        }
        for name in started {
            self.sweep(&name).await;
        }
        end
    }

    /// Begins to pull the images of containers that are to start, beside volumes and sandbox.
    fn pull_ahead(&self) -> HashMap<String, Pull> {
        let attempt = self.seen.sandbox().map_or(0, |s| s.attempt);
        let (config, _) = sandbox_config::build(&self.cx, &self.pod, attempt, &DnsConfig::default());
        let config = Arc::new(config);
        let names = self.steps.iter().filter_map(|s| match s {
            Step::Start { name, .. } => Some(name),
            _ => None,
        });
        names
            .filter_map(|name| Some((name, self.pod.container(name)?.1)))
            .map(|(name, c)| {
                let (cx, pod, config) = (self.cx.clone(), self.pod.clone(), config.clone());
                let pull = async move { cx.images.ensure(&cx, &pod, &c, &config).await };
                (name.clone(), AbortOnDropHandle::new(tokio::spawn(pull.in_current_span())))
            })
            .collect()
    }

    /// Directories, cgroup and volumes; answers in what time volumes have to be brought up to date.
    async fn prepare(&self, resizes: bool) -> Option<Duration> {
        let (cx, pod) = (&self.cx, &self.pod);
        let dir = cx.config.pod_dir(pod.uid());
        let make = move || {
            ["volumes", "containers", "plugins"]
                .iter()
                .try_for_each(|sub| sys::dir::make_all(&dir.join(sub), 0o750))
        };
        let key = format!("pod {}", pod.uid());
        if let Err(e) = cx.blocking.run(&key, blocking::LIMIT, make).await.and_then(|r| r) {
            let note = format!("error making pod data directories: {e}");
            cx.events.pod(pod, "Warning", "Failed", &note);
            return None;
        }
        // with a resize the pod's cgroup is there, and changes with its containers
        if !resizes {
            let (limits, cgroups) = (resources::of_pod(pod, &cx.config), cx.cgroups.clone());
            let made = cgroups.set_up_pod(&cx.blocking, pod.qos(), pod.uid(), limits).await;
            if let Err(e) = made {
                let cause = std::error::Error::source(&e).map(|s| s.to_string()).unwrap_or_default();
                warn!(error = %e, cause, "the pod's cgroup could not be made");
                cx.events.pod(
                    pod,
                    "Warning",
                    "FailedCreatePodContainer",
                    &format!("unable to ensure pod container exists: {e}: {cause}"),
                );
                return None;
            }
            cx.records.actuate_pod(pod.uid(), pod.spec().resources.clone());
        }
        match volumes::set_up(cx, pod).await {
            Ok(renew) => Some(renew.unwrap_or(Duration::MAX)),
            Err(e) => {
                cx.events.pod(pod, "Warning", "FailedMount", &e.to_string());
                None
            }
        }
    }

    async fn node_dns(&self) -> DnsConfig {
        let path = PathBuf::from(&self.cx.config.resolv_conf);
        blocking::quick(move || blocking::text_of(&path)).await.map(|t| dns::parse(&t)).unwrap_or_default()
    }

    /// The runtime's handler for the pod.
    async fn handler(&self) -> Result<String, crate::objects::ObjectError> {
        match self.pod.spec().runtime_class_name.as_deref() {
            Some(class) if !class.is_empty() => self.cx.objects.runtime_handler(class).await,
            _ => Ok(String::new()),
        }
    }

    async fn create_sandbox(&self, attempt: u32) -> Option<(String, u32, Vec<String>)> {
        let (cx, pod) = (&self.cx, &self.pod);
        let (config, notes) = sandbox_config::build(cx, pod, attempt, &self.node_dns().await);
        for n in notes {
            let (reason, text) = match n {
                dns::Note::MissingClusterDns(t) => ("MissingClusterDNS", t),
                dns::Note::Forming(t) => ("DNSConfigForming", t),
            };
            cx.events.pod(pod, "Warning", reason, &text);
        }
        let failed = |e: &dyn std::fmt::Display| {
            warn!(error = %e, "sandbox could not be made");
            let note = format!("Failed to create pod sandbox: {e}");
            cx.events.pod(pod, "Warning", "FailedCreatePodSandBox", &note);
        };
        let logs = PathBuf::from(&config.log_directory);
        let made = blocking::quick(move || sys::dir::make_all(&logs, 0o755)).await.and_then(|r| r);
        if let Err(e) = made {
            failed(&e);
            return None;
        }
        let handler = match self.handler().await {
            Ok(h) => h,
            Err(e) => {
                failed(&e);
                return None;
            }
        };
        let runtime = cx.runtime.clone();
        let call = async move { runtime.run_pod_sandbox(config, &handler).await };
        let made = match self.progress.make(&self.poke, call).await {
            Ok(id) => id,
            Err(e) => {
                failed(&e);
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

    async fn sandbox(&self, id: String, attempt: u32, ips: Vec<String>) -> Sandbox {
        let host = self.cx.host_ips();
        let pod = if self.pod.host_network() { host.clone() } else { ips };
        let (config, _) = sandbox_config::build(&self.cx, &self.pod, attempt, &self.node_dns().await);
        Sandbox { id, config, addresses: Addresses { pod, host } }
    }

    /// Starts one container; an error says when to try again, if that is known.
    async fn start(
        &self,
        sandbox: &Sandbox,
        kind: Kind,
        name: &str,
        restarts: u32,
        pull: Option<Pull>,
    ) -> Result<(), Again> {
        let (cx, pod) = (&self.cx, &self.pod);
        let Some((_, c)) = pod.container(name) else { return Ok(()) };
        let path = crate::events::container_path(pod, name);
        let fail = |reason: &str, message: &str| {
            debug!(container = name, reason, message, "container did not start");
            self.progress.wait(name, reason, message);
            cx.events.container(pod, &path, "Warning", "Failed", &format!("Error: {message}"));
            Err(Again::Soon)
        };
        let no_image = |e: ImageError| {
            self.progress.wait(name, e.reason(), &e.to_string());
            match e {
                ImageError::BackOff { until, .. } => Again::At(until),
                _ => Again::Soon,
            }
        };
        let pulled = match pull {
            Some(pull) => pull.await.ok(),
            None => None,
        };
        let pulled = match pulled {
            Some(p) => p,
            None => cx.images.ensure(cx, pod, &c, &sandbox.config).await,
        };
        let image = pulled.map_err(no_image)?;
        let mut images = HashMap::new();
        for m in c.volume_mounts.iter().flatten() {
            let volume = pod.spec().volumes.iter().flatten().find(|v| v.name == m.name);
            let Some(source) = volume.and_then(|v| v.image.as_ref()) else { continue };
            let got = cx.images.ensure_volume(cx, pod, source, &sandbox.config).await.map_err(no_image)?;
            images.insert(m.name.clone(), got.id);
        }
        let recursive = c.volume_mounts.iter().flatten().any(|m| m.recursive_read_only.is_some());
        let handler = match recursive {
            true => match self.handler().await {
                Ok(h) => h,
                Err(e) => return fail("CreateContainerConfigError", &e.to_string()),
            },
            false => String::new(),
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
            handler: &handler,
            images: &images,
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
        let (runtime, own) = (cx.runtime.clone(), (sandbox.id.clone(), sandbox.config.clone()));
        let call = async move { runtime.create_container(&own.0, config, own.1).await };
        let id = match self.progress.make(&self.poke, call).await {
            Ok(id) => id,
            Err(e) => return fail("CreateContainerError", &e.message()),
        };
        cx.events.container(pod, &path, "Normal", "Created", "Container created");
        let (runtime, own) = (cx.runtime.clone(), id.clone());
        let call = async move { runtime.start_container(&own).await.map(|()| own) };
        if let Err(e) = self.progress.make(&self.poke, call).await {
            return fail("RunContainerError", &e.message());
        }
        cx.records.actuate(pod.uid(), name, c.resources.clone().unwrap_or_default());
        cx.events.container(pod, &path, "Normal", "Started", "Container started");
        self.progress.clear(name);
        self.poke.notify_one();
        let log = sandbox_config::log_directory(cx, pod).join(name).join(format!("{restarts}.log"));
        let link = stop::log_link(&cx.config.log_links, pod, name, &id);
        let _ = blocking::quick(move || link_log(&log, &link)).await;
        if let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
            let ip = sandbox.addresses.pod.first().map_or("", String::as_str);
            if let Err(e) = lifecycle::run(cx, &id, &c, ip, hook, None).await {
                cx.events.container(pod, &path, "Warning", "FailedPostStartHook", "PostStartHook failed");
                warn!(container = name, error = %e, "postStart hook failed");
                self.progress.wait(name, "PostStartHookError", &e.to_string());
                let at_once = std::future::ready(());
                stop::stop_container(cx, pod, name, &id, "FailedPostStartHook", pod.grace(), at_once).await;
                return Err(Again::At(Instant::now() + Duration::from_millis(100)));
            }
        }
        Ok(())
    }

    /// Removes old runs of a container beyond those that are kept for their logs.
    async fn sweep(&self, name: &str) {
        let dead = self.seen.containers.iter().filter(|c| c.name == name && c.state == State::Exited);
        for c in dead.skip(KEEP_DEAD) {
            if self.cx.runtime.remove_container(&c.id).await.is_ok() {
                let logs = sandbox_config::log_directory(&self.cx, &self.pod);
                let (cx, pod, c) = (self.cx.clone(), self.pod.clone(), c.clone());
                let _ =
                    blocking::quick(move || stop::remove_log(&cx.config.log_links, &logs, &pod, &c)).await;
            }
        }
        let in_use: HashSet<&str> = self.seen.containers.iter().map(|c| c.sandbox.as_str()).collect();
        for s in self.seen.sandboxes.iter().skip(1).filter(|s| !s.ready && !in_use.contains(s.id.as_str())) {
            let _ = self.cx.runtime.remove_pod_sandbox(&s.id).await;
        }
    }
}

/// Shows the log under the name that log collectors look for. It may block.
fn link_log(log: &Path, link: &Path) {
    let made = match link.parent() {
        Some(folder) => sys::dir::make_all(folder, 0o755),
        None => Ok(()),
    };
    if let Err(e) = made.and_then(|()| std::os::unix::fs::symlink(log, link)) {
        debug!(link = %link.display(), error = %e, "log could not be linked");
    }
}
