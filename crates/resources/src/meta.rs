//! Rules of `metadata`, the same for all kinds: apimachinery's `ValidateObjectMeta`.

use crate::check::{self, IMMUTABLE, list};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

/// Annotations of one object may be this large in all.
const MAX_ANNOTATIONS: usize = 256 << 10;
/// A field manager's name may be this long.
const MAX_MANAGER: usize = 128;
/// The name of the subresource that a manager wrote may be this long.
const MAX_SUBRESOURCE: usize = 256;
const ROOT: FieldPath<'static> = FieldPath::root("metadata");

/// Checks the metadata of a new object.
pub fn validate(
    meta: &ObjectMeta,
    namespaced: bool,
    name_faults: impl Fn(&str, bool) -> Vec<String>,
    errors: &mut FieldErrors,
) {
    if let Some(prefix) = meta.generate_name.as_ref().filter(|g| !g.is_empty()) {
        errors.all_invalid(ROOT.child("generateName"), prefix, name_faults(prefix, true));
    }
    match check::text(&meta.name) {
        "" => errors.required(ROOT.child("name"), "name or generateName is required"),
        name => errors.all_invalid(ROOT.child("name"), name, name_faults(name, false)),
    }
    match (check::text(&meta.namespace), namespaced) {
        ("", true) => errors.required(ROOT.child("namespace"), ""),
        ("", false) => {}
        (namespace, true) => check::label(namespace, ROOT.child("namespace"), errors),
        (_, false) => errors.forbidden(ROOT.child("namespace"), "not allowed on this type"),
    }
    check::not_negative(meta.generation, ROOT.child("generation"), errors);
    labels(meta.labels.as_ref(), ROOT.child("labels"), errors);
    annotations(meta.annotations.as_ref(), ROOT.child("annotations"), errors);
    owners(list(&meta.owner_references), ROOT.child("ownerReferences"), errors);
    finalizers(list(&meta.finalizers), ROOT.child("finalizers"), errors);
    managed_fields(list(&meta.managed_fields), ROOT.child("managedFields"), errors);
}

/// Checks labels.
pub fn labels(labels: Option<&BTreeMap<String, String>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (key, value) in labels.into_iter().flatten() {
        errors.all_invalid(at, key, names::qualified_name(key));
        errors.all_invalid(at, value, names::label_value(value));
    }
}

/// Checks annotations.
pub fn annotations(
    annotations: Option<&BTreeMap<String, String>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        errors.all_invalid(at, key, names::caseless_qualified_name(key));
    }
    annotations_size(annotations, at, errors);
}

/// Checks how large annotations are in all.
pub fn annotations_size(
    annotations: Option<&BTreeMap<String, String>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let bytes: usize = annotations.into_iter().flatten().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_ANNOTATIONS {
        errors.too_long(at, MAX_ANNOTATIONS);
    }
}

fn owners(owners: &[OwnerReference], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let mut first: Option<&OwnerReference> = None;
    for owner in owners {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        if version.is_empty() {
            errors.invalid(at.child("apiVersion"), &owner.api_version, "version must not be empty");
        }
        for (name, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(at.child(name), value, "must not be empty");
            }
        }
        if (group, version, owner.kind.as_str()) == ("", "v1", "Event") {
            errors.invalid(at, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        match first {
            _ if owner.controller != Some(true) => {}
            None => first = Some(owner),
            Some(first) => {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                    first.kind, first.name, owner.kind, owner.name
                );
                errors.invalid(at, &owners, why);
            }
        }
    }
}

fn finalizers(finalizers: &[String], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for name in finalizers {
        check::qualified(name, at, errors);
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(at, &finalizers, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Built-in kinds take only finalizers that are known or have a domain.
pub fn builtin_finalizers(meta: &ObjectMeta, errors: &mut FieldErrors) {
    let at = ROOT.child("finalizers");
    for (i, name) in list(&meta.finalizers).iter().enumerate() {
        finalizer_name(name, at.index(i), errors);
    }
}

/// A finalizer's name is known or has a domain.
pub fn finalizer_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.invalid(at, &name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn managed_fields(entries: &[ManagedFieldsEntry], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, entry) in entries.iter().enumerate() {
        let at = at.index(i);
        let operation = check::text(&entry.operation);
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(at.child("operation"), &operation, "must be `Apply` or `Update`");
        }
        let kind = check::text(&entry.fields_type);
        if !matches!(kind, "" | "FieldsV1") {
            errors.invalid(at.child("fieldsType"), &kind, "must be `FieldsV1`");
        }
        manager(check::text(&entry.manager), at.child("manager"), errors);
        if check::text(&entry.subresource).len() > MAX_SUBRESOURCE {
            errors.too_long(at.child("subresource"), MAX_SUBRESOURCE);
        }
    }
}

/// Checks a field manager's name.
pub fn manager(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if name.len() > MAX_MANAGER {
        errors.too_long(at, MAX_MANAGER);
    }
    for (i, c) in name.char_indices().filter(|(_, c)| c.is_control()) {
        errors.invalid(at, &name, format!("invalid character U+{:04X} (at position {i})", u32::from(c)));
    }
}

/// Checks what an update may not change. What both have must have passed [`validate`] too.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    if old.deletion_timestamp.is_some() {
        let before = list(&old.finalizers);
        let mut added: Vec<&String> = list(&new.finalizers).iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            added.sort_unstable();
            added.dedup();
            let names = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{names}}}"
            );
            errors.forbidden(ROOT.child("finalizers"), &why);
        }
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        let generation = new.generation.unwrap_or(0);
        errors.invalid(ROOT.child("generation"), &generation, "must not be decremented");
    }
    for (field, new, old) in [
        ("name", &new.name, &old.name),
        ("namespace", &new.namespace, &old.namespace),
        ("uid", &new.uid, &old.uid),
    ] {
        if check::text(new) != check::text(old) {
            errors.invalid(ROOT.child(field), &check::text(new), IMMUTABLE);
        }
    }
    check::immutable(
        &new.creation_timestamp,
        &old.creation_timestamp,
        ROOT.child("creationTimestamp"),
        errors,
    );
    check::immutable(
        &new.deletion_timestamp,
        &old.deletion_timestamp,
        ROOT.child("deletionTimestamp"),
        errors,
    );
    check::immutable(
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
        ROOT.child("deletionGracePeriodSeconds"),
        errors,
    );
}
