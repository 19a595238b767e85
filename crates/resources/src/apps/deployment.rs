//! Deployment.

use crate::apps::{
    count_or_percent, images, names, not_negative, selector_kept, selector_text, validate_selected,
};
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The rules of Deployment.
pub static KIND: Kind<Deployment> = Kind {
    has_status: true,
    has_generation: true,
    default: |d| default(d.spec.get_or_insert_default()),
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
    },
    scale: Some(Scale {
        replicas: |d| spec(d).replicas.unwrap_or(0),
        set_replicas: |d, n| d.spec.get_or_insert_default().replicas = Some(n),
        current: |d| status(d).replicas.unwrap_or(0),
        selector: |d| selector_text(d.spec.as_ref().map(|s| &s.selector)),
    }),
    columns: &[
        Column::text("Ready", "Number of the pod with ready state", |d: &Deployment, _| {
            format!("{}/{}", status(d).ready_replicas.unwrap_or(0), spec(d).replicas.unwrap_or(0)).into()
        }),
        Column::text("Up-to-date", "Pods of the newest template.", |d: &Deployment, _| {
            status(d).updated_replicas.unwrap_or(0).into()
        }),
        Column::text("Available", "Pods that are available.", |d: &Deployment, _| {
            status(d).available_replicas.unwrap_or(0).into()
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |d: &Deployment, _| {
            names(Some(&spec(d).template))
        })
        .wide(),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
            |d: &Deployment, _| images(Some(&spec(d).template)),
        )
        .wide(),
        Column::text("Selector", "The pods it looks after.", |d: &Deployment, _| {
            selector_text(d.spec.as_ref().map(|s| &s.selector)).into()
        })
        .wide(),
    ],
    ..Kind::namespaced("deployment", "deployments").called(&["deploy"], &["all"])
};

fn spec(d: &Deployment) -> DeploymentSpec {
    d.spec.clone().unwrap_or_default()
}

fn status(d: &Deployment) -> DeploymentStatus {
    d.status.clone().unwrap_or_default()
}

fn default(spec: &mut DeploymentSpec) {
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec.strategy.get_or_insert_default();
    strategy.type_.get_or_insert_with(|| "RollingUpdate".into());
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".into()));
        rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".into()));
    }
    pod_spec::default_template(&mut spec.template);
}

fn validate(d: &Deployment, errors: &mut FieldErrors) {
    let spec = spec(d);
    let root = FieldPath::root("spec");
    not_negative(spec.replicas, root.child("replicas"), errors);
    validate_selected(&spec.selector, &spec.template, root, errors);
    not_negative(spec.min_ready_seconds, root.child("minReadySeconds"), errors);
    not_negative(spec.revision_history_limit, root.child("revisionHistoryLimit"), errors);
    if let Some(deadline) = spec.progress_deadline_seconds {
        not_negative(Some(deadline), root.child("progressDeadlineSeconds"), errors);
        if deadline <= spec.min_ready_seconds.unwrap_or(0) {
            errors.invalid(
                root.child("progressDeadlineSeconds"),
                &deadline,
                "must be greater than minReadySeconds",
            );
        }
    }
    let strategy = spec.strategy.unwrap_or_default();
    let at = root.child("strategy");
    match strategy.type_.as_deref() {
        Some("Recreate") if strategy.rolling_update.is_some() => {
            errors.forbidden(
                at.child("rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            );
        }
        Some("Recreate") => {}
        Some("RollingUpdate") => {
            let rolling = strategy.rolling_update.unwrap_or_default();
            let at = at.child("rollingUpdate");
            count_or_percent(rolling.max_unavailable.as_ref(), at.child("maxUnavailable"), errors);
            count_or_percent(rolling.max_surge.as_ref(), at.child("maxSurge"), errors);
            let zero = |v: &Option<IntOrString>| match v {
                Some(IntOrString::Int(n)) => *n == 0,
                Some(IntOrString::String(s)) => s == "0%",
                None => false,
            };
            if zero(&rolling.max_unavailable) && zero(&rolling.max_surge) {
                errors.invalid(
                    at.child("maxUnavailable"),
                    &rolling.max_unavailable,
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        other => {
            errors.not_supported(at.child("type"), other.unwrap_or_default(), &["Recreate", "RollingUpdate"])
        }
    }
}
