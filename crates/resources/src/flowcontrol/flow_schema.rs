//! FlowSchema: which requests belong to which priority level.

use super::bootstrap::mandatory_schemas;
use crate::check::{anything, required_text};
use crate::kind::{age_column, subdomain_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath, quoted};
use api::names;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

const MAX_PRECEDENCE: i32 = 10000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The rules of FlowSchema.
pub static KIND: Kind<FlowSchema> = Kind {
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    default: |s| {
        let precedence = &mut s.spec.get_or_insert_default().matching_precedence;
        if precedence.is_none_or(|p| p == 0) {
            *precedence = Some(1000);
        }
    },
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    validate_status: |new, _, errors| {
        let conditions = new.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        condition_types(conditions.iter().map(|c| c.type_.as_deref().unwrap_or_default()), errors);
    },
    columns: &[
        Column::text("PriorityLevel", "The priority level of its requests.", |s: &FlowSchema, _| {
            spec(s).priority_level_configuration.name.into()
        }),
        Column::text("MatchingPrecedence", "The least one that matches wins.", |s: &FlowSchema, _| {
            spec(s).matching_precedence.unwrap_or(0).into()
        }),
        Column::text("DistinguisherMethod", "How flows are told apart.", |s: &FlowSchema, _| {
            spec(s).distinguisher_method.map_or_else(|| "<none>".into(), |d| d.type_).into()
        }),
        age_column(),
        Column::text("MissingPL", "Whether its priority level is missing.", |s: &FlowSchema, _| {
            let conditions = s.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            let dangling = conditions.iter().find(|c| c.type_.as_deref() == Some("Dangling"));
            dangling.and_then(|c| c.status.clone()).unwrap_or_else(|| "?".into()).into()
        }),
    ],
    ..Kind::cluster("flowschema", "flowschemas")
};

fn spec(s: &FlowSchema) -> FlowSchemaSpec {
    s.spec.clone().unwrap_or_default()
}

/// Checks types of conditions.
pub(super) fn condition_types<'a>(types: impl Iterator<Item = &'a str>, errors: &mut FieldErrors) {
    let at = FieldPath::root("status");
    let list = at.child("conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, kind) in types.enumerate() {
        if seen.contains(&kind) {
            errors.duplicate(list.index(i).child("type"), &kind);
        }
        seen.push(kind);
        required_text(kind, list.index(i).child("type"), "", anything, errors);
    }
}

fn validate(s: &FlowSchema, errors: &mut FieldErrors) {
    let spec = spec(s);
    let at = FieldPath::root("spec");
    let name = s.metadata.name.as_deref().unwrap_or_default();
    let precedence = spec.matching_precedence.unwrap_or(0);
    let here = at.child("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(here, &precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(here, &precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(here, &precedence, why);
    }
    if let Some(method) =
        spec.distinguisher_method.as_ref().filter(|m| !matches!(m.type_.as_str(), "ByUser" | "ByNamespace"))
    {
        let method_at = at.child("distinguisherMethod");
        errors.not_supported(method_at.child("type"), &method.type_, &["ByNamespace", "ByUser"]);
    }
    let level = at.child("priorityLevelConfiguration");
    required_text(
        &spec.priority_level_configuration.name,
        level.child("name"),
        "must reference a priority level",
        |n| subdomain_name(n, false),
        errors,
    );
    let list = at.child("rules");
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        validate_rule(rule, list.index(i), errors);
    }
    for fixed in mandatory_schemas() {
        let fixed: Option<FlowSchema> = serde_json::from_value(fixed).ok();
        if let Some(fixed) = fixed.filter(|f| f.metadata.name.as_deref() == Some(name))
            && !same(&spec, &fixed.spec.unwrap_or_default())
        {
            errors.invalid(at, &spec, format!("spec of '{name}' must equal the fixed value"));
        }
    }
}

/// Equal but for fields that say nothing.
fn same(one: &FlowSchemaSpec, other: &FlowSchemaSpec) -> bool {
    let plain = |spec: &FlowSchemaSpec| {
        let mut spec = spec.clone();
        for rule in spec.rules.iter_mut().flatten().flat_map(|r| r.resource_rules.iter_mut().flatten()) {
            rule.cluster_scope = rule.cluster_scope.filter(|c| *c);
        }
        spec
    };
    plain(one) == plain(other)
}

fn validate_rule(rule: &PolicyRulesWithSubjects, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if rule.subjects.is_empty() {
        errors.required(at.child("subjects"), "subjects must contain at least one value");
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        validate_subject(subject, at.child("subjects").index(i), errors);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or_default();
    let others = rule.non_resource_rules.as_deref().unwrap_or_default();
    if resources.is_empty() && others.is_empty() {
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, rule) in resources.iter().enumerate() {
        validate_resources(rule, at.child("resourceRules").index(i), errors);
    }
    for (i, rule) in others.iter().enumerate() {
        validate_paths(rule, at.child("nonResourceRules").index(i), errors);
    }
}

fn validate_subject(s: &Subject, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let parts = [
        ("user", "User", s.user.is_some()),
        ("group", "Group", s.group.is_some()),
        ("serviceAccount", "ServiceAccount", s.service_account.is_some()),
    ];
    let Some((field, _, there)) = parts.iter().find(|(_, kind, _)| *kind == s.kind) else {
        return errors.not_supported(at.child("kind"), &s.kind, &["Group", "ServiceAccount", "User"]);
    };
    let here = at.child(field);
    if !there {
        errors.required(here, &format!("{field} is required when subject kind is '{}'", s.kind));
    }
    match s.kind.as_str() {
        "ServiceAccount" => {
            if let Some(account) = &s.service_account {
                let rule = |n: &str| if n == "*" { Vec::new() } else { subdomain_name(n, false) };
                required_text(&account.name, here.child("name"), "", rule, errors);
                required_text(
                    &account.namespace,
                    here.child("namespace"),
                    "must specify namespace for service account",
                    names::dns1123_label,
                    errors,
                );
            }
        }
        _ => {
            let name = s.user.as_ref().map(|u| &u.name).or(s.group.as_ref().map(|g| &g.name));
            if let Some(name) = name.filter(|_| *there) {
                required_text(name, here.child("name"), "", anything, errors);
            }
        }
    }
    for (other, kind, _) in parts.iter().filter(|(other, _, there)| other != field && *there) {
        errors.forbidden(at.child(other), &format!("{other} is forbidden when subject kind is not '{kind}'"));
    }
}

fn has_all(list: &[String]) -> bool {
    list.iter().any(|v| v == "*")
}

/// A list must have items; where `*` is one of them it is the only one. Answers whether it may be looked at
/// more closely.
fn listed(list: &[String], empty: &str, other: &str, at: FieldPath<'_>, errors: &mut FieldErrors) -> bool {
    if list.is_empty() {
        errors.required(at, empty);
    } else if has_all(list) && list.len() > 1 {
        errors.invalid(at, &list, format!("if '*' is present, must not specify other {other}"));
    }
    !list.is_empty() && !has_all(list)
}

fn validate_verbs(list: &[String], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let known = |v: &String| VERBS.contains(&v.as_str());
    if listed(list, "verbs must contain at least one value", "verbs", at, errors) && !list.iter().all(known) {
        let supported = VERBS.map(String::from).to_vec();
        errors.push(at, FieldFault::NotSupported(quoted(&list), supported));
    }
}

fn validate_resources(rule: &ResourcePolicyRule, at: FieldPath<'_>, errors: &mut FieldErrors) {
    validate_verbs(&rule.verbs, at.child("verbs"), errors);
    let empty = "resource rules must supply at least one api group";
    listed(&rule.api_groups, empty, "api groups", at.child("apiGroups"), errors);
    let empty = "resource rules must supply at least one resource";
    listed(&rule.resources, empty, "resources", at.child("resources"), errors);
    let namespaces = rule.namespaces.as_deref().unwrap_or_default();
    let here = at.child("namespaces");
    if namespaces.is_empty() && rule.cluster_scope == Some(true) {
        return;
    }
    let empty = "resource rules that are not cluster scoped must supply at least one namespace";
    if listed(namespaces, empty, "namespaces", here, errors) {
        for (i, namespace) in namespaces.iter().enumerate() {
            let intro = "each member of this list must be '*' or a DNS-1123 label; ";
            let found = names::dns1123_label(namespace).into_iter().map(|f| format!("{intro}{f}")).collect();
            errors.all_invalid(here.index(i), namespace, found);
        }
    }
}

fn validate_paths(rule: &NonResourcePolicyRule, at: FieldPath<'_>, errors: &mut FieldErrors) {
    validate_verbs(&rule.verbs, at.child("verbs"), errors);
    let here = at.child("nonResourceURLs");
    let empty = "nonResourceURLs must contain at least one value";
    if listed(&rule.non_resource_urls, empty, "non-resource URLs", here, errors) {
        for (i, path) in rule.non_resource_urls.iter().enumerate() {
            if let Some(fault) = path_fault(path) {
                errors.invalid(here.index(i), path, fault);
            }
        }
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || stars == 1 && !path.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_of_schemas() {
        let check = |name: &str, spec: serde_json::Value| {
            let s: FlowSchema =
                serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
            let mut errors = FieldErrors::default();
            validate(&s, &mut errors);
            errors.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let subject = json!({"kind": "User", "user": {"name": "u"}});
        assert_eq!(
            check(
                "a",
                json!({"priorityLevelConfiguration": {"name": ""}, "matchingPrecedence": 1, "rules": [
                    {"subjects": [], "resourceRules": []},
                    {"subjects": [subject, {"kind": "Group", "user": {"name": "x"}}], "nonResourceRules": [{"verbs": ["x"], "nonResourceURLs": ["a", "/b*"]}]},
                ]})
            ),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                "spec.rules[1].subjects[1].group: Required value: group is required when subject kind is 'Group'",
                "spec.rules[1].subjects[1].user: Forbidden: user is forbidden when subject kind is not 'User'",
                "spec.rules[1].nonResourceRules[0].verbs: Unsupported value: [\"x\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/b*\": wildcard can only do suffix matching",
            ]
        );
        let other = json!({"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 2});
        assert!(check("exempt", other)[0].ends_with("spec of 'exempt' must equal the fixed value"));
    }
}
