//! PersistentVolume.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::core::v1::PersistentVolume;

/// The rules of PersistentVolume.
pub static KIND: Kind<PersistentVolume> = Kind {
    has_status: true,
    default: |v| {
        let spec = v.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    },
    prepare_create: |v, _| v.status.get_or_insert_default().phase = Some("Pending".into()),
    validate: |v, errors| {
        let root = FieldPath::root("spec");
        let spec = v.spec.clone().unwrap_or_default();
        if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
            errors.required(root.child("accessModes"), "");
        }
        if spec.capacity.as_ref().is_none_or(|c| c.is_empty()) {
            errors.required(root.child("capacity"), "");
        }
    },
    columns: &[
        Column::text("Capacity", "How large it is.", |o: &PersistentVolume, _| {
            o.spec
                .as_ref()
                .and_then(|s| s.capacity.as_ref()?.get("storage").map(|q| q.0.clone()))
                .unwrap_or_default()
                .into()
        }),
        Column::text("Access Modes", "How it may be mounted.", |o: &PersistentVolume, _| {
            crate::storage::access_modes(o.spec.as_ref().and_then(|s| s.access_modes.as_deref()))
        }),
        Column::text(
            "Reclaim Policy",
            "What becomes of it when it is released.",
            |o: &PersistentVolume, _| {
                o.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.clone()).into()
            },
        ),
        Column::text("Status", "Available, Bound, Released or Failed.", |o: &PersistentVolume, _| {
            match o.metadata.deletion_timestamp {
                Some(_) => "Terminating".into(),
                None => o.status.as_ref().and_then(|s| s.phase.clone()).into(),
            }
        }),
        Column::text("Claim", "The claim it is bound to.", |o: &PersistentVolume, _| {
            o.spec
                .as_ref()
                .and_then(|s| s.claim_ref.as_ref())
                .map(|c| {
                    format!(
                        "{}/{}",
                        c.namespace.clone().unwrap_or_default(),
                        c.name.clone().unwrap_or_default()
                    )
                })
                .unwrap_or_default()
                .into()
        }),
        Column::text("StorageClass", "Its class.", |o: &PersistentVolume, _| {
            o.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default().into()
        }),
        age_column(),
    ],
    ..Kind::cluster("persistentvolume", "persistentvolumes").called(&["pv"], &[])
};
