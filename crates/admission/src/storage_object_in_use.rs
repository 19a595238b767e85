//! Claims, volumes and volume attributes classes get the finalizer that keeps them while they are used.

use crate::{Plugin, Request};
use api::Status;
use api::object::Object;

/// See the module.
pub struct StorageObjectInUse;

impl Plugin for StorageObjectInUse {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let finalizer = if request.creates("", "persistentvolumes") {
            "kubernetes.io/pv-protection"
        } else if request.creates("", "persistentvolumeclaims") {
            "kubernetes.io/pvc-protection"
        } else if request.creates("storage.k8s.io", "volumeattributesclasses") {
            "kubernetes.io/vac-protection"
        } else {
            return Ok(());
        };
        let Some(object) = object else { return Ok(()) };
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.into());
        }
        Ok(())
    }
}
