//! IngressClass: a controller that serves ingresses.

use super::typed_reference;
use crate::check::immutable;
use crate::kind::{age_column, name_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};

const MAX_CONTROLLER: usize = 250;
const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of IngressClass.
pub static KIND: Kind<IngressClass> = Kind {
    has_generation: true,
    default: |c| {
        if let Some(parameters) = c.spec.as_mut().and_then(|s| s.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    },
    validate,
    validate_update: |new, old, errors| {
        immutable(&controller(new), &controller(old), SPEC.child("controller"), errors);
        validate(new, errors);
    },
    columns: &[
        name_column(|c: &IngressClass, _| {
            crate::check::marked_default(&c.metadata, "ingressclass.kubernetes.io/is-default-class")
        }),
        Column::text("Controller", "The controller that serves it.", |c: &IngressClass, _| {
            controller(c).into()
        }),
        Column::text("Parameters", "An object with further settings.", |c: &IngressClass, _| {
            match c.spec.as_ref().and_then(|s| s.parameters.as_ref()) {
                Some(p) => {
                    let group = p.api_group.as_ref().map(|g| format!(".{g}")).unwrap_or_default();
                    format!("{}{group}/{}", p.kind, p.name).into()
                }
                None => "<none>".into(),
            }
        }),
        age_column(),
    ],
    ..Kind::cluster("ingressclass", "ingressclasses")
};

fn controller(c: &IngressClass) -> &str {
    c.spec.as_ref().and_then(|s| s.controller.as_deref()).unwrap_or_default()
}

fn validate(c: &IngressClass, errors: &mut FieldErrors) {
    let at = SPEC.child("controller");
    if controller(c).len() > MAX_CONTROLLER {
        errors.too_long(at, MAX_CONTROLLER);
    }
    domain_prefixed_path(controller(c), at, errors);
    if let Some(parameters) = c.spec.as_ref().and_then(|s| s.parameters.as_ref()) {
        validate_parameters(parameters, SPEC.child("parameters"), errors);
    }
}

fn domain_prefixed_path(text: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let (host, path) = match text.split_once('/') {
        _ if text.is_empty() => return errors.required(at, ""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            return errors.invalid(at, &text, why);
        }
    };
    errors.all_invalid(at, host, names::dns1123_subdomain(host));
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.invalid(at, &path, why);
    }
}

fn validate_parameters(p: &IngressClassParametersReference, at: FieldPath<'_>, errors: &mut FieldErrors) {
    typed_reference(p.api_group.as_deref(), &p.kind, &p.name, at, errors);
    let namespace = at.child("namespace");
    match (p.scope.as_deref(), p.namespace.as_deref()) {
        (None, _) => errors.required(at.child("scope"), ""),
        (Some("Namespace"), None) => {
            errors.required(namespace, "`parameters.scope` is set to 'Namespace'");
        }
        (Some("Namespace"), Some(name)) => errors.all_invalid(namespace, name, names::dns1123_label(name)),
        (Some("Cluster"), Some(_)) => errors.forbidden(namespace, "`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), None) => {}
        (Some(other), _) => errors.not_supported(at.child("scope"), other, &["Cluster", "Namespace"]),
    }
}
