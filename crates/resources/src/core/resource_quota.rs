//! ResourceQuota: what a namespace may use in all.

use crate::check::{IMMUTABLE, list};
use crate::core::pod_spec::resources::{self, Amounts};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use serde_json::Value;

/// The rules of ResourceQuota.
pub static KIND: Kind<ResourceQuota> = Kind {
    answers_deleted: true,
    has_status: true,
    prepare_create: |q, _| q.status = None,
    validate: |q, errors| validate(&spec(q), errors),
    validate_update: |new, old, errors| {
        let (new, old) = (spec(new), spec(old));
        validate(&new, errors);
        let sorted = |s: &ResourceQuotaSpec| {
            let mut scopes = list(&s.scopes).to_vec();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        };
        if sorted(&new) != sorted(&old) {
            errors.invalid(FieldPath::root("spec").child("scopes"), &new.scopes, IMMUTABLE);
        }
    },
    validate_status: |new, _, errors| {
        let root = FieldPath::root("status");
        let status = new.status.as_ref();
        amounts(status.and_then(|s| s.hard.as_ref()), root.child("hard"), errors);
        amounts(status.and_then(|s| s.used.as_ref()), root.child("used"), errors);
    },
    columns: &[
        Column::text(
            "Request",
            "Request represents a minimum amount of cpu/memory that a container may consume.",
            |q: &ResourceQuota, _| usage(q, false),
        ),
        Column::text(
            "Limit",
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            |q: &ResourceQuota, _| usage(q, true),
        ),
        age_column(),
    ],
    ..Kind::namespaced("resourcequota", "resourcequotas").called(&["quota"], &[])
};

fn spec(q: &ResourceQuota) -> ResourceQuotaSpec {
    q.spec.clone().unwrap_or_default()
}

fn usage(q: &ResourceQuota, limits: bool) -> Value {
    let Some(status) = &q.status else { return "".into() };
    let used = |name: &str| status.used.as_ref().and_then(|u| u.get(name)).map_or("0", |q| &q.0);
    let shown: Vec<String> = status
        .hard
        .iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.0))
        .collect();
    shown.join(", ").into()
}

fn amounts(amounts: Option<&Amounts>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (name, value) in amounts.into_iter().flatten() {
        let at = at.key(name);
        resources::name(name, at, errors);
        if !name.contains('/') && !resources::is_quota_name(name) {
            errors.invalid(at, name, "must be a standard resource for quota");
        }
        resources::quantity(name, value, at, errors);
    }
}

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "VolumeAttributesClass"
            | "CrossNamespacePodAffinity"
    )
}

/// Whether a resource is counted by what a scope selects.
fn counts(scope: &str, resource: &str) -> bool {
    let computed = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"]
        .contains(&resource);
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        scope if is_scope(scope) => resource == "pods" || computed,
        _ => true,
    }
}

fn conflict(scopes: &[&str]) -> usize {
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]]
        .iter()
        .filter(|pair| pair.iter().all(|scope| scopes.contains(scope)))
        .count()
}

fn validate(s: &ResourceQuotaSpec, errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    amounts(s.hard.as_ref(), root.child("hard"), errors);
    let uncounted = |scope: &str| {
        let names = s.hard.iter().flatten().map(|(name, _)| name);
        names.filter(|n| resources::is_quota_name(n) && !counts(scope, n)).count()
    };
    let scopes = list(&s.scopes);
    let at = root.child("scopes");
    for scope in scopes {
        if !is_scope(scope) {
            errors.invalid(at, &scopes, "unsupported scope");
        }
        for _ in 0..uncounted(scope) {
            errors.invalid(at, &scopes, "unsupported scope applied to resource");
        }
    }
    for _ in 0..conflict(&scopes.iter().map(String::as_str).collect::<Vec<_>>()) {
        errors.invalid(at, &scopes, "conflicting scopes");
    }
    let Some(selector) = &s.scope_selector else { return };
    let selector_at = root.child("scopeSelector");
    let at = selector_at.child("matchExpressions");
    let expressions = list(&selector.match_expressions);
    for e in expressions {
        if !is_scope(&e.scope_name) {
            errors.invalid(at.child("scopeName"), &e.scope_name, "unsupported scope");
        }
        for _ in 0..uncounted(&e.scope_name) {
            errors.invalid(at, selector, "unsupported scope applied to resource");
        }
        let exists = !matches!(e.scope_name.as_str(), "PriorityClass" | "VolumeAttributesClass");
        if is_scope(&e.scope_name) && exists && e.operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(at.child("operator"), &e.operator, why);
        }
        let values = list(&e.values);
        match e.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.required(
                at.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                at.child("values"),
                &values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(at.child("operator"), &other, "not a valid selector operator"),
        }
    }
    let names: Vec<&str> = expressions.iter().map(|e| e.scope_name.as_str()).collect();
    for _ in 0..conflict(&names) {
        errors.invalid(at, &scopes, "conflicting scopes");
    }
}
