//! One device of a slice: what it is, what it can, and who may have it.

use super::{binding_conditions, qualified_name};
use crate::check::{self, each, required_text, unique};
use crate::core::pod_spec::scheduling;
use crate::kind::subdomain_name;
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Device, DeviceAttribute, DeviceTaint,
    NodeAllocatableResourceMapping,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use std::collections::BTreeMap;

const ATTRIBUTES: usize = 32;
const VALUES: usize = 48;
const MAX_VALUE: usize = 64;
const TAINTS: usize = 16;
const CONSUMPTIONS: usize = 2;
const COUNTERS: usize = 32;
const OPTIONS: usize = 10;

/// What the slice says for all its devices.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    /// Each device says which nodes have it.
    pub each_has_place: bool,
}

/// Checks a device.
pub(super) fn validate(
    device: &Device,
    old: Option<&Device>,
    pool: Pool,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    errors.all_invalid(at.child("name"), &device.name, names::dns1123_label(&device.name));
    let (none, no_capacity) = (BTreeMap::new(), BTreeMap::new());
    let attributes = device.attributes.as_ref().unwrap_or(&none);
    let capacity = device.capacity.as_ref().unwrap_or(&no_capacity);
    let count = attributes.len() + capacity.len();
    if count > ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES}");
        errors.invalid(at, &count, why);
    }
    let values: usize = attributes.values().map(entries).sum();
    if values > VALUES {
        let why = format!("the total number of attribute values must not exceed {VALUES}");
        errors.invalid(at, &values, why);
    }
    let here = at.child("attributes");
    for (name, value) in attributes {
        qualified_name(name, here, errors);
        attribute(value, here.key(name), errors);
    }
    let here = at.child("capacity");
    for (name, value) in capacity {
        qualified_name(name, here, errors);
        let key = here.key(name);
        match &value.request_policy {
            Some(policy) if device.allow_multiple_allocations == Some(true) => {
                request_policy(&value.value, policy, key.child("requestPolicy"), errors);
            }
            Some(_) => {
                errors.forbidden(key.child("requestPolicy"), "allowMultipleAllocations must be true");
            }
            None => {}
        }
    }
    if old.is_none_or(|o| o.taints != device.taints) {
        each(device.taints.as_ref(), TAINTS, at.child("taints"), errors, taint);
    }
    let here = at.child("consumesCounters");
    each(device.consumes_counters.as_ref(), CONSUMPTIONS, here, errors, |consumed, at, errors| {
        required_text(&consumed.counter_set, at.child("counterSet"), "", names::dns1123_label, errors);
        let list = at.child("counters");
        match consumed.counters.len() {
            0 => errors.required(list, ""),
            n if n > COUNTERS => errors.push(list, FieldFault::TooMany(n, COUNTERS)),
            _ => consumed
                .counters
                .keys()
                .for_each(|name| errors.all_invalid(list, name, names::dns1123_label(name))),
        }
    });
    unique(device.consumes_counters.as_ref(), here, errors, |c| c.counter_set.clone());
    place(device, pool, at, errors);
    let (good, bad) = (device.binding_conditions.as_ref(), device.binding_failure_conditions.as_ref());
    binding_conditions(good, bad, at, errors);
    let here = at.child("nodeAllocatableResourceMappings");
    for (name, mapping) in device.node_allocatable_resource_mappings.iter().flatten() {
        let known = |key: &str| capacity.contains_key(key);
        node_resource(name, mapping, known, here.key(name), errors);
    }
}

fn place(device: &Device, pool: Pool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let some = device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some();
    if !pool.each_has_place {
        if some {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(at, &(), why);
        }
        return;
    }
    let mut said = Vec::new();
    match device.node_name.as_deref() {
        Some("") => errors.invalid(at.child("nodeName"), &"", "must not be empty"),
        Some(name) => {
            said.push("`nodeName`");
            errors.all_invalid(at.child("nodeName"), name, subdomain_name(name, false));
        }
        None => {}
    }
    if let Some(selector) = &device.node_selector {
        said.push("`nodeSelector`");
        scheduling::node_selector(selector, false, at.child("nodeSelector"), errors);
    }
    match device.all_nodes {
        Some(true) => said.push("`allNodes`"),
        Some(false) => errors.invalid(at.child("allNodes"), &false, "must be either unset or set to true"),
        None => {}
    }
    let rule = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match said.len() {
        0 => errors.required(at, rule),
        1 => {}
        _ => errors.invalid(at, &format!("{{{}}}", said.join(", ")), rule),
    }
}

fn node_resource(
    name: &str,
    mapping: &NodeAllocatableResourceMapping,
    known: impl Fn(&str) -> bool,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    if name.contains('/') && !name.contains("kubernetes.io/") {
        errors.invalid(at, &name, "must be a node allocatable resource name");
    }
    if mapping.allocation_multiplier.is_none() && mapping.capacity_key.is_none() {
        errors.invalid(at, &"", "at least one of allocationMultiplier or capacityKey must be set");
    }
    if let Some(by) = mapping.allocation_multiplier.as_ref().filter(|m| Quantity::lenient(m).sign() <= 0) {
        errors.invalid(at.child("allocationMultiplier"), by, "must be positive");
    }
    match mapping.capacity_key.as_deref() {
        Some("") => errors.invalid(at.child("capacityKey"), &"", "capacityKey must not be an empty string"),
        Some(key) if !known(key) => {
            errors.push(at.child("capacityKey"), FieldFault::NotFound(api::field::quoted(&key)));
        }
        _ => {}
    }
}

fn entries(a: &DeviceAttribute) -> usize {
    let len = |n: Option<usize>| n.unwrap_or(0);
    let listed = len(a.bools.as_ref().map(Vec::len))
        + len(a.ints.as_ref().map(Vec::len))
        + len(a.strings.as_ref().map(Vec::len))
        + len(a.versions.as_ref().map(Vec::len));
    listed.max(1)
}

fn attribute(a: &DeviceAttribute, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let said = [a.bool.is_some(), a.int.is_some(), a.string.is_some(), a.version.is_some()]
        .into_iter()
        .chain([a.bools.is_some(), a.ints.is_some(), a.strings.is_some(), a.versions.is_some()])
        .filter(|said| *said)
        .count();
    let text = |value: &str, at: FieldPath<'_>, errors: &mut FieldErrors| {
        if value.len() > MAX_VALUE {
            errors.too_long(at, MAX_VALUE);
        }
    };
    let version = |value: &str, at: FieldPath<'_>, errors: &mut FieldErrors| {
        if !is_version(value) {
            errors.invalid(at, &value, "must be a string compatible with semver.org spec 2.0.0");
        }
        text(value, at, errors);
    };
    if let Some(value) = &a.string {
        text(value, at.child("string"), errors);
    }
    if let Some(value) = &a.version {
        version(value, at.child("version"), errors);
    }
    for (name, empty) in [
        ("bools", a.bools.as_ref().is_some_and(Vec::is_empty)),
        ("ints", a.ints.as_ref().is_some_and(Vec::is_empty)),
        ("strings", a.strings.as_ref().is_some_and(Vec::is_empty)),
        ("versions", a.versions.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if empty {
            errors.invalid(at.child(name), &[(); 0], "must not be empty if specified");
        }
    }
    for (i, value) in a.strings.iter().flatten().enumerate() {
        text(value, at.child("strings").index(i), errors);
    }
    for (i, value) in a.versions.iter().flatten().enumerate() {
        version(value, at.child("versions").index(i), errors);
    }
    match said {
        0 => errors.invalid(at, &"", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(at, a, "exactly one value must be specified"),
    }
}

/// Whether it is a version by semver.org: `1.2.3-alpha.1+build.5`.
fn is_version(text: &str) -> bool {
    let number =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()) && (t == "0" || !t.starts_with('0'));
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let early = |t: &str| word(t) && (!t.bytes().all(|b| b.is_ascii_digit()) || number(t));
    let (rest, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(number)
        && pre.is_none_or(|p| p.split('.').all(early))
        && build.is_none_or(|b| b.split('.').all(word))
}

fn taint(t: &DeviceTaint, at: FieldPath<'_>, errors: &mut FieldErrors) {
    errors.all_invalid(at.child("key"), &t.key, names::qualified_name(&t.key));
    if let Some(value) = t.value.as_deref().filter(|v| !v.is_empty()) {
        errors.all_invalid(at.child("value"), value, names::label_value(value));
    }
    check::required_one_of(&t.effect, &["NoExecute", "NoSchedule", "None"], at.child("effect"), errors);
}

fn request_policy(
    capacity: &Amount,
    policy: &CapacityRequestPolicy,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let values = policy.valid_values.as_ref().filter(|v| !v.is_empty());
    match (values, &policy.valid_range, &policy.default) {
        (Some(_), Some(_), _) => errors.forbidden(
            at,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (Some(_), None, None) => {
            errors.required(at.child("default"), "required when validValues is defined");
        }
        (None, Some(_), None) => errors.required(at.child("default"), "required when validRange is defined"),
        (Some(values), None, Some(usual)) => {
            valid_values(usual, capacity, values, at.child("validValues"), errors);
        }
        (None, Some(range), Some(usual)) => {
            valid_range(usual, capacity, range, at.child("validRange"), errors);
        }
        (None, None, _) => {}
    }
}

fn of(amount: &Amount) -> Quantity {
    Quantity::lenient(amount)
}

fn valid_values(
    usual: &Amount,
    capacity: &Amount,
    values: &Vec<Amount>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (i, pair) in values.windows(2).enumerate() {
        if let [one, next] = pair
            && of(one) > of(next)
        {
            errors.invalid(at.index(i + 1), next, "values must be sorted in ascending order");
        }
    }
    each(Some(values), OPTIONS, at, errors, |value, at, errors| {
        if of(value) > of(capacity) {
            errors.invalid(at, value, format!("option is larger than capacity value: {}", capacity.0));
        }
    });
    unique(Some(values), at, errors, |v| Quantity::lenient(v).value());
    if !values.iter().any(|v| of(v) == of(usual)) {
        errors.invalid(at, usual, "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(
    usual: &Amount,
    capacity: &Amount,
    range: &CapacityRequestPolicyRange,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let min = &range.min;
    if of(min) > of(capacity) {
        let why = format!("min is larger than capacity value: {}", capacity.0);
        errors.invalid(at.child("min"), min, why);
    }
    if of(usual) < of(min) {
        errors.invalid(at.child("min"), usual, format!("default is less than min: {}", min.0));
    }
    if let Some(max) = &range.max {
        let here = at.child("max");
        if of(min) > of(max) {
            errors.invalid(here, min, format!("min is larger than max: {}", max.0));
        }
        if of(max) > of(capacity) {
            errors.invalid(here, max, format!("max is larger than capacity value: {}", capacity.0));
        }
        if of(usual) > of(max) {
            errors.invalid(here, usual, format!("default is more than max: {}", max.0));
        }
    }
    let Some(step) = &range.step else { return };
    let here = at.child("step");
    let whole = |amount: &Amount| Quantity::lenient(amount).value();
    if of(min) + of(step) > of(capacity) {
        let added = whole(min).saturating_add(whole(step));
        let why = format!("one step {added} is larger than capacity value: {}", capacity.0);
        errors.invalid(here, step, why);
    }
    for value in std::iter::once(usual).chain(&range.max) {
        let away = whole(value).saturating_sub(whole(min));
        if away.checked_rem(whole(step)).is_none_or(|rest| rest != 0) {
            let why = format!("value is not a multiple of a given step ({}) from ({})", step.0, min.0);
            errors.invalid(here, value, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, good) in [
            ("1.2.3", true),
            ("1.2.3-alpha.1+build.5", true),
            ("1.0.0+20130313144700", true),
            ("01.2.3", false),
            ("1.2", false),
            ("1.2.3-01", false),
            ("v1.2.3", false),
        ] {
            assert_eq!(is_version(text), good, "{text}");
        }
    }
}
