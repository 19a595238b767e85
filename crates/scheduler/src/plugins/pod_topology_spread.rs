//! PodTopologySpread: pods of a kind are spread over domains of nodes.

use super::{Plugin, node_matches, tolerates_all};
use crate::cluster::{Cluster, NodeRow};
use crate::framework::{MAX_SCORE, Prepared, Verdict};
use crate::pod::{PodInfo, Spread};
use api::selector::LabelSelector;
use client::ObjectExt;
use std::collections::{HashMap, HashSet};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "PodTopologySpread",
    weight: 2,
    filter,
    score: |pod, cluster, nodes| score(pod, cluster, nodes),
};

fn counts_node(c: &Spread, pod: &PodInfo, row: &NodeRow) -> bool {
    row.node.is_some()
        && (!c.honor_affinity || node_matches(pod, row))
        && (!c.honor_taints || tolerates_all(pod, row))
}

/// How many pods of a constraint a node has. Pods that are going away don't count.
fn count_pods(selector: &LabelSelector, namespace: &str, row: &NodeRow) -> i64 {
    let counted = row.pods.values().filter(|p| {
        p.pod.namespace() == namespace
            && !p.pod.is_deleting()
            && selector.matches_labels(p.pod.metadata.labels.as_ref())
    });
    counted.count() as i64
}

fn filter<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Prepared<'a> {
    if pod.spread.is_empty() {
        return Prepared::Skip;
    }
    let namespace = pod.pod.namespace();
    let has_all = |row: &NodeRow| pod.spread.iter().all(|c| row.label(&c.topology_key).is_some());
    let mut domains = Vec::with_capacity(pod.spread.len());
    for c in &pod.spread {
        let mut counts: HashMap<&str, i64> = HashMap::new();
        for row in cluster.rows.iter().filter(|r| has_all(r) && counts_node(c, pod, r)) {
            if let Some(value) = row.label(&c.topology_key) {
                *counts.entry(value).or_default() += count_pods(&c.selector, namespace, row);
            }
        }
        let few = (counts.len() as i64) < c.min_domains;
        let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let own = i64::from(c.selector.matches_labels(pod.pod.metadata.labels.as_ref()));
        domains.push((c, counts, least, own));
    }
    Prepared::Check(Box::new(move |at| {
        let Some(row) = cluster.rows.get(at) else { return Verdict::Fits };
        for (c, counts, least, own) in &domains {
            let Some(value) = row.label(&c.topology_key) else {
                return Verdict::never(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                );
            };
            if counts.get(value).copied().unwrap_or(0) + own - least > c.max_skew {
                return Verdict::no("node(s) didn't match pod topology spread constraints");
            }
        }
        Verdict::Fits
    }))
}

/// A pod that says nothing is spread with the pods that have the same controller.
fn defaults(pod: &PodInfo) -> Vec<(Spread, Option<String>)> {
    let Some(owner) = pod.pod.controller() else { return Vec::new() };
    let spread = |key: &str, max_skew| Spread {
        max_skew,
        topology_key: key.into(),
        min_domains: 1,
        selector: LabelSelector::default(),
        honor_affinity: true,
        honor_taints: false,
    };
    vec![(spread(HOSTNAME, 3), Some(owner.uid.clone())), (spread(ZONE, 5), Some(owner.uid.clone()))]
}

fn score(pod: &PodInfo, cluster: &Cluster, nodes: &[usize]) -> Option<Vec<i64>> {
    let explicit = !pod.soft_spread.is_empty() || !pod.spread.is_empty();
    let constraints: Vec<(Spread, Option<String>)> =
        if explicit { pod.soft_spread.iter().map(|c| (c.clone(), None)).collect() } else { defaults(pod) };
    if constraints.is_empty() {
        return None;
    }
    let namespace = pod.pod.namespace();
    let count = |c: &Spread, owner: &Option<String>, row: &NodeRow| match owner {
        None => count_pods(&c.selector, namespace, row),
        Some(uid) => {
            let same = row.pods.values().filter(|p| !p.pod.is_deleting());
            same.filter(|p| p.pod.controller().is_some_and(|o| &o.uid == uid)).count() as i64
        }
    };
    // With its own constraints a pod prefers nodes that have all their labels.
    let labelled =
        |row: &NodeRow| !explicit || constraints.iter().all(|(c, _)| row.label(&c.topology_key).is_some());
    let mut scores = vec![0.0; nodes.len()];
    for (c, owner) in &constraints {
        let values: HashSet<&str> = nodes
            .iter()
            .filter_map(|at| cluster.rows.get(*at).filter(|r| labelled(r))?.label(&c.topology_key))
            .collect();
        let weight = (values.len() as f64 + 2.0).ln();
        let mut counts: HashMap<&str, i64> = HashMap::new();
        if c.topology_key != HOSTNAME {
            for row in cluster.rows.iter().filter(|r| labelled(r) && counts_node(c, pod, r)) {
                if let Some(value) = row.label(&c.topology_key).filter(|v| values.contains(v)) {
                    *counts.entry(value).or_default() += count(c, owner, row);
                }
            }
        }
        for (score, at) in scores.iter_mut().zip(nodes) {
            let Some(row) = cluster.rows.get(*at) else { continue };
            let Some(value) = row.label(&c.topology_key) else { continue };
            let found = match c.topology_key == HOSTNAME {
                true => count(c, owner, row),
                false => counts.get(value).copied().unwrap_or(0),
            };
            *score += found as f64 * weight + (c.max_skew - 1) as f64;
        }
    }
    let scores: Vec<i64> = scores.into_iter().map(|s: f64| s.round() as i64).collect();
    let counted = || nodes.iter().zip(&scores).filter(|(at, _)| cluster.rows.get(**at).is_some_and(labelled));
    let (min, max) =
        (counted().map(|(_, s)| *s).min().unwrap_or(0), counted().map(|(_, s)| *s).max().unwrap_or(0));
    let normal = |(at, score): (&usize, &i64)| match cluster.rows.get(*at).is_some_and(labelled) {
        false => 0,
        true if max == 0 => MAX_SCORE,
        true => MAX_SCORE * (max + min - score) / max,
    };
    Some(nodes.iter().zip(&scores).map(normal).collect())
}
