//! ValidatingAdmissionPolicy: expressions that objects have to fulfil.

use super::policies::{self, NO_EXPRESSION};
use super::rules::{self, FAILURE_POLICIES, required_word, word};
use crate::check::{self, anything, required_text};
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};

const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE: usize = 5 << 10;

/// The rules of ValidatingAdmissionPolicy.
pub static KIND: Kind<ValidatingAdmissionPolicy> = Kind {
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    default: |p| {
        let spec = p.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        policies::default_resources(spec.match_constraints.as_mut());
    },
    validate: |p, errors| validate(p, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    validate_status: |new, _, errors| {
        let status = new.status.clone().unwrap_or_default();
        let at = FieldPath::root("status");
        let warnings = status.type_checking.and_then(|t| t.expression_warnings).unwrap_or_default();
        let checking = at.child("typeChecking");
        let list = checking.child("expressionWarnings");
        for (i, warning) in warnings.iter().enumerate() {
            required_text(&warning.warning, list.index(i).child("warning"), "", anything, errors);
            required_text(warning.field_ref.trim(), list.index(i).child("fieldRef"), "", anything, errors);
        }
        check::conditions(status.conditions.as_ref(), at.child("conditions"), errors);
    },
    columns: &[
        Column::number("Validations", "How many rules it has.", |p: &ValidatingAdmissionPolicy, _| {
            p.spec.as_ref().and_then(|s| s.validations.as_ref()).map_or(0, Vec::len).into()
        }),
        Column::text("ParamKind", "The kind of its parameters.", |p: &ValidatingAdmissionPolicy, _| {
            policies::param_kind_cell(p.spec.as_ref().and_then(|s| s.param_kind.as_ref()))
        }),
        age_column(),
    ],
    ..Kind::cluster("validatingadmissionpolicy", "validatingadmissionpolicies")
        .called(&[], &["api-extensions"])
};

fn validate(
    p: &ValidatingAdmissionPolicy,
    old: Option<&ValidatingAdmissionPolicy>,
    errors: &mut FieldErrors,
) {
    let none = ValidatingAdmissionPolicySpec::default();
    let spec = p.spec.as_ref().unwrap_or(&none);
    let at = FieldPath::root("spec");
    required_word(spec.failure_policy.as_deref(), &FAILURE_POLICIES, at.child("failurePolicy"), errors);
    policies::param_kind(spec.param_kind.as_ref(), at.child("paramKind"), errors);
    policies::resources(spec.match_constraints.as_ref(), true, at.child("matchConstraints"), errors);
    let kept = old
        .and_then(|o| o.spec.as_ref())
        .is_some_and(|o| o.param_kind == spec.param_kind && o.match_conditions == spec.match_conditions);
    if !kept {
        rules::conditions(spec.match_conditions.as_ref(), at.child("matchConditions"), errors);
    }
    policies::variables(spec.variables.as_ref(), at.child("variables"), errors);
    let validations = spec.validations.as_deref().unwrap_or_default();
    let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.required(at.child("validations"), why);
        return errors.required(at.child("auditAnnotations"), why);
    }
    for (i, validation) in validations.iter().enumerate() {
        validate_one(validation, at.child("validations").index(i), errors);
    }
    let list = at.child("auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.invalid(list, &annotations, why);
    }
    let name = p.metadata.name.as_deref().unwrap_or_default();
    for (i, annotation) in annotations.iter().enumerate() {
        validate_annotation(annotation, name, list.index(i), errors);
        if annotations.iter().take(i).any(|a| a.key == annotation.key) {
            errors.duplicate(list.index(i).child("key"), &annotation.key);
        }
    }
}

fn validate_one(v: &Validation, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required_text(v.expression.trim(), at.child("expression"), NO_EXPRESSION, anything, errors);
    let blank = |text: Option<&str>| text.is_some_and(|t| !t.is_empty() && t.trim().is_empty());
    if blank(v.message_expression.as_deref()) {
        let why = "must be non-empty if specified";
        errors.invalid(at.child("messageExpression"), &v.message_expression, why);
    }
    let message = v.message.as_deref();
    if blank(message) {
        errors.invalid(at.child("message"), &message, "must be non-empty if specified");
    } else if message.is_some_and(|m| m.trim().contains(['\n', '\r'])) {
        errors.invalid(at.child("message"), &message, "must not contain line breaks");
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    word(v.reason.as_deref(), &reasons, at.child("reason"), errors);
}

fn validate_annotation(a: &AuditAnnotation, name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let here = at.child("key");
    if name.is_empty() {
        errors.invalid(here, &a.key, "requires metadata.name be non-empty");
    } else {
        let full = format!("{name}/{}", a.key);
        errors.all_invalid(here, &full, names::qualified_name(&full));
    }
    let value = a.value_expression.trim();
    let here = at.child("valueExpression");
    if value.is_empty() {
        errors.required(here, "valueExpression is not specified");
    } else if value.len() > MAX_VALUE {
        errors.required(here, &format!("must not exceed {MAX_VALUE} bytes in length"));
    }
}
