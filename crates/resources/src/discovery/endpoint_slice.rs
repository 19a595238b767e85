//! EndpointSlice.

use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The rules of EndpointSlice.
pub static KIND: Kind<EndpointSlice> = Kind {
    has_generation: true,
    create_on_update: true,
    default: |s| {
        for port in s.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
            port.name.get_or_insert_default();
        }
    },
    columns: &[
        Column::text("AddressType", "IPv4, IPv6 or FQDN.", |s: &EndpointSlice, _| {
            s.address_type.clone().into()
        }),
        Column::text("Ports", "The ports.", |s: &EndpointSlice, _| {
            let ports: Vec<String> =
                s.ports.iter().flatten().filter_map(|p| p.port).map(|p| p.to_string()).collect();
            listed(&ports, "<unset>")
        }),
        Column::text("Endpoints", "The addresses.", |s: &EndpointSlice, _| {
            let all: Vec<String> =
                s.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned()).collect();
            listed(&all, "<unset>")
        }),
        age_column(),
    ],
    ..Kind::namespaced("endpointslice", "endpointslices")
};

fn listed(all: &[String], none: &str) -> serde_json::Value {
    match all.len() {
        0 => none.into(),
        n if n <= 3 => all.join(",").into(),
        n => format!("{} + {} more...", all[..3].join(","), n - 3).into(),
    }
}
