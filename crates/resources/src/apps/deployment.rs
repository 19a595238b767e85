//! Deployment.

use crate::apps::{
    Counts, Selected, collisions_grow, images, names, selector_kept, selector_text, validate_counts,
    workload_warnings,
};
use crate::check::{self, count_or_percent, not_negative, text};
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath, quoted};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::LazyLock;

/// The rules of Deployment.
pub static KIND: Kind<Deployment> = Kind {
    has_status: true,
    has_generation: true,
    default: |d| default(d.spec.get_or_insert_default()),
    prepare_create: |d, _| {
        d.status = Some(DeploymentStatus::default());
        let spec = d.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(spec, None);
    },
    prepare_update: |new, old, _| {
        let template = new.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(template, spec(old).template.spec.as_ref());
    },
    validate: |d, errors| validate(d, None, errors),
    validate_update: |new, old, errors| {
        validate(new, Some(old), errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
    },
    validate_status: |new, old, errors| {
        let s = status(new);
        let counts = [
            ("updatedReplicas", s.updated_replicas),
            ("readyReplicas", s.ready_replicas),
            ("availableReplicas", s.available_replicas),
            ("unavailableReplicas", s.unavailable_replicas),
            ("terminatingReplicas", s.terminating_replicas),
        ];
        let least = ("availableReplicas", s.available_replicas, "readyReplicas", s.ready_replicas);
        let replicas = Some(s.replicas.unwrap_or(0));
        validate_counts(
            Counts { replicas, counts: &counts, least, generation: s.observed_generation },
            errors,
        );
        collisions_grow(s.collision_count, status(old).collision_count, errors);
    },
    warnings: |new, old| {
        workload_warnings(&new.metadata, Some(&spec(new).template), old.map(|o| Some(&spec(o).template)))
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

static NO_SPEC: LazyLock<DeploymentSpec> = LazyLock::new(Default::default);
static NO_STATUS: LazyLock<DeploymentStatus> = LazyLock::new(Default::default);

fn spec(d: &Deployment) -> &DeploymentSpec {
    d.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn status(d: &Deployment) -> &DeploymentStatus {
    d.status.as_ref().unwrap_or(&NO_STATUS)
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

fn validate(d: &Deployment, old: Option<&Deployment>, errors: &mut FieldErrors) {
    let s = spec(d);
    let root = FieldPath::root("spec");
    not_negative(s.replicas, root.child("replicas"), errors);
    Selected {
        selector: &s.selector,
        template: &s.template,
        old: old.map(|o| &spec(o).template),
        kind: "deployment",
        title: "ReplicaSet",
    }
    .validate(errors);
    strategy(s, root.child("strategy"), errors);
    not_negative(s.min_ready_seconds, root.child("minReadySeconds"), errors);
    not_negative(s.revision_history_limit, root.child("revisionHistoryLimit"), errors);
    if let Some(deadline) = s.progress_deadline_seconds {
        let at = root.child("progressDeadlineSeconds");
        not_negative(Some(deadline), at, errors);
        if deadline <= s.min_ready_seconds.unwrap_or(0) {
            errors.invalid(at, &deadline, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(s: &DeploymentSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let none = DeploymentStrategy::default();
    let strategy = s.strategy.as_ref().unwrap_or(&none);
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(rolling_at, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.required(rolling_at, "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            let at = rolling_at.child("maxUnavailable");
            count_or_percent(unavailable, at, errors);
            count_or_percent(surge, rolling_at.child("maxSurge"), errors);
            if check::bare_number(unavailable) == 0 && check::bare_number(surge) == 0 {
                errors.invalid(at, &unavailable, "may not be 0 when `maxSurge` is 0");
            }
            check::not_above_hundred_percent(unavailable, at, errors);
        }
        _ => errors.push(
            at,
            FieldFault::NotSupported(quoted(strategy), vec!["Recreate".into(), "RollingUpdate".into()]),
        ),
    }
}
