//! ConfigMap.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::ConfigMap;

/// The rules of ConfigMap.
pub static KIND: Kind<ConfigMap> = Kind {
    validate,
    validate_update,
    columns: &[
        Column::text("Data", "How many entries it has.", |c: &ConfigMap, _| data_len(c).into()),
        age_column(),
    ],
    ..Kind::namespaced("configmap", "configmaps").called(&["cm"], &[])
};

/// Keys and values together may not be larger: core validation's `MaxSecretSize`.
const MAX_BYTES: usize = 1 << 20;

fn data_len(c: &ConfigMap) -> usize {
    c.data.as_ref().map_or(0, |d| d.len()) + c.binary_data.as_ref().map_or(0, |d| d.len())
}

fn validate(c: &ConfigMap, errors: &mut FieldErrors) {
    let mut bytes = 0;
    let (data, binary) = (FieldPath::root("data"), FieldPath::root("binaryData"));
    for (key, value) in c.data.iter().flatten() {
        check_key(key, data.key(key), errors);
        if c.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
            errors.invalid(data.key(key), key, "duplicate of key present in binaryData");
        }
        bytes += value.len();
    }
    for (key, value) in c.binary_data.iter().flatten() {
        check_key(key, binary.key(key), errors);
        bytes += value.0.len();
    }
    if bytes > MAX_BYTES {
        errors.too_long(FieldPath::root(""), MAX_BYTES);
    }
}

/// A key becomes a file's name.
pub(crate) fn check_key(key: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for fault in api::names::config_map_key(key) {
        errors.invalid(at, &key, fault);
    }
}

fn validate_update(new: &ConfigMap, old: &ConfigMap, errors: &mut FieldErrors) {
    if old.immutable == Some(true) {
        let immutable = "field is immutable when `immutable` is set";
        if new.immutable != Some(true) {
            errors.forbidden(FieldPath::root("immutable"), immutable);
        }
        if new.data != old.data {
            errors.forbidden(FieldPath::root("data"), immutable);
        }
        if new.binary_data != old.binary_data {
            errors.forbidden(FieldPath::root("binaryData"), immutable);
        }
    }
    validate(new, errors);
}
