//! MutatingAdmissionPolicy: expressions by which objects are changed.

use super::policies;
use super::rules::{self, FAILURE_POLICIES, required_word};
use crate::check::{anything, required_text};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicySpec, Mutation,
};

/// The rules of MutatingAdmissionPolicy.
pub static KIND: Kind<MutatingAdmissionPolicy> = Kind {
    has_generation: true,
    stored_version: "v1beta1",
    unconditional_update: false,
    default: |p| {
        let spec = p.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        policies::default_resources(spec.match_constraints.as_mut());
    },
    validate: |p, errors| validate(p, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    columns: &[
        Column::number("Mutations", "How many changes it makes.", |p: &MutatingAdmissionPolicy, _| {
            p.spec.as_ref().and_then(|s| s.mutations.as_ref()).map_or(0, Vec::len).into()
        }),
        Column::text("ParamKind", "The kind of its parameters.", |p: &MutatingAdmissionPolicy, _| {
            policies::param_kind_cell(p.spec.as_ref().and_then(|s| s.param_kind.as_ref()))
        }),
        age_column(),
    ],
    ..Kind::cluster("mutatingadmissionpolicy", "mutatingadmissionpolicies").called(&[], &["api-extensions"])
};

fn validate(p: &MutatingAdmissionPolicy, old: Option<&MutatingAdmissionPolicy>, errors: &mut FieldErrors) {
    let none = MutatingAdmissionPolicySpec::default();
    let spec = p.spec.as_ref().unwrap_or(&none);
    let at = FieldPath::root("spec");
    required_word(spec.failure_policy.as_deref(), &FAILURE_POLICIES, at.child("failurePolicy"), errors);
    policies::param_kind(spec.param_kind.as_ref(), at.child("paramKind"), errors);
    let resources = spec.match_constraints.as_ref();
    policies::resources(resources, true, at.child("matchConstraints"), errors);
    let named = resources.and_then(|r| r.resource_rules.as_ref());
    policies::mutable(named, at.child("matchConstraints"), errors);
    let kept = old
        .and_then(|o| o.spec.as_ref())
        .is_some_and(|o| o.param_kind == spec.param_kind && o.match_conditions == spec.match_conditions);
    if !kept {
        rules::conditions(spec.match_conditions.as_ref(), at.child("matchConditions"), errors);
    }
    policies::variables(spec.variables.as_ref(), at.child("variables"), errors);
    let list = at.child("mutations");
    if spec.mutations.as_ref().is_none_or(Vec::is_empty) {
        errors.required(list, "mutations must contain at least one item");
    }
    for (i, mutation) in spec.mutations.iter().flatten().enumerate() {
        validate_one(mutation, list.index(i), errors);
    }
    let policies = ["IfNeeded", "Never"];
    required_word(spec.reinvocation_policy.as_deref(), &policies, at.child("reinvocationPolicy"), errors);
}

fn validate_one(m: &Mutation, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let apply = m.apply_configuration.as_ref().map(|a| a.expression.as_deref().unwrap_or_default());
    let json = m.json_patch.as_ref().map(|j| j.expression.as_deref().unwrap_or_default());
    let (wanted, mine, other, theirs) = match m.patch_type.as_str() {
        "" => return errors.required(at.child("patchType"), ""),
        "JSONPatch" => ("jsonPatch", json, "applyConfiguration", apply),
        "ApplyConfiguration" => ("applyConfiguration", apply, "jsonPatch", json),
        patch => {
            let types = ["ApplyConfiguration", "JSONPatch"];
            return errors.not_supported(at.child("patchType"), patch, &types);
        }
    };
    match mine {
        None => {
            let why = format!("must be specified when patchType is {}", m.patch_type);
            errors.required(at.child(wanted), &why);
        }
        Some(text) => {
            required_text(text.trim(), at.child(wanted).child("expression"), "", anything, errors);
        }
    }
    if theirs.is_some() {
        let why = format!("must not be specified when patchType is {}", m.patch_type);
        errors.invalid(at.child(other), &format!("{{{other}}}"), why);
    }
}
