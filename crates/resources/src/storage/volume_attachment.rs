//! VolumeAttachment.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::storage::v1::VolumeAttachment;

/// The rules of VolumeAttachment.
pub static KIND: Kind<VolumeAttachment> = Kind {
    has_status: true,
    columns: &[age_column()],
    ..Kind::cluster("volumeattachment", "volumeattachments")
};
