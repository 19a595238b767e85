//! StatefulSet.

use crate::apps::{images, names, not_negative, selector_kept, selector_text, validate_selected};
use crate::core::pod_spec;
use crate::kind::{Scale, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};

/// The rules of StatefulSet.
pub static KIND: Kind<StatefulSet> = Kind {
    has_status: true,
    has_generation: true,
    default: |s| {
        let spec = s.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".into());
        let strategy = spec.update_strategy.get_or_insert_default();
        strategy.type_.get_or_insert_with(|| "RollingUpdate".into());
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        retention.when_deleted.get_or_insert_with(|| "Retain".into());
        retention.when_scaled.get_or_insert_with(|| "Retain".into());
        pod_spec::default_template(&mut spec.template);
    },
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
        let (mut allowed, old) = (spec(new), spec(old));
        allowed.replicas = old.replicas;
        allowed.ordinals.clone_from(&old.ordinals);
        allowed.template = old.template.clone();
        allowed.update_strategy.clone_from(&old.update_strategy);
        allowed.revision_history_limit = old.revision_history_limit;
        allowed
            .persistent_volume_claim_retention_policy
            .clone_from(&old.persistent_volume_claim_retention_policy);
        allowed.min_ready_seconds = old.min_ready_seconds;
        if allowed != old {
            errors.forbidden(FieldPath::root("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    },
    scale: Some(Scale {
        replicas: |s| spec(s).replicas.unwrap_or(0),
        set_replicas: |s, n| s.spec.get_or_insert_default().replicas = Some(n),
        current: |s| status(s).replicas,
        selector: |s| selector_text(s.spec.as_ref().map(|s| &s.selector)),
    }),
    columns: &[
        Column::text("Ready", "Number of the pod with ready state", |s: &StatefulSet, _| {
            format!("{}/{}", status(s).ready_replicas.unwrap_or(0), spec(s).replicas.unwrap_or(0)).into()
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |s: &StatefulSet, _| {
            names(Some(&spec(s).template))
        })
        .wide(),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
            |s: &StatefulSet, _| images(Some(&spec(s).template)),
        )
        .wide(),
    ],
    ..Kind::namespaced("statefulset", "statefulsets").called(&["sts"], &["all"])
};

fn spec(s: &StatefulSet) -> StatefulSetSpec {
    s.spec.clone().unwrap_or_default()
}

fn status(s: &StatefulSet) -> StatefulSetStatus {
    s.status.clone().unwrap_or_default()
}

fn validate(s: &StatefulSet, errors: &mut FieldErrors) {
    let spec = spec(s);
    let root = FieldPath::root("spec");
    not_negative(spec.replicas, root.child("replicas"), errors);
    not_negative(spec.min_ready_seconds, root.child("minReadySeconds"), errors);
    validate_selected(&spec.selector, &spec.template, root, errors);
    if !matches!(spec.pod_management_policy.as_deref(), Some("OrderedReady" | "Parallel")) {
        errors.not_supported(
            root.child("podManagementPolicy"),
            spec.pod_management_policy.as_deref().unwrap_or_default(),
            &["OrderedReady", "Parallel"],
        );
    }
}
