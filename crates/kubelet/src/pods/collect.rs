//! What is on the node and belongs to no pod that there should be: it is ended and taken away, whatever was cut off at
//! whatever moment. The runtime's lists are held against what workers know, when something was heard of that nobody
//! knows, when events may have been missed, and now and then.

use super::{Pods, Source, State};
use crate::pod::PodExt;
use crate::pod_worker;
use crate::runtime::labels::names;
use crate::runtime::observed::{Observed, State as ContainerState};
use crate::{blocking, context::Context};
use cri::types;
use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How often lists are compared without a reason, and what is on disk is looked through.
const EVERY: Duration = Duration::from_secs(60);
/// How soon it is tried again when the runtime cannot be asked, and how late at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Reasons come in crowds: one comparison is for all of a moment.
const SETTLE: Duration = Duration::from_millis(100);
/// How late at most what could not be taken away is tried again.
const LAST_TRY: Duration = Duration::from_secs(600);

/// All that the runtime has of one pod.
#[derive(Default)]
struct Found {
    sandboxes: Vec<types::PodSandbox>,
    containers: Vec<types::Container>,
}

/// What could not be taken away: when it is tried again, and the pause before.
type Failures = HashMap<String, (Instant, Duration)>;

impl Pods {
    /// Does it, for as long as it is polled.
    pub(crate) async fn collect(&self) {
        let (mut failures, mut swept, mut pause) = (Failures::new(), None::<Instant>, AGAIN.0);
        loop {
            self.cx.health.beat("collector", EVERY * 10);
            let wait = match self.relist().await {
                Ok(there) => {
                    pause = AGAIN.0;
                    let due = swept.is_none_or(|at| at.elapsed() >= EVERY);
                    if due && self.all_spoken() {
                        swept = Some(Instant::now());
                        self.sweep(&there, &mut failures).await;
                    }
                    EVERY
                }
                Err(e) => {
                    warn!(error = %e, again = ?pause, "the runtime cannot say what there is");
                    let wait = pause;
                    pause = (pause * 2).min(AGAIN.1);
                    wait
                }
            };
            let _ = tokio::time::timeout(wait, self.collect.notified()).await;
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Whether all sources have told of all their pods: what else there is then is nobody's.
    fn all_spoken(&self) -> bool {
        let s = self.lock();
        self.sources.iter().all(|x| s.ready.contains(x))
    }

    /// Holds what the runtime has against what workers have seen; answers the uids of pods it has something of.
    async fn relist(&self) -> Result<HashSet<String>, cri::Error> {
        let runtime = &self.cx.runtime;
        let (sandboxes, containers) =
            tokio::try_join!(runtime.list_pod_sandboxes(None), runtime.list_containers(None))?;
        let mut found: HashMap<String, Found> = HashMap::new();
        for x in sandboxes {
            if let Some(uid) = x.labels.get(names::POD_UID).cloned() {
                found.entry(uid).or_default().sandboxes.push(x);
            }
        }
        for x in containers {
            if let Some(uid) = x.labels.get(names::POD_UID).cloned() {
                found.entry(uid).or_default().containers.push(x);
            }
        }
        let there = found.keys().cloned().collect();
        let all_spoken = self.all_spoken();
        let mut s = self.lock();
        let none = Found::default();
        for (uid, (_, h)) in &s.workers {
            if differs(&h.seen.borrow(), found.get(uid).unwrap_or(&none)) {
                h.poke();
            }
        }
        if !all_spoken {
            return Ok(there);
        }
        for (uid, found) in found {
            if knows(&s, &uid) {
                continue;
            }
            let pod = restored(&uid, &found);
            info!(pod = %pod.key(), uid, "ending a pod that nobody wants");
            self.start(&mut s, Source::Api, Arc::new(pod), true);
        }
        Ok(there)
    }

    /// Takes away directories, cgroups and logs of pods that are gone.
    async fn sweep(&self, there: &HashSet<String>, failures: &mut Failures) {
        let (pods, logs, cgroups) =
            (self.cx.config.pods_dir(), self.cx.config.pod_logs_dir.clone(), self.cx.cgroups.clone());
        let look = move || {
            let mut uids: HashSet<String> = names_in(&pods).into_iter().collect();
            uids.extend(cgroups.pods());
            (uids, names_in(&logs))
        };
        let (uids, logs) = match self.cx.blocking.run("sweep", blocking::LIMIT, look).await {
            Ok(found) => found,
            Err(e) => return warn!(error = %e, "what is on the disk could not be looked through"),
        };
        let known = |uid: &str| knows(&self.lock(), uid) || there.contains(uid);
        failures.retain(|uid, _| uids.contains(uid));
        for uid in uids {
            let waits = failures.get(&uid).is_some_and(|(at, _)| *at > Instant::now());
            if waits || known(&uid) {
                continue;
            }
            match pod_worker::clear_away(&self.cx, &uid).await {
                Ok(()) => {
                    failures.remove(&uid);
                }
                Err(e) => {
                    let pause = failures.get(&uid).map_or(EVERY, |(_, p)| (*p * 2).min(LAST_TRY));
                    warn!(uid, error = %e, again = ?pause, "what an orphaned pod left could not be removed");
                    failures.insert(uid, (Instant::now() + pause, pause));
                }
            }
        }
        // namespace_name_uid
        let orphaned = |name: &String| {
            name.split('_').count() == 3 && name.rsplit('_').next().is_some_and(|u| !known(u))
        };
        let orphaned: Vec<String> = logs.into_iter().filter(orphaned).collect();
        if let Err(e) = clear_logs(&self.cx, orphaned).await {
            debug!(error = %e, "logs of pods that are gone could not all be removed");
        }
    }
}

/// Whether a pod is looked after.
fn knows(s: &State, uid: &str) -> bool {
    s.workers.contains_key(uid) || s.returning.contains_key(uid) || s.waiting.values().any(|p| p.uid() == uid)
}

/// It may block.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

async fn clear_logs(cx: &Context, names: Vec<String>) -> std::io::Result<()> {
    let (logs, links) = (cx.config.pod_logs_dir.clone(), cx.config.log_links.clone());
    let work = move || -> std::io::Result<()> {
        for name in names {
            sys::dir::remove(&logs.join(name))?;
        }
        // links that lead nowhere any more
        for e in std::fs::read_dir(links).into_iter().flatten().flatten() {
            let path = e.path();
            let to = std::fs::read_link(&path).unwrap_or_default();
            if to.starts_with(&logs) && !to.exists() {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    };
    cx.blocking.run("logs", blocking::LIMIT, work).await?
}

/// Whether what a worker has seen is not what there is.
fn differs(seen: &Observed, found: &Found) -> bool {
    use types::ContainerState as C;
    let state = |c: &types::Container| match c.state() {
        C::ContainerCreated => ContainerState::Created,
        C::ContainerRunning => ContainerState::Running,
        C::ContainerExited => ContainerState::Exited,
        C::ContainerUnknown => ContainerState::Unknown,
    };
    let ready = |s: &types::PodSandbox| s.state() == types::PodSandboxState::SandboxReady;
    seen.sandboxes.len() != found.sandboxes.len()
        || seen.containers.len() != found.containers.len()
        || found.sandboxes.iter().any(|f| !seen.sandboxes.iter().any(|s| s.id == f.id && s.ready == ready(f)))
        || found
            .containers
            .iter()
            .any(|f| !seen.containers.iter().any(|c| c.id == f.id && c.state == state(f)))
}

/// A pod as far as what was written on its containers tells: how long they may take to end, and by which hook.
fn restored(uid: &str, found: &Found) -> Pod {
    let labels = found.sandboxes.iter().map(|s| &s.labels).chain(found.containers.iter().map(|c| &c.labels));
    let label = |n: &str| labels.clone().find_map(|l| l.get(n).cloned());
    let annotated = |n: &str| found.containers.iter().find_map(|c| c.annotations.get(n));
    let seconds = |n: &str| annotated(n).and_then(|v| v.parse::<i64>().ok());
    let mut containers: Vec<Container> = Vec::new();
    for c in &found.containers {
        let Some(name) = c.labels.get(names::CONTAINER_NAME) else { continue };
        if containers.iter().any(|have| have.name == *name) {
            continue;
        }
        let hook = c.annotations.get(names::PRE_STOP).and_then(|v| serde_json::from_str(v).ok());
        containers.push(Container {
            name: name.clone(),
            lifecycle: hook.map(|h| Lifecycle { pre_stop: Some(h), ..Default::default() }),
            ports: c.annotations.get(names::PORTS).and_then(|v| serde_json::from_str(v).ok()),
            ..Default::default()
        });
    }
    Pod {
        metadata: ObjectMeta {
            name: label(names::POD_NAME),
            namespace: label(names::POD_NAMESPACE),
            uid: Some(uid.to_owned()),
            deletion_grace_period_seconds: seconds(names::DELETION_GRACE),
            ..Default::default()
        },
        spec: Some(PodSpec {
            containers,
            termination_grace_period_seconds: seconds(names::TERMINATION_GRACE),
            ..Default::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_end_as_they_were_told_to() {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = Found {
            sandboxes: vec![types::PodSandbox {
                labels: map(&[(names::POD_NAME, "p"), (names::POD_NAMESPACE, "n")]),
                ..Default::default()
            }],
            containers: vec![types::Container {
                labels: map(&[(names::CONTAINER_NAME, "c")]),
                annotations: map(&[
                    (names::TERMINATION_GRACE, "300"),
                    (names::PRE_STOP, "{\"exec\":{\"command\":[\"bye\"]}}"),
                    (names::PORTS, "not json"),
                ]),
                ..Default::default()
            }],
        };
        let pod = restored("u", &found);
        assert_eq!((pod.key().to_string(), pod.uid(), pod.grace().as_secs()), ("n/p".into(), "u", 300));
        let (_, c) = pod.container("c").unwrap_or_else(|| panic!("a container"));
        let hook = c.lifecycle.and_then(|l| l.pre_stop).and_then(|h| h.exec).and_then(|e| e.command);
        assert_eq!((hook, c.ports), (Some(vec!["bye".to_owned()]), None));
    }
}
