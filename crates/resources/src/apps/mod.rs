//! The group `apps`, and what workloads share.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

use crate::core::pod_spec;
use api::field::{FieldErrors, FieldPath};
use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// Checks a selector and the template it has to select, whose pods are restarted always.
pub fn validate_selected(
    selector: &meta::LabelSelector,
    template: &PodTemplateSpec,
    spec: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let at = spec.child("selector");
    let empty = selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if empty {
        errors.invalid(at, selector, "empty selector is invalid for deployment");
    }
    let template_at = spec.child("template");
    match LabelSelector::from_object(selector) {
        Err(e) => errors.invalid(at, selector, e.to_string()),
        Ok(parsed) => {
            let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
            if !empty && !parsed.matches_labels(labels) {
                let metadata = template_at.child("metadata");
                errors.invalid(
                    metadata.child("labels"),
                    &labels,
                    "`selector` does not match template `labels`",
                );
            }
        }
    }
    pod_spec::validate_template(template, template_at, errors);
    if let Some(policy) =
        template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).filter(|p| *p != "Always")
    {
        let spec = template_at.child("spec");
        errors.not_supported(spec.child("restartPolicy"), policy, &["Always"]);
    }
}

/// Checks that a number is not negative.
pub fn not_negative(value: Option<i32>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errors.invalid(at, &value, "must be greater than or equal to 0");
    }
}

/// Checks a number or percentage.
pub fn count_or_percent(value: Option<&IntOrString>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match value {
        Some(IntOrString::Int(n)) => not_negative(Some(*n), at, errors),
        Some(IntOrString::String(s)) => {
            let number =
                s.strip_suffix('%').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            if number.is_none() {
                errors.invalid(at, s, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
            }
        }
        None => {}
    }
}

/// Says that a selector may not change.
pub fn selector_kept(new: &meta::LabelSelector, old: &meta::LabelSelector, errors: &mut FieldErrors) {
    if new != old {
        errors.invalid(FieldPath::root("spec").child("selector"), new, "field is immutable");
    }
}

fn containers(template: Option<&PodTemplateSpec>) -> &[Container] {
    template.and_then(|t| t.spec.as_ref()).map_or(&[], |s| &s.containers)
}

/// The cell of container names.
pub fn names(template: Option<&PodTemplateSpec>) -> Value {
    containers(template).iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(",").into()
}

/// The cell of images.
pub fn images(template: Option<&PodTemplateSpec>) -> Value {
    containers(template)
        .iter()
        .map(|c| c.image.clone().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

/// A selector in its string form.
pub fn selector_text(selector: Option<&meta::LabelSelector>) -> String {
    selector.and_then(|s| LabelSelector::from_object(s).ok()).map(|s| s.to_string()).unwrap_or_default()
}
