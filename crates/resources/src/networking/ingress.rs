//! Ingress.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::networking::v1::Ingress;

/// The rules of Ingress.
pub static KIND: Kind<Ingress> = Kind {
    has_status: true,
    has_generation: true,
    columns: &[
        Column::text("Class", "Who serves it.", |o: &Ingress, _| {
            o.spec
                .as_ref()
                .and_then(|s| s.ingress_class_name.clone())
                .unwrap_or_else(|| "<none>".into())
                .into()
        }),
        Column::text("Hosts", "The hosts it routes.", |o: &Ingress, _| {
            let hosts: Vec<String> =
                o.spec.iter().flat_map(|s| s.rules.iter().flatten()).filter_map(|r| r.host.clone()).collect();
            if hosts.is_empty() { "*".into() } else { hosts.join(",").into() }
        }),
        age_column(),
    ],
    ..Kind::namespaced("ingress", "ingress").called(&["ing"], &[])
};
