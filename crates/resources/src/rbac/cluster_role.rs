//! ClusterRole.

use crate::kind::path_segment_name;
use crate::{Column, Kind};
use api::field::FieldErrors;
use k8s_openapi::api::rbac::v1::ClusterRole;

/// The rules of ClusterRole.
pub static KIND: Kind<ClusterRole> = Kind {
    create_on_update: true,
    name_rule: path_segment_name,
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[Column::text("Created At", "When it was created.", |r: &ClusterRole, _| {
        serde_json::to_value(&r.metadata.creation_timestamp).unwrap_or_default()
    })],
    ..Kind::cluster("clusterrole", "clusterroles")
};

fn validate(role: &ClusterRole, errors: &mut FieldErrors) {
    super::validate_rules(role.rules.as_deref().unwrap_or_default(), false, errors);
}
