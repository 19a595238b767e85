//! Checks that kinds of several groups share, in apimachinery's words.

use crate::kind::path_segment_name;
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::Serialize;
use serde_json::Value;

/// What is said of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Says that a field may not change.
pub fn immutable<T: PartialEq + Serialize>(new: &T, old: &T, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if new != old {
        errors.invalid(at, new, IMMUTABLE);
    }
}

/// Adds each fault of a value.
pub fn faults(found: Vec<String>, value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for fault in found {
        errors.invalid(at, &value, fault);
    }
}

/// A value must be there, and without the faults that `rule` finds.
pub fn required_text(
    value: &str,
    at: FieldPath<'_>,
    why: &str,
    rule: impl Fn(&str) -> Vec<String>,
    errors: &mut FieldErrors,
) {
    match value {
        "" => errors.required(at, why),
        value => faults(rule(value), value, at, errors),
    }
}

/// Faults of a name that stands in a path.
pub fn segment(value: &str) -> Vec<String> {
    path_segment_name(value, false)
}

/// No faults whatever the value.
pub fn anything(_: &str) -> Vec<String> {
    Vec::new()
}

/// A value must be one of those supported; empty is reported as missing.
pub fn one_of(value: &str, supported: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    match value {
        "" => errors.required(at, ""),
        value if !supported.contains(&value) => errors.not_supported(at, value, supported),
        _ => {}
    }
}

/// An amount must not be negative.
pub fn not_negative_amount(amount: &Amount, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if Quantity::lenient(amount).sign() < 0 {
        errors.invalid(at, amount, "must be greater than or equal to 0");
    }
}

/// A number must not be negative.
pub fn not_negative(number: i64, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if number < 0 {
        errors.invalid(at, &number, "must be greater than or equal to 0");
    }
}

/// Checks a label selector.
pub fn label_selector(selector: Option<&LabelSelector>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(selector) = selector else { return };
    crate::meta::labels(selector.match_labels.as_ref(), at.child("matchLabels"), errors);
    let list = at.child("matchExpressions");
    for (i, wanted) in selector.match_expressions.iter().flatten().enumerate() {
        let at = list.index(i);
        let values = wanted.values.as_deref().unwrap_or_default();
        match (wanted.operator.as_str(), values.is_empty()) {
            ("In" | "NotIn", true) => {
                errors.required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            ("Exists" | "DoesNotExist", false) => {
                errors.forbidden(
                    at.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.invalid(at.child("operator"), &other, "not a valid selector operator"),
        }
        faults(names::qualified_name(&wanted.key), &wanted.key, at.child("key"), errors);
        for (j, value) in values.iter().enumerate() {
            faults(names::label_value(value), value, at.child("values").index(j), errors);
        }
    }
}

/// Checks a list of conditions.
pub fn conditions(list: Option<&Vec<Condition>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    for (i, condition) in list.iter().enumerate() {
        let at = at.index(i);
        if list.iter().take(i).any(|c| c.type_ == condition.type_) {
            errors.duplicate(at.child("type"), &condition.type_);
        }
        let named = |value: &str, name: &str, errors: &mut FieldErrors| {
            required_text(value, at.child(name), "must be set", anything, errors);
        };
        named(&condition.type_, "type", errors);
        if !condition.type_.is_empty() {
            faults(names::qualified_name(&condition.type_), &condition.type_, at.child("type"), errors);
        }
        if !matches!(condition.status.as_str(), "True" | "False" | "Unknown") {
            errors.not_supported(at.child("status"), &condition.status, &["False", "True", "Unknown"]);
        }
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            errors.invalid(
                at.child("observedGeneration"),
                &generation,
                "must be greater than or equal to zero",
            );
        }
        named(&condition.reason, "reason", errors);
        if condition.reason.len() > 1024 {
            errors.too_long(at.child("reason"), 1024);
        }
        if !condition.reason.is_empty() && !is_reason(&condition.reason) {
            errors.invalid(
                at.child("reason"),
                &condition.reason,
                "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
            );
        }
        if condition.message.len() > 32768 {
            errors.too_long(at.child("message"), 32768);
        }
    }
}

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"_,:".contains(b);
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && bytes.iter().all(inner)
}

/// Checks each item of a list, unless there are more than `most`.
pub fn each<T>(
    list: Option<&Vec<T>>,
    most: usize,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
    check: impl Fn(&T, FieldPath<'_>, &mut FieldErrors),
) {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.len() > most {
        return errors.push(at, FieldFault::TooMany(list.len(), most));
    }
    for (i, item) in list.iter().enumerate() {
        check(item, at.index(i), errors);
    }
}

/// Reports items whose key stands in the list before.
pub fn unique<T, K: PartialEq + Serialize>(
    list: Option<&Vec<T>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
    key: impl Fn(&T) -> K,
) {
    let mut seen: Vec<K> = Vec::new();
    for (i, item) in list.into_iter().flatten().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            errors.duplicate(at.index(i), &key);
        }
        seen.push(key);
    }
}

/// Checks a driver's name: a subdomain of at most 63 characters, in whatever case.
pub fn driver_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 63;
    if name.is_empty() {
        errors.required(at, "");
    }
    if name.len() > MOST {
        errors.too_long(at, MOST);
    }
    faults(names::dns1123_subdomain(&name.to_lowercase()), name, at, errors);
}

/// Checks a node selector.
pub fn node_selector(selector: Option<&NodeSelector>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(selector) = selector else { return };
    let list = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(list, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        let at = list.index(i);
        for (j, wanted) in term.match_expressions.iter().flatten().enumerate() {
            node_requirement(wanted, at.child("matchExpressions").index(j), errors);
            faults(
                names::qualified_name(&wanted.key),
                &wanted.key,
                at.child("matchExpressions").index(j).child("key"),
                errors,
            );
        }
        for (j, wanted) in term.match_fields.iter().flatten().enumerate() {
            let at = at.child("matchFields");
            let at = at.index(j);
            if !matches!(wanted.operator.as_str(), "In" | "NotIn") {
                errors.invalid(at.child("operator"), &wanted.operator, "not a valid selector operator");
            } else if wanted.values.as_ref().map_or(0, Vec::len) != 1 {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(at.child("values"), why);
            }
            if wanted.key != "metadata.name" {
                errors.invalid(at.child("key"), &wanted.key, "not a valid field selector key");
            }
        }
    }
}

fn node_requirement(wanted: &NodeSelectorRequirement, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let count = wanted.values.as_ref().map_or(0, Vec::len);
    match wanted.operator.as_str() {
        "In" | "NotIn" if count == 0 => {
            errors.required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(
            at.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if count != 1 => {
            errors.required(
                at.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(at.child("operator"), &other, "not a valid selector operator"),
    }
}

/// The cell of a class's name, which says whether an annotation makes it the default.
pub fn marked_default(meta: &ObjectMeta, annotation: &str) -> Value {
    let name = meta.name.as_deref().unwrap_or_default();
    let is = meta.annotations.as_ref().and_then(|a| a.get(annotation)).is_some_and(|v| v == "true");
    if is { format!("{name} (default)").into() } else { name.into() }
}
