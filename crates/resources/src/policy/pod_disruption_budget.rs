//! PodDisruptionBudget: how many pods may be away at once.

use crate::apps::count_or_percent;
use crate::check::{self, conditions};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// The rules of PodDisruptionBudget.
pub static KIND: Kind<PodDisruptionBudget> = Kind {
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    validate_status: |new, _, errors| {
        let status = new.status.clone().unwrap_or_default();
        let at = FieldPath::root("status");
        conditions(status.conditions.as_ref(), at.child("conditions"), errors);
        for (name, number) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            check::not_negative(number, at.child(name), errors);
        }
    },
    columns: &[
        Column::text("Min Available", "Pods that must stay.", |o: &PodDisruptionBudget, _| {
            amount(o.spec.as_ref().and_then(|s| s.min_available.as_ref()))
        }),
        Column::text("Max Unavailable", "Pods that may be away.", |o: &PodDisruptionBudget, _| {
            amount(o.spec.as_ref().and_then(|s| s.max_unavailable.as_ref()))
        }),
        Column::number(
            "Allowed Disruptions",
            "Pods that may be taken away now.",
            |o: &PodDisruptionBudget, _| {
                o.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into()
            },
        ),
        age_column(),
    ],
    ..Kind::namespaced("poddisruptionbudget", "poddisruptionbudgets").called(&["pdb"], &[])
};

fn amount(n: Option<&IntOrString>) -> Value {
    match n {
        Some(IntOrString::Int(n)) => n.to_string().into(),
        Some(IntOrString::String(s)) => s.clone().into(),
        None => "N/A".into(),
    }
}

fn validate(b: &PodDisruptionBudget, errors: &mut FieldErrors) {
    let at = FieldPath::root("spec");
    let spec = b.spec.clone().unwrap_or_default();
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        errors.invalid(at, &spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for (name, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        count_or_percent(value.as_ref(), at.child(name), errors);
        if let Some(IntOrString::String(text)) = value
            && text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 100)
        {
            errors.invalid(at.child(name), text, "must not be greater than 100%");
        }
    }
    check::label_selector(spec.selector.as_ref(), false, at.child("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref().filter(|p| !policies.contains(p)) {
        errors.not_supported(at.child("unhealthyPodEvictionPolicy"), policy, &policies);
    }
}
