//! NodeAffinity: the nodes that a pod selects, and those it prefers.

use super::Plugin;
use crate::cluster::NodeRow;
use crate::framework::{Prepared, Verdict, normalize};
use crate::pod::PodInfo;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "NodeAffinity",
    weight: 2,
    filter: |pod, cluster| {
        if pod.required_nodes().is_none() && pod.spec().is_none_or(|s| s.node_selector.is_none()) {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(move |at| match cluster.rows.get(at) {
            Some(row) if !matches(pod, row) => {
                Verdict::never("node(s) didn't match Pod's node affinity/selector")
            }
            _ => Verdict::Fits,
        }))
    },
    score: |pod, cluster, nodes| {
        let affinity = pod.node_affinity()?.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        let score = |at: &usize| {
            let row = cluster.rows.get(*at)?;
            let met = preferred
                .iter()
                .filter(|p| p.weight != 0 && !is_empty(&p.preference) && term_matches(&p.preference, row));
            Some(met.map(|p| i64::from(p.weight)).sum())
        };
        Some(normalize(nodes.iter().map(|at| score(at).unwrap_or(0)).collect(), false))
    },
};

/// Whether a pod's node selector and required affinity allow a node.
pub fn matches(pod: &PodInfo, row: &NodeRow) -> bool {
    let plain = pod.spec().and_then(|s| s.node_selector.as_ref());
    plain.into_iter().flatten().all(|(key, value)| row.label(key) == Some(value))
        && pod.required_nodes().is_none_or(|s| selector_matches(s, row))
}

/// Whether one of a selector's terms matches a node. Empty terms match none.
pub fn selector_matches(selector: &NodeSelector, row: &NodeRow) -> bool {
    selector.node_selector_terms.iter().any(|t| !is_empty(t) && term_matches(t, row))
}

fn is_empty(t: &NodeSelectorTerm) -> bool {
    t.match_expressions.iter().flatten().chain(t.match_fields.iter().flatten()).next().is_none()
}

fn term_matches(t: &NodeSelectorTerm, row: &NodeRow) -> bool {
    t.match_expressions.iter().flatten().all(|r| requirement_matches(r, row.label(&r.key)))
        && t.match_fields.iter().flatten().all(|r| {
            let value = (r.key == "metadata.name").then_some(row.name.as_str());
            value.is_some() && requirement_matches(r, value)
        })
}

fn requirement_matches(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = || r.values.iter().flatten();
    let number = || Some((value?.parse::<i64>().ok()?, values().next()?.parse::<i64>().ok()?));
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(v, w)| v > w),
        "Lt" => number().is_some_and(|(v, w)| v < w),
        _ => false,
    }
}
