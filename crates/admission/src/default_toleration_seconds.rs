//! A pod stays on a node that is not ready or not reachable for five minutes, unless it says otherwise.

use crate::{Operation, Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::api::core::v1::{Pod, Toleration};

/// See the module.
pub struct DefaultTolerationSeconds {
    /// Of a node that is not ready.
    pub not_ready: i64,
    /// Of one that can't be reached.
    pub unreachable: i64,
}

impl Default for DefaultTolerationSeconds {
    fn default() -> Self {
        DefaultTolerationSeconds { not_ready: 300, unreachable: 300 }
    }
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation == Operation::Delete {
            return Ok(());
        }
        let Some(spec) = object.and_then(|o| o.get_mut::<Pod>()).and_then(|p| p.spec.as_mut()) else {
            return Ok(());
        };
        let taints = [
            ("node.kubernetes.io/not-ready", self.not_ready),
            ("node.kubernetes.io/unreachable", self.unreachable),
        ];
        for (taint, seconds) in taints {
            let tolerates = |t: &Toleration| {
                let key = t.key.as_deref().unwrap_or_default();
                let effect = t.effect.as_deref().unwrap_or_default();
                (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            };
            let tolerations = spec.tolerations.get_or_insert_default();
            if !tolerations.iter().any(tolerates) {
                tolerations.push(Toleration {
                    key: Some(taint.into()),
                    operator: Some("Exists".into()),
                    effect: Some("NoExecute".into()),
                    toleration_seconds: Some(seconds),
                    value: None,
                });
            }
        }
        if spec.tolerations.as_ref().is_some_and(Vec::is_empty) {
            spec.tolerations = None;
        }
        Ok(())
    }
}
