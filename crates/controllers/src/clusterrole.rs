//! Gathers the rules of roles that others aggregate, such as `admin`, `edit` and `view`.
//! Watches cluster roles; any change leads to all that aggregate.

use crate::{Context, Error, Outcome};
use api::selector::LabelSelector;
use client::{ObjectExt, Patch};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;
use std::sync::Arc;

const NAME: &str = "clusterrole-aggregation-controller";

/// Keeps aggregated roles.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let roles = ctx.informers.informer::<ClusterRole>();
    let (for_events, for_work) = (roles.lister(), roles.lister());
    ctx.controller(NAME)
        .on(&roles, move |event, queue| {
            if event.old().is_some_and(|old| {
                old.rules == event.object().rules
                    && old.metadata.labels == event.object().metadata.labels
                    && old.aggregation_rule == event.object().aggregation_rule
            }) {
                return;
            }
            let aggregates = |r: &Arc<ClusterRole>| r.aggregation_rule.is_some();
            let all = for_events.list();
            all.iter().filter(|r| aggregates(r)).for_each(|r| queue.add(r.key()));
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let (client, lister) = (client.clone(), for_work.clone());
            async move {
                let Some(role) = lister.get("", &key.name) else { return Outcome::Ok(None) };
                if let Some(rules) = plan(&role, &lister.list())? {
                    let body = json!({
                        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                        "metadata": {"name": role.name()}, "rules": rules,
                    });
                    let patch = Patch::Apply { body, field_manager: NAME.into(), force: true };
                    match client.patch::<ClusterRole>("", role.name(), &patch).await {
                        Err(e) if e.is_not_found() => {}
                        other => drop(other?),
                    }
                }
                Ok(None)
            }
        })
        .await;
}

/// The rules an aggregating role should have, if it has others. In the order of the roles' names.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Result<Option<Vec<PolicyRule>>, Error> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let selector = LabelSelector::from_object(selector)?;
        for other in all
            .iter()
            .filter(|o| o.name() != role.name() && selector.matches_labels(o.metadata.labels.as_ref()))
        {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok((role.rules.as_deref().unwrap_or_default() != rules).then_some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gathered_once() {
        let role = |name: &str, label: &str, verbs: &[&str]| {
            let rules = verbs.iter().map(|v| json!({"verbs": [v]})).collect::<Vec<_>>();
            Arc::new(
                serde_json::from_value::<ClusterRole>(
                    json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules}),
                )
                .unwrap(),
            )
        };
        let admin: ClusterRole = serde_json::from_value(json!({
            "metadata": {"name": "admin", "labels": {"to": "admin"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "admin"}}, {"matchLabels": {"to": "view"}}]},
            "rules": null,
        }))
        .unwrap();
        let all = [
            Arc::new(admin.clone()),
            role("a", "admin", &["x", "y"]),
            role("b", "view", &["y", "z"]),
            role("c", "other", &["q"]),
        ];
        let rules = plan(&admin, &all).unwrap().unwrap();
        assert_eq!(rules.iter().map(|r| r.verbs.concat()).collect::<String>(), "xyz");
        assert_eq!(plan(&ClusterRole { rules: Some(rules), ..admin }, &all).unwrap(), None);
        assert_eq!(plan(&all[1], &all).unwrap(), None);
    }
}
