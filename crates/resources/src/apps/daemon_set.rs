//! DaemonSet.

use crate::apps::{
    count_or_percent, images, names, not_negative, selector_kept, selector_text, validate_selected,
};
use crate::core::pod_spec;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The rules of DaemonSet.
pub static KIND: Kind<DaemonSet> = Kind {
    has_status: true,
    has_generation: true,
    default: |d| {
        let spec = d.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        strategy.type_.get_or_insert_with(|| "RollingUpdate".into());
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        pod_spec::default_template(&mut spec.template);
    },
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
    },
    columns: &[
        Column::number("Desired", "Nodes that should have a pod.", |d: &DaemonSet, _| {
            status(d).desired_number_scheduled.into()
        }),
        Column::number("Current", "Nodes that have one.", |d: &DaemonSet, _| {
            status(d).current_number_scheduled.into()
        }),
        Column::number("Ready", "Nodes whose pod is ready.", |d: &DaemonSet, _| {
            status(d).number_ready.into()
        }),
        Column::number("Up-to-date", "Nodes whose pod is of the newest template.", |d: &DaemonSet, _| {
            status(d).updated_number_scheduled.unwrap_or(0).into()
        }),
        Column::number("Available", "Nodes whose pod is available.", |d: &DaemonSet, _| {
            status(d).number_available.unwrap_or(0).into()
        }),
        Column::text("Node Selector", "Which nodes.", |d: &DaemonSet, _| {
            let selector = spec(d).template.spec.and_then(|s| s.node_selector).unwrap_or_default();
            let all: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
            if all.is_empty() { "<none>".into() } else { all.join(",").into() }
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |d: &DaemonSet, _| {
            names(Some(&spec(d).template))
        })
        .wide(),
        Column::text("Images", "Images referenced by each container in the template.", |d: &DaemonSet, _| {
            images(Some(&spec(d).template))
        })
        .wide(),
        Column::text("Selector", "The pods it looks after.", |d: &DaemonSet, _| {
            selector_text(d.spec.as_ref().map(|s| &s.selector)).into()
        })
        .wide(),
    ],
    ..Kind::namespaced("daemonset", "daemonsets").called(&["ds"], &["all"])
};

fn spec(d: &DaemonSet) -> DaemonSetSpec {
    d.spec.clone().unwrap_or_default()
}

fn status(d: &DaemonSet) -> DaemonSetStatus {
    d.status.clone().unwrap_or_default()
}

fn validate(d: &DaemonSet, errors: &mut FieldErrors) {
    let spec = spec(d);
    let root = FieldPath::root("spec");
    validate_selected(&spec.selector, &spec.template, root, errors);
    not_negative(spec.min_ready_seconds, root.child("minReadySeconds"), errors);
    not_negative(spec.revision_history_limit, root.child("revisionHistoryLimit"), errors);
    let strategy = spec.update_strategy.unwrap_or_default();
    let at = root.child("updateStrategy");
    match strategy.type_.as_deref() {
        Some("OnDelete") => {}
        Some("RollingUpdate") => {
            let rolling = strategy.rolling_update.unwrap_or_default();
            let at = at.child("rollingUpdate");
            count_or_percent(rolling.max_unavailable.as_ref(), at.child("maxUnavailable"), errors);
            count_or_percent(rolling.max_surge.as_ref(), at.child("maxSurge"), errors);
        }
        other => {
            errors.not_supported(at.child("type"), other.unwrap_or_default(), &["OnDelete", "RollingUpdate"])
        }
    }
}
