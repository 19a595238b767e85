//! What the runtime says of one pod: its sandboxes and containers, newest first.

use super::labels::names;
use crate::context::Context;
use cri::Error;
use cri::types::{self, ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState};
use std::collections::HashMap;

/// How much of a termination message is kept.
const MAX_MESSAGE: usize = 4096;
/// How much when it is taken from the log.
const MAX_MESSAGE_LOG: usize = 2048;
/// How many lines of the log.
const MESSAGE_LOG_LINES: usize = 80;

/// Everything the runtime has of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
}

/// A pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// Whether it is up.
    pub ready: bool,
    /// How many there were before it.
    pub attempt: u32,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Its addresses; none when it shares the node's network.
    pub ips: Vec<String>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Made but not started.
    Created,
    /// Runs.
    Running,
    /// Has ended.
    Exited,
    /// The runtime does not know.
    #[default]
    Unknown,
}

/// A pod's container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// How often it was restarted before.
    pub restarts: u32,
    /// What it does.
    pub state: State,
    /// Nanoseconds since the epoch, as the next two.
    pub created_at: i64,
    /// When it started; 0 when it has not.
    pub started_at: i64,
    /// When it ended; 0 when it has not.
    pub finished_at: i64,
    /// How it ended.
    pub exit_code: i32,
    /// The runtime's word for how it ended.
    pub reason: String,
    /// What it or the runtime said about that.
    pub message: String,
    /// The image's name.
    pub image: String,
    /// The image's digest or id.
    pub image_id: String,
    /// The hash of the definition it was started from.
    pub hash: String,
    /// Where its log is.
    pub log_path: String,
    /// User and groups its first process started with, where the runtime tells.
    pub user: Option<types::LinuxContainerUser>,
    /// The limits the runtime has for it.
    pub resources: Option<types::LinuxContainerResources>,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container of a name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of a name in one sandbox.
    pub fn container_in(&self, sandbox: &str, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name && c.sandbox == sandbox)
    }

    /// Whether anything may be running.
    pub fn any_running(&self) -> bool {
        self.sandboxes.iter().any(|s| s.ready)
            || self.containers.iter().any(|c| matches!(c.state, State::Running | State::Unknown))
    }
}

/// Asks the runtime about a pod. What `known` has of ended containers is not asked again.
pub(crate) async fn observe(cx: &Context, uid: &str, known: &Observed) -> Result<Observed, Error> {
    let runtime = &cx.runtime;
    let selector = HashMap::from([(names::POD_UID.to_owned(), uid.to_owned())]);
    let sandbox_filter = PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
    let container_filter = ContainerFilter { label_selector: selector, ..Default::default() };
    let (sandboxes, containers) = tokio::try_join!(
        runtime.list_pod_sandboxes(Some(sandbox_filter)),
        runtime.list_containers(Some(container_filter))
    )?;
    let mut seen = Observed::default();
    for s in sandboxes {
        let ready = s.state() == PodSandboxState::SandboxReady;
        let old = known.sandboxes.iter().find(|o| o.id == s.id);
        // a sandbox keeps its addresses, so that those of one that is gone can still be shown
        let ips = match old.filter(|o| !ready || !o.ips.is_empty()) {
            Some(o) => o.ips.clone(),
            None => match runtime.pod_sandbox_status(&s.id).await {
                Ok(status) => sandbox_ips(&status),
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            },
        };
        let attempt = s.metadata.map_or(0, |m| m.attempt);
        seen.sandboxes.push(Sandbox { id: s.id, ready, attempt, created_at: s.created_at, ips });
    }
    for c in containers {
        if let Some(old) = known.containers.iter().find(|o| o.id == c.id && o.state == State::Exited) {
            seen.containers.push(old.clone());
            continue;
        }
        match runtime.container_status(&c.id).await {
            Ok(status) => {
                let (sandbox, ended) = (c.pod_sandbox_id, status.state() == ContainerState::ContainerExited);
                let words = match ended {
                    // they are in files that it could write to
                    true => {
                        let s = status.clone();
                        crate::blocking::quick(move || last_words(&s)).await.unwrap_or_default()
                    }
                    false => String::new(),
                };
                seen.containers.push(read(sandbox, status, &words));
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    seen.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    seen.containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    Ok(seen)
}

fn sandbox_ips(s: &types::PodSandboxStatus) -> Vec<String> {
    let Some(n) = &s.network else { return Vec::new() };
    std::iter::once(&n.ip)
        .chain(n.additional_ips.iter().map(|a| &a.ip))
        .filter(|ip| !ip.is_empty())
        .cloned()
        .collect()
}

fn read(sandbox: String, s: types::ContainerStatus, words: &str) -> Container {
    let annotation = |name: &str| s.annotations.get(name).cloned().unwrap_or_default();
    let state = match s.state() {
        ContainerState::ContainerCreated => State::Created,
        ContainerState::ContainerRunning => State::Running,
        ContainerState::ContainerExited => State::Exited,
        ContainerState::ContainerUnknown => State::Unknown,
    };
    let message = match (s.message.as_str(), words) {
        ("", words) => words.to_owned(),
        (said, "") => said.to_owned(),
        (said, words) => format!("{said}: {words}"),
    };
    let metadata = s.metadata.clone().unwrap_or_default();
    Container {
        name: s.labels.get(names::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        sandbox,
        restarts: annotation(names::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
        state,
        created_at: s.created_at,
        started_at: s.started_at,
        finished_at: s.finished_at,
        exit_code: s.exit_code,
        reason: s.reason.clone(),
        message,
        image: s
            .image
            .as_ref()
            .map(|i| {
                if i.user_specified_image.is_empty() {
                    i.image.clone()
                } else {
                    i.user_specified_image.clone()
                }
            })
            .unwrap_or_default(),
        image_id: if s.image_ref.is_empty() { s.image_id.clone() } else { s.image_ref.clone() },
        hash: annotation(names::HASH),
        log_path: s.log_path.clone(),
        user: s.user.as_ref().and_then(|u| u.linux.clone()),
        resources: s.resources.as_ref().and_then(|r| r.linux.clone()),
        id: s.id,
    }
}

/// What the container wrote to its termination message file, or the end of its log if it may stand in. It may block.
fn last_words(s: &types::ContainerStatus) -> String {
    let annotation = |name: &str| s.annotations.get(name).map_or("", String::as_str);
    let (path, policy) = (annotation(names::MESSAGE_PATH), annotation(names::MESSAGE_POLICY));
    if path.is_empty() {
        return String::new();
    }
    if let Some(m) = s.mounts.iter().find(|m| m.container_path == path) {
        let text = head(&m.host_path, MAX_MESSAGE);
        if !text.is_empty() {
            return text;
        }
    }
    if policy == "FallbackToLogsOnError" && s.exit_code != 0 {
        return crate::server::logs::tail_text(s.log_path.as_ref(), MESSAGE_LOG_LINES, MAX_MESSAGE_LOG);
    }
    String::new()
}

fn head(path: &str, limit: usize) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // a device or pipe put there must not hold the kubelet up
    if let Ok(f) = sys::dir::open_regular(path.as_ref()) {
        let _ = f.take(limit as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
