//! NodePorts: a port of the host can be taken once.

use super::Plugin;
use crate::framework::{Prepared, Verdict};
use crate::pod::HostPort;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "NodePorts",
    filter: |pod, cluster| {
        if pod.ports.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(move |at| {
            let taken = cluster.rows.get(at).into_iter().flat_map(|r| r.pods.values()).flat_map(|p| &p.ports);
            if taken.clone().any(|t| pod.ports.iter().any(|p| conflict(t, p))) {
                return Verdict::no("node(s) didn't have free ports for the requested pod ports");
            }
            Verdict::Fits
        }))
    },
    ..Plugin::NONE
};

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0")
}
