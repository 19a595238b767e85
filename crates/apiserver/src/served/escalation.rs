//! Nobody grants by RBAC what they do not hold themselves, unless they may `escalate` roles or `bind` them.

use crate::verbs::Request;
use admission::Host;
use api::object::Object;
use api::{GroupResource, Status, read};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or a binding with which the user would grant more than they hold.
pub fn check(request: &Request, new: &Object, old: Option<&Object>) -> Result<(), Status> {
    let server = &request.server;
    let resource = &request.resource.group_resource;
    if resource.group != GROUP || !server.authorizers.uses_rbac() || request.user.is_in(auth::MASTERS) {
        return Ok(());
    }
    // The garbage collector and finalizers are no grants.
    if old.is_some_and(|old| without_bookkeeping(new) == without_bookkeeping(old)) {
        return Ok(());
    }
    let name = new.meta().name.clone().unwrap_or_default();
    let namespace = &request.info.namespace;
    let refuse = |why: String| Err(Status::forbidden(resource, &name, why));
    if let Some(role_ref) = role_ref(new) {
        let kind = if role_ref.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        let role = GroupResource::new(GROUP, kind);
        if request.authorize("bind", &role, "", namespace, &role_ref.name).is_ok() {
            return Ok(());
        }
        let rules = referred(request, role_ref, namespace)?;
        return confirm(request, namespace, &rules).or_else(refuse);
    }
    let Some((rules, aggregates)) = rules(new) else { return Ok(()) };
    if request.authorize("escalate", resource, "", namespace, &request.info.name).is_ok() {
        return Ok(());
    }
    confirm(request, namespace, &rules).or_else(refuse)?;
    let aggregated = old.and_then(self::rules).is_some_and(|(_, aggregates)| aggregates);
    if (aggregates || aggregated) && confirm(request, "", &everything()).is_err() {
        return refuse("must have cluster-admin privileges to use the aggregationRule".into());
    }
    Ok(())
}

fn without_bookkeeping(object: &Object) -> Option<serde_json::Value> {
    let mut object = object.clone();
    let meta: &mut ObjectMeta = object.meta_mut();
    (meta.owner_references, meta.finalizers, meta.managed_fields) = (None, None, None);
    (meta.resource_version, meta.generation) = (None, None);
    object.to_value().ok()
}

fn role_ref(object: &Object) -> Option<&RoleRef> {
    let cluster = object.get::<ClusterRoleBinding>().map(|b| &b.role_ref);
    cluster.or_else(|| object.get::<RoleBinding>().map(|b| &b.role_ref))
}

/// A role's rules, and whether it gathers those of others.
fn rules(object: &Object) -> Option<(Vec<PolicyRule>, bool)> {
    if let Some(role) = object.get::<ClusterRole>() {
        let selectors = role.aggregation_rule.as_ref().and_then(|a| a.cluster_role_selectors.as_ref());
        return Some((role.rules.clone().unwrap_or_default(), selectors.is_some_and(|s| !s.is_empty())));
    }
    object.get::<Role>().map(|role| (role.rules.clone().unwrap_or_default(), false))
}

fn referred(request: &Request, to: &RoleRef, namespace: &str) -> Result<Vec<PolicyRule>, Status> {
    let reader = &*request.server;
    let (plural, rules) = match to.kind.as_str() {
        "Role" => ("roles", read::get::<Role>(reader, namespace, &to.name).map(|r| r.rules)),
        _ => ("clusterroles", read::get::<ClusterRole>(reader, "", &to.name).map(|r| r.rules)),
    };
    let rules = rules.ok_or_else(|| Status::not_found(&GroupResource::new(GROUP, plural), &to.name))?;
    Ok(rules.unwrap_or_default())
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_string()];
    let resources =
        PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() };
    let urls = PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() };
    [resources, urls]
}

/// Refuses what the user's own rules do not cover.
fn confirm(request: &Request, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
    let server = &request.server;
    let missing = server.authorizers.rbac.escalates(&request.user, namespace, wanted, &**server);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(shown).collect();
    let groups: Vec<String> = request.user.groups.iter().map(|g| format!("{g:?}")).collect();
    Err(format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        request.user.name,
        groups.join(" "),
        lines.into_iter().collect::<Vec<_>>().join("\n")
    ))
}

/// Rules that differ in their verbs alone are one.
fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut merged: BTreeMap<String, PolicyRule> = BTreeMap::new();
    for rule in rules {
        let key = shown(&PolicyRule { verbs: Vec::new(), ..rule.clone() });
        match merged.get_mut(&key).filter(|_| rule.non_resource_urls.is_none()) {
            Some(there) => there.verbs.extend(rule.verbs),
            None => {
                let key = if rule.non_resource_urls.is_some() { shown(&rule) } else { key };
                merged.insert(key, rule);
            }
        }
    }
    merged.into_values().collect()
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
fn shown(rule: &PolicyRule) -> String {
    let list = |name: &str, items: Option<&Vec<String>>| {
        let items = items.filter(|i| !i.is_empty())?;
        let quoted: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
        Some(format!("{name}:[{}]", quoted.join(" ")))
    };
    let parts = [
        list("APIGroups", rule.api_groups.as_ref()),
        list("Resources", rule.resources.as_ref()),
        list("NonResourceURLs", rule.non_resource_urls.as_ref()),
        list("ResourceNames", rule.resource_names.as_ref()),
        list("Verbs", Some(&rule.verbs)),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
