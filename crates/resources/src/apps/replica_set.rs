//! ReplicaSet.

use crate::apps::{images, names, not_negative, selector_kept, selector_text, validate_selected};
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};

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
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
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
            selector_text(r.spec.as_ref().map(|s| &s.selector)).into()
        })
        .wide(),
    ],
    ..Kind::namespaced("replicaset", "replicasets").called(&["rs"], &["all"])
};

fn spec(r: &ReplicaSet) -> ReplicaSetSpec {
    r.spec.clone().unwrap_or_default()
}

fn status(r: &ReplicaSet) -> ReplicaSetStatus {
    r.status.clone().unwrap_or_default()
}

fn validate(r: &ReplicaSet, errors: &mut FieldErrors) {
    let spec = spec(r);
    let root = FieldPath::root("spec");
    not_negative(spec.replicas, root.child("replicas"), errors);
    not_negative(spec.min_ready_seconds, root.child("minReadySeconds"), errors);
    validate_selected(&spec.selector, &spec.template.unwrap_or_default(), root, errors);
}
