//! CSIStorageCapacity.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

/// The rules of CSIStorageCapacity.
pub static KIND: Kind<CSIStorageCapacity> =
    Kind { columns: &[age_column()], ..Kind::namespaced("csistoragecapacity", "csistoragecapacities") };
