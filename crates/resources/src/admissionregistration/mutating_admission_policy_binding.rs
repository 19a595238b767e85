//! MutatingAdmissionPolicyBinding: where a policy holds.

use super::policies;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicyBinding, MutatingAdmissionPolicyBindingSpec,
};

/// The rules of MutatingAdmissionPolicyBinding.
pub static KIND: Kind<MutatingAdmissionPolicyBinding> = Kind {
    has_generation: true,
    stored_version: "v1beta1",
    unconditional_update: false,
    default: |b| policies::default_resources(b.spec.as_mut().and_then(|s| s.match_resources.as_mut())),
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[
        Column::text("PolicyName", "The policy.", |b: &MutatingAdmissionPolicyBinding, _| {
            b.spec.as_ref().and_then(|s| s.policy_name.clone()).unwrap_or_default().into()
        }),
        Column::text("ParamRef", "Its parameters.", |b: &MutatingAdmissionPolicyBinding, _| {
            policies::param_ref_cell(b.spec.as_ref().and_then(|s| s.param_ref.as_ref()))
        }),
        age_column(),
    ],
    ..Kind::cluster("mutatingadmissionpolicybinding", "mutatingadmissionpolicybindings")
        .called(&[], &["api-extensions"])
};

fn validate(b: &MutatingAdmissionPolicyBinding, errors: &mut FieldErrors) {
    let none = MutatingAdmissionPolicyBindingSpec::default();
    let spec = b.spec.as_ref().unwrap_or(&none);
    let at = FieldPath::root("spec");
    policies::policy_name(spec.policy_name.as_deref().unwrap_or_default(), at, errors);
    policies::param_ref(spec.param_ref.as_ref(), at.child("paramRef"), errors);
    let resources = spec.match_resources.as_ref();
    policies::resources(resources, false, at.child("matchResources"), errors);
    policies::mutable(resources.and_then(|r| r.resource_rules.as_ref()), at.child("matchResources"), errors);
}
