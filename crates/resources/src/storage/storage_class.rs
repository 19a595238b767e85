//! StorageClass.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::storage::v1::StorageClass;

/// The rules of StorageClass.
pub static KIND: Kind<StorageClass> = Kind {
    default: |c| {
        c.reclaim_policy.get_or_insert_with(|| "Delete".into());
        c.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    },
    validate_update: |new, old, errors| {
        if new.provisioner != old.provisioner {
            errors.forbidden(FieldPath::root("provisioner"), "updates to provisioner are forbidden.");
        }
        if new.parameters != old.parameters {
            errors.forbidden(FieldPath::root("parameters"), "updates to parameters are forbidden.");
        }
    },
    columns: &[
        Column::text("Provisioner", "Who makes its volumes.", |o: &StorageClass, _| {
            o.provisioner.clone().into()
        }),
        Column::text("ReclaimPolicy", "What becomes of them.", |o: &StorageClass, _| {
            o.reclaim_policy.clone().into()
        }),
        Column::text("VolumeBindingMode", "When they are made.", |o: &StorageClass, _| {
            o.volume_binding_mode.clone().into()
        }),
        Column::text("AllowVolumeExpansion", "Whether they may grow.", |o: &StorageClass, _| {
            o.allow_volume_expansion.unwrap_or(false).into()
        }),
        age_column(),
    ],
    ..Kind::cluster("storageclass", "storageclasses").called(&["sc"], &[])
};
