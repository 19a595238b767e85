//! VolumeAttributesClass.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

/// The rules of VolumeAttributesClass.
pub static KIND: Kind<VolumeAttributesClass> = Kind {
    columns: &[age_column()],
    ..Kind::cluster("volumeattributesclass", "volumeattributesclasses").called(&["vac"], &[])
};
