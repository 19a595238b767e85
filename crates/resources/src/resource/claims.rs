//! What is claimed: requests for devices, as claims and their templates write them.

use super::{MOST, configuration, full_name, selectors};
use crate::check::{each, required_text, unique};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaimSpec,
};

const ALTERNATIVES: usize = 8;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// The names of a claim's requests, and of their alternatives as `request/alternative`.
pub(super) fn request_names(spec: &ResourceClaimSpec) -> Vec<String> {
    let mut all = Vec::new();
    for request in spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
        all.push(request.name.clone());
        for sub in request.first_available.iter().flatten() {
            all.push(format!("{}/{}", request.name, sub.name));
        }
    }
    all
}

/// Sets what is not said.
pub(super) fn default(spec: &mut ResourceClaimSpec) {
    let devices = spec.devices.get_or_insert_default();
    let counted = |mode: &mut Option<String>, count: &mut Option<i64>| {
        let mode = mode.get_or_insert_with(|| "ExactCount".into());
        if mode == "ExactCount" && count.is_none_or(|c| c == 0) {
            *count = Some(1);
        }
    };
    for request in devices.requests.iter_mut().flatten() {
        if let Some(exact) = &mut request.exactly {
            counted(&mut exact.allocation_mode, &mut exact.count);
        }
        for sub in request.first_available.iter_mut().flatten() {
            counted(&mut sub.allocation_mode, &mut sub.count);
        }
    }
}

/// Checks what is claimed.
pub(super) fn validate(spec: &ResourceClaimSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let none = DeviceClaim::default();
    let claim = spec.devices.as_ref().unwrap_or(&none);
    let known = request_names(spec);
    let at = at.child("devices");
    each(claim.requests.as_ref(), MOST, at.child("requests"), errors, request);
    unique(claim.requests.as_ref(), at.child("requests"), errors, |r| r.name.clone());
    each(claim.constraints.as_ref(), MOST, at.child("constraints"), errors, |c, at, errors| {
        constraint(c, &known, at, errors);
    });
    each(claim.config.as_ref(), MOST, at.child("config"), errors, |config, at, errors| {
        references(config.requests.as_ref(), &known, at.child("requests"), errors);
        configuration(config.opaque.as_ref(), at, errors);
    });
}

fn request(r: &DeviceRequest, at: FieldPath<'_>, errors: &mut FieldErrors) {
    errors.all_invalid(at.child("name"), &r.name, names::dns1123_label(&r.name));
    let several = r.first_available.as_ref().filter(|f| !f.is_empty());
    match (&r.exactly, several) {
        (None, None) => errors.required(at, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), Some(_)) => errors.invalid(
            at,
            &(),
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (Some(e), None) => Wanted {
            class: &e.device_class_name,
            selectors: e.selectors.as_ref(),
            mode: e.allocation_mode.as_deref(),
            count: e.count,
            tolerations: e.tolerations.as_ref(),
        }
        .validate(at.child("exactly"), errors),
        (None, Some(list)) => {
            let list_at = at.child("firstAvailable");
            each(Some(list), ALTERNATIVES, list_at, errors, |sub, at, errors| {
                errors.all_invalid(at.child("name"), &sub.name, names::dns1123_label(&sub.name));
                Wanted {
                    class: &sub.device_class_name,
                    selectors: sub.selectors.as_ref(),
                    mode: sub.allocation_mode.as_deref(),
                    count: sub.count,
                    tolerations: sub.tolerations.as_ref(),
                }
                .validate(at, errors);
            });
            unique(Some(list), list_at, errors, |s| s.name.clone());
        }
    }
}

/// What both forms of a request say.
struct Wanted<'a> {
    class: &'a str,
    selectors: Option<&'a Vec<DeviceSelector>>,
    mode: Option<&'a str>,
    count: Option<i64>,
    tolerations: Option<&'a Vec<DeviceToleration>>,
}

impl Wanted<'_> {
    fn validate(&self, at: FieldPath<'_>, errors: &mut FieldErrors) {
        required_text(self.class, at.child("deviceClassName"), "", names::dns1123_subdomain, errors);
        selectors(self.selectors, at.child("selectors"), errors);
        let (count, count_at) = (self.count.unwrap_or(0), at.child("count"));
        match self.mode.unwrap_or_default() {
            "All" if count != 0 => {
                errors.invalid(count_at, &count, "must not be specified when allocationMode is 'All'");
            }
            "All" => {}
            "ExactCount" if count <= 0 => errors.invalid(count_at, &count, "must be greater than zero"),
            "ExactCount" => {}
            other => errors.not_supported(at.child("allocationMode"), other, &["All", "ExactCount"]),
        }
        for (i, t) in self.tolerations.into_iter().flatten().enumerate() {
            toleration(t, at.child("tolerations").index(i), errors);
        }
    }
}

fn toleration(t: &DeviceToleration, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (key, value, effect) = (text(&t.key), text(&t.value), text(&t.effect));
    if !key.is_empty() {
        errors.all_invalid(at.child("key"), &key, names::qualified_name(&key));
    }
    match t.operator.as_deref().unwrap_or_default() {
        "Exists" if !value.is_empty() => {
            errors.invalid(at.child("value"), &value, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => errors.all_invalid(at.child("value"), &value, names::label_value(&value)),
        "" => errors.required(at.child("operator"), ""),
        other => errors.not_supported(at.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect.as_str()) {
        errors.not_supported(at.child("effect"), &effect, &EFFECTS);
    }
}

/// Checks names of requests that must be among those known.
pub(super) fn references(
    list: Option<&Vec<String>>,
    known: &[String],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    each(list, MOST, at, errors, |name, at, errors| reference(name, known, at, errors));
    unique(list, at, errors, Clone::clone);
}

/// Checks the name of a request.
pub(super) fn reference(name: &str, known: &[String], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        return errors.invalid(at, &name, why);
    }
    for part in parts {
        errors.all_invalid(at, part, names::dns1123_label(part));
    }
    if !known.iter().any(|k| k == name) {
        errors.invalid(at, &name, why);
    }
}

fn constraint(c: &DeviceConstraint, known: &[String], at: FieldPath<'_>, errors: &mut FieldErrors) {
    references(c.requests.as_ref(), known, at.child("requests"), errors);
    match (&c.match_attribute, &c.distinct_attribute) {
        (Some(name), _) => full_name(name, at.child("matchAttribute"), errors),
        (None, Some(name)) => full_name(name, at.child("distinctAttribute"), errors),
        (None, None) => errors.required(
            at,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        ),
    }
}
