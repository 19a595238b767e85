//! The group `storage.k8s.io`.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

use crate::check::required_text;
use api::field::{FieldErrors, FieldPath};
use api::names;
use serde_json::Value;
use std::collections::BTreeMap;

/// Access modes as `kubectl get` abbreviates them.
pub fn access_modes(modes: Option<&[String]>) -> Value {
    let short = |m: &String| match m.as_str() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    modes.unwrap_or_default().iter().map(short).collect::<Vec<_>>().join(",").into()
}

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 << 10;

/// Checks the name of who makes volumes.
fn provisioner(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let name = name.to_lowercase();
    required_text(&name, at, "", names::qualified_name, errors);
}

/// Checks parameters that are handed to a driver.
fn parameters(
    all: Option<&BTreeMap<String, String>>,
    may_be_empty: bool,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let none = BTreeMap::new();
    let all = all.unwrap_or(&none);
    if all.len() > MAX_PARAMETERS {
        return errors.too_long(at, MAX_PARAMETERS);
    }
    if all.contains_key("") {
        errors.invalid(at, &"", "field can not be empty.");
    }
    if all.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_PARAMETER_BYTES {
        errors.too_long(at, MAX_PARAMETER_BYTES);
    }
    if !may_be_empty && all.is_empty() {
        errors.required(at, "must contain at least one key/value pair");
    }
}
