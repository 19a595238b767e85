//! ClusterRole.

use crate::kind::path_segment_name;
use crate::{Column, Kind, check};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

/// The rules of ClusterRole.
pub static KIND: Kind<ClusterRole> = Kind {
    create_on_update: true,
    name_rule: path_segment_name,
    validate,
    validate_update,
    columns: &[Column::text("Created At", "When it was created.", |r: &ClusterRole, _| {
        serde_json::to_value(&r.metadata.creation_timestamp).unwrap_or_default()
    })],
    ..Kind::cluster("clusterrole", "clusterroles")
};

/// What an update must not spoil: selectors that were no labels' before may stay so.
fn validate_update(new: &ClusterRole, old: &ClusterRole, errors: &mut FieldErrors) {
    let mut faults = FieldErrors::default();
    let root = FieldPath::root("aggregationRule");
    let at = root.child("clusterRoleSelectors");
    for selector in selectors(old) {
        check::label_selector(Some(selector), false, at, &mut faults);
    }
    validate_with(new, !faults.is_empty(), errors);
}

fn validate(role: &ClusterRole, errors: &mut FieldErrors) {
    validate_with(role, false, errors);
}

fn selectors(role: &ClusterRole) -> &[LabelSelector] {
    role.aggregation_rule.as_ref().map_or(&[], |rule| check::list(&rule.cluster_role_selectors))
}

fn validate_with(role: &ClusterRole, lenient: bool, errors: &mut FieldErrors) {
    super::validate_rules(check::list(&role.rules), false, errors);
    if role.aggregation_rule.is_none() {
        return;
    }
    let root = FieldPath::root("aggregationRule");
    let at = root.child("clusterRoleSelectors");
    if selectors(role).is_empty() {
        errors.required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in selectors(role).iter().enumerate() {
        let before = errors.len();
        check::label_selector(Some(selector), lenient, at.index(i), errors);
        if errors.len() > before {
            errors.invalid(at.index(i), &Value::Null, "invalid label selector.");
        }
    }
}
