//! The plugins, a file each, in the order they are asked.

mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

use crate::cluster::Cluster;
use crate::framework::Prepared;
use crate::pod::PodInfo;

pub(crate) use node_affinity::{matches as node_matches, selector_matches};
pub(crate) use taint_toleration::tolerates_all;

/// A plugin: what it says no to, and what it prefers.
#[derive(Clone, Copy)]
pub struct Plugin {
    /// Upstream's name.
    pub name: &'static str,
    /// How much its scores count.
    pub weight: i64,
    /// PreFilter and Filter: looks at the pod, then at nodes.
    pub filter: for<'a> fn(&'a PodInfo, &'a Cluster) -> Prepared<'a>,
    /// PreScore, Score and NormalizeScore: a number from 0 to 100 for each of some nodes.
    pub score: fn(&PodInfo, &Cluster, &[usize]) -> Option<Vec<i64>>,
}

impl Plugin {
    const NONE: Plugin = Plugin { name: "", weight: 0, filter: |_, _| Prepared::Skip, score: |_, _, _| None };
}

/// All plugins, as the default profile has them.
pub const DEFAULT: [Plugin; 12] = [
    node_unschedulable::PLUGIN,
    node_name::PLUGIN,
    taint_toleration::PLUGIN,
    node_affinity::PLUGIN,
    node_ports::PLUGIN,
    node_resources::FIT,
    crate::volumes::PLUGIN,
    dynamic_resources::PLUGIN,
    pod_topology_spread::PLUGIN,
    inter_pod_affinity::PLUGIN,
    node_resources::BALANCED,
    image_locality::PLUGIN,
];

/// Names a profile may mention that are not in [`DEFAULT`]: what the first four do is part of the scheduler itself; the rest are
/// [`ABSENT`].
pub const BUILT_IN: [&str; 9] = [
    "SchedulingGates",
    "PrioritySort",
    "DefaultPreemption",
    "DefaultBinder",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeZone",
    "NodeDeclaredFeatures",
    "GangScheduling",
];

/// Upstream's plugins that are not there yet: they may be disabled, not asked for.
pub const ABSENT: [&str; 5] =
    ["VolumeRestrictions", "NodeVolumeLimits", "VolumeZone", "NodeDeclaredFeatures", "GangScheduling"];
