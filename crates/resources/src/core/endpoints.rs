//! Endpoints.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::core::v1::Endpoints;

/// The rules of Endpoints.
pub static KIND: Kind<Endpoints> = Kind {
    create_on_update: true,
    columns: &[
        Column::text("Endpoints", "Addresses and ports.", |e: &Endpoints, _| addresses(e).into()),
        age_column(),
    ],
    ..Kind::namespaced("endpoints", "services/endpoints").called(&["ep"], &[])
};

/// The first three, as upstream prints them.
fn addresses(e: &Endpoints) -> String {
    let mut all = Vec::new();
    for subset in e.subsets.iter().flatten() {
        for address in subset.addresses.iter().flatten() {
            match subset.ports.as_deref() {
                None | Some([]) => all.push(address.ip.clone()),
                Some(ports) => all.extend(ports.iter().map(|p| format!("{}:{}", address.ip, p.port))),
            }
        }
    }
    match all.len() {
        0 => "<none>".into(),
        n if n <= 3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}
