//! NodeName: a pod that names its node goes there.

use super::Plugin;
use crate::framework::{Prepared, Verdict};

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "NodeName",
    filter: |pod, cluster| match pod.spec().and_then(|s| s.node_name.as_deref()) {
        None | Some("") => Prepared::Skip,
        Some(name) => Prepared::Check(Box::new(move |at| {
            if cluster.rows.get(at).is_some_and(|r| r.name == name) {
                Verdict::Fits
            } else {
                Verdict::never("node(s) didn't match the requested node name")
            }
        })),
    },
    ..Plugin::NONE
};
