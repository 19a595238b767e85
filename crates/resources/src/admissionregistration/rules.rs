//! Rules by which requests are chosen, as webhooks and policies write them.

use crate::check::{self, required_text};
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, NamedRuleWithOperations, RuleWithOperations,
};
use std::collections::BTreeSet;

pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MAX_CONDITIONS: usize = 64;

type List = Option<Vec<String>>;

/// The parts of a rule.
pub(super) struct Rule<'a> {
    groups: &'a List,
    versions: &'a List,
    operations: &'a List,
    resources: &'a List,
    scope: Option<&'a str>,
}

impl<'a> From<&'a RuleWithOperations> for Rule<'a> {
    fn from(r: &'a RuleWithOperations) -> Self {
        Rule {
            groups: &r.api_groups,
            versions: &r.api_versions,
            operations: &r.operations,
            resources: &r.resources,
            scope: r.scope.as_deref(),
        }
    }
}

impl<'a> From<&'a NamedRuleWithOperations> for Rule<'a> {
    fn from(r: &'a NamedRuleWithOperations) -> Self {
        Rule {
            groups: &r.api_groups,
            versions: &r.api_versions,
            operations: &r.operations,
            resources: &r.resources,
            scope: r.scope.as_deref(),
        }
    }
}

fn slice(list: &List) -> &[String] {
    list.as_deref().unwrap_or_default()
}

/// A list must have items; where `*` is one of them it is the only one.
fn wildcard_alone(list: &List, what: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let list = slice(list);
    if list.is_empty() {
        errors.required(at, "");
    }
    if list.len() > 1 && list.iter().any(|v| v == "*") {
        errors.invalid(at, &list, format!("if '*' is present, must not specify other {what}"));
    }
}

/// Checks a rule.
pub(super) fn validate<'a>(rule: impl Into<Rule<'a>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let rule = rule.into();
    wildcard_alone(rule.operations, "operations", at.child("operations"), errors);
    for (i, operation) in slice(rule.operations).iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str()) {
            errors.not_supported(at.child("operations").index(i), operation, &OPERATIONS);
        }
    }
    wildcard_alone(rule.groups, "API groups", at.child("apiGroups"), errors);
    wildcard_alone(rule.versions, "API versions", at.child("apiVersions"), errors);
    for (i, _) in slice(rule.versions).iter().enumerate().filter(|(_, v)| v.is_empty()) {
        errors.required(at.child("apiVersions").index(i), "");
    }
    resources(slice(rule.resources), at.child("resources"), errors);
    if let Some(scope) = rule.scope.filter(|s| !matches!(*s, "Cluster" | "Namespaced" | "*")) {
        errors.not_supported(at.child("scope"), scope, &["*", "Cluster", "Namespaced"]);
    }
}

fn resources(list: &[String], at: FieldPath<'_>, errors: &mut FieldErrors) {
    if list.is_empty() {
        errors.required(at, "");
    }
    let (mut whole, mut anywhere) = (BTreeSet::new(), BTreeSet::new());
    let (mut every, mut all, mut plain) = (false, false, false);
    for (i, text) in list.iter().enumerate() {
        let here = at.index(i);
        every |= text == "*/*";
        all |= text == "*";
        let Some((resource, sub)) = text.split_once('/') else {
            match text.as_str() {
                "" => errors.required(here, ""),
                text => plain = text != "*",
            }
            continue;
        };
        if whole.contains(resource) {
            errors.invalid(here, text, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if anywhere.contains(sub) {
            errors.invalid(here, text, format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            anywhere.insert(sub);
        }
    }
    if list.len() > 1 && every {
        errors.invalid(at, &list, "if '*/*' is present, must not specify other resources");
    }
    if all && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(at, &list, why);
    }
}

/// Checks a policy's word if it is said.
pub(super) fn word(value: Option<&str>, supported: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|v| !supported.contains(v)) {
        errors.not_supported(at, value, supported);
    }
}

/// Checks a policy's word, which must be said.
pub(super) fn required_word(
    value: Option<&str>,
    supported: &[&str],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    match value {
        None => errors.required(at, ""),
        Some(value) => check::required_one_of(value, supported, at, errors),
    }
}

/// Checks conditions under which something matches.
pub(super) fn conditions(list: Option<&Vec<MatchCondition>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.len() > MAX_CONDITIONS {
        errors.push(at, FieldFault::TooMany(list.len(), MAX_CONDITIONS));
    }
    for (i, condition) in list.iter().enumerate() {
        let here = at.index(i);
        if condition.expression.trim().is_empty() {
            errors.required(here.child("expression"), "");
        }
        required_text(&condition.name, here.child("name"), "", names::qualified_name, errors);
        if !condition.name.is_empty() && list.iter().take(i).any(|c| c.name == condition.name) {
            errors.duplicate(here.child("name"), &condition.name);
        }
    }
}

/// Checks the names that a rule narrows itself to.
pub(super) fn resource_names(rule: &NamedRuleWithOperations, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let list = slice(&rule.resource_names);
    for (i, name) in list.iter().enumerate() {
        errors.all_invalid(at.index(i), name, crate::check::segment(name));
        if list.iter().take(i).any(|n| n == name) {
            errors.duplicate(at.index(i), name);
        }
    }
}
