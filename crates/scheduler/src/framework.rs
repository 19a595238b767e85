//! One decision: which nodes can take a pod, and which of them is best.

use crate::cluster::Cluster;
use crate::plugins::Plugin;
use crate::pod::PodInfo;
use rand::Rng;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The best score a plugin gives.
pub const MAX_SCORE: i64 = 100;

/// Why a node, or all of them, can't take a pod.
pub type Reason = Cow<'static, str>;

/// What a plugin says about a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It can take the pod.
    Fits,
    /// Not now; if other pods left, it could.
    Unschedulable(Vec<Reason>),
    /// Not as long as the node and the pod are as they are.
    Unresolvable(Vec<Reason>),
}

impl Verdict {
    /// Not now, for one reason.
    pub fn no(reason: &'static str) -> Self {
        Verdict::Unschedulable(vec![reason.into()])
    }

    /// Not at all, for one reason.
    pub fn never(reason: &'static str) -> Self {
        Verdict::Unresolvable(vec![reason.into()])
    }
}

/// A question to ask of every node, by its place in the columns.
pub type Check<'a> = Box<dyn Fn(usize) -> Verdict + 'a>;

/// What one plugin wants to know before it looks at nodes.
pub enum Prepared<'a> {
    /// The pod has nothing to do with it.
    Skip,
    /// A question.
    Check(Check<'a>),
    /// No node can take the pod, whatever it is like.
    Reject(Reason),
}

/// What became of a pod.
#[derive(Debug)]
pub enum Outcome {
    /// The name of the best node.
    Placed(String),
    /// None fits.
    Unplaced(Diagnosis),
}

/// Why no node fits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// What is the matter with each of them, by name.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Why it was not necessary to look at them.
    pub rejected: Option<Reason>,
    /// Plugins that said no: what they look at must change first.
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    /// As users read it.
    pub fn message(&self) -> String {
        if self.nodes == 0 && self.rejected.is_none() {
            return "no nodes available to schedule pods".into();
        }
        let mut message = format!("0/{} nodes are available:", self.nodes);
        if let Some(reason) = &self.rejected {
            return message + &format!(" {reason}.");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in self.verdicts.values() {
            if let Verdict::Unschedulable(reasons) | Verdict::Unresolvable(reasons) = verdict {
                for reason in reasons {
                    *counts.entry(reason).or_default() += 1;
                }
            }
        }
        let mut parts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        parts.sort();
        if !parts.is_empty() {
            message += &format!(" {}.", parts.join(", "));
        }
        message
    }
}

/// The questions of all plugins about one pod.
pub struct Checks<'a>(Vec<(&'static str, Check<'a>)>);

impl<'a> Checks<'a> {
    /// Asks the plugins to prepare. An error names the plugin that says no right away.
    pub fn prepare(
        plugins: &'a [Plugin],
        pod: &'a PodInfo,
        cluster: &'a Cluster,
    ) -> Result<Self, (&'static str, Reason)> {
        let mut checks = Vec::with_capacity(plugins.len());
        for plugin in plugins {
            match (plugin.filter)(pod, cluster) {
                Prepared::Skip => {}
                Prepared::Check(check) => checks.push((plugin.name, check)),
                Prepared::Reject(reason) => return Err((plugin.name, reason)),
            }
        }
        Ok(Checks(checks))
    }

    /// What the first plugin that objects says.
    pub fn ask(&self, node: usize) -> Result<(), (&'static str, Verdict)> {
        for (name, check) in &self.0 {
            match check(node) {
                Verdict::Fits => {}
                verdict => return Err((name, verdict)),
            }
        }
        Ok(())
    }
}

/// How many fitting nodes are enough. In large clusters not all are compared.
fn enough(nodes: usize) -> usize {
    const ALL: usize = 100;
    if nodes < ALL {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALL)
}

/// Decides. `start` is where to begin to look, and moves on.
pub fn place(plugins: &[Plugin], pod: &PodInfo, cluster: &Cluster, start: &mut usize) -> Outcome {
    let mut diagnosis = Diagnosis { nodes: cluster.node_count(), ..Diagnosis::default() };
    if diagnosis.nodes == 0 {
        return Outcome::Unplaced(diagnosis);
    }
    let checks = match Checks::prepare(plugins, pod, cluster) {
        Ok(checks) => checks,
        Err((plugin, reason)) => {
            diagnosis.plugins.insert(plugin);
            diagnosis.rejected = Some(reason);
            return Outcome::Unplaced(diagnosis);
        }
    };
    let (all, wanted) = (cluster.rows.len(), enough(diagnosis.nodes));
    let (mut fitting, mut seen) = (Vec::new(), 0);
    for at in (0..all).map(|i| (*start + i) % all) {
        let Some(row) = cluster.rows.get(at).filter(|r| r.node.is_some()) else {
            seen += 1;
            continue;
        };
        if fitting.len() == wanted {
            break;
        }
        seen += 1;
        match checks.ask(at) {
            Ok(()) => fitting.push(at),
            Err((plugin, verdict)) => {
                diagnosis.plugins.insert(plugin);
                diagnosis.verdicts.insert(row.name.clone(), verdict);
            }
        }
    }
    *start = (*start + seen) % all;
    match best(plugins, pod, cluster, &fitting).and_then(|at| cluster.rows.get(at)) {
        Some(row) => Outcome::Placed(row.name.clone()),
        None => Outcome::Unplaced(diagnosis),
    }
}

/// The node with the best weighted sum of scores; of equals any.
fn best(plugins: &[Plugin], pod: &PodInfo, cluster: &Cluster, fitting: &[usize]) -> Option<usize> {
    if fitting.len() < 2 {
        return fitting.first().copied();
    }
    let mut totals = vec![0i64; fitting.len()];
    for plugin in plugins.iter().filter(|p| p.weight != 0) {
        if let Some(scores) = (plugin.score)(pod, cluster, fitting) {
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight;
            }
        }
    }
    let most = totals.iter().max()?;
    let equals: Vec<usize> =
        fitting.iter().zip(&totals).filter(|(_, t)| *t == most).map(|(at, _)| *at).collect();
    equals.get(rand::rng().random_range(0..equals.len())).copied()
}

/// Stretches scores so that the highest is [`MAX_SCORE`]; reversed, that is what the lowest gets.
pub fn normalize(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = match (max, reverse) {
            (0, false) => 0,
            (0, true) => MAX_SCORE,
            (max, false) => *score * MAX_SCORE / max,
            (max, true) => MAX_SCORE - *score * MAX_SCORE / max,
        };
    }
    scores
}
