//! A container's variables.

use super::projected::{object_field, resource_field};
use crate::check::{self, is_set, required, text};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PodSpec};

/// What variables may show of a pod.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn validate(vars: &[EnvVar], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, var) in vars.iter().enumerate() {
        let at = at.index(i);
        if !required(&var.name, at.child("name"), errors) {
            errors.all_invalid(at.child("name"), &var.name, names::env_var_name(&var.name));
        }
        if var.value_from.is_some() {
            value_from(var, at.child("valueFrom"), errors);
        }
    }
}

fn value_from(var: &EnvVar, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(from) = &var.value_from else { return };
    let mut sources = 0;
    if let Some(field) = &from.field_ref {
        sources += 1;
        object_field(field, FIELDS, at.child("fieldRef"), errors);
    }
    if let Some(resource) = &from.resource_field_ref {
        sources += 1;
        resource_field(resource, false, at.child("resourceFieldRef"), errors);
    }
    for (kind, of) in [
        ("configMapKeyRef", from.config_map_key_ref.as_ref().map(|c| (&c.name, &c.key))),
        ("secretKeyRef", from.secret_key_ref.as_ref().map(|s| (&s.name, &s.key))),
    ] {
        let Some((name, key)) = of else { continue };
        sources += 1;
        let at = at.child(kind);
        check::subdomain(name, at.child("name"), errors);
        if !required(key, at.child("key"), errors) {
            errors.all_invalid(at.child("key"), key, names::config_map_key(key));
        }
    }
    if let Some(file) = &from.file_key_ref {
        sources += 1;
        let at = at.child("fileKeyRef");
        if !required(&file.key, at.child("key"), errors) {
            errors.all_invalid(at.child("key"), &file.key, names::env_var_name(&file.key));
        }
        check::required_label(&file.volume_name, at.child("volumeName"), errors);
        if !required(&file.path, at.child("path"), errors) {
            check::no_backsteps(&file.path, at.child("path"), errors);
        }
    }
    let why = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if is_set(&var.value) => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(at, &"", why);
}

pub(super) fn validate_from(sources: &[EnvFromSource], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, source) in sources.iter().enumerate() {
        let here = at.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            errors.all_invalid(here.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|c| &c.name)),
            ("secretRef", source.secret_ref.as_ref().map(|s| &s.name)),
        ];
        for (kind, name) in names {
            let Some(name) = name else { continue };
            let here = here.child(kind);
            if !required(name, here.child("name"), errors) {
                let faults = crate::kind::subdomain_name(name, true);
                errors.all_invalid(here.child("name"), name, faults);
            }
        }
        match names.iter().filter(|(_, name)| name.is_some()).count() {
            1 => {}
            0 => errors.invalid(at, &"", "must specify one of: `configMapRef` or `secretRef`"),
            _ => errors.invalid(at, &"", "may not have more than one field specified at a time"),
        }
    }
}

/// Variables that are read from files name a volume that is an empty directory.
pub(super) fn validate_files(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    super::containers::each(spec, at, |c, at| {
        let env = at.child("env");
        for (i, var) in c.env.iter().enumerate() {
            let Some(file) = var.value_from.as_ref().and_then(|v| v.file_key_ref.as_ref()) else { continue };
            let var_at = env.index(i);
            let from = var_at.child("valueFrom");
            let file_at = from.child("fileKeyRef");
            let volume = check::list(&spec.volumes).iter().rfind(|v| v.name == file.volume_name);
            match volume {
                None => errors.not_found(file_at.child("volumeName"), &file.volume_name),
                Some(v) if v.empty_dir.is_none() => errors.invalid(
                    file_at.child("volumeName"),
                    &file.volume_name,
                    "referenced volume must be of type emptyDir",
                ),
                Some(_) => {}
            }
        }
    });
}
