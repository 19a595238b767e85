//! DefaultPreemption: which pods have to go so that a more important one fits.

use crate::cluster::Cluster;
use crate::framework::{Checks, Diagnosis, Verdict};
use crate::plugins::Plugin;
use crate::pod::PodInfo;
use api::selector::LabelSelector;
use client::ObjectExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node, and the pods that would have to leave it.
#[derive(Debug)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// The pods, most important first.
    pub victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Said while those that were preempted are still leaving.
pub const LEAVING: &str = "a terminating pod on the nominated node";

/// How many nodes are tried, at least.
const CANDIDATES: usize = 100;

/// Looks for the node where it hurts least. The message says why there is none.
pub fn find(
    plugins: &[Plugin],
    pod: &PodInfo,
    cluster: &mut Cluster,
    diagnosis: &Diagnosis,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Candidate, String> {
    if pod.spec().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".into());
    }
    let nominated = pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    if let Some(row) = nominated.and_then(|n| cluster.index(n)).and_then(|at| cluster.rows.get(at))
        && row.pods.values().any(|p| p.priority < pod.priority && leaves_for_another(&p.pod))
    {
        return Err(format!("preemption: not eligible due to {LEAVING}."));
    }
    let mut told = Diagnosis { nodes: diagnosis.nodes, ..Diagnosis::default() };
    let mut candidates = Vec::new();
    let limit = (diagnosis.nodes / 10).max(CANDIDATES);
    for (node, verdict) in &diagnosis.verdicts {
        let reason = match verdict {
            Verdict::Unschedulable(_) if candidates.len() < limit => {
                match on_node(plugins, pod, cluster, node, budgets) {
                    Some(candidate) => {
                        candidates.push(candidate);
                        continue;
                    }
                    None => "No preemption victims found for incoming pod",
                }
            }
            _ => "Preemption is not helpful for scheduling",
        };
        told.verdicts.insert(node.clone(), Verdict::never(reason));
    }
    let start = |c: &Candidate| {
        let top = c.victims.first().map_or(i32::MIN, |v| v.priority);
        let important = c.victims.iter().filter(|v| v.priority == top);
        important.filter_map(|v| v.pod.status.as_ref()?.start_time.as_ref().map(|t| t.0)).min()
    };
    let best = candidates.into_iter().min_by_key(|c| {
        let sum: i64 = c.victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
        (
            c.violations,
            c.victims.first().map_or(i32::MIN, |v| v.priority),
            sum,
            c.victims.len(),
            Reverse(start(c)),
        )
    });
    best.ok_or_else(|| format!("preemption: {}", told.message()))
}

/// Whether a pod is on its way out because it was preempted.
fn leaves_for_another(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.is_deleting()
        && conditions.into_iter().flatten().any(|c| {
            c.type_ == "DisruptionTarget"
                && c.status == "True"
                && c.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

/// All less important pods leave; then each that can stay comes back, the most important first.
fn on_node(
    plugins: &[Plugin],
    pod: &PodInfo,
    cluster: &mut Cluster,
    node: &str,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Candidate> {
    let row = cluster.rows.get(cluster.index(node)?)?;
    let mut lesser: Vec<Arc<PodInfo>> =
        row.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return None;
    }
    let started = |p: &PodInfo| p.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    lesser.sort_by_key(|p| (Reverse(p.priority), started(p)));
    for p in &lesser {
        cluster.remove_pod(p.pod.uid());
    }
    let mut victims = Vec::new();
    let fits = |cluster: &Cluster| {
        let at = cluster.index(node);
        Checks::prepare(plugins, pod, cluster).is_ok_and(|c| at.is_some_and(|at| c.ask(at).is_ok()))
    };
    let possible = fits(cluster);
    let mut violations = 0;
    if possible {
        // Those whose budget would be broken are the first to be spared.
        let mut left: BTreeMap<usize, i32> = BTreeMap::new();
        let mut breaks = |p: &PodInfo| {
            let mut broken = false;
            for (i, budget) in budgets.iter().enumerate().filter(|(_, b)| covers(b, p)) {
                let allowed = budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
                let left = left.entry(i).or_insert(allowed);
                *left -= 1;
                broken |= *left < 0;
            }
            broken
        };
        let (breaking, harmless): (Vec<_>, Vec<_>) = lesser.iter().cloned().partition(|p| breaks(p));
        for (p, is_breaking) in
            breaking.into_iter().map(|p| (p, true)).chain(harmless.into_iter().map(|p| (p, false)))
        {
            cluster.set_pod(p.clone(), node);
            if !fits(cluster) {
                cluster.remove_pod(p.pod.uid());
                violations += usize::from(is_breaking);
                victims.push(p);
            }
        }
    }
    for p in lesser {
        cluster.set_pod(p, node);
    }
    victims.sort_by_key(|p| Reverse(p.priority));
    (possible && !victims.is_empty()).then(|| Candidate { node: node.into(), victims, violations })
}

fn covers(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    let disrupted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let empty = |s: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
        s.match_labels.as_ref().is_none_or(|l| l.is_empty())
            && s.match_expressions.as_ref().is_none_or(|e| e.is_empty())
    };
    budget.namespace() == pod.pod.namespace()
        && disrupted.is_none_or(|d| !d.contains_key(pod.pod.name()))
        && selector.is_some_and(|s| {
            !empty(s)
                && LabelSelector::from_object(s)
                    .is_ok_and(|s| s.matches_labels(pod.pod.metadata.labels.as_ref()))
        })
}
