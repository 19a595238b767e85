//! The roles and bindings that every cluster has: upstream's, kept as a table in `policy/default.txt`.

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The default roles and bindings.
#[derive(Default)]
pub struct Policy {
    /// ClusterRoles.
    pub cluster_roles: Vec<ClusterRole>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// Roles.
    pub roles: Vec<Role>,
    /// RoleBindings.
    pub role_bindings: Vec<RoleBinding>,
}

/// Reads the table. A line that is wrong is left out, which the tests would show.
pub fn default_policy() -> Policy {
    let mut policy = Policy::default();
    let lines: Vec<&str> = include_str!("../policy/default.txt")
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    for (i, line) in lines.iter().enumerate() {
        let rules = || {
            lines
                .iter()
                .skip(i + 1)
                .take_while(|l| l.starts_with(' '))
                .filter_map(|l| rule(l))
                .collect::<Vec<_>>()
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["clusterrole", name, rest @ ..] => {
                let aggregated: Vec<LabelSelector> =
                    rest.iter().filter_map(|w| w.strip_prefix("aggregate:")).map(selector).collect();
                let aggregation_rule = (!aggregated.is_empty())
                    .then_some(AggregationRule { cluster_role_selectors: Some(aggregated) });
                let rules = Some(rules()).filter(|r| !r.is_empty());
                policy.cluster_roles.push(ClusterRole {
                    metadata: meta(name, rest),
                    rules,
                    aggregation_rule,
                });
            }
            ["role", name, rest @ ..] => {
                policy.roles.push(Role { metadata: meta(name, rest), rules: Some(rules()) })
            }
            ["clusterbinding", name, "->", kind, role, "=", subjects @ ..] => {
                policy.cluster_role_bindings.push(ClusterRoleBinding {
                    metadata: meta(name, &[]),
                    role_ref: role_ref(kind, role),
                    subjects: Some(subjects.iter().filter_map(|s| subject(s)).collect()),
                })
            }
            ["binding", name, "->", kind, role, "=", subjects @ ..] => {
                policy.role_bindings.push(RoleBinding {
                    metadata: meta(name, &[]),
                    role_ref: role_ref(kind, role),
                    subjects: Some(subjects.iter().filter_map(|s| subject(s)).collect()),
                })
            }
            _ => {}
        }
    }
    policy
}

fn meta(name: &str, labels: &[&str]) -> ObjectMeta {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_string()), name),
        None => (None, name),
    };
    let mut all: BTreeMap<String, String> = labels
        .iter()
        .filter(|w| !w.starts_with("aggregate:"))
        .filter_map(|w| w.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    all.insert("kubernetes.io/bootstrapping".into(), "rbac-defaults".into());
    ObjectMeta {
        name: Some(name.into()),
        namespace,
        labels: Some(all),
        annotations: Some(
            [("rbac.authorization.kubernetes.io/autoupdate".to_string(), "true".to_string())].into(),
        ),
        ..ObjectMeta::default()
    }
}

fn selector(label: &str) -> LabelSelector {
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    LabelSelector {
        match_labels: Some([(key.to_string(), value.to_string())].into()),
        match_expressions: None,
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.into()), kind: kind.into(), name: name.into() }
}

fn subject(word: &str) -> Option<Subject> {
    let (kind, name) = word.split_once(':')?;
    Some(match kind {
        "user" => {
            Subject { kind: "User".into(), name: name.into(), api_group: Some(GROUP.into()), namespace: None }
        }
        "group" => Subject {
            kind: "Group".into(),
            name: name.into(),
            api_group: Some(GROUP.into()),
            namespace: None,
        },
        _ => {
            let (namespace, name) = name.split_once('/')?;
            Subject {
                kind: "ServiceAccount".into(),
                name: name.into(),
                api_group: None,
                namespace: Some(namespace.into()),
            }
        }
    })
}

fn rule(line: &str) -> Option<PolicyRule> {
    let parts: Vec<Vec<String>> = line
        .split('|')
        .map(|p| {
            p.trim()
                .split(',')
                .filter(|w| !w.is_empty())
                .map(|w| if w == "-" { String::new() } else { w.into() })
                .collect()
        })
        .collect();
    let [verbs, groups, resources, names @ ..] = parts.as_slice() else { return None };
    let mut rule = PolicyRule { verbs: verbs.clone(), ..PolicyRule::default() };
    if groups.is_empty() {
        rule.non_resource_urls = Some(resources.clone());
    } else {
        rule.api_groups = Some(groups.clone());
        rule.resources = Some(resources.clone());
        rule.resource_names = names.first().cloned();
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let text = include_str!("../policy/default.txt");
        let starting = |word: &str| text.lines().filter(|l| l.starts_with(word)).count();
        let policy = default_policy();
        assert_eq!(policy.cluster_roles.len(), starting("clusterrole "));
        assert_eq!(policy.cluster_role_bindings.len(), starting("clusterbinding "));
        assert_eq!(policy.roles.len(), starting("role "));
        assert_eq!(policy.role_bindings.len(), starting("binding "));
        let rules = policy.cluster_roles.iter().flat_map(|r| r.rules.iter().flatten()).count()
            + policy.roles.iter().flat_map(|r| r.rules.iter().flatten()).count();
        assert_eq!(rules, starting("  "));
    }
}
