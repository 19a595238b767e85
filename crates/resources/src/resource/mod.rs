//! The group `resource.k8s.io`: devices that pods claim.

mod claims;
pub mod device_class;
mod devices;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;

use crate::check::{driver_name, each};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::resource::v1::{DeviceSelector, OpaqueDeviceConfiguration};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::Value;

/// Items in lists of selectors, constraints and configurations.
const MOST: usize = 32;
const MAX_EXPRESSION: usize = 10 << 10;
const MAX_PARAMETERS: usize = 10 << 10;
const MAX_ID: usize = 32;
const MAX_POOL: usize = 253;

/// Checks selectors of devices.
fn selectors(list: Option<&Vec<DeviceSelector>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    each(list, MOST, at, errors, |selector, at, errors| match &selector.cel {
        None => errors.required(at.child("cel"), ""),
        Some(cel) => {
            let cel_at = at.child("cel");
            if cel.expression.is_empty() {
                errors.required(cel_at.child("expression"), "");
            }
            if cel.expression.len() > MAX_EXPRESSION {
                errors.too_long(cel_at.child("expression"), MAX_EXPRESSION);
            }
        }
    });
}

/// Checks a driver's configuration.
fn configuration(config: Option<&OpaqueDeviceConfiguration>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let at = at.child("opaque");
    let Some(config) = config else { return errors.required(at, "") };
    driver_name(&config.driver, at.child("driver"), errors);
    raw_object(&config.parameters, at.child("parameters"), MAX_PARAMETERS, errors);
}

/// Checks that something unknown is an object, and not too long.
fn raw_object(raw: &RawExtension, at: FieldPath<'_>, most: usize, errors: &mut FieldErrors) {
    match &raw.0 {
        Value::Null => errors.required(at, ""),
        Value::Object(_) if raw.0.to_string().len() > most => errors.too_long(at, most),
        Value::Object(_) => {}
        _ => errors.invalid(at, &"<value omitted>", "must be a valid JSON object"),
    }
}

/// Checks a pool's name: subdomains between slashes.
fn pool_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    if name.len() > MAX_POOL {
        errors.too_long(at, MAX_POOL);
    }
    for part in name.split('/') {
        errors.all_invalid(at, part, names::dns1123_subdomain(part));
    }
}

/// Checks a name with, perhaps, a domain before it.
fn qualified_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let identifier = |id: &str, errors: &mut FieldErrors| {
        if id.len() > MAX_ID {
            errors.too_long(at, MAX_ID);
        }
        errors.all_invalid(at, id, names::c_identifier(id));
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(id, errors),
        [domain, id] => {
            match *domain {
                "" => errors.invalid(at, &"", "the domain must not be empty"),
                domain => driver_name(domain, at, errors),
            }
            match *id {
                "" => errors.invalid(at, &"", "the name must not be empty"),
                id => identifier(id, errors),
            }
        }
        _ => {}
    }
}

/// Checks a name that must have a domain.
fn full_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    qualified_name(name, at, errors);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.invalid(at, &name, why);
    }
}

/// Checks an id of RFC 4122, in its normal form.
fn uid(text: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let parts: Vec<&str> = text.split('-').collect();
    let formed = parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
    if !formed {
        errors.invalid(at, &text, "error validating uid: invalid UUID format");
    } else if text != text.to_lowercase() {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.invalid(at, &text, why);
    }
}

/// Checks the conditions that a device waits for before it is bound.
fn binding_conditions(
    wanted: Option<&Vec<String>>,
    failed: Option<&Vec<String>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    const CONDITIONS: usize = 4;
    let (good, bad) = (at.child("bindingConditions"), at.child("bindingFailureConditions"));
    for (list, at) in [(wanted, good), (failed, bad)] {
        each(list, CONDITIONS, at, errors, |name, at, errors| {
            errors.all_invalid(at, name, names::qualified_name(name));
        });
        crate::check::unique(list, at, errors, Clone::clone);
    }
    let (wanted, failed) = (wanted.cloned().unwrap_or_default(), failed.cloned().unwrap_or_default());
    for (i, name) in failed.iter().enumerate().filter(|(_, n)| wanted.contains(n)) {
        let why = "bindingFailureConditions must not overlap with bindingConditions";
        errors.invalid(bad.index(i), name, why);
    }
    if wanted.is_empty() && !failed.is_empty() {
        errors.invalid(good, &wanted, "bindingConditions are required to use bindingFailureConditions");
    }
    if failed.is_empty() && !wanted.is_empty() {
        errors.invalid(bad, &failed, "bindingFailureConditions are required to use bindingConditions");
    }
}
