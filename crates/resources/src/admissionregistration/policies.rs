//! What admission policies and their bindings have in common.

use super::rules::{self, MATCH_POLICIES, required_word};
use crate::check::{self, anything, required_text, segment};
use crate::kind::subdomain_name;
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, Variable,
};
use serde_json::Value;

/// What is said of an expression that is not there.
pub(super) const NO_EXPRESSION: &str = "expression is not specified";
const MUTABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// Sets what is not said of the resources that match.
pub(super) fn default_resources(resources: Option<&mut MatchResources>) {
    let Some(resources) = resources else { return };
    resources.match_policy.get_or_insert_with(|| "Equivalent".into());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let all = [&mut resources.resource_rules, &mut resources.exclude_resource_rules];
    for rule in all.into_iter().flatten().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

/// Checks which resources match; a policy must name some.
pub(super) fn resources(
    resources: Option<&MatchResources>,
    required: bool,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let Some(m) = resources else {
        if required {
            errors.required(at, "");
        }
        return;
    };
    required_word(m.match_policy.as_deref(), &MATCH_POLICIES, at.child("matchPolicy"), errors);
    for (name, selector) in
        [("namespaceSelector", &m.namespace_selector), ("objectSelector", &m.object_selector)]
    {
        if selector.is_none() {
            errors.required(at.child(name), "");
        }
        check::label_selector(selector.as_ref(), false, at.child(name), errors);
    }
    for (name, list) in
        [("resourceRules", &m.resource_rules), ("excludeResourceRules", &m.exclude_resource_rules)]
    {
        let at = at.child(name);
        for (i, rule) in list.iter().flatten().enumerate() {
            rules::resource_names(rule, at.index(i).child("resourceNames"), errors);
            rules::validate(rule, at.index(i), errors);
        }
    }
    if required && m.resource_rules.as_ref().is_none_or(Vec::is_empty) {
        errors.required(at.child("resourceRules"), "");
    }
}

/// Only these operations can change an object.
pub(super) fn mutable(
    rules: Option<&Vec<NamedRuleWithOperations>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let at = at.child("resourceRules");
    for operation in rules.into_iter().flatten().flat_map(|r| r.operations.iter().flatten()) {
        if !MUTABLE.contains(&operation.as_str()) {
            errors.not_supported(at.child("operations"), operation, &MUTABLE);
        }
    }
}

/// Checks the kind of a policy's parameters.
pub(super) fn param_kind(kind: Option<&ParamKind>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(kind) = kind else { return };
    let here = at.child("apiVersion");
    let version = kind.api_version.as_deref().unwrap_or_default();
    let parts: Vec<&str> = version.split('/').collect();
    match parts.as_slice() {
        _ if version.is_empty() => errors.required(here, ""),
        [_, _, _, ..] => {
            errors.invalid(here, &version, format!("unexpected GroupVersion string: {version}"));
        }
        parts => {
            let (group, number) = match parts {
                [group, number] => (*group, *number),
                _ => ("", version),
            };
            let joined = names::dns1123_subdomain(group).join(",");
            if !group.is_empty() && !joined.is_empty() {
                errors.invalid(here, &group, joined);
            }
            let joined = names::dns1035_label(number).join(",");
            if number.is_empty() {
                errors.invalid(here, &version, "version must be specified");
            } else if !joined.is_empty() {
                errors.invalid(here, &number, joined);
            }
        }
    }
    let name = kind.kind.as_deref().unwrap_or_default();
    let joined = names::dns1035_label(&name.to_lowercase()).join(",");
    if name.is_empty() {
        errors.required(at.child("kind"), "");
    } else if !joined.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {joined}");
        errors.invalid(at.child("kind"), &name, why);
    }
}

/// Checks a reference to parameters.
pub(super) fn param_ref(reference: Option<&ParamRef>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(reference) = reference else { return };
    let both = "name and selector are mutually exclusive";
    let name = reference.name.as_deref().unwrap_or_default();
    errors.all_invalid(at.child("name"), name, segment(name));
    if !name.is_empty() && reference.selector.is_some() {
        errors.forbidden(at.child("name"), both);
    }
    check::label_selector(reference.selector.as_ref(), false, at.child("selector"), errors);
    match (name.is_empty(), reference.selector.is_some()) {
        (false, true) => errors.forbidden(at.child("selector"), both),
        (true, false) => errors.required(at, "one of name or selector must be specified"),
        _ => {}
    }
    let action = reference.parameter_not_found_action.as_deref().unwrap_or_default();
    let here = at.child("parameterNotFoundAction");
    match action {
        "" => errors.required(here, ""),
        "Allow" | "Deny" => {}
        other => errors.not_supported(here, other, &["Deny", "Allow"]),
    }
}

/// Checks the name of the policy that a binding is for.
pub(super) fn policy_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required_text(name, at.child("policyName"), "", |n| subdomain_name(n, false), errors);
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Checks variables of expressions.
pub(super) fn variables(list: Option<&Vec<Variable>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, variable) in list.into_iter().flatten().enumerate() {
        let at = at.index(i);
        let name = variable.name.as_str();
        let starts = name.bytes().next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic());
        let spelled = starts && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if name.trim().is_empty() {
            errors.required(at.child("name"), "name is not specified");
        } else if !spelled || RESERVED.contains(&name) {
            errors.invalid(at.child("name"), &name, "must be a valid CEL identifier");
        }
        required_text(variable.expression.trim(), at.child("expression"), NO_EXPRESSION, anything, errors);
    }
}

/// The cell that names the kind of parameters.
pub(super) fn param_kind_cell(kind: Option<&ParamKind>) -> Value {
    match kind {
        Some(k) => {
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            format!("{}/{}", text(&k.api_version), text(&k.kind)).into()
        }
        None => "<unset>".into(),
    }
}

/// The cell that names the parameters.
pub(super) fn param_ref_cell(reference: Option<&ParamRef>) -> Value {
    let named = reference.and_then(|r| r.name.as_deref().filter(|n| !n.is_empty()));
    match (reference, named) {
        (Some(r), Some(name)) => {
            let namespace = r.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("*");
            format!("{namespace}/{name}").into()
        }
        (Some(r), None) if r.selector.is_some() => crate::apps::selector_text(r.selector.as_ref()).into(),
        _ => "<unset>".into(),
    }
}
