//! Keeps the last status of each pod, and sends it to the API when it changed: only what changed, and only to
//! the very pod it is about. A pod that is to be deleted is deleted when nothing of it is left on the node.

use super::conditions;
use crate::health::Health;
use crate::pod::PodExt;
use crate::sources::mirror::Mirrors;
use client::{Client, Patch};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// How many requests are under way at most.
const PARALLEL: usize = 16;
/// How long a failed one waits at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// For so long the loop may be silent.
const BEAT: Duration = Duration::from_secs(120);

struct Entry {
    pod: Arc<Pod>,
    status: PodStatus,
    /// What the API is believed to have.
    sent: PodStatus,
    /// The resourceVersion of the last answer.
    version: u64,
    ended: bool,
    /// Nothing to do, or not before then.
    due: Option<Instant>,
    busy: bool,
    /// How long the last failure waited.
    pause: Duration,
}

/// The last status of each pod.
pub struct StatusManager {
    client: Option<Client>,
    mirrors: Arc<Mirrors>,
    entries: Mutex<HashMap<String, Entry>>,
    work: Notify,
}

/// One request.
enum Task {
    Patch { uid: String, target: Target, patch: Value, status: Box<PodStatus> },
    Delete { uid: String, target: Target },
}

impl Task {
    fn uid(&self) -> &str {
        match self {
            Task::Patch { uid, .. } | Task::Delete { uid, .. } => uid,
        }
    }
}

/// The object in the API that stands for a pod.
#[derive(Clone)]
struct Target {
    namespace: String,
    name: String,
    uid: String,
}

impl StatusManager {
    /// Without a client it only remembers.
    pub fn new(client: Option<Client>, mirrors: Arc<Mirrors>) -> Self {
        StatusManager { client, mirrors, entries: Mutex::default(), work: Notify::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new status.
    pub fn set(&self, pod: &Arc<Pod>, uid: &str, status: PodStatus) {
        let mut entries = self.lock();
        let e = entries.entry(uid.to_owned()).or_insert_with(|| Entry {
            pod: pod.clone(),
            status: PodStatus::default(),
            sent: pod.api_status().clone(),
            version: 0,
            ended: false,
            due: None,
            busy: false,
            pause: Duration::ZERO,
        });
        e.pod = pod.clone();
        e.status = status;
        e.due = Some(Instant::now());
        drop(entries);
        self.work.notify_one();
    }

    /// The API has this of a pod now; what differs from what was sent is set right.
    pub fn observed(&self, pod: &Arc<Pod>) {
        let mut entries = self.lock();
        let Some(e) = entries.get_mut(pod.uid()) else { return };
        let version = pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        e.pod = pod.clone();
        if version < e.version || e.busy {
            return;
        }
        e.sent = pod.api_status().clone();
        if !difference(&e.sent, &e.status).is_empty() || pod.is_deleted() && e.ended {
            e.due = Some(Instant::now());
            drop(entries);
            self.work.notify_one();
        }
    }

    /// Nothing of a pod is left on the node; the API may forget it.
    pub fn ended(&self, pod: &Arc<Pod>, uid: &str) {
        let mut entries = self.lock();
        let e = entries.entry(uid.to_owned()).or_insert_with(|| Entry {
            pod: pod.clone(),
            status: pod.api_status().clone(),
            sent: pod.api_status().clone(),
            version: 0,
            ended: true,
            due: None,
            busy: false,
            pause: Duration::ZERO,
        });
        e.pod = pod.clone();
        e.ended = true;
        e.due = Some(Instant::now());
        drop(entries);
        self.work.notify_one();
    }

    /// A mirror of a static pod is there now, and may lack its status.
    pub fn mirrored(&self, key: &api::ObjectKey, mirror: &Arc<Pod>) {
        let mut entries = self.lock();
        for e in entries.values_mut().filter(|e| e.pod.is_static() && e.pod.key() == *key) {
            if !e.busy {
                e.sent = mirror.api_status().clone();
                e.due = (!difference(&e.sent, &e.status).is_empty()).then(Instant::now);
            }
        }
        drop(entries);
        self.work.notify_one();
    }

    /// The last status of a pod.
    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        self.lock().get(uid).map(|e| e.status.clone())
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Sends what is due, for as long as it is polled.
    pub(crate) async fn run(&self, health: &Health) {
        let Some(client) = &self.client else { return };
        let mut tasks: JoinSet<()> = JoinSet::new();
        let (done, mut finished) = tokio::sync::mpsc::channel(PARALLEL);
        loop {
            health.beat("statuses", BEAT);
            let mut next: Option<Instant> = None;
            while tasks.len() < PARALLEL {
                match self.take(&mut next) {
                    Some(task) => {
                        let (client, done) = (client.clone(), done.clone());
                        tasks.spawn(async move {
                            let uid = task.uid().to_owned();
                            // one that is lost must not leave its pod waiting for ever
                            let outcome = AssertUnwindSafe(carry_out(&client, task)).catch_unwind().await;
                            let _ = done.send((uid, outcome.unwrap_or(Outcome::Failed))).await;
                        });
                    }
                    None => break,
                }
            }
            tokio::select! {
                () = self.work.notified() => {}
                Some((uid, outcome)) = finished.recv() => self.settle(&uid, outcome),
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + BEAT / 4).min(Instant::now() + BEAT / 4).into()) => {}
            }
        }
    }

    /// The next thing to send, or else when there will be one.
    fn take(&self, next: &mut Option<Instant>) -> Option<Task> {
        let now = Instant::now();
        let mut entries = self.lock();
        for (uid, e) in entries.iter_mut().filter(|(_, e)| !e.busy) {
            let Some(due) = e.due else { continue };
            if due > now {
                *next = Some(next.map_or(due, |n| n.min(due)));
                continue;
            }
            let target = match e.pod.is_static() {
                true => match self.mirrors.get(&e.pod.key()) {
                    Some(m) => {
                        Target { namespace: m.namespace().into(), name: m.name().into(), uid: m.uid().into() }
                    }
                    None => {
                        e.due = None;
                        continue;
                    }
                },
                false => Target {
                    namespace: e.pod.namespace().into(),
                    name: e.pod.name().into(),
                    uid: uid.clone(),
                },
            };
            let changes = difference(&e.sent, &e.status);
            if !changes.is_empty() {
                e.busy = true;
                let patch = json!({"metadata": {"uid": target.uid}, "status": changes});
                return Some(Task::Patch {
                    uid: uid.clone(),
                    target,
                    patch,
                    status: Box::new(e.status.clone()),
                });
            }
            e.due = None;
            if e.ended && e.pod.is_deleted() && !e.pod.is_static() {
                e.busy = true;
                return Some(Task::Delete { uid: uid.clone(), target });
            }
        }
        None
    }

    fn settle(&self, uid: &str, outcome: Outcome) {
        let mut entries = self.lock();
        let Some(e) = entries.get_mut(uid) else { return };
        e.busy = false;
        match outcome {
            Outcome::Patched(pod, status) => {
                e.pause = Duration::ZERO;
                e.version =
                    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
                e.sent = *status;
                if !e.pod.is_static() && pod.is_deleted() {
                    e.pod = Arc::new(*pod);
                }
                e.due = Some(Instant::now());
            }
            Outcome::Gone => e.due = None,
            Outcome::Failed => {
                e.pause = (e.pause * 2).clamp(AGAIN.0, AGAIN.1);
                e.due = Some(Instant::now() + e.pause);
            }
        }
    }
}

enum Outcome {
    Patched(Box<Pod>, Box<PodStatus>),
    Gone,
    Failed,
}

async fn carry_out(client: &Client, task: Task) -> Outcome {
    match task {
        Task::Patch { target, patch, status, .. } => {
            let sent =
                client.patch_status::<Pod>(&target.namespace, &target.name, &Patch::Strategic(patch)).await;
            match sent {
                Ok(pod) => Outcome::Patched(Box::new(pod), status),
                Err(e) if e.is_not_found() || e.is_conflict() => {
                    debug!(pod = target.name, error = %e, "the pod is not there any more");
                    Outcome::Gone
                }
                Err(e) => {
                    warn!(pod = target.name, error = %e, "pod status could not be sent");
                    Outcome::Failed
                }
            }
        }
        Task::Delete { target, .. } => {
            let o = DeleteOptions {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(target.uid.clone()), resource_version: None }),
                ..Default::default()
            };
            match client.delete::<Pod>(&target.namespace, &target.name, &o).await {
                Ok(()) => Outcome::Gone,
                Err(e) if e.is_not_found() || e.is_conflict() => Outcome::Gone,
                Err(e) => {
                    warn!(pod = target.name, error = %e, "a pod that ended could not be deleted");
                    Outcome::Failed
                }
            }
        }
    }
}

/// What a patch has to say to make `old` into `new`, field by field. Lists that the API merges by key are
/// written so that the merge comes out right. What others write, conditions of theirs among it, is as the API has it
/// and never sent back.
fn difference(old: &PodStatus, new: &PodStatus) -> Map<String, Value> {
    let to_map = |s: &PodStatus| {
        let mut own = s.clone();
        own.nominated_node_name = None;
        own.resource_claim_statuses = None;
        if let Some(list) = &mut own.conditions {
            list.retain(|c| conditions::is_own(&c.type_));
        }
        match serde_json::to_value(own) {
            Ok(Value::Object(m)) => m,
            _ => Map::new(),
        }
    };
    let (old, new) = (to_map(old), to_map(new));
    let mut out = Map::new();
    for (k, v) in &new {
        let before = old.get(k);
        if before == Some(v) {
            continue;
        }
        let value = match k.as_str() {
            "conditions" => merged(before, v, "type"),
            "podIPs" | "hostIPs" => merged(before, v, "ip"),
            _ => v.clone(),
        };
        if value != Value::Array(Vec::new()) {
            out.insert(k.clone(), value);
        }
    }
    // fields of others are not for us to take away
    const OWN: [&str; 8] = [
        "message",
        "reason",
        "podIP",
        "podIPs",
        "hostIP",
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ];
    for k in OWN.iter().filter(|k| old.contains_key(**k) && !new.contains_key(**k)) {
        out.insert((*k).to_owned(), Value::Null);
    }
    out
}

/// The entries of a list that changed, and orders to delete those that are gone.
fn merged(old: Option<&Value>, new: &Value, key: &str) -> Value {
    let entries = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (entries(old), entries(Some(new)));
    let gone = old.iter().filter(|o| !new.iter().any(|n| n.get(key) == o.get(key)));
    let gone = gone.map(|o| json!({"$patch": "delete", key: o.get(key)}));
    let changed = new.iter().filter(|n| !old.contains(n)).map(|n| {
        let mut n = n.clone();
        let before = old.iter().find(|o| o.get(key) == n.get(key)).and_then(Value::as_object);
        for field in before.into_iter().flat_map(|b| b.keys()) {
            // a merge keeps what the patch does not name
            if n.get(field).is_none() {
                n[field] = Value::Null;
            }
        }
        n
    });
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let status = |v: Value| serde_json::from_value::<PodStatus>(v).unwrap_or_else(|e| panic!("{e}"));
        let old = status(
            json!({"phase": "Pending", "reason": "x", "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False", "reason": "x"}], "podIPs": [{"ip": "1.1.1.1"}]}),
        );
        let new = status(
            json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}], "podIPs": [{"ip": "2.2.2.2"}]}),
        );
        assert_eq!(
            Value::Object(difference(&old, &new)),
            json!({"phase": "Running", "reason": null, "conditions": [{"type": "Ready", "status": "True", "reason": null}], "podIPs": [{"ip": "2.2.2.2"}, {"$patch": "delete", "ip": "1.1.1.1"}]})
        );
        assert!(difference(&new, &new).is_empty());
    }

    #[test]
    fn what_others_wrote_stays() {
        let status = |v: Value| serde_json::from_value::<PodStatus>(v).unwrap_or_else(|e| panic!("{e}"));
        let ours = status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        for theirs in [
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "a.b/c", "status": "True"}]}),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": "True"}]}),
            json!({"phase": "Running", "nominatedNodeName": "n", "resourceClaimStatuses": [{"name": "c"}], "conditions": [{"type": "Ready", "status": "True"}]}),
        ] {
            let theirs = status(theirs);
            assert!(
                difference(&theirs, &ours).is_empty() && difference(&ours, &theirs).is_empty(),
                "{theirs:?}"
            );
        }
        let gone = status(
            json!({"phase": "Running", "conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "Ready", "status": "True"}]}),
        );
        assert_eq!(
            Value::Object(difference(&gone, &ours)),
            json!({"conditions": [{"$patch": "delete", "type": "PodResizePending"}]})
        );
    }
}
