//! PersistentVolumeClaim.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

/// The rules of PersistentVolumeClaim.
pub static KIND: Kind<PersistentVolumeClaim> = Kind {
    has_status: true,
    default: |c| {
        c.spec.get_or_insert_default().volume_mode.get_or_insert_with(|| "Filesystem".into());
    },
    prepare_create: |c, _| c.status.get_or_insert_default().phase = Some("Pending".into()),
    validate: |c, errors| {
        let root = FieldPath::root("spec");
        let spec = c.spec.clone().unwrap_or_default();
        if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
            errors.required(root.child("accessModes"), "at least 1 access mode is required");
        }
        if spec.resources.and_then(|r| r.requests).is_none_or(|r| !r.contains_key("storage")) {
            let resources = root.child("resources");
            errors.required(resources.key("storage"), "");
        }
    },
    columns: &[
        Column::text("Status", "Pending, Bound or Lost.", |o: &PersistentVolumeClaim, _| {
            match o.metadata.deletion_timestamp {
                Some(_) => "Terminating".into(),
                None => o.status.as_ref().and_then(|s| s.phase.clone()).into(),
            }
        }),
        Column::text("Volume", "The volume it is bound to.", |o: &PersistentVolumeClaim, _| {
            o.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default().into()
        }),
        Column::text("Capacity", "How large that is.", |o: &PersistentVolumeClaim, _| {
            o.status
                .as_ref()
                .and_then(|s| s.capacity.as_ref()?.get("storage").map(|q| q.0.clone()))
                .unwrap_or_default()
                .into()
        }),
        Column::text("Access Modes", "How it may be mounted.", |o: &PersistentVolumeClaim, _| {
            crate::storage::access_modes(o.status.as_ref().and_then(|s| s.access_modes.as_deref()))
        }),
        Column::text("StorageClass", "Its class.", |o: &PersistentVolumeClaim, _| {
            o.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default().into()
        }),
        age_column(),
    ],
    ..Kind::namespaced("persistentvolumeclaim", "persistentvolumeclaims").called(&["pvc"], &[])
};

/// Checks the template of a claim.
pub fn validate_template(
    t: &k8s_openapi::api::core::v1::PersistentVolumeClaimTemplate,
    at: FieldPath<'_>,
    errors: &mut api::field::FieldErrors,
) {
    let _ = (t, at, errors);
}
