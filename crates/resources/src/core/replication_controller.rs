//! ReplicationController: the older form of ReplicaSet.

use crate::apps::{images, names, not_negative};
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};

/// The rules of ReplicationController.
pub static KIND: Kind<ReplicationController> = Kind {
    has_status: true,
    has_generation: true,
    default: |r| {
        let labels = r
            .spec
            .as_ref()
            .and_then(|s| s.template.as_ref())
            .and_then(|t| t.metadata.as_ref())
            .and_then(|m| m.labels.clone());
        if let Some(labels) = labels.filter(|l| !l.is_empty()) {
            r.metadata.labels.get_or_insert_with(|| labels.clone());
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
    validate,
    validate_update: |new, _, errors| validate(new, errors),
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
        Column::text("Selector", "The pods it keeps.", |r: &ReplicationController, _| selector(r).into())
            .wide(),
    ],
    ..Kind::namespaced("replicationcontroller", "controllers").called(&["rc"], &["all"])
};

fn spec(r: &ReplicationController) -> ReplicationControllerSpec {
    r.spec.clone().unwrap_or_default()
}

fn status(r: &ReplicationController) -> ReplicationControllerStatus {
    r.status.clone().unwrap_or_default()
}

fn selector(r: &ReplicationController) -> String {
    spec(r).selector.unwrap_or_default().iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

fn validate(r: &ReplicationController, errors: &mut FieldErrors) {
    let spec = spec(r);
    let root = FieldPath::root("spec");
    not_negative(spec.replicas, root.child("replicas"), errors);
    not_negative(spec.min_ready_seconds, root.child("minReadySeconds"), errors);
    let selector = spec.selector.unwrap_or_default();
    if selector.is_empty() {
        errors.required(root.child("selector"), "");
    }
    let at = root.child("template");
    let Some(template) = spec.template else {
        errors.required(at, "");
        return;
    };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    if selector.iter().any(|(k, v)| labels.get(k) != Some(v)) {
        let metadata = at.child("metadata");
        errors.invalid(metadata.child("labels"), &labels, "`selector` does not match template `labels`");
    }
    pod_spec::validate_template(&template, at, errors);
    if let Some(policy) =
        template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).filter(|p| *p != "Always")
    {
        let spec = at.child("spec");
        errors.not_supported(spec.child("restartPolicy"), policy, &["Always"]);
    }
}
