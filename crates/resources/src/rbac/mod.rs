//! The group `rbac.authorization.k8s.io`, and what its kinds share.

pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;

use crate::check;
use crate::kind::path_segment_name;
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

fn validate_rules(rules: &[PolicyRule], namespaced: bool, errors: &mut FieldErrors) {
    let root = FieldPath::root("rules");
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    for (i, rule) in rules.iter().enumerate() {
        let at = root.index(i);
        if rule.verbs.is_empty() {
            errors.required(at.child("verbs"), "verbs must contain at least one value");
        }
        if some(&rule.non_resource_urls) {
            if namespaced {
                errors.invalid(
                    at.child("nonResourceURLs"),
                    &rule.non_resource_urls,
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if some(&rule.api_groups) || some(&rule.resources) || some(&rule.resource_names) {
                errors.invalid(
                    at.child("nonResourceURLs"),
                    &rule.non_resource_urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if !some(&rule.api_groups) {
            errors.required(at.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if !some(&rule.resources) {
            errors.required(at.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn default_binding(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    if role.api_group.as_ref().is_none_or(String::is_empty) {
        role.api_group = Some(GROUP.into());
    }
    for subject in subjects.iter_mut().flatten().filter(|s| matches!(s.kind.as_str(), "User" | "Group")) {
        if subject.api_group.as_ref().is_none_or(String::is_empty) {
            subject.api_group = Some(GROUP.into());
        }
    }
}

fn validate_binding(role: &RoleRef, subjects: &[Subject], namespaced: bool, errors: &mut FieldErrors) {
    let at = FieldPath::root("roleRef");
    if role.api_group.as_deref() != Some(GROUP) {
        errors.not_supported(at.child("apiGroup"), role.api_group.as_deref().unwrap_or_default(), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(at.child("kind"), &role.kind, kinds);
    }
    if role.name.is_empty() {
        errors.required(at.child("name"), "");
    } else {
        errors.all_invalid(at.child("name"), &role.name, path_segment_name(&role.name, false));
    }
    let root = FieldPath::root("subjects");
    for (i, subject) in subjects.iter().enumerate() {
        let at = root.index(i);
        if subject.name.is_empty() {
            errors.required(at.child("name"), "");
        }
        match subject.kind.as_str() {
            "ServiceAccount" => {
                if !subject.name.is_empty() {
                    check::subdomain(&subject.name, at.child("name"), errors);
                }
                if check::is_set(&subject.api_group) {
                    errors.not_supported(at.child("apiGroup"), check::text(&subject.api_group), &[""]);
                }
                if !namespaced && subject.namespace.as_ref().is_none_or(String::is_empty) {
                    errors.required(at.child("namespace"), "");
                }
            }
            "User" | "Group" => {
                if subject.api_group.as_deref() != Some(GROUP) {
                    errors.not_supported(
                        at.child("apiGroup"),
                        subject.api_group.as_deref().unwrap_or_default(),
                        &[GROUP],
                    );
                }
            }
            other => errors.not_supported(at.child("kind"), other, &["ServiceAccount", "User", "Group"]),
        }
    }
}

/// What a binding grants may not change, since whoever may bind one role may not bind all.
fn validate_same_role(new: &RoleRef, old: &RoleRef, errors: &mut FieldErrors) {
    if new != old {
        let group = check::text(&new.api_group);
        let value = json!({"APIGroup": group, "Kind": new.kind, "Name": new.name});
        errors.invalid(FieldPath::root("roleRef"), &value, "cannot change roleRef");
    }
}

fn subjects(subjects: Option<&Vec<Subject>>, kind: &str) -> Value {
    let name = |s: &Subject| match &s.namespace {
        Some(namespace) if kind == "ServiceAccount" && !namespace.is_empty() => {
            format!("{namespace}/{}", s.name)
        }
        _ => s.name.clone(),
    };
    subjects.into_iter().flatten().filter(|s| s.kind == kind).map(name).collect::<Vec<_>>().join(", ").into()
}
