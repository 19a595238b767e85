//! Where a container finds volumes: as directories and as block devices.

use super::containers::Common;
use super::volumes::Volumes;
use crate::check::{self, is_set, required, text};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::VolumeMount;

pub(super) fn validate(c: &Common<'_>, volumes: &Volumes<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, m) in c.mounts.iter().enumerate() {
        let here = at.index(i);
        required(&m.name, here.child("name"), errors);
        if volumes.get(&m.name).is_none() {
            errors.not_found(here.child("name"), &m.name);
        }
        required(&m.mount_path, here.child("mountPath"), errors);
        if c.mounts[..i].iter().any(|other| other.mount_path == m.mount_path) {
            errors.invalid(here.child("mountPath"), &m.mount_path, "must be unique");
        }
        if c.devices.iter().any(|d| d.name == m.name) {
            errors.invalid(here.child("name"), &m.name, "must not already exist in volumeDevices");
        }
        if c.devices.iter().any(|d| d.device_path == m.mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(here.child("mountPath"), &m.mount_path, why);
        }
        if is_set(&m.sub_path) {
            check::descending_path(text(&m.sub_path), at.child("subPath"), errors);
        }
        if is_set(&m.sub_path_expr) {
            if is_set(&m.sub_path) {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(here.child("subPathExpr"), &m.sub_path_expr, why);
            }
            check::descending_path(text(&m.sub_path_expr), at.child("subPathExpr"), errors);
        }
        if let Some(propagation) = &m.mount_propagation {
            let at = at.child("mountPropagation");
            check::one_of(propagation, &["Bidirectional", "HostToContainer", "None"], at, errors);
            let privileged = c.security.is_some_and(|s| s.privileged == Some(true));
            if propagation == "Bidirectional" && !privileged {
                let why = "Bidirectional mount propagation is available only to privileged containers";
                errors.forbidden(at, why);
            }
        }
        recursive_read_only(m, at.child("recursiveReadOnly"), errors);
    }
}

fn recursive_read_only(m: &VolumeMount, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match m.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if m.read_only != Some(true) {
                errors.forbidden(at, "may only be specified when readOnly is true");
            }
            if m.mount_propagation.as_deref().is_some_and(|p| p != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(at, why);
            }
        }
        Some(other) => errors.not_supported(at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

pub(super) fn validate_devices(
    c: &Common<'_>,
    volumes: &Volumes<'_>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (i, d) in c.devices.iter().enumerate() {
        let at = at.index(i);
        let before = &c.devices[..i];
        required(&d.name, at.child("name"), errors);
        if !d.name.is_empty() && before.iter().any(|other| other.name == d.name) {
            errors.invalid(at.child("name"), &d.name, "must be unique");
        }
        match volumes.get(&d.name) {
            None => errors.not_found(at.child("name"), &d.name),
            Some(v) if v.persistent_volume_claim.is_none() && v.ephemeral.is_none() => errors.invalid(
                at.child("name"),
                &d.name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        required(&d.device_path, at.child("devicePath"), errors);
        if before.iter().any(|other| other.device_path == d.device_path) {
            errors.invalid(at.child("devicePath"), &d.device_path, "must be unique");
        }
        if d.device_path.split('/').any(|p| p == "..") {
            errors.invalid(at.child("devicePath"), &d.device_path, "can not contain backsteps ('..')");
        }
        if c.mounts.iter().any(|m| m.name == d.name) {
            errors.invalid(at.child("name"), &d.name, "must not already exist in volumeMounts");
        }
        if c.mounts.iter().any(|m| m.mount_path == d.device_path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(at.child("devicePath"), &d.device_path, why);
        }
    }
}
