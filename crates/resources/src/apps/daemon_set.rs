//! DaemonSet.

use crate::apps::{
    Counts, Selected, collisions_grow, images, names, selector_cell, selector_kept, validate_counts,
    workload_warnings,
};
use crate::check::{self, count_or_percent, not_negative, text};
use crate::core::pod_spec;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath, quoted};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::LazyLock;

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
    prepare_create: |d, _| {
        d.status = Some(DaemonSetStatus::default());
        let template = d.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(template, None);
        set_template_generation(d, 1);
    },
    prepare_update: |new, old, _| {
        let template = new.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(template, spec(old).template.spec.as_ref());
        let changed = spec(new).template != spec(old).template;
        set_template_generation(new, template_generation(old) + i64::from(changed));
    },
    validate: |d, errors| validate(d, None, errors),
    validate_update: |new, old, errors| {
        validate(new, Some(old), errors);
        selector_kept(&spec(new).selector, &spec(old).selector, errors);
    },
    validate_status: |new, old, errors| {
        let s = status(new);
        let counts = [
            ("currentNumberScheduled", Some(s.current_number_scheduled)),
            ("numberMisscheduled", Some(s.number_misscheduled)),
            ("desiredNumberScheduled", Some(s.desired_number_scheduled)),
            ("numberReady", Some(s.number_ready)),
            ("updatedNumberScheduled", s.updated_number_scheduled),
            ("numberAvailable", s.number_available),
            ("numberUnavailable", s.number_unavailable),
        ];
        let least = ("", None, "", None);
        let generation = s.observed_generation;
        validate_counts(Counts { replicas: None, counts: &counts, least, generation }, errors);
        collisions_grow(s.collision_count, status(old).collision_count, errors);
    },
    warnings: |new, old| {
        workload_warnings(&new.metadata, Some(&spec(new).template), old.map(|o| Some(&spec(o).template)))
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
            let template = spec(d).template.spec.as_ref();
            crate::table::labels(template.and_then(|s| s.node_selector.as_ref()))
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
            selector_cell(d.spec.as_ref().map(|s| &s.selector))
        })
        .wide(),
    ],
    ..Kind::namespaced("daemonset", "daemonsets").called(&["ds"], &["all"])
};

static NO_SPEC: LazyLock<DaemonSetSpec> = LazyLock::new(Default::default);
static NO_STATUS: LazyLock<DaemonSetStatus> = LazyLock::new(Default::default);

/// How often the template has changed: a field of extensions/v1beta1 that lives on as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(d: &DaemonSet) -> i64 {
    let annotation = d.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(d: &mut DaemonSet, generation: i64) {
    let annotations = d.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
}

fn spec(d: &DaemonSet) -> &DaemonSetSpec {
    d.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn status(d: &DaemonSet) -> &DaemonSetStatus {
    d.status.as_ref().unwrap_or(&NO_STATUS)
}

fn validate(d: &DaemonSet, old: Option<&DaemonSet>, errors: &mut FieldErrors) {
    let s = spec(d);
    let root = FieldPath::root("spec");
    Selected {
        selector: &s.selector,
        template: &s.template,
        old: old.map(|o| &spec(o).template),
        kind: "daemonset",
        title: "DaemonSet",
    }
    .validate(errors);
    not_negative(s.min_ready_seconds, root.child("minReadySeconds"), errors);
    let none = DaemonSetUpdateStrategy::default();
    let strategy = s.update_strategy.as_ref().unwrap_or(&none);
    let at = root.child("updateStrategy");
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(rolling_at, ""),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            let (unavailable_at, surge_at) =
                (rolling_at.child("maxUnavailable"), rolling_at.child("maxSurge"));
            count_or_percent(unavailable, unavailable_at, errors);
            count_or_percent(surge, surge_at, errors);
            check::not_above_hundred_percent(unavailable, unavailable_at, errors);
            check::not_above_hundred_percent(surge, surge_at, errors);
            match (check::bare_number(unavailable) != 0, check::bare_number(surge) != 0) {
                (true, true) => {
                    errors.invalid(surge_at, &surge, "may not be set when maxUnavailable is non-zero");
                }
                (false, false) => errors.required(unavailable_at, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => errors.push(
            at,
            FieldFault::NotSupported(quoted(strategy), vec!["RollingUpdate".into(), "OnDelete".into()]),
        ),
    }
    not_negative(s.revision_history_limit, root.child("revisionHistoryLimit"), errors);
}
