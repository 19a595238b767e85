//! RoleBinding.

use crate::kind::{age_column, path_segment_name};
use crate::{Column, Kind};
use api::field::FieldErrors;
use k8s_openapi::api::rbac::v1::RoleBinding;

/// The rules of RoleBinding.
pub static KIND: Kind<RoleBinding> = Kind {
    create_on_update: true,
    name_rule: path_segment_name,
    default: |b| super::default_binding(&mut b.role_ref, &mut b.subjects),
    validate,
    validate_update: |new, old, errors| {
        validate(new, errors);
        super::validate_same_role(&new.role_ref, &old.role_ref, errors);
    },
    columns: &[
        Column::text("Role", "Whose rules it grants.", |b: &RoleBinding, _| {
            format!("{}/{}", b.role_ref.kind, b.role_ref.name).into()
        }),
        age_column(),
        Column::text("Users", "Users in the roleBinding", |b: &RoleBinding, _| {
            super::subjects(b.subjects.as_ref(), "User")
        })
        .wide(),
        Column::text("Groups", "Groups in the roleBinding", |b: &RoleBinding, _| {
            super::subjects(b.subjects.as_ref(), "Group")
        })
        .wide(),
        Column::text("ServiceAccounts", "ServiceAccounts in the roleBinding", |b: &RoleBinding, _| {
            super::subjects(b.subjects.as_ref(), "ServiceAccount")
        })
        .wide(),
    ],
    ..Kind::namespaced("rolebinding", "rolebindings")
};

fn validate(b: &RoleBinding, errors: &mut FieldErrors) {
    super::validate_binding(&b.role_ref, b.subjects.as_deref().unwrap_or_default(), true, errors);
}
