//! Which nodes a pod may be on: taints, selectors and required affinity.

use client::ObjectExt;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// Whether a toleration is for a taint.
pub fn tolerates(t: &Toleration, taint: &Taint) -> bool {
    let set = |v: &Option<String>| v.clone().filter(|v| !v.is_empty());
    if set(&t.effect).is_some_and(|e| e != taint.effect) {
        return false;
    }
    if set(&t.key).is_some_and(|k| k != taint.key) {
        return false;
    }
    match t.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            set(&t.key).is_some()
                && t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

/// A taint with one of these effects that no toleration is for.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    let concerns = |t: &&Taint| effects.contains(&t.effect.as_str());
    taints.iter().filter(concerns).find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// Whether a pod's selector and required affinity let it be on a node.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.label(key);
    if spec.node_selector.iter().flatten().any(|(k, v)| label(k) != Some(v)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

/// A term without demands matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| matches(r, node.label(&r.key)))
        && fields.iter().all(|r| r.key == "metadata.name" && matches(r, Some(node.name())))
}

fn matches(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|w| w == v));
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let numbers = || number(value).zip(number(values.first().map(String::as_str)));
    match r.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(a, b)| a > b),
        "Lt" => numbers().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_are_matched() {
        let taint = |k: &str, v: &str, e: &str| Taint {
            key: k.into(),
            value: Some(v.into()),
            effect: e.into(),
            time_added: None,
        };
        let t = |v| serde_json::from_value::<Toleration>(v).unwrap();
        let mine = taint("k", "v", "NoExecute");
        for (toleration, want) in [
            (t(json!({"operator": "Exists"})), true),
            (t(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})), true),
            (t(json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"})), false),
            (t(json!({"key": "k", "value": "v"})), true),
            (t(json!({"key": "k", "value": "w"})), false),
            (t(json!({"key": "j", "operator": "Exists"})), false),
            (t(json!({"value": "v"})), false),
        ] {
            assert_eq!(tolerates(&toleration, &mine), want, "{toleration:?}");
        }
        let taints = [mine, taint("p", "", "PreferNoSchedule")];
        assert!(
            untolerated(&taints, &[], &["NoSchedule"]).is_none()
                && untolerated(&taints, &[], &["NoExecute"]).is_some()
        );
    }

    #[test]
    fn nodes_are_selected() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"a": "b", "size": "5"}}}))
                .unwrap();
        let with = |terms| json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        for (spec, want) in [
            (json!({"containers": []}), true),
            (json!({"containers": [], "nodeSelector": {"a": "b"}}), true),
            (json!({"containers": [], "nodeSelector": {"a": "c"}}), false),
            (with(json!([{"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["4"]}]}])), true),
            (
                with(
                    json!([{"matchExpressions": [{"key": "size", "operator": "Lt", "values": ["4"]}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
                ),
                true,
            ),
            (
                with(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}])),
                false,
            ),
            (with(json!([{}])), false),
            (
                with(
                    json!([{"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}, {"key": "a", "operator": "NotIn", "values": ["c"]}]}]),
                ),
                true,
            ),
        ] {
            assert_eq!(selects(&serde_json::from_value(spec.clone()).unwrap(), &node), want, "{spec}");
        }
    }
}
