//! What several controllers share.

pub mod batch;
pub mod claim;
pub mod conditions;
pub mod expectations;
pub mod hash;
pub mod history;
pub mod intstr;
pub mod owned;
pub mod pods;
pub mod scale;
pub mod scheduling;
pub mod selectors;

use client::{Object, ObjectExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};

/// A reference by which `owner` controls an object.
pub fn controller_ref<T: Object>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::API_VERSION.into(),
        kind: T::KIND.into(),
        name: owner.name().into(),
        uid: owner.uid().into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Deletes this object only, not another of its name.
pub fn delete_uid(uid: &str) -> DeleteOptions {
    let preconditions = Some(Preconditions { uid: Some(uid.into()), resource_version: None });
    DeleteOptions { preconditions, ..DeleteOptions::default() }
}

/// What was to be deleted may be gone already.
pub fn gone_is_fine(result: Result<(), client::Error>) -> Result<(), client::Error> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}
