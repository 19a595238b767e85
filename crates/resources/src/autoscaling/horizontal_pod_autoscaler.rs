//! HorizontalPodAutoscaler: how many pods a workload has, by what they use. Kept in version v2.

use super::{metrics, v1};
use crate::check::{self, not_negative_amount, required_text, segment};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};

/// A stabilization window is at most this long.
const MAX_WINDOW: i32 = 3600;

/// The rules of HorizontalPodAutoscaler.
pub static KIND: Kind<HorizontalPodAutoscaler> = Kind {
    has_status: true,
    versions: &[v1::V1],
    default,
    validate: |h, errors| {
        let objects = Reference { any: false, core: true };
        validate(&h.spec, h.spec.min_replicas != Some(0), target_rule(h, None), objects, errors);
    },
    validate_update: |new, old, errors| {
        let was_zero = old.spec.min_replicas == Some(0);
        let core = Reference { any: false, core: true };
        let objects = old.spec.metrics.iter().flatten().filter_map(|m| m.object.as_ref());
        let bad = |v: Option<&str>| v.is_some_and(|v| v.matches('/').count() > 1);
        let any = objects.into_iter().any(|o| bad(o.described_object.api_version.as_deref()));
        validate(&new.spec, !was_zero, target_rule(new, Some(old)), Reference { any, ..core }, errors);
    },
    validate_status: |new, _, errors| {
        let status = new.status.clone().unwrap_or_default();
        let at = FieldPath::root("status");
        let current = status.current_replicas.unwrap_or(0);
        check::not_negative(Some(current), at.child("currentReplicas"), errors);
        check::not_negative(Some(status.desired_replicas), at.child("desiredReplicas"), errors);
    },
    columns: &[
        Column::text("Reference", "What it scales.", |h: &HorizontalPodAutoscaler, _| {
            let target = &h.spec.scale_target_ref;
            format!("{}/{}", target.kind, target.name).into()
        }),
        Column::text("Targets", "What is measured, and aimed for.", |h: &HorizontalPodAutoscaler, _| {
            let current = h.status.as_ref().and_then(|s| s.current_metrics.as_deref()).unwrap_or_default();
            metrics::cell(h.spec.metrics.as_deref().unwrap_or_default(), current).into()
        }),
        Column::text("MinPods", "Fewest pods.", |h: &HorizontalPodAutoscaler, _| {
            h.spec.min_replicas.map_or_else(|| "<unset>".into(), |n| n.to_string()).into()
        }),
        Column::text("MaxPods", "Most pods.", |h: &HorizontalPodAutoscaler, _| h.spec.max_replicas.into()),
        Column::text("Replicas", "Pods now.", |h: &HorizontalPodAutoscaler, _| {
            h.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0).into()
        }),
        age_column(),
    ],
    ..Kind::namespaced("horizontalpodautoscaler", "horizontalpodautoscalers").called(&["hpa"], &["all"])
};

fn default(h: &mut HorizontalPodAutoscaler) {
    let spec = &mut h.spec;
    spec.min_replicas.get_or_insert(1);
    let metrics = spec.metrics.get_or_insert_default();
    if metrics.is_empty() {
        let aim = MetricTarget {
            type_: "Utilization".into(),
            average_utilization: Some(v1::DEFAULT_UTILIZATION),
            ..MetricTarget::default()
        };
        metrics.push(MetricSpec {
            type_: "Resource".into(),
            resource: Some(ResourceMetricSource { name: "cpu".into(), target: aim }),
            ..MetricSpec::default()
        });
    }
    if let Some(behavior) = &mut spec.behavior {
        let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.into(), value, period_seconds: 15 };
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        up.select_policy.get_or_insert_with(|| "Max".into());
        up.policies.get_or_insert_with(|| vec![policy("Pods", 4), policy("Percent", 100)]);
        let down = behavior.scale_down.get_or_insert_default();
        down.select_policy.get_or_insert_with(|| "Max".into());
        down.policies.get_or_insert_with(|| vec![policy("Percent", 100)]);
    }
}

/// Which API versions a reference may have.
#[derive(Clone, Copy)]
pub(super) struct Reference {
    /// Whatever it says.
    pub any: bool,
    /// Also one without a group.
    pub core: bool,
}

fn target_rule(new: &HorizontalPodAutoscaler, old: Option<&HorizontalPodAutoscaler>) -> Reference {
    let target = &new.spec.scale_target_ref;
    let same = old.is_some_and(|old| {
        let before = &old.spec.scale_target_ref;
        before.kind == target.kind && before.api_version == target.api_version
    });
    Reference { any: same, core: target.kind == "ReplicationController" }
}

/// Checks a reference to an object.
pub(super) fn reference(
    kind: &str,
    name: &str,
    api_version: Option<&str>,
    at: FieldPath<'_>,
    rule: Reference,
    errors: &mut FieldErrors,
) {
    required_text(kind, at.child("kind"), "", segment, errors);
    required_text(name, at.child("name"), "", segment, errors);
    let api_version = api_version.unwrap_or_default();
    let slashes = api_version.matches('/').count();
    if rule.any {
        return;
    }
    if slashes > 1 {
        errors.invalid(
            at.child("apiVersion"),
            &api_version,
            format!("unexpected GroupVersion string: {api_version}"),
        );
    } else if !rule.core && (slashes == 0 || api_version.starts_with('/')) {
        errors.invalid(at.child("apiVersion"), &api_version, "apiVersion must specify API group");
    }
}

fn validate(
    spec: &HorizontalPodAutoscalerSpec,
    at_least_one: bool,
    target: Reference,
    objects: Reference,
    errors: &mut FieldErrors,
) {
    let at = FieldPath::root("spec");
    let lowest = i32::from(at_least_one);
    if let Some(min) = spec.min_replicas.filter(|n| *n < lowest) {
        errors.invalid(at.child("minReplicas"), &min, format!("must be greater than or equal to {lowest}"));
    }
    let max = spec.max_replicas;
    if max == 0 {
        errors.required(at.child("maxReplicas"), "must be set and greater than 0");
    } else if max < 0 {
        errors.invalid(at.child("maxReplicas"), &max, "must be greater than or equal to 1");
    }
    if spec.min_replicas.is_some_and(|min| max < min) {
        errors.invalid(at.child("maxReplicas"), &max, "must be greater than or equal to `minReplicas`");
    }
    let of = &spec.scale_target_ref;
    reference(&of.kind, &of.name, of.api_version.as_deref(), at.child("scaleTargetRef"), target, errors);
    let list = at.child("metrics");
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        metrics::validate(metric, list.index(i), objects, errors);
    }
    let scales_to_zero =
        spec.metrics.iter().flatten().any(|m| matches!(m.type_.as_str(), "Object" | "External"));
    if spec.min_replicas == Some(0) && !scales_to_zero {
        errors.forbidden(
            list,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
    if let Some(behavior) = &spec.behavior {
        let at = at.child("behavior");
        for (name, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling_rules(rules, at.child(name), errors);
            }
        }
    }
}

fn scaling_rules(rules: &HPAScalingRules, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let window = at.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => {
            errors.invalid(window, &seconds, "must be greater than or equal to zero");
        }
        Some(seconds) if seconds > MAX_WINDOW => {
            errors.invalid(window, &seconds, format!("must be less than or equal to {MAX_WINDOW}"));
        }
        _ => {}
    }
    if let Some(select) = rules.select_policy.as_deref().filter(|p| !matches!(*p, "Max" | "Min" | "Disabled"))
    {
        errors.not_supported(at.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let list = at.child("policies");
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        errors.required(list, "must specify at least one Policy");
    }
    for (i, policy) in rules.policies.iter().flatten().enumerate() {
        let at = list.index(i);
        if !matches!(policy.type_.as_str(), "Pods" | "Percent") {
            errors.not_supported(at.child("type"), &policy.type_, &["Percent", "Pods"]);
        }
        if policy.value <= 0 {
            errors.invalid(at.child("value"), &policy.value, "must be greater than zero");
        }
        let period = at.child("periodSeconds");
        if policy.period_seconds <= 0 {
            errors.invalid(period, &policy.period_seconds, "must be greater than zero");
        } else if policy.period_seconds > 1800 {
            errors.invalid(period, &policy.period_seconds, "must be less than or equal to 1800");
        }
    }
    if let Some(tolerance) = &rules.tolerance {
        not_negative_amount(tolerance, at.child("tolerance"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults() {
        let check = |spec: serde_json::Value| {
            let mut h: HorizontalPodAutoscaler =
                serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
            default(&mut h);
            let mut errors = FieldErrors::default();
            (KIND.validate)(&h, &mut errors);
            errors.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
        assert!(check(json!({"maxReplicas": 2, "scaleTargetRef": target})).is_empty());
        assert_eq!(
            check(json!({"maxReplicas": 0, "scaleTargetRef": {"kind": "Deployment", "name": "a"}})),
            [
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            ]
        );
        assert_eq!(
            check(
                json!({"maxReplicas": 2, "scaleTargetRef": target, "metrics": [{"type": "Pods", "resource": {"name": "cpu", "target": {"type": "x"}}}]})
            ),
            [
                "spec.metrics[0].resource.target.type: Invalid value: \"x\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ]
        );
    }
}
