//! Pod.

mod columns;
mod prepare;
mod resize;
mod status;
mod update;
pub mod warnings;

pub(crate) use prepare::drop_disabled;

use crate::Kind;
use crate::check::{is_set, list};
use crate::core::pod_spec::{self, Lenient};
use crate::kind::{Edit, Part, Served};
use api::Status;
use api::field::{FieldErrors, FieldPath};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition, PodSpec};
use serde_json::Value;

/// The rules of Pod.
pub static KIND: Kind<Pod> = Kind {
    answers_deleted: true,
    has_status: true,
    has_generation: true,
    default: |p| {
        if let Some(spec) = &mut p.spec {
            pod_spec::default(spec, true);
        }
    },
    prepare_create: prepare::create,
    prepare_update: |new, old, _| prepare::drop_disabled(new.spec.as_mut(), old.spec.as_ref()),
    prepare_status: prepare::status,
    validate,
    validate_update: update::validate,
    validate_status: status::validate,
    warnings: |p, old| if old.is_some() { Vec::new() } else { warnings::of_pod(p) },
    edits: &[Edit { name: "binding", body: ("", "v1", "Binding"), apply: bind }],
    parts: &[
        Part {
            name: "ephemeralcontainers",
            prepare: prepare::ephemeral_containers,
            validate: update::validate_ephemeral_containers,
        },
        Part { name: "resize", prepare: prepare::resize, validate: resize::validate },
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
        "*spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    columns: columns::COLUMNS,
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
    let mut seconds = asked.or(own).unwrap_or(0);
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
    let none = PodSpec::default();
    let spec = p.spec.as_ref().unwrap_or(&none);
    pod_spec::validate_pod(&p.metadata, spec, Lenient::POD, errors);
    let at = FieldPath::root("spec");
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(at.child("ephemeralContainers"), "cannot be set on create");
    }
    if is_set(&spec.node_name) && !list(&spec.scheduling_gates).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(at.child("nodeName"), why);
    }
    pod_spec::validate_annotations_match(&p.metadata, spec, errors);
}

/// The scheduler's word on where a pod goes.
fn bind(pod: &mut Pod, body: &Value) -> Result<(), Status> {
    let binding: Binding =
        serde_json::from_value(body.clone()).map_err(|e| Status::bad_request(e.to_string()))?;
    let pods = api::GroupResource::new("", "pods/binding");
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

/// Takes away what is there and empty, for Go the same as what is not there.
pub(crate) fn drop_empty(value: &mut Value) {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::String(s) => s.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|k, v| !empty(v) || k == "emptyDir" || k == "securityContext");
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}
