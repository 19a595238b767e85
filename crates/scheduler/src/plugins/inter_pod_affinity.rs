//! InterPodAffinity: pods that want to be with others, or away from them.

use super::Plugin;
use crate::cluster::Cluster;
use crate::framework::{MAX_SCORE, Prepared, Verdict};
use crate::pod::{PodInfo, Term};
use client::ObjectExt;
use std::collections::{HashMap, HashSet};

/// What a required affinity of a pod that is there counts for a pod that it speaks of.
const HARD_WEIGHT: i64 = 1;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "InterPodAffinity",
    weight: 2,
    filter,
    score: |pod, cluster, nodes| score(pod, cluster, nodes),
};

/// A topology key and the value that a node has for it.
type Domain<'a> = (&'a str, &'a str);

fn filter<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Prepared<'a> {
    let mine = cluster.namespace(pod.pod.namespace());
    // Domains where a pod is that does not want this one near.
    let mut repelled: HashSet<Domain<'a>> = HashSet::new();
    for (node, other) in cluster.with_affinity.values() {
        let Some(row) = cluster.index(node).and_then(|at| cluster.rows.get(at)) else { continue };
        for term in other.anti_affinity.iter().filter(|t| t.matches(&pod.pod, mine)) {
            repelled.extend(row.label(&term.topology_key).map(|value| (term.topology_key.as_str(), value)));
        }
    }
    if repelled.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
        return Prepared::Skip;
    }
    // Domains with a pod that all affinity terms speak of, and those with one that an anti-affinity term does.
    let (mut wanted, mut unwanted) = (HashSet::<Domain<'a>>::new(), HashSet::<Domain<'a>>::new());
    if !pod.affinity.is_empty() || !pod.anti_affinity.is_empty() {
        for (at, other) in cluster.pods() {
            let Some(row) = cluster.rows.get(at) else { continue };
            let namespace = cluster.namespace(other.pod.namespace());
            let of = |term: &'a Term| {
                row.label(&term.topology_key).map(|value| (term.topology_key.as_str(), value))
            };
            if !pod.affinity.is_empty() && pod.affinity.iter().all(|t| t.matches(&other.pod, namespace)) {
                wanted.extend(pod.affinity.iter().filter_map(of));
            }
            unwanted
                .extend(pod.anti_affinity.iter().filter(|t| t.matches(&other.pod, namespace)).filter_map(of));
        }
    }
    // The first of a group that wants to be together can go anywhere.
    let first = wanted.is_empty() && pod.affinity.iter().all(|t| t.matches(&pod.pod, mine));
    Prepared::Check(Box::new(move |at| {
        let Some(row) = cluster.rows.get(at) else { return Verdict::Fits };
        let domain =
            |term: &'a Term| row.label(&term.topology_key).map(|value| (term.topology_key.as_str(), value));
        let near = |term| domain(term).is_some_and(|d| first || wanted.contains(&d));
        if !pod.affinity.iter().all(near) {
            return Verdict::never("node(s) didn't match pod affinity rules");
        }
        if pod.anti_affinity.iter().any(|term| domain(term).is_some_and(|d| unwanted.contains(&d))) {
            return Verdict::no("node(s) didn't match pod anti-affinity rules");
        }
        if repelled.iter().any(|(key, value)| row.label(key) == Some(value)) {
            return Verdict::no("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Verdict::Fits
    }))
}

fn score(pod: &PodInfo, cluster: &Cluster, nodes: &[usize]) -> Option<Vec<i64>> {
    let mine = cluster.namespace(pod.pod.namespace());
    let mut sums: HashMap<Domain<'_>, i64> = HashMap::new();
    let mut add = |at: usize, term: &Term, weight: i64| {
        let row = cluster.rows.get(at)?;
        // The key is borrowed from the node's labels, which live as long as the cluster.
        let (key, value) = row.node.as_ref()?.metadata.labels.as_ref()?.get_key_value(&term.topology_key)?;
        *sums.entry((key, value)).or_default() += weight;
        Some(())
    };
    if !pod.preferred.is_empty() {
        for (at, other) in cluster.pods() {
            let namespace = cluster.namespace(other.pod.namespace());
            for term in pod.preferred.iter().filter(|t| t.matches(&other.pod, namespace)) {
                add(at, term, term.weight);
            }
        }
    }
    for (node, other) in cluster.with_affinity.values() {
        let Some(at) = cluster.index(node) else { continue };
        for term in other.preferred.iter().filter(|t| t.matches(&pod.pod, mine)) {
            add(at, term, term.weight);
        }
        for term in other.affinity.iter().filter(|t| t.matches(&pod.pod, mine)) {
            add(at, term, HARD_WEIGHT);
        }
    }
    if sums.is_empty() {
        return None;
    }
    let sum = |at: &usize| {
        let row = cluster.rows.get(*at)?;
        Some(
            sums.iter()
                .filter(|((key, value), _)| row.label(key) == Some(value))
                .map(|(_, n)| n)
                .sum::<i64>(),
        )
    };
    let scores: Vec<i64> = nodes.iter().map(|at| sum(at).unwrap_or(0)).collect();
    let (min, max) = (scores.iter().min().copied().unwrap_or(0), scores.iter().max().copied().unwrap_or(0));
    Some(scores.iter().map(|s| if max == min { 0 } else { MAX_SCORE * (s - min) / (max - min) }).collect())
}
