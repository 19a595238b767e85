//! ReplicaSet.

use crate::apps::{
    Counts, Selected, images, names, selector_cell, selector_kept, selector_text, validate_counts,
    workload_warnings,
};
use crate::check::not_negative;
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use std::sync::LazyLock;

/// The rules of ReplicaSet.
pub static KIND: Kind<ReplicaSet> = Kind {
    has_status: true,
    has_generation: true,
    default: |r| {
        let spec = r.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            pod_spec::default_template(template);
        }
    },
    prepare_create: |r, _| {
        r.status = Some(ReplicaSetStatus::default());
        let template = r.spec.as_mut().and_then(|s| s.template.as_mut()).and_then(|t| t.spec.as_mut());
        crate::core::pod::drop_disabled(template, None);
    },
    prepare_update: |new, old, _| {
        let template_spec = new.spec.as_mut().and_then(|s| s.template.as_mut()).and_then(|t| t.spec.as_mut());
        crate::core::pod::drop_disabled(template_spec, template(old).spec.as_ref());
    },
    validate: |r, errors| validate(r, None, errors),
    validate_update: |new, old, errors| {
        validate(new, Some(old), errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
    },
    validate_status: |new, _, errors| {
        let s = status(new);
        let counts = [
            ("fullyLabeledReplicas", s.fully_labeled_replicas),
            ("readyReplicas", s.ready_replicas),
            ("availableReplicas", s.available_replicas),
            ("terminatingReplicas", s.terminating_replicas),
        ];
        let least = ("availableReplicas", s.available_replicas, "readyReplicas", s.ready_replicas);
        let replicas = Some(s.replicas);
        validate_counts(
            Counts { replicas, counts: &counts, least, generation: s.observed_generation },
            errors,
        );
    },
    warnings: |new, old| {
        workload_warnings(&new.metadata, Some(template(new)), old.map(|o| Some(template(o))))
    },
    scale: Some(Scale {
        replicas: |r| spec(r).replicas.unwrap_or(0),
        set_replicas: |r, n| r.spec.get_or_insert_default().replicas = Some(n),
        current: |r| status(r).replicas,
        selector: |r| selector_text(r.spec.as_ref().map(|s| &s.selector)),
    }),
    selectable: &["status.replicas"],
    columns: &[
        Column::number("Desired", "How many pods it should keep.", |r: &ReplicaSet, _| {
            spec(r).replicas.unwrap_or(0).into()
        }),
        Column::number("Current", "How many there are.", |r: &ReplicaSet, _| status(r).replicas.into()),
        Column::number("Ready", "How many of them are ready.", |r: &ReplicaSet, _| {
            status(r).ready_replicas.unwrap_or(0).into()
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |r: &ReplicaSet, _| {
            names(spec(r).template.as_ref())
        })
        .wide(),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
            |r: &ReplicaSet, _| images(spec(r).template.as_ref()),
        )
        .wide(),
        Column::text("Selector", "The pods it keeps.", |r: &ReplicaSet, _| {
            selector_cell(r.spec.as_ref().map(|s| &s.selector))
        })
        .wide(),
    ],
    ..Kind::namespaced("replicaset", "replicasets").called(&["rs"], &["all"])
};

static NO_SPEC: LazyLock<ReplicaSetSpec> = LazyLock::new(Default::default);
static NO_STATUS: LazyLock<ReplicaSetStatus> = LazyLock::new(Default::default);
static NO_TEMPLATE: LazyLock<PodTemplateSpec> = LazyLock::new(Default::default);

fn spec(r: &ReplicaSet) -> &ReplicaSetSpec {
    r.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn status(r: &ReplicaSet) -> &ReplicaSetStatus {
    r.status.as_ref().unwrap_or(&NO_STATUS)
}

fn template(r: &ReplicaSet) -> &PodTemplateSpec {
    spec(r).template.as_ref().unwrap_or(&NO_TEMPLATE)
}

fn validate(r: &ReplicaSet, old: Option<&ReplicaSet>, errors: &mut FieldErrors) {
    let s = spec(r);
    let root = FieldPath::root("spec");
    not_negative(s.replicas, root.child("replicas"), errors);
    not_negative(s.min_ready_seconds, root.child("minReadySeconds"), errors);
    Selected {
        selector: &s.selector,
        template: template(r),
        old: old.map(template),
        kind: "deployment",
        title: "ReplicaSet",
    }
    .validate(errors);
}
