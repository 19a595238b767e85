//! The default roles and bindings: made where they are missing, and given what they lack where they are kept up to date
//! automatically. What someone has added to them stays.

use super::{make, request};
use crate::server::Server;
use crate::verbs::internal;
use crate::verbs::modify::{How, Made, modify};
use api::{GroupResource, Status};
use auth::authz::rbac::missing;
use k8s_openapi::api::rbac::v1::{PolicyRule, Subject};
use serde_json::{Value, json};
use std::sync::Arc;

/// With `false` an administrator keeps the server's hands off a role or a binding.
const AUTOUPDATE: &str = "/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate";

/// Brings all of them up to date.
pub async fn reconcile(server: &Arc<Server>) -> Result<(), Status> {
    let policy = auth::policy::default_policy();
    let mut all: Vec<(GroupResource, Value)> = Vec::new();
    let mut add = |plural: &str, value: Result<Value, serde_json::Error>| -> Result<(), Status> {
        let resource = GroupResource::new("rbac.authorization.k8s.io", plural);
        all.push((resource, value.map_err(internal)?));
        Ok(())
    };
    policy.cluster_roles.iter().try_for_each(|o| add("clusterroles", serde_json::to_value(o)))?;
    policy
        .cluster_role_bindings
        .iter()
        .try_for_each(|o| add("clusterrolebindings", serde_json::to_value(o)))?;
    policy.roles.iter().try_for_each(|o| add("roles", serde_json::to_value(o)))?;
    policy.role_bindings.iter().try_for_each(|o| add("rolebindings", serde_json::to_value(o)))?;
    make(server, all.clone()).await?;
    for (resource, wanted) in all {
        let text = |path: &str| wanted.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let Some(request) = request(server, &resource, &namespace, &name) else { continue };
        let kept = request.resource.collection.as_ref().and_then(|c| c.get(&request.key()));
        let Some(kept) = kept else { continue };
        let kept = kept.value().map_err(internal)?;
        if completed(&kept, &wanted)? == kept {
            continue;
        }
        let make = |old: &Value| Ok(Made { value: completed(old, &wanted)?, applied: false });
        modify(&request, How { part: None, checked: true, manager: "kube-apiserver" }, &make).await?;
        tracing::info!(role = %name, "a default role or binding was given what it lacked");
    }
    Ok(())
}

/// A role or binding with what the default has and it has not.
fn completed(old: &Value, wanted: &Value) -> Result<Value, Status> {
    let mut new = old.clone();
    if old.pointer(AUTOUPDATE).and_then(Value::as_str) == Some("false") {
        return Ok(new);
    }
    for part in ["labels", "annotations"] {
        for (key, value) in
            wanted.pointer(&format!("/metadata/{part}")).and_then(Value::as_object).into_iter().flatten()
        {
            if new["metadata"][part].get(key).is_none() {
                new["metadata"][part][key] = value.clone();
            }
        }
    }
    if let Some(rules) = wanted.get("rules").filter(|r| r.is_array()) {
        let read = |v: &Value| serde_json::from_value::<Vec<PolicyRule>>(v.clone()).map_err(internal);
        let mut there = read(old.get("rules").filter(|r| r.is_array()).unwrap_or(&json!([])))?;
        let lacking = missing(&there, &read(rules)?);
        if !lacking.is_empty() {
            there.extend(lacking);
            new["rules"] = serde_json::to_value(there).map_err(internal)?;
        }
    }
    if let Some(selectors) = wanted.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array)
    {
        let there = new.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        let there = there.cloned().unwrap_or_default();
        let lacking = selectors.iter().filter(|s| !there.contains(s)).cloned();
        let all: Vec<Value> = there.iter().cloned().chain(lacking).collect();
        if all.len() > there.len() {
            new["aggregationRule"]["clusterRoleSelectors"] = all.into();
        }
    }
    if let Some(subjects) = wanted.get("subjects").filter(|s| s.is_array()) {
        let read = |v: &Value| serde_json::from_value::<Vec<Subject>>(v.clone()).map_err(internal);
        let mut there = read(old.get("subjects").filter(|s| s.is_array()).unwrap_or(&json!([])))?;
        let lacking: Vec<Subject> = read(subjects)?.into_iter().filter(|s| !there.contains(s)).collect();
        if !lacking.is_empty() {
            there.extend(lacking);
            new["subjects"] = serde_json::to_value(there).map_err(internal)?;
        }
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_nothing_taken_away() {
        let rule = |resources: &[&str]| json!({"apiGroups": [""], "resources": resources, "verbs": ["get"]});
        let wanted = json!({"metadata": {"name": "r", "labels": {"l": "1"}}, "rules": [rule(&["pods", "nodes"]), rule(&["secrets"])]});
        let full = json!({"metadata": {"name": "r", "labels": {"l": "2"}}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
        assert_eq!(completed(&full, &wanted).unwrap(), full);
        let partly = json!({"metadata": {"name": "r"}, "rules": [rule(&["pods"]), rule(&["own"])]});
        let made = completed(&partly, &wanted).unwrap();
        assert_eq!(made["metadata"]["labels"], json!({"l": "1"}));
        assert_eq!(
            made["rules"],
            json!([rule(&["pods"]), rule(&["own"]), rule(&["pods", "nodes"]), rule(&["secrets"])])
        );
        assert_eq!(completed(&made, &wanted).unwrap(), made);
        let mut mine = partly.clone();
        mine["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        assert_eq!(completed(&mine, &wanted).unwrap(), mine);
        let subject = |n: &str| json!({"kind": "User", "name": n, "apiGroup": "rbac.authorization.k8s.io"});
        let (old, new) = (json!({"subjects": [subject("a")]}), json!({"subjects": [subject("b")]}));
        assert_eq!(completed(&old, &new).unwrap()["subjects"], json!([subject("a"), subject("b")]));
    }
}
