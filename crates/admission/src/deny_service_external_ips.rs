//! No Service gets external addresses that it had not before.

use crate::{Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::api::core::v1::Service;

/// See the module.
pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.writes("", "services") {
            return Ok(());
        }
        let addresses = |o: &Object| -> Vec<String> {
            o.get::<Service>()
                .and_then(|s| s.spec.as_ref())
                .and_then(|s| s.external_ips.clone())
                .unwrap_or_default()
        };
        let old = request.old.map(addresses).unwrap_or_default();
        if object.map(addresses).unwrap_or_default().iter().all(|a| old.contains(a)) {
            return Ok(());
        }
        Err(request.forbidden("Use of external IPs is denied by admission control"))
    }
}
