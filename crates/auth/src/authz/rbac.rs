//! Role-based access control: what roles allow, bound to users, groups and service accounts.

use crate::{Attributes, Decision, User};
use api::read::{self, ObjectReader};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The RBAC authorizer. It compiles roles and bindings when one of them has changed.
#[derive(Default)]
pub struct Rbac {
    grants: RwLock<Arc<Grants>>,
    /// Held by the one who compiles; the others wait for what comes of it.
    compiling: Mutex<()>,
}

/// Who is granted what, by subject.
#[derive(Default)]
struct Grants {
    generation: [u64; 4],
    everywhere: HashMap<Grantee, Vec<Arc<Vec<PolicyRule>>>>,
    /// By namespace.
    within: HashMap<String, HashMap<Grantee, Vec<Arc<Vec<PolicyRule>>>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Grantee {
    User(String),
    Group(String),
}

impl Rbac {
    fn grants(&self, reader: &dyn ObjectReader) -> Arc<Grants> {
        let generation = [
            read::generation::<ClusterRole>(reader),
            read::generation::<ClusterRoleBinding>(reader),
            read::generation::<Role>(reader),
            read::generation::<RoleBinding>(reader),
        ];
        let current = || self.grants.read().unwrap_or_else(PoisonError::into_inner).clone();
        let there = current();
        if there.generation == generation {
            return there;
        }
        let _one = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let there = current();
        if there.generation == generation {
            return there;
        }
        let fresh = Arc::new(compile(reader, generation));
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }

    /// Whether some rule of the user's roles allows it.
    pub fn authorize(&self, user: &User, asked: &Attributes<'_>, reader: &dyn ObjectReader) -> Decision {
        let mut allowed = false;
        self.grants(reader).visit(user, asked.namespace, |rule| {
            allowed = allowed || allows(rule, asked);
            !allowed
        });
        if allowed { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }

    /// All rules of a user in a namespace, and everywhere.
    pub fn rules(&self, user: &User, namespace: &str, reader: &dyn ObjectReader) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        self.grants(reader).visit(user, namespace, |rule| {
            rules.push(rule.clone());
            true
        });
        rules
    }

    /// Those of `wanted` that the user's own rules do not cover: nobody grants what they have not.
    pub fn escalates(
        &self,
        user: &User,
        namespace: &str,
        wanted: &[PolicyRule],
        reader: &dyn ObjectReader,
    ) -> Vec<PolicyRule> {
        let own = self.rules(user, namespace, reader);
        wanted.iter().flat_map(split).filter(|rule| !own.iter().any(|have| covers(have, rule))).collect()
    }
}

impl Grants {
    fn visit(&self, user: &User, namespace: &str, mut f: impl FnMut(&PolicyRule) -> bool) {
        let who = std::iter::once(Grantee::User(user.name.clone()))
            .chain(user.groups.iter().cloned().map(Grantee::Group));
        let who: Vec<Grantee> = who.collect();
        let scopes = [Some(&self.everywhere), self.within.get(namespace).filter(|_| !namespace.is_empty())];
        for rules in
            scopes.into_iter().flatten().flat_map(|scope| who.iter().filter_map(|g| scope.get(g))).flatten()
        {
            if rules.iter().any(|rule| !f(rule)) {
                return;
            }
        }
    }
}

fn compile(reader: &dyn ObjectReader, generation: [u64; 4]) -> Grants {
    let mut grants = Grants { generation, ..Grants::default() };
    let cluster_roles: HashMap<String, Arc<Vec<PolicyRule>>> = read::list::<ClusterRole>(reader, None)
        .into_iter()
        .filter_map(|r| Some((r.metadata.name?, Arc::new(r.rules.unwrap_or_default()))))
        .collect();
    let roles: HashMap<(String, String), Arc<Vec<PolicyRule>>> = read::list::<Role>(reader, None)
        .into_iter()
        .filter_map(|r| {
            Some(((r.metadata.namespace?, r.metadata.name?), Arc::new(r.rules.unwrap_or_default())))
        })
        .collect();
    for binding in read::list::<ClusterRoleBinding>(reader, None) {
        if let Some(rules) = cluster_roles.get(&binding.role_ref.name) {
            grant(&mut grants.everywhere, rules, &binding.subjects, "");
        }
    }
    for binding in read::list::<RoleBinding>(reader, None) {
        let namespace = binding.metadata.namespace.unwrap_or_default();
        if let Some(rules) = referred(&binding.role_ref, &namespace, &cluster_roles, &roles) {
            grant(grants.within.entry(namespace.clone()).or_default(), &rules, &binding.subjects, &namespace);
        }
    }
    grants
}

fn referred(
    to: &RoleRef,
    namespace: &str,
    cluster_roles: &HashMap<String, Arc<Vec<PolicyRule>>>,
    roles: &HashMap<(String, String), Arc<Vec<PolicyRule>>>,
) -> Option<Arc<Vec<PolicyRule>>> {
    match to.kind.as_str() {
        "Role" => roles.get(&(namespace.to_string(), to.name.clone())).cloned(),
        _ => cluster_roles.get(&to.name).cloned(),
    }
}

fn grant(
    to: &mut HashMap<Grantee, Vec<Arc<Vec<PolicyRule>>>>,
    rules: &Arc<Vec<PolicyRule>>,
    subjects: &Option<Vec<Subject>>,
    namespace: &str,
) {
    for subject in subjects.iter().flatten() {
        let who = match subject.kind.as_str() {
            "User" => Grantee::User(subject.name.clone()),
            "Group" => Grantee::Group(subject.name.clone()),
            "ServiceAccount" => {
                let namespace = subject.namespace.as_deref().unwrap_or(namespace);
                Grantee::User(format!("system:serviceaccount:{namespace}:{}", subject.name))
            }
            _ => continue,
        };
        to.entry(who).or_default().push(rules.clone());
    }
}

fn has(list: &Option<Vec<String>>, wanted: &str) -> bool {
    list.iter().flatten().any(|v| v == "*" || v == wanted)
}

/// Whether a rule allows what is asked.
pub fn allows(rule: &PolicyRule, asked: &Attributes<'_>) -> bool {
    if !rule.verbs.iter().any(|v| v == "*" || v == asked.verb) {
        return false;
    }
    if !asked.is_resource {
        return rule.non_resource_urls.iter().flatten().any(|url| path_matches(url, asked.path));
    }
    has(&rule.api_groups, asked.group)
        && rule.resources.iter().flatten().any(|r| resource_matches(r, asked.resource, asked.subresource))
        && rule
            .resource_names
            .as_ref()
            .is_none_or(|names| names.is_empty() || names.iter().any(|n| n == asked.name))
}

fn path_matches(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// A rule's resource is `*`, `pods`, `pods/log` or `*/scale`.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        _ if rule == "*" => true,
        None => subresource.is_empty() && rule == resource,
        Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
        Some((main, sub)) => main == resource && sub == subresource,
    }
}

/// Those of `wanted` that `have` does not cover.
pub fn missing(have: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let covered = |rule: &PolicyRule| split(rule).iter().all(|part| have.iter().any(|h| covers(h, part)));
    wanted.iter().filter(|rule| !covered(rule)).cloned().collect()
}

/// A rule as rules that name one thing in each part.
fn split(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for url in rule.non_resource_urls.iter().flatten() {
            parts.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![url.clone()]),
                ..PolicyRule::default()
            });
        }
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let part = |names: Option<Vec<String>>| PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    resource_names: names,
                    non_resource_urls: None,
                };
                match rule.resource_names.as_deref() {
                    None | Some([]) => parts.push(part(None)),
                    Some(names) => parts.extend(names.iter().map(|n| part(Some(vec![n.clone()])))),
                }
            }
        }
    }
    parts
}

/// Whether `have` allows all that `wanted`, a rule made by [`split`], would.
fn covers(have: &PolicyRule, wanted: &PolicyRule) -> bool {
    let one = |list: &Option<Vec<String>>| list.iter().flatten().next().cloned();
    if !wanted.verbs.iter().all(|v| have.verbs.iter().any(|h| h == "*" || h == v)) {
        return false;
    }
    if let Some(url) = one(&wanted.non_resource_urls) {
        return have.non_resource_urls.iter().flatten().any(|h| path_matches(h, &url));
    }
    let (Some(group), Some(resource)) = (one(&wanted.api_groups), one(&wanted.resources)) else {
        return true;
    };
    let (main, sub) = resource.split_once('/').unwrap_or((&resource, ""));
    has(&have.api_groups, &group)
        && have.resources.iter().flatten().any(|h| *h == resource || resource_matches(h, main, sub))
        && have.resource_names.as_ref().is_none_or(|names| {
            names.is_empty() || one(&wanted.resource_names).is_some_and(|n| names.contains(&n))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
        let list = |s: &str| s.split(',').map(str::to_string).collect::<Vec<_>>();
        PolicyRule {
            verbs: list(verbs),
            api_groups: Some(list(groups)),
            resources: Some(list(resources)),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn rules_match() {
        let ask = |verb, group, resource, subresource| Attributes {
            verb,
            is_resource: true,
            group,
            resource,
            subresource,
            ..Attributes::default()
        };
        for (r, a, want) in [
            (rule("get", "", "pods"), ask("get", "", "pods", ""), true),
            (rule("get", "", "pods"), ask("get", "", "pods", "log"), false),
            (rule("get", "", "pods/log"), ask("get", "", "pods", "log"), true),
            (rule("get", "", "*/scale"), ask("get", "", "pods", "scale"), true),
            (rule("*", "*", "*"), ask("delete", "apps", "deployments", "scale"), true),
            (rule("get", "apps", "pods"), ask("get", "", "pods", ""), false),
        ] {
            assert_eq!(allows(&r, &a), want, "{r:?} {a:?}");
        }
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        let urls = PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: Some(vec!["/healthz/*".into()]),
            ..PolicyRule::default()
        };
        assert!(allows(&urls, &path("/healthz/x")) && !allows(&urls, &path("/livez")));
    }

    #[test]
    fn nobody_grants_what_they_have_not() {
        let have = rule("get,list", "apps", "deployments,*/scale");
        for (wanted, want) in [
            (rule("get", "apps", "deployments"), true),
            (rule("get", "apps", "deployments,replicasets/scale"), true),
            (rule("delete", "apps", "deployments"), false),
            (rule("get", "*", "deployments"), false),
        ] {
            assert_eq!(split(&wanted).iter().all(|w| covers(&have, w)), want, "{wanted:?}");
        }
    }
}
