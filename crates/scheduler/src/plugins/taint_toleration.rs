//! TaintToleration: nodes keep pods away that don't tolerate their taints.

use super::Plugin;
use crate::cluster::NodeRow;
use crate::framework::{Prepared, Verdict, normalize};
use crate::pod::PodInfo;
use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "TaintToleration",
    weight: 3,
    filter: |pod, cluster| {
        Prepared::Check(Box::new(move |at| match cluster.rows.get(at) {
            Some(row) if !tolerates_all(pod, row) => Verdict::never("node(s) had untolerated taint(s)"),
            _ => Verdict::Fits,
        }))
    },
    score: |pod, cluster, nodes| {
        let count = |at: &usize| {
            let unloved = cluster.rows.get(*at).into_iter().flat_map(taints);
            unloved.filter(|t| t.effect == "PreferNoSchedule" && !tolerates(pod, t)).count() as i64
        };
        Some(normalize(nodes.iter().map(count).collect(), true))
    },
};

fn taints(row: &NodeRow) -> impl Iterator<Item = &Taint> {
    row.node.iter().filter_map(|n| n.spec.as_ref()?.taints.as_ref()).flatten()
}

/// Whether a pod tolerates all taints that keep pods off a node.
pub fn tolerates_all(pod: &PodInfo, row: &NodeRow) -> bool {
    taints(row).filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute").all(|t| tolerates(pod, t))
}

/// Whether a pod tolerates a taint.
pub fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    let all = pod.spec().and_then(|s| s.tolerations.as_ref());
    all.into_iter().flatten().any(|t| matches(t, taint))
}

fn matches(t: &Toleration, taint: &Taint) -> bool {
    let is =
        |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == given);
    if !is(&t.effect, &taint.effect) || !is(&t.key, &taint.key) {
        return false;
    }
    let (mine, theirs) = (t.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
    let numbers = || Some((mine.parse::<i64>().ok()?, theirs.parse::<i64>().ok()?));
    match t.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => mine == theirs,
        Some("Lt") => numbers().is_some_and(|(mine, theirs)| theirs < mine),
        Some("Gt") => numbers().is_some_and(|(mine, theirs)| theirs > mine),
        Some(_) => false,
    }
}
