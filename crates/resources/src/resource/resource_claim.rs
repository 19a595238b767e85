//! ResourceClaim: devices that someone wants, and those it got.

use super::{MOST, binding_conditions, claims, configuration, pool_name, raw_object, uid};
use crate::check::{self, anything, driver_name, each, immutable, required_text, unique};
use crate::core::pod_spec::scheduling;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, NetworkDeviceData, ResourceClaim,
};

const USERS: usize = 256;
const CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 << 10;
const ADDRESSES: usize = 16;

/// The rules of ResourceClaim.
pub static KIND: Kind<ResourceClaim> = Kind {
    answers_deleted: true,
    has_status: true,
    default: |c| claims::default(&mut c.spec),
    validate: |c, errors| claims::validate(&c.spec, FieldPath::root("spec"), errors),
    validate_update: |new, old, errors| {
        immutable(&new.spec, &old.spec, FieldPath::root("spec"), errors);
    },
    validate_status,
    columns: &[Column::text("State", "How far it is.", |c: &ResourceClaim, _| state(c).into()), age_column()],
    ..Kind::namespaced("resourceclaim", "resourceclaims")
};

fn state(c: &ResourceClaim) -> String {
    let deleted = c.metadata.deletion_timestamp.is_some();
    let status = c.status.clone().unwrap_or_default();
    let reserved = status.reserved_for.is_some_and(|r| !r.is_empty());
    let mut words = Vec::new();
    if deleted {
        words.push("deleted");
    }
    match (status.allocation.is_some(), deleted) {
        (false, false) => words.push("pending"),
        (false, true) => {}
        (true, _) => words.push("allocated"),
    }
    if status.allocation.is_some() && reserved {
        words.push("reserved");
    }
    words.join(",")
}

/// What tells one device of a claim from another.
type Id<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

fn validate_status(new: &ResourceClaim, old: &ResourceClaim, errors: &mut FieldErrors) {
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let known = claims::request_names(&new.spec);
    let at = FieldPath::root("status");
    let users = at.child("reservedFor");
    each(status.reserved_for.as_ref(), USERS, users, errors, |user, at, errors| {
        for (name, value) in [("resource", &user.resource), ("name", &user.name), ("uid", &user.uid)] {
            required_text(value, at.child(name), "", anything, errors);
        }
    });
    unique(status.reserved_for.as_ref(), users, errors, |u| u.uid.clone());
    let results = status.allocation.iter().flat_map(|a| &a.devices).flat_map(|d| d.results.iter().flatten());
    let allocated: Vec<Id<'_>> = results
        .map(|r| (r.driver.as_str(), r.pool.as_str(), r.device.as_str(), r.share_id.as_deref()))
        .collect();
    each(status.devices.as_ref(), usize::MAX, at.child("devices"), errors, |device, at, errors| {
        validate_device(device, &allocated, at, errors);
    });
    unique(status.devices.as_ref(), at.child("devices"), errors, |d| {
        (d.driver.clone(), d.pool.clone(), d.device.clone(), d.share_id.clone())
    });
    let reserved = status.reserved_for.as_deref().unwrap_or_default();
    let had = before.reserved_for.as_deref().unwrap_or_default();
    if !reserved.is_empty() && status.allocation.is_none() {
        errors.forbidden(users, "may not be specified when `allocated` is not set");
    } else if new.metadata.deletion_timestamp.is_some() && reserved.iter().any(|r| !had.contains(r)) {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(users, why);
    }
    match (&status.allocation, &before.allocation) {
        (Some(_), Some(_)) => {
            immutable(&status.allocation, &before.allocation, at.child("allocation"), errors);
        }
        (Some(allocation), None) => {
            validate_allocation(allocation, &known, at.child("allocation"), errors);
        }
        (None, _) => {}
    }
}

fn validate_allocation(
    allocation: &AllocationResult,
    known: &[String],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let devices = allocation.devices.clone().unwrap_or_default();
    let here = at.child("devices");
    each(devices.results.as_ref(), MOST, here.child("results"), errors, |result, at, errors| {
        claims::reference(&result.request, known, at.child("request"), errors);
        driver_name(&result.driver, at.child("driver"), errors);
        pool_name(&result.pool, at.child("pool"), errors);
        errors.all_invalid(at.child("device"), &result.device, names::dns1123_label(&result.device));
        let (good, bad) = (result.binding_conditions.as_ref(), result.binding_failure_conditions.as_ref());
        binding_conditions(good, bad, at, errors);
        if let Some(share) = &result.share_id {
            uid(share, at.child("shareID"), errors);
        }
    });
    each(devices.config.as_ref(), 2 * MOST, here.child("config"), errors, |config, at, errors| {
        check::required_one_of(&config.source, &["FromClaim", "FromClass"], at.child("source"), errors);
        claims::references(config.requests.as_ref(), known, at.child("requests"), errors);
        configuration(config.opaque.as_ref(), at, errors);
    });
    if let Some(selector) = &allocation.node_selector {
        scheduling::node_selector(selector, false, at.child("nodeSelector"), errors);
    }
}

fn validate_device(
    device: &AllocatedDeviceStatus,
    allocated: &[Id<'_>],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    driver_name(&device.driver, at.child("driver"), errors);
    pool_name(&device.pool, at.child("pool"), errors);
    errors.all_invalid(at.child("device"), &device.device, names::dns1123_label(&device.device));
    if let Some(share) = &device.share_id {
        uid(share, at.child("shareID"), errors);
    }
    let id: Id<'_> = (&device.driver, &device.pool, &device.device, device.share_id.as_deref());
    if !allocated.contains(&id) {
        let shown = format!("{}/{}/{}", device.driver, device.pool, device.device);
        errors.invalid(at, &shown, "must be an allocated device in the claim");
    }
    let count = device.conditions.as_ref().map_or(0, Vec::len);
    if count > CONDITIONS {
        errors.push(at.child("conditions"), FieldFault::TooMany(count, CONDITIONS));
    }
    check::conditions(device.conditions.as_ref(), at.child("conditions"), errors);
    if let Some(data) = &device.data {
        raw_object(data, at.child("data"), MAX_DATA, errors);
    }
    if let Some(network) = &device.network_data {
        validate_network(network, at.child("networkData"), errors);
    }
}

fn validate_network(network: &NetworkDeviceData, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (name, value, most) in
        [("interfaceName", &network.interface_name, 256), ("hardwareAddress", &network.hardware_address, 128)]
    {
        if value.as_ref().is_some_and(|v| v.len() > most) {
            errors.too_long(at.child(name), most);
        }
    }
    each(network.ips.as_ref(), ADDRESSES, at.child("ips"), errors, |text, at, errors| {
        match crate::addresses::Range::parse(text) {
            None => errors.invalid(
                at,
                text,
                "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            ),
            Some(range) => {
                let right = format!("{}/{}", range.address, range.prefix);
                if right != *text {
                    errors.invalid(at, text, format!("must be in canonical form ({right:?})"));
                }
            }
        }
    });
    unique(network.ips.as_ref(), at.child("ips"), errors, Clone::clone);
}
