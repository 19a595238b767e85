//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use super::{Plugin, taint_toleration::tolerates};
use crate::framework::{Prepared, Verdict};
use k8s_openapi::api::core::v1::Taint;

/// The plugin.
pub const PLUGIN: Plugin = Plugin {
    name: "NodeUnschedulable",
    filter: |pod, cluster| {
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if tolerates(pod, &cordon) {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(|at| {
            let spec = cluster.rows.get(at).and_then(|r| r.node.as_ref()?.spec.as_ref());
            if spec.is_some_and(|s| s.unschedulable == Some(true)) {
                return Verdict::never("node(s) were unschedulable");
            }
            Verdict::Fits
        }))
    },
    ..Plugin::NONE
};
