//! PodDisruptionBudget: how many pods may be away at once.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

/// The rules of PodDisruptionBudget.
pub static KIND: Kind<PodDisruptionBudget> = Kind {
    has_status: true,
    has_generation: true,
    validate: |b, errors| {
        let root = FieldPath::root("spec");
        let spec = b.spec.clone().unwrap_or_default();
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errors.invalid(root, &spec, "minAvailable and maxUnavailable cannot be both set");
        }
        crate::apps::count_or_percent(spec.min_available.as_ref(), root.child("minAvailable"), errors);
        crate::apps::count_or_percent(spec.max_unavailable.as_ref(), root.child("maxUnavailable"), errors);
    },
    columns: &[
        Column::text(
            "Allowed Disruptions",
            "Pods that may be taken away now.",
            |o: &PodDisruptionBudget, _| {
                o.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into()
            },
        ),
        age_column(),
    ],
    ..Kind::namespaced("poddisruptionbudget", "poddisruptionbudgets").called(&["pdb"], &[])
};
