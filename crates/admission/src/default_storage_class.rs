//! A claim that names no class gets the one that is marked as the default.

use crate::{Plugin, Request};
use api::object::Object;
use api::{Status, read};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use std::cmp::Reverse;

/// See the module.
pub struct DefaultStorageClass;

const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// How a class was named before there was a field for it.
const NAMED: &str = "volume.beta.kubernetes.io/storage-class";

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.creates("", "persistentvolumeclaims") {
            return Ok(());
        }
        let Some(claim) = object.and_then(|o| o.get_mut::<PersistentVolumeClaim>()) else { return Ok(()) };
        let annotated = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(NAMED));
        let spec = claim.spec.get_or_insert_default();
        if annotated || spec.storage_class_name.is_some() {
            return Ok(());
        }
        // Of several, the newest; of those, the first by name.
        let default = read::list::<StorageClass>(request.reader, None)
            .into_iter()
            .map(|c| c.metadata)
            .filter(|m| {
                let says = |key: &&str| {
                    m.annotations.as_ref().and_then(|a| a.get(*key)).is_some_and(|v| v == "true")
                };
                IS_DEFAULT.iter().any(says)
            })
            .min_by_key(|m| (Reverse(m.creation_timestamp.as_ref().map(|t| t.0)), m.name.clone()));
        if let Some(class) = default {
            spec.storage_class_name = class.name;
        }
        Ok(())
    }
}
