//! ReplicationController: the older form of ReplicaSet.

use crate::apps::{Counts, images, names, validate_counts, workload_warnings};
use crate::check::{not_negative, text};
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use std::sync::LazyLock;

/// The rules of ReplicationController.
pub static KIND: Kind<ReplicationController> = Kind {
    orphans: true,
    has_status: true,
    has_generation: true,
    default: |r| {
        let labels = r
            .spec
            .as_ref()
            .and_then(|s| s.template.as_ref())
            .and_then(|t| t.metadata.as_ref())
            .and_then(|m| m.labels.clone());
        if let Some(labels) = labels {
            if r.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                r.metadata.labels = Some(labels.clone());
            }
            let spec = r.spec.get_or_insert_default();
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels);
            }
        }
        let spec = r.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            pod_spec::default_template(template);
        }
    },
    prepare_create: |r, _| r.status = Some(ReplicationControllerStatus::default()),
    validate: |r, errors| validate(r, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    validate_status: |new, _, errors| {
        let s = status(new);
        let counts = [
            ("fullyLabeledReplicas", s.fully_labeled_replicas),
            ("readyReplicas", s.ready_replicas),
            ("availableReplicas", s.available_replicas),
        ];
        let least = ("availableReplicas", s.available_replicas, "readyReplicas", s.ready_replicas);
        validate_counts(
            Counts { replicas: Some(s.replicas), counts: &counts, least, generation: s.observed_generation },
            errors,
        );
    },
    warnings: |new, old| {
        let of = |r: &'_ ReplicationController| spec(r).template.clone();
        workload_warnings(&new.metadata, of(new).as_ref(), old.map(of).as_ref().map(Option::as_ref))
    },
    scale: Some(Scale {
        replicas: |r| spec(r).replicas.unwrap_or(0),
        set_replicas: |r, n| r.spec.get_or_insert_default().replicas = Some(n),
        current: |r| status(r).replicas,
        selector: |r| selector(r),
    }),
    selectable: &["status.replicas"],
    columns: &[
        Column::number("Desired", "How many pods it should keep.", |r: &ReplicationController, _| {
            spec(r).replicas.unwrap_or(0).into()
        }),
        Column::number("Current", "How many there are.", |r: &ReplicationController, _| {
            status(r).replicas.into()
        }),
        Column::number("Ready", "How many of them are ready.", |r: &ReplicationController, _| {
            status(r).ready_replicas.unwrap_or(0).into()
        }),
        age_column(),
        Column::text(
            "Containers",
            "Names of each container in the template.",
            |r: &ReplicationController, _| names(spec(r).template.as_ref()),
        )
        .wide(),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
            |r: &ReplicationController, _| images(spec(r).template.as_ref()),
        )
        .wide(),
        Column::text("Selector", "The pods it keeps.", |r: &ReplicationController, _| {
            crate::table::labels(spec(r).selector.as_ref())
        })
        .wide(),
    ],
    ..Kind::namespaced("replicationcontroller", "controllers").called(&["rc"], &["all"])
};

static NO_SPEC: LazyLock<ReplicationControllerSpec> = LazyLock::new(Default::default);
static NO_STATUS: LazyLock<ReplicationControllerStatus> = LazyLock::new(Default::default);

fn spec(r: &ReplicationController) -> &ReplicationControllerSpec {
    r.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn status(r: &ReplicationController) -> &ReplicationControllerStatus {
    r.status.as_ref().unwrap_or(&NO_STATUS)
}

fn selector(r: &ReplicationController) -> String {
    let all = spec(r).selector.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    all.collect::<Vec<_>>().join(",")
}

fn validate(r: &ReplicationController, old: Option<&ReplicationController>, errors: &mut FieldErrors) {
    let s = spec(r);
    let root = FieldPath::root("spec");
    not_negative(s.min_ready_seconds, root.child("minReadySeconds"), errors);
    let none = Default::default();
    let selector = s.selector.as_ref().unwrap_or(&none);
    if selector.is_empty() {
        errors.required(root.child("selector"), "");
    }
    match s.replicas {
        None => errors.required(root.child("replicas"), ""),
        replicas => not_negative(replicas, root.child("replicas"), errors),
    }
    let at = root.child("template");
    let Some(template) = &s.template else { return errors.required(at, "") };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    if selector.iter().any(|(k, v)| labels.and_then(|l| l.get(k)) != Some(v)) {
        let metadata = at.child("metadata");
        errors.invalid(metadata.child("labels"), &labels, "`selector` does not match template `labels`");
    }
    pod_spec::validate_new_template(template, old.and_then(|o| spec(o).template.as_ref()), at, errors);
    let spec_at = at.child("spec");
    let spec = template.spec.as_ref();
    if let Some(policy) = spec.map(|s| text(&s.restart_policy)).filter(|p| *p != "Always") {
        errors.not_supported(spec_at.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.is_some_and(|s| s.active_deadline_seconds.is_some()) {
        let why = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.forbidden(spec_at.child("activeDeadlineSeconds"), why);
    }
}
