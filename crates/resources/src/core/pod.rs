//! Pod.

use crate::core::pod_spec;
use crate::kind::{Edit, Part, Served, age_column};
use crate::table::human_duration;
use crate::{Column, Context, Kind};
use api::Status;
use api::field::{FieldErrors, FieldPath};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ContainerStatus, Pod, PodCondition, PodStatus};
use serde_json::Value;

/// The rules of Pod.
pub static KIND: Kind<Pod> = Kind {
    has_status: true,
    has_generation: true,
    default: |p| {
        if let Some(spec) = &mut p.spec {
            pod_spec::default(spec, true);
        }
    },
    prepare_create: |p, _| {
        let qos = pod_spec::qos_class(p.spec.as_ref());
        p.status = Some(PodStatus {
            phase: Some("Pending".into()),
            qos_class: Some(qos.into()),
            ..PodStatus::default()
        });
    },
    validate,
    validate_update,
    validate_status: |new, old, errors| {
        let phase = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        let _ = (phase(new), phase(old), errors);
    },
    edits: &[Edit { name: "binding", body: ("", "v1", "Binding"), apply: bind }],
    parts: &[
        Part {
            name: "ephemeralcontainers",
            prepare: prepare_ephemeral,
            validate: |new, _, errors| validate(new, errors),
        },
        Part { name: "resize", prepare: prepare_resize, validate: |new, _, errors| validate(new, errors) },
    ],
    served: &[
        Served { name: "attach", body: ("", "v1", "PodAttachOptions"), verbs: &["create", "get"] },
        Served { name: "eviction", body: ("policy", "v1", "Eviction"), verbs: &["create"] },
        Served { name: "exec", body: ("", "v1", "PodExecOptions"), verbs: &["create", "get"] },
        Served { name: "log", body: ("", "v1", "Pod"), verbs: &["get"] },
        Served { name: "portforward", body: ("", "v1", "PodPortForwardOptions"), verbs: &["create", "get"] },
        Served {
            name: "proxy",
            body: ("", "v1", "PodProxyOptions"),
            verbs: &["create", "delete", "get", "patch", "update"],
        },
    ],
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    columns: &[
        Column::text(
            "Ready",
            "The aggregate readiness state of this pod for accepting traffic.",
            |p: &Pod, _| ready(p),
        ),
        Column::text("Status", "The aggregate status of the containers in this pod.", |p: &Pod, _| {
            reason(p).into()
        }),
        Column::text(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
            restarts,
        ),
        age_column(),
        Column::text("IP", "Its address.", |p: &Pod, _| {
            or_none(p.status.as_ref().and_then(|s| s.pod_ip.clone()))
        })
        .wide(),
        Column::text("Node", "The node it is on.", |p: &Pod, _| {
            or_none(p.spec.as_ref().and_then(|s| s.node_name.clone()))
        })
        .wide(),
        Column::text("Nominated Node", "The node that is being cleared for it.", |p: &Pod, _| {
            or_none(p.status.as_ref().and_then(|s| s.nominated_node_name.clone()))
        })
        .wide(),
        Column::text("Readiness Gates", "How many of its readiness gates are passed.", |p: &Pod, _| gates(p))
            .wide(),
    ],
    grace,
    ..Kind::namespaced("pod", "pods").called(&["po"], &["all"])
};

fn or_none(text: Option<String>) -> Value {
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| "<none>".into()).into()
}

/// A pod that runs is given time to end; one that was never started, or has ended, is not.
fn grace(p: &Pod, asked: Option<i64>) -> Option<i64> {
    let spec = p.spec.as_ref()?;
    let own = spec.termination_grace_period_seconds;
    let mut seconds = asked.or(own).unwrap_or(30);
    let phase = p.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if spec.node_name.as_ref().is_none_or(String::is_empty) || matches!(phase, "Succeeded" | "Failed") {
        seconds = 0;
    }
    if seconds < 0 {
        seconds = 1;
    }
    Some(seconds)
}

fn validate(p: &Pod, errors: &mut FieldErrors) {
    match &p.spec {
        Some(spec) => pod_spec::validate(spec, FieldPath::root("spec"), errors),
        None => errors.required(FieldPath::root("spec").child("containers"), ""),
    }
}

/// Of a pod's spec little may change: images, deadlines, tolerations may be added, gates removed.
fn validate_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    validate(new, errors);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let root = FieldPath::root("spec");
    let kept: Vec<_> = old.tolerations.iter().flatten().collect();
    if kept
        .iter()
        .any(|t| !new.tolerations.iter().flatten().any(|n| n == *t || n.key == t.key && n.effect == t.effect))
    {
        errors.forbidden(
            root.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    if let (Some(a), Some(b)) = (new.active_deadline_seconds, old.active_deadline_seconds)
        && a > b
    {
        errors.invalid(
            root.child("activeDeadlineSeconds"),
            &a,
            "must be less than or equal to previous value",
        );
    }
    let mut allowed = new.clone();
    for (mine, theirs) in allowed.containers.iter_mut().zip(&old.containers) {
        mine.image.clone_from(&theirs.image);
    }
    for (mine, theirs) in
        allowed.init_containers.iter_mut().flatten().zip(old.init_containers.iter().flatten())
    {
        mine.image.clone_from(&theirs.image);
    }
    allowed.active_deadline_seconds = old.active_deadline_seconds;
    allowed.tolerations.clone_from(&old.tolerations);
    if allowed.termination_grace_period_seconds == Some(1)
        && old.termination_grace_period_seconds.is_some_and(|s| s < 0)
    {
        allowed.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // Before a pod is placed, its gates may be taken away and its node selection narrowed.
    if old.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        allowed.node_selector.clone_from(&old.node_selector);
        allowed.affinity.clone_from(&old.affinity);
        let before = old.scheduling_gates.iter().flatten();
        if new.scheduling_gates.iter().flatten().all(|g| before.clone().any(|b| b == g)) {
            allowed.scheduling_gates.clone_from(&old.scheduling_gates);
        }
    }
    allowed.ephemeral_containers.clone_from(&old.ephemeral_containers);
    if allowed != *old {
        errors.forbidden(
            root,
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
}

/// The scheduler's word on where a pod goes.
fn bind(pod: &mut Pod, body: &Value) -> Result<(), Status> {
    let binding: Binding =
        serde_json::from_value(body.clone()).map_err(|e| Status::bad_request(e.to_string()))?;
    let pods = api::GroupResource::new("", "pods");
    let name = pod.metadata.name.clone().unwrap_or_default();
    let refuse = |why: &str| Err(Status::conflict(&pods, &name, why));
    let kind = binding.target.kind.as_deref().unwrap_or("Node");
    let node = binding.target.name.clone().unwrap_or_default();
    if !matches!(kind, "" | "Node") || node.is_empty() {
        let mut errors = FieldErrors::default();
        let target = FieldPath::root("target");
        match node.is_empty() {
            true => errors.required(target.child("name"), ""),
            false => errors.not_supported(target.child("kind"), kind, &["Node", "<empty>"]),
        }
        return Err(Status::invalid(
            &api::GroupKind { group: String::new(), kind: "Binding".into() },
            &name,
            &errors,
        ));
    }
    if binding
        .metadata
        .uid
        .as_ref()
        .is_some_and(|uid| !uid.is_empty() && pod.metadata.uid.as_ref() != Some(uid))
    {
        return refuse("Precondition failed: the binding is for another pod of that name");
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return refuse(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(on) = spec.node_name.as_ref().filter(|n| !n.is_empty()) {
        return refuse(&format!("pod {name} is already assigned to node {on:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        return refuse(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name = Some(node);
    for (key, value) in binding.metadata.annotations.into_iter().flatten() {
        pod.metadata.annotations.get_or_insert_default().insert(key, value);
    }
    for (key, value) in binding.metadata.labels.into_iter().flatten() {
        pod.metadata.labels.get_or_insert_default().insert(key, value);
    }
    let status = pod.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now_seconds())),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    });
    status.nominated_node_name = None;
    Ok(())
}

fn now_seconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn prepare_ephemeral(new: &mut Pod, old: &Pod, _: &Context<'_>) {
    let added = new.spec.as_mut().and_then(|s| s.ephemeral_containers.take());
    let mut kept = old.clone();
    kept.metadata.resource_version.clone_from(&new.metadata.resource_version);
    kept.spec.get_or_insert_default().ephemeral_containers = added;
    if let Some(spec) = &mut kept.spec {
        pod_spec::default(spec, true);
    }
    *new = kept;
}

fn prepare_resize(new: &mut Pod, old: &Pod, _: &Context<'_>) {
    let asked = new.spec.take().unwrap_or_default();
    let mut kept = old.clone();
    kept.metadata.resource_version.clone_from(&new.metadata.resource_version);
    if let Some(spec) = &mut kept.spec {
        for container in &mut spec.containers {
            if let Some(same) = asked.containers.iter().find(|c| c.name == container.name) {
                container.resources.clone_from(&same.resources);
                container.resize_policy.clone_from(&same.resize_policy);
            }
        }
    }
    *new = kept;
}

fn statuses(p: &Pod) -> &[ContainerStatus] {
    p.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default()
}

fn init_statuses(p: &Pod) -> &[ContainerStatus] {
    p.status.as_ref().and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default()
}

fn is_sidecar(p: &Pod, name: &str) -> bool {
    let init = p.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    init.into_iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
}

fn ready(p: &Pod) -> Value {
    let sidecars = p
        .spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .count();
    let total = p.spec.as_ref().map_or(0, |s| s.containers.len()) + sidecars;
    let running = |s: &&ContainerStatus| s.ready && s.state.as_ref().is_some_and(|s| s.running.is_some());
    let up = statuses(p).iter().filter(running).count();
    let up_sidecars = init_statuses(p)
        .iter()
        .filter(|s| is_sidecar(p, &s.name) && s.ready && s.started == Some(true))
        .count();
    format!("{}/{total}", up + up_sidecars).into()
}

/// The word that sums up a pod: upstream's printer, step by step.
fn reason(p: &Pod) -> String {
    let status = p.status.clone().unwrap_or_default();
    let mut reason =
        status.reason.clone().filter(|r| !r.is_empty()).or(status.phase.clone()).unwrap_or_default();
    if status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated"))
    {
        reason = "SchedulingGated".into();
    }
    let ended = |s: &ContainerStatus| {
        let t = s.state.as_ref().and_then(|s| s.terminated.as_ref())?;
        Some(match (t.reason.as_deref().filter(|r| !r.is_empty()), t.signal.filter(|s| *s != 0)) {
            (Some(reason), _) => reason.to_string(),
            (None, Some(signal)) => format!("Signal:{signal}"),
            (None, None) => format!("ExitCode:{}", t.exit_code),
        })
    };
    let waiting = |s: &ContainerStatus| {
        s.state
            .as_ref()
            .and_then(|s| s.waiting.as_ref())
            .and_then(|w| w.reason.clone())
            .filter(|r| !r.is_empty())
    };
    let mut initializing = false;
    let total = p.spec.as_ref().map_or(0, |s| s.init_containers.iter().flatten().count());
    for (i, s) in init_statuses(p).iter().enumerate() {
        let done = s.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
        if done || is_sidecar(p, &s.name) && s.started == Some(true) {
            continue;
        }
        reason = match (ended(s), waiting(s)) {
            (Some(why), _) => format!("Init:{why}"),
            (None, Some(why)) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{i}/{total}"),
        };
        initializing = true;
        break;
    }
    let initialized =
        status.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
    if !initializing || initialized {
        let mut running = false;
        for s in statuses(p).iter().rev() {
            match (waiting(s), ended(s)) {
                (Some(why), _) | (None, Some(why)) => reason = why,
                (None, None) => running |= s.ready && s.state.as_ref().is_some_and(|s| s.running.is_some()),
            }
        }
        if reason == "Completed" && running {
            let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
            reason = if ready { "Running" } else { "NotReady" }.into();
        }
    }
    let terminal = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    match p.metadata.deletion_timestamp.is_some() {
        true if status.reason.as_deref() == Some("NodeLost") => "Unknown".into(),
        true if !terminal => "Terminating".into(),
        _ => reason,
    }
}

fn restarts(p: &Pod, now: Timestamp) -> Value {
    let counted: Vec<&ContainerStatus> =
        init_statuses(p).iter().filter(|s| is_sidecar(p, &s.name)).chain(statuses(p)).collect();
    let count: i32 = counted.iter().map(|s| s.restart_count).sum();
    let last = counted
        .iter()
        .filter_map(|s| s.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|t| t.0)
        .max();
    match last {
        Some(last) if count > 0 => {
            format!("{count} ({} ago)", human_duration(now.as_second() - last.as_second())).into()
        }
        _ => count.to_string().into(),
    }
}

fn gates(p: &Pod) -> Value {
    let gates: Vec<_> = p.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten()).collect();
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions: Vec<_> = p.status.iter().flat_map(|s| s.conditions.iter().flatten()).collect();
    let passed = gates
        .iter()
        .filter(|g| conditions.iter().any(|c| c.type_ == g.condition_type && c.status == "True"))
        .count();
    format!("{passed}/{}", gates.len()).into()
}
