//! Rules of `metadata`, the same for all kinds: apimachinery's `ValidateObjectMeta`.

use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Annotations of one object may be this large in all.
const MAX_ANNOTATIONS: usize = 256 << 10;
const ROOT: FieldPath<'static> = FieldPath::root("metadata");

/// Checks the metadata of a new object.
pub fn validate(
    meta: &ObjectMeta,
    namespaced: bool,
    name_faults: impl Fn(&str, bool) -> Vec<String>,
    errors: &mut FieldErrors,
) {
    if let Some(prefix) = meta.generate_name.as_ref().filter(|g| !g.is_empty()) {
        for fault in name_faults(prefix, true) {
            errors.invalid(ROOT.child("generateName"), prefix, fault);
        }
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.required(ROOT.child("name"), "name or generateName is required"),
        name => {
            for fault in name_faults(name, false) {
                errors.invalid(ROOT.child("name"), &name, fault);
            }
        }
    }
    match (meta.namespace.as_deref().unwrap_or_default(), namespaced) {
        ("", true) => errors.required(ROOT.child("namespace"), ""),
        ("", false) => {}
        (namespace, true) => {
            for fault in names::dns1123_label(namespace) {
                errors.invalid(ROOT.child("namespace"), &namespace, fault);
            }
        }
        (_, false) => errors.forbidden(ROOT.child("namespace"), "not allowed on this type"),
    }
    labels(meta.labels.as_ref(), ROOT.child("labels"), errors);
    annotations(meta.annotations.as_ref(), ROOT.child("annotations"), errors);
    for (i, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        finalizer_name(finalizer, ROOT.child("finalizers").index(i), errors);
    }
    let owners = ROOT.child("ownerReferences");
    let mut controllers = 0;
    for (i, owner) in meta.owner_references.iter().flatten().enumerate() {
        let at = owners.index(i);
        for (name, value) in [
            ("apiVersion", &owner.api_version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ] {
            if value.is_empty() {
                errors.invalid(
                    at.child(name),
                    value,
                    format!("{name} must not be empty").replace("apiVersion must", "version must"),
                );
            }
        }
        controllers += usize::from(owner.controller == Some(true));
    }
    if controllers > 1 {
        errors.invalid(owners, &meta.owner_references, "Only one reference can have Controller set to true");
    }
}

/// Checks labels.
pub fn labels(labels: Option<&BTreeMap<String, String>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (key, value) in labels.into_iter().flatten() {
        for fault in names::qualified_name(key) {
            errors.invalid(at, key, fault);
        }
        for fault in names::label_value(value) {
            errors.invalid(at, value, fault);
        }
    }
}

/// Checks annotations.
pub fn annotations(
    annotations: Option<&BTreeMap<String, String>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        for fault in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(at, key, fault);
        }
        bytes += key.len() + value.len();
    }
    if bytes > MAX_ANNOTATIONS {
        errors.too_long(at, MAX_ANNOTATIONS);
    }
}

fn finalizer_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for fault in names::qualified_name(name) {
        errors.invalid(at, &name, fault);
    }
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.invalid(at, &name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// Checks what an update may not change.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let immutable = "field is immutable";
    if new.name != old.name {
        errors.invalid(ROOT.child("name"), &new.name, immutable);
    }
    if new.namespace != old.namespace {
        errors.invalid(ROOT.child("namespace"), &new.namespace, immutable);
    }
    if new.uid != old.uid {
        errors.invalid(ROOT.child("uid"), &new.uid, immutable);
    }
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden(ROOT.child("finalizers"), &why);
        }
    }
}
