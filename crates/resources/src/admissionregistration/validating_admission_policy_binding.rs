//! ValidatingAdmissionPolicyBinding: where a policy holds, and what follows from it.

use super::policies;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;

/// The rules of ValidatingAdmissionPolicyBinding.
pub static KIND: Kind<ValidatingAdmissionPolicyBinding> = Kind {
    has_generation: true,
    unconditional_update: false,
    default: |b| policies::default_resources(b.spec.match_resources.as_mut()),
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[
        Column::text("PolicyName", "The policy.", |b: &ValidatingAdmissionPolicyBinding, _| {
            b.spec.policy_name.clone().into()
        }),
        Column::text("ParamRef", "Its parameters.", |b: &ValidatingAdmissionPolicyBinding, _| {
            policies::param_ref_cell(b.spec.param_ref.as_ref())
        }),
        age_column(),
    ],
    ..Kind::cluster("validatingadmissionpolicybinding", "validatingadmissionpolicybindings")
        .called(&[], &["api-extensions"])
};

fn validate(b: &ValidatingAdmissionPolicyBinding, errors: &mut FieldErrors) {
    let at = FieldPath::root("spec");
    policies::policy_name(&b.spec.policy_name, at, errors);
    policies::param_ref(b.spec.param_ref.as_ref(), at.child("paramRef"), errors);
    policies::resources(b.spec.match_resources.as_ref(), false, at.child("matchResources"), errors);
    let actions = &b.spec.validation_actions;
    let at = at.child("validationActions");
    for (i, action) in actions.iter().enumerate() {
        if !matches!(action.as_str(), "Audit" | "Deny" | "Warn") {
            errors.not_supported(at.index(i), action, &["Audit", "Deny", "Warn"]);
        }
        if actions.iter().take(i).any(|a| a == action) {
            errors.duplicate(at.index(i), action);
        }
    }
    let has = |wanted: &str| actions.iter().any(|a| a == wanted);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(at, actions, why);
    }
    if actions.is_empty() {
        errors.required(at, "at least one validation action is required");
    }
}
