//! Lease: who holds something, and until when.

use crate::kind::{Stored, age_column};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::coordination::v1::Lease;

/// The rules of Lease.
pub static KIND: Kind<Lease> = Kind {
    create_on_update: true,
    unconditional_update: false,
    // Whoever holds it renews it; it need not be on disk before it is answered.
    stored: Stored { prefix: "leases", in_memory: true, ttl_seconds: 0 },
    // Coordinated leader election is not on by default, and its fields are dropped without it.
    prepare_create: |l, _| {
        if let Some(spec) = &mut l.spec {
            (spec.strategy, spec.preferred_holder) = (None, None);
        }
    },
    prepare_update: |new, old, _| {
        if let Some(spec) = &mut new.spec {
            if old.spec.as_ref().is_none_or(|o| o.strategy.is_none()) {
                spec.strategy = None;
            }
            if old.spec.as_ref().is_none_or(|o| o.preferred_holder.is_none()) {
                spec.preferred_holder = None;
            }
        }
    },
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[
        Column::text("Holder", "Who holds it.", |l: &Lease, _| {
            l.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default().into()
        }),
        age_column(),
    ],
    ..Kind::namespaced("lease", "leases")
};

fn validate(lease: &Lease, errors: &mut FieldErrors) {
    let Some(spec) = &lease.spec else { return };
    let at = FieldPath::root("spec");
    if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
        errors.invalid(at.child("leaseDurationSeconds"), &seconds, "must be greater than 0");
    }
    if let Some(count) = spec.lease_transitions.filter(|c| *c < 0) {
        errors.invalid(at.child("leaseTransitions"), &count, "must be greater than or equal to 0");
    }
}
