//! Lease: who holds something, and until when.

use crate::kind::{Stored, age_column};
use crate::{Column, Kind};
use k8s_openapi::api::coordination::v1::Lease;

/// The rules of Lease.
pub static KIND: Kind<Lease> = Kind {
    create_on_update: true,
    unconditional_update: false,
    // Whoever holds it renews it; it need not be on disk before it is answered.
    stored: Stored { prefix: "leases", in_memory: true, ttl_seconds: 0 },
    columns: &[
        Column::text("Holder", "Who holds it.", |l: &Lease, _| {
            l.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default().into()
        }),
        age_column(),
    ],
    ..Kind::namespaced("lease", "leases")
};
