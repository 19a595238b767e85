//! CSIDriver.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::storage::v1::CSIDriver;

/// The rules of CSIDriver.
pub static KIND: Kind<CSIDriver> = Kind {
    has_generation: true,
    default: |d| {
        d.spec.attach_required.get_or_insert(true);
        d.spec.pod_info_on_mount.get_or_insert(false);
        d.spec.storage_capacity.get_or_insert(false);
        d.spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        d.spec.requires_republish.get_or_insert(false);
        d.spec.se_linux_mount.get_or_insert(false);
        d.spec.volume_lifecycle_modes.get_or_insert_with(|| vec!["Persistent".into()]);
    },
    columns: &[age_column()],
    ..Kind::cluster("csidriver", "csidrivers")
};
