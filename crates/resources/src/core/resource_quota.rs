//! ResourceQuota: what a namespace may use in all.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::core::v1::ResourceQuota;

/// The rules of ResourceQuota.
pub static KIND: Kind<ResourceQuota> = Kind {
    has_status: true,
    columns: &[age_column()],
    ..Kind::namespaced("resourcequota", "resourcequotas").called(&["quota"], &[])
};
