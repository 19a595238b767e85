//! How fast the nodes of a zone may be given up: slowly, and not at all when it is rather us who are cut off.

use crate::Config;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How a zone fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    Normal,
    /// Many of its nodes are lost.
    Partial,
    /// All are.
    Full,
}

pub fn zone_of(node: &Node) -> String {
    let label =
        |new: &str, old: &str| node.label(new).or_else(|| node.label(old)).unwrap_or_default().to_string();
    let region = label("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region");
    let zone = label("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone");
    format!("{region}:\0:{zone}")
}

/// Whether the node says that it is ready.
pub fn is_ready(node: &Node) -> bool {
    super::lifecycle::condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// The state of each zone, and how many nodes it has.
pub fn states(nodes: &[Arc<Node>], threshold: f64) -> HashMap<String, (ZoneState, usize)> {
    let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
    for node in nodes {
        let count = counts.entry(zone_of(node)).or_default();
        if is_ready(node) { count.0 += 1 } else { count.1 += 1 }
    }
    let state = |(ready, lost): (usize, usize)| match (ready, lost) {
        (0, 1..) => ZoneState::Full,
        (_, 3..) if lost as f64 / (ready + lost) as f64 >= threshold => ZoneState::Partial,
        _ => ZoneState::Normal,
    };
    counts.into_iter().map(|(zone, c)| (zone, (state(c), c.0 + c.1))).collect()
}

/// Nodes per second that may be given up in a zone; `None` if all zones are lost: then none is, and those that
/// were are taken back.
pub fn rate(zone: &str, states: &HashMap<String, (ZoneState, usize)>, config: &Config) -> Option<f64> {
    if states.values().all(|(s, _)| *s == ZoneState::Full) {
        return None;
    }
    Some(match states.get(zone) {
        Some((ZoneState::Partial, size)) if *size > config.large_cluster_size => {
            config.secondary_node_eviction_rate
        }
        Some((ZoneState::Partial, _)) => 0.0,
        _ => config.node_eviction_rate,
    })
}

/// Lets one through at a time, so many per second.
pub struct Limiter {
    next: Timestamp,
}

impl Limiter {
    pub fn new() -> Self {
        Limiter { next: Timestamp::MIN }
    }

    /// Takes a turn, or says how long to wait for one.
    pub fn turn(&mut self, rate: f64, now: Timestamp) -> Result<(), Duration> {
        if rate <= 0.0 {
            return Err(Duration::from_secs(5));
        }
        if let Some(wait) = api::time::until(self.next, now) {
            return Err(wait);
        }
        self.next = api::time::later(now, Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes(zone: &str, ready: usize, lost: usize) -> Vec<Arc<Node>> {
        let node = |i: usize, status: &str| {
            Arc::new(
                serde_json::from_value::<Node>(json!({
                    "metadata": {"name": format!("{zone}{i}"), "labels": {"topology.kubernetes.io/zone": zone}},
                    "status": {"conditions": [{"type": "Ready", "status": status}]},
                }))
                .unwrap(),
            )
        };
        (0..ready).map(|i| node(i, "True")).chain((0..lost).map(|i| node(100 + i, "Unknown"))).collect()
    }

    #[test]
    fn zones_are_judged() {
        let config = Config::default();
        let of = |all: Vec<Arc<Node>>, zone: &str| {
            let s = states(&all, config.unhealthy_zone_threshold);
            rate(&format!(":\0:{zone}"), &s, &config)
        };
        assert_eq!(of(nodes("a", 5, 2), "a"), Some(0.1));
        assert_eq!(of(nodes("a", 1, 2), "a"), Some(0.1)); // two are few
        assert_eq!(of(nodes("a", 2, 5), "a"), Some(0.0));
        assert_eq!(of(nodes("a", 20, 40), "a"), Some(0.01));
        assert_eq!(of(nodes("a", 0, 3), "a"), None);
        let mut both = nodes("a", 0, 3);
        both.extend(nodes("b", 3, 0));
        assert_eq!((of(both.clone(), "a"), of(both, "b")), (Some(0.1), Some(0.1)));
    }

    #[test]
    fn turns_are_taken_slowly() {
        let (mut l, now) = (Limiter::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(l.turn(0.1, now), Ok(()));
        assert_eq!(l.turn(0.1, now), Err(Duration::from_secs(10)));
        assert_eq!(l.turn(0.1, api::time::later(now, Duration::from_secs(10))), Ok(()));
        assert!(l.turn(0.0, now).is_err());
    }
}
