//! What a HorizontalPodAutoscaler looks at: checks of its metrics, and how a table shows them.

use super::horizontal_pod_autoscaler::{Reference, reference};
use crate::check::{anything, required_text, segment};
use api::field::{FieldErrors, FieldPath};
use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

/// Checks one metric.
pub(super) fn validate(m: &MetricSpec, at: FieldPath<'_>, objects: Reference, errors: &mut FieldErrors) {
    if m.type_.is_empty() {
        errors.required(at.child("type"), "must specify a metric source type");
    }
    let mut present: Vec<&str> = Vec::new();
    let mut first = |name: &'static str, there: bool| {
        if there {
            present.push(name);
        }
        there && present.len() == 1
    };
    if let Some(source) = m.object.as_ref().filter(|_| first("object", m.object.is_some())) {
        let at = at.child("object");
        let of = &source.described_object;
        reference(
            &of.kind,
            &of.name,
            of.api_version.as_deref(),
            at.child("describedObject"),
            objects,
            errors,
        );
        identifier(&source.metric, at.child("metric"), errors);
        target(&source.target, at.child("target"), errors);
        if source.target.value.is_none() && source.target.average_value.is_none() {
            let why = "must set either a target value or averageValue";
            errors.required(at.child("target").child("averageValue"), why);
        }
    }
    if let Some(source) = m.external.as_ref().filter(|_| first("external", m.external.is_some())) {
        let at = at.child("external");
        identifier(&source.metric, at.child("metric"), errors);
        target(&source.target, at.child("target"), errors);
        let aim = at.child("target");
        match (&source.target.value, &source.target.average_value) {
            (None, None) => errors.required(
                aim.child("averageValue"),
                "must set either a target value for metric or a per-pod target",
            ),
            (Some(_), Some(_)) => errors.forbidden(
                aim.child("value"),
                "may not set both a target value for metric and a per-pod target",
            ),
            _ => {}
        }
    }
    if let Some(source) = m.pods.as_ref().filter(|_| first("pods", m.pods.is_some())) {
        let at = at.child("pods");
        identifier(&source.metric, at.child("metric"), errors);
        target(&source.target, at.child("target"), errors);
        if source.target.average_value.is_none() {
            let why = "must specify a positive target averageValue";
            errors.required(at.child("target").child("averageValue"), why);
        }
    }
    if let Some(source) = m.resource.as_ref().filter(|_| first("resource", m.resource.is_some())) {
        let at = at.child("resource");
        required_text(&source.name, at.child("name"), "must specify a resource name", anything, errors);
        resource_target(&source.target, at.child("target"), errors);
    }
    let container = m.container_resource.as_ref();
    if let Some(source) = container.filter(|_| first("containerResource", container.is_some())) {
        let at = at.child("containerResource");
        let rule = names::qualified_name;
        required_text(&source.name, at.child("name"), "must specify a resource name", rule, errors);
        let rule = names::dns1123_label;
        required_text(&source.container, at.child("container"), "must specify a container", rule, errors);
        resource_target(&source.target, at.child("target"), errors);
    }
    let expected = match m.type_.as_str() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        other => {
            let types = ["ContainerResource", "External", "Object", "Pods", "Resource"];
            errors.not_supported(at.child("type"), other, &types);
            ""
        }
    };
    if !expected.is_empty() && !present.contains(&expected) {
        errors.required(at.child(expected), "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for other in present.iter().filter(|p| **p != expected) {
            errors.forbidden(at.child(other), "must populate the given metric source only");
        }
    }
}

fn identifier(metric: &MetricIdentifier, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required_text(&metric.name, at.child("name"), "must specify a metric name", segment, errors);
}

fn resource_target(aim: &MetricTarget, at: FieldPath<'_>, errors: &mut FieldErrors) {
    target(aim, at, errors);
    match (aim.average_utilization, &aim.average_value) {
        (None, None) => errors.required(
            at.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        (Some(_), Some(_)) => errors.forbidden(
            at.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn target(aim: &MetricTarget, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if aim.type_.is_empty() {
        errors.required(at.child("type"), "must specify a metric target type");
    }
    if !matches!(aim.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        errors.invalid(at.child("type"), &aim.type_, "must be either Utilization, Value, or AverageValue");
    }
    for (name, amount) in [("value", &aim.value), ("averageValue", &aim.average_value)] {
        if let Some(amount) = amount.as_ref().filter(|a| Quantity::lenient(a).sign() != 1) {
            errors.invalid(at.child(name), amount, "must be positive");
        }
    }
    if let Some(percent) = aim.average_utilization.filter(|p| *p < 1) {
        errors.invalid(at.child("averageUtilization"), &percent, "must be greater than 0");
    }
}

/// Metrics that a cell shows; of the others only their number.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// The cell of all metrics: what is measured, and what is aimed for.
pub(super) fn cell(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let shown: Vec<String> =
        specs.iter().enumerate().take(SHOWN).map(|(i, s)| one(s, statuses.get(i))).collect();
    let text = shown.join(", ");
    match specs.len() - shown.len() {
        0 => text,
        more => format!("{text} + {more} more..."),
    }
}

fn text(amount: Option<&Amount>) -> String {
    amount.map_or_else(|| "<nil>".into(), |a| a.0.clone())
}

/// A measured value, or an average, against the one aimed for.
fn values(aim: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &aim.average_value {
        Some(wanted) => {
            let measured = current.and_then(|c| c.average_value.as_ref()).map(|a| a.0.clone());
            format!("{}/{} (avg)", measured.unwrap_or_else(|| UNKNOWN.into()), wanted.0)
        }
        None => {
            let measured = current.map_or_else(|| UNKNOWN.into(), |c| text(c.value.as_ref()));
            format!("{measured}/{}", text(aim.value.as_ref()))
        }
    }
}

fn uses(name: &str, aim: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &aim.average_value {
        Some(wanted) => {
            let measured = current.map_or_else(|| UNKNOWN.into(), |c| text(c.average_value.as_ref()));
            format!("{name}: {measured}/{}", wanted.0)
        }
        None => {
            let percent = |p: Option<i32>, none: &str| p.map_or_else(|| none.into(), |p| format!("{p}%"));
            let measured = percent(current.and_then(|c| c.average_utilization), UNKNOWN);
            format!("{name}: {measured}/{}", percent(aim.average_utilization, "<auto>"))
        }
    }
}

fn one(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    if let Some(m) = &spec.external {
        values(&m.target, status.and_then(|s| s.external.as_ref()).map(|s| &s.current))
    } else if let Some(m) = &spec.pods {
        let current = status.and_then(|s| s.pods.as_ref());
        let measured = current.map_or_else(|| UNKNOWN.into(), |s| text(s.current.average_value.as_ref()));
        format!("{measured}/{}", text(m.target.average_value.as_ref()))
    } else if let Some(m) = &spec.object {
        values(&m.target, status.and_then(|s| s.object.as_ref()).map(|s| &s.current))
    } else if let Some(m) = &spec.resource {
        uses(&m.name, &m.target, status.and_then(|s| s.resource.as_ref()).map(|s| &s.current))
    } else if let Some(m) = &spec.container_resource {
        uses(&m.name, &m.target, status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current))
    } else {
        "<unknown type>".into()
    }
}
