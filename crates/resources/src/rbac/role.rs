//! Role.

use crate::kind::path_segment_name;
use crate::{Column, Kind};
use api::field::FieldErrors;
use k8s_openapi::api::rbac::v1::Role;

/// The rules of Role.
pub static KIND: Kind<Role> = Kind {
    create_on_update: true,
    name_rule: path_segment_name,
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[Column::text("Created At", "When it was created.", |r: &Role, _| {
        serde_json::to_value(&r.metadata.creation_timestamp).unwrap_or_default()
    })],
    ..Kind::namespaced("role", "roles")
};

fn validate(role: &Role, errors: &mut FieldErrors) {
    super::validate_rules(role.rules.as_deref().unwrap_or_default(), true, errors);
}
