//! ResourceSlice: devices that a driver offers.

use super::devices::{self, Pool};
use super::pool_name;
use crate::check::{self, driver_name, each, immutable, unique};
use crate::core::pod_spec::scheduling;
use crate::kind::{age_column, subdomain_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use k8s_openapi::api::resource::v1::{CounterSet, Device, ResourceSlice, ResourceSliceSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

const DEVICES: usize = 128;
/// Where devices have taints, counters or lists.
const ELABORATE_DEVICES: usize = 64;
const COUNTER_SETS: usize = 8;
const COUNTERS: usize = 32;
const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of ResourceSlice.
pub static KIND: Kind<ResourceSlice> = Kind {
    answers_deleted: true,
    has_generation: true,
    default: |s| {
        for device in s.spec.devices.iter_mut().flatten() {
            for mapping in device.node_allocatable_resource_mappings.iter_mut().flat_map(|m| m.values_mut()) {
                mapping.allocation_multiplier.get_or_insert_with(|| Quantity("1".into()));
            }
        }
    },
    prepare_create: |s, context| stamp(s, context.now),
    prepare_update: |new, _, context| stamp(new, context.now),
    validate: |s, errors| validate(&s.spec, None, errors),
    validate_update: |new, old, errors| validate(&new.spec, Some(&old.spec), errors),
    selectable: &["*spec.nodeName", "spec.driver"],
    columns: &[
        Column::text("Node", "The node that has the devices.", |s: &ResourceSlice, _| {
            s.spec.node_name.clone().unwrap_or_default().into()
        }),
        Column::text("Driver", "The driver that offers them.", |s: &ResourceSlice, _| {
            s.spec.driver.clone().into()
        }),
        Column::text("Pool", "The pool they belong to.", |s: &ResourceSlice, _| {
            s.spec.pool.name.clone().into()
        }),
        age_column(),
    ],
    ..Kind::cluster("resourceslice", "resourceslices")
};

/// Taints say when they came.
fn stamp(s: &mut ResourceSlice, now: jiff::Timestamp) {
    let second = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    for taint in s.spec.devices.iter_mut().flatten().flat_map(|d| d.taints.iter_mut().flatten()) {
        taint.time_added.get_or_insert(Time(second));
    }
}

fn validate(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>, errors: &mut FieldErrors) {
    let at = SPEC;
    driver_name(&spec.driver, at.child("driver"), errors);
    let pool = at.child("pool");
    pool_name(&spec.pool.name, pool.child("name"), errors);
    if spec.pool.resource_slice_count <= 0 {
        let count = spec.pool.resource_slice_count;
        errors.invalid(pool.child("resourceSliceCount"), &count, "must be greater than zero");
    }
    if spec.pool.generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.invalid(pool.child("generation"), &spec.pool.generation, why);
    }
    if let Some(old) = old {
        immutable(&spec.pool.name, &old.pool.name, pool.child("name"), errors);
        immutable(&spec.driver, &old.driver, at.child("driver"), errors);
        immutable(&spec.node_name, &old.node_name, at.child("nodeName"), errors);
    }
    validate_place(spec, errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errors.invalid(at, &"", "only one of `sharedCounters` or `devices` is allowed");
    }
    let elaborate = spec.devices.iter().flatten().any(is_elaborate);
    let most = if elaborate { ELABORATE_DEVICES } else { DEVICES };
    let each_has_place = spec.per_device_node_selection == Some(true);
    each(spec.devices.as_ref(), most, at.child("devices"), errors, |device, at, errors| {
        let before = old.iter().flat_map(|o| o.devices.iter().flatten()).find(|d| d.name == device.name);
        devices::validate(device, before, Pool { each_has_place }, at, errors);
    });
    unique(spec.devices.as_ref(), at.child("devices"), errors, |d| d.name.clone());
    let sets = at.child("sharedCounters");
    each(spec.shared_counters.as_ref(), COUNTER_SETS, sets, errors, validate_counters);
    unique(spec.shared_counters.as_ref(), sets, errors, |s| s.name.clone());
}

fn is_elaborate(device: &Device) -> bool {
    let some = |n: usize| n > 0;
    some(device.taints.as_ref().map_or(0, Vec::len))
        || some(device.consumes_counters.as_ref().map_or(0, Vec::len))
        || device
            .attributes
            .iter()
            .flat_map(BTreeMap::values)
            .any(|a| a.bools.is_some() || a.ints.is_some() || a.strings.is_some() || a.versions.is_some())
}

/// Devices are on one node, on those selected, on all, or each says for itself.
fn validate_place(spec: &ResourceSliceSpec, errors: &mut FieldErrors) {
    let at = SPEC;
    let mut said = Vec::new();
    match spec.node_name.as_deref() {
        Some("") => {
            let why = "must be either unset or set to a non-empty string";
            errors.invalid(at.child("nodeName"), &"", why);
        }
        Some(name) => {
            said.push("`nodeName`");
            errors.all_invalid(at.child("nodeName"), name, subdomain_name(name, false));
        }
        None => {}
    }
    if let Some(selector) = &spec.node_selector {
        said.push("`nodeSelector`");
        let here = at.child("nodeSelector");
        scheduling::node_selector(selector, false, here, errors);
        if selector.node_selector_terms.len() != 1 {
            let why = "must have exactly one node selector term";
            errors.invalid(here.child("nodeSelectorTerms"), &selector.node_selector_terms, why);
        }
    }
    for (name, quoted, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            Some(true) => said.push(quoted),
            Some(false) => errors.invalid(at.child(name), &false, "must be either unset or set to true"),
            None => {}
        }
    }
    let rule = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match said.len() {
        0 => errors.required(at, rule),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", said.join(", "));
            errors.invalid(at, &shown, format!("{rule}, but multiple fields are set"));
        }
    }
}

fn validate_counters(set: &CounterSet, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::required_text(&set.name, at.child("name"), "", names::dns1123_label, errors);
    let here = at.child("counters");
    if set.counters.is_empty() {
        errors.required(here, "");
    }
    if set.counters.len() > COUNTERS {
        return errors.push(here, FieldFault::TooMany(set.counters.len(), COUNTERS));
    }
    for name in set.counters.keys() {
        errors.all_invalid(here, name, names::dns1123_label(name));
    }
}
