//! A claim grows only once it is bound, and only if its class says that its volumes can.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::quantity::Quantity;
use api::quota::class;
use api::{Status, read};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

/// See the module.
pub struct PersistentVolumeClaimResize;

fn size(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    requests.and_then(|r| r.get("storage")).map(Quantity::lenient).unwrap_or_default()
}

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.is("", "persistentvolumeclaims") || request.operation != Operation::Update {
            return Ok(());
        }
        let old = request.old.and_then(|o| o.get::<PersistentVolumeClaim>());
        let (Some(new), Some(old)) = (object.and_then(|o| o.get::<PersistentVolumeClaim>()), old) else {
            return Ok(());
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let may_grow = || {
            let class: StorageClass = read::get(request.reader, "", class(new))?;
            class.allow_volume_expansion
        };
        if class(new).is_empty() || class(new) != class(old) || may_grow() != Some(true) {
            return Err(request.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ));
        }
        Ok(())
    }
}
