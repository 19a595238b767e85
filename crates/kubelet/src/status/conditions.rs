//! The conditions of a pod that the kubelet owns; others' are kept as they are.

use super::generate::{Inputs, find};
use crate::pod::{self, Kind, PodExt};
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const OWN: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    PENDING,
    IN_PROGRESS,
];
const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";

/// Whether the kubelet alone writes conditions of this type.
pub(crate) fn is_own(type_: &str) -> bool {
    OWN.contains(&type_)
}

/// One condition before it is compared with the last.
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

const YES: Verdict = Verdict { holds: true, reason: "", message: String::new() };

fn no(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict { holds: false, reason, message: message.into() }
}

/// All conditions of a pod in this phase; `ran` says a regular container has run in its sandbox.
pub fn all(i: &Inputs<'_>, phase: &str, statuses: &[ContainerStatus], ran: bool) -> Vec<PodCondition> {
    let api = i.pod.api_status().conditions.as_deref().unwrap_or_default();
    let old = i.old.conditions.as_deref().unwrap_or_default();
    let mut out: Vec<PodCondition> =
        api.iter().filter(|c| !OWN.contains(&c.type_.as_str())).cloned().collect();
    out.extend(resizes(i, phase));
    let containers = containers_ready(i, phase, statuses);
    let ready = match containers.holds {
        true => gates(i, &out),
        false => no(containers.reason, containers.message.clone()),
    };
    let sandbox = i.seen.sandbox().is_some_and(|s| {
        s.ready
            && i.seen.sandboxes.iter().filter(|s| s.ready).count() == 1
            && (i.pod.host_network() || !s.ips.is_empty())
    });
    let verdicts = [
        ("PodReadyToStartContainers", if sandbox { YES } else { no("", "") }),
        ("Initialized", initialized(i, phase, statuses, ran)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", YES),
    ];
    for (type_, v) in verdicts {
        let status = if v.holds { "True" } else { "False" };
        let last = old.iter().find(|c| c.type_ == type_).or_else(|| api.iter().find(|c| c.type_ == type_));
        let since = match last {
            Some(l) if l.status == status => l.last_transition_time.clone(),
            // the API keeps whole seconds
            _ => jiff::Timestamp::from_second(i.now.as_second()).ok().map(Time),
        };
        let text = |s: String| Some(s).filter(|s| !s.is_empty());
        out.push(PodCondition {
            type_: type_.into(),
            status: status.into(),
            reason: text(v.reason.to_owned()),
            message: text(v.message),
            last_transition_time: since,
            last_probe_time: None,
            observed_generation: i.pod.metadata.generation,
        });
    }
    out
}

/// How far a change of what containers may use is; nothing when all have what they should.
fn resizes(i: &Inputs<'_>, phase: &str) -> Vec<PodCondition> {
    if matches!(phase, "Succeeded" | "Failed") {
        return Vec::new();
    }
    let one = |type_: &str, reason: Option<&str>, message: Option<&String>, generation| {
        let last = i.old.conditions.iter().flatten().find(|c| c.type_ == type_);
        let since = match last.filter(|l| l.reason.as_deref() == reason) {
            Some(l) => l.last_transition_time.clone(),
            None => jiff::Timestamp::from_second(i.now.as_second()).ok().map(Time),
        };
        PodCondition {
            type_: type_.into(),
            status: "True".into(),
            reason: reason.map(str::to_owned),
            message: message.cloned(),
            last_transition_time: since,
            last_probe_time: None,
            observed_generation: generation,
        }
    };
    let pending = i.resize.pending.as_ref();
    let pending = pending.map(|p| one(PENDING, Some(p.reason), Some(&p.message), i.pod.metadata.generation));
    let progress = i.resize.in_progress.as_ref();
    let progress = progress.map(|(generation, error)| {
        one(IN_PROGRESS, error.as_ref().map(|_| "Error"), error.as_ref(), Some(*generation))
    });
    pending.into_iter().chain(progress).collect()
}

fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn containers_ready(i: &Inputs<'_>, phase: &str, statuses: &[ContainerStatus]) -> Verdict {
    match phase {
        "Succeeded" => return no("PodCompleted", ""),
        "Failed" => return no("PodFailed", ""),
        _ => {}
    }
    let list: Vec<ContainerStatus> = statuses.to_vec();
    let unready: Vec<&str> = i
        .pod
        .containers()
        .filter(|(k, c)| *k != Kind::Init && !find(Some(&list), &c.name).is_some_and(|s| s.ready))
        .map(|(_, c)| c.name.as_str())
        .collect();
    if unready.is_empty() {
        YES
    } else {
        no("ContainersNotReady", format!("containers with unready status: {}", names(&unready)))
    }
}

fn gates(i: &Inputs<'_>, conditions: &[PodCondition]) -> Verdict {
    let mut unmet = Vec::new();
    for gate in i.pod.spec().readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *name) {
            None => {
                unmet.push(format!("corresponding condition of pod readiness gate {name:?} does not exist."))
            }
            Some(c) if c.status != "True" => {
                unmet.push(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    c.status
                ));
            }
            Some(_) => {}
        }
    }
    if unmet.is_empty() { YES } else { no("ReadinessGatesNotReady", unmet.join(", ")) }
}

fn initialized(i: &Inputs<'_>, phase: &str, statuses: &[ContainerStatus], ran: bool) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { reason: "PodCompleted", ..YES };
    }
    if ran {
        return YES;
    }
    let list: Vec<ContainerStatus> = statuses.to_vec();
    let done = |c: &k8s_openapi::api::core::v1::Container| {
        find(Some(&list), &c.name).is_some_and(|s| match pod::init_kind(c) {
            Kind::Sidecar => s.started == Some(true),
            _ => s.ready,
        })
    };
    let left: Vec<&str> =
        i.pod.init_containers().iter().filter(|c| !done(c)).map(|c| c.name.as_str()).collect();
    if left.is_empty() {
        YES
    } else {
        no("ContainersNotInitialized", format!("containers with incomplete status: {}", names(&left)))
    }
}
