//! Endpoints.

use crate::check::{self, is_set, list, text};
use crate::core::pod::warnings::address as warn_of_address;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use std::net::IpAddr;

/// The rules of Endpoints.
pub static KIND: Kind<Endpoints> = Kind {
    create_on_update: true,
    default: |e| {
        let ports = e.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten());
        for port in ports.filter(|p| !is_set(&p.protocol)) {
            port.protocol = Some("TCP".into());
        }
    },
    validate,
    validate_update: |new, old, errors| {
        if new.subsets != old.subsets {
            validate(new, errors);
        }
    },
    warnings: |e, _| warnings(e),
    columns: &[
        Column::text("Endpoints", "Addresses and ports.", |e: &Endpoints, _| addresses(e).into()),
        age_column(),
    ],
    ..Kind::namespaced("endpoints", "services/endpoints").called(&["ep"], &[])
};

/// The first three, as upstream prints them.
fn addresses(e: &Endpoints) -> String {
    if list(&e.subsets).is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in list(&e.subsets) {
        let addresses = list(&subset.addresses);
        if list(&subset.ports).is_empty() {
            all.extend(addresses.iter().map(|a| a.ip.clone()));
        }
        for port in list(&subset.ports) {
            all.extend(addresses.iter().map(|a| match a.ip.contains(':') {
                true => format!("[{}]:{}", a.ip, port.port),
                false => format!("{}:{}", a.ip, port.port),
            }));
        }
    }
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn warnings(e: &Endpoints) -> Vec<String> {
    let mut out = Vec::new();
    let managed = e.metadata.labels.as_ref().and_then(|l| l.get("endpoints.kubernetes.io/managed-by"));
    if managed.is_some_and(|m| m == "endpoint-controller") {
        return out;
    }
    let path = FieldPath::root("subsets");
    for (i, subset) in list(&e.subsets).iter().enumerate() {
        let at = path.index(i);
        for (name, addresses) in
            [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
        {
            let at = at.child(name);
            for (i, address) in list(addresses).iter().enumerate() {
                let here = at.index(i);
                warn_of_address(&address.ip, here.child("ip"), &mut out);
            }
        }
    }
    out
}

fn validate(e: &Endpoints, errors: &mut FieldErrors) {
    let path = FieldPath::root("subsets");
    for (i, subset) in list(&e.subsets).iter().enumerate() {
        let at = path.index(i);
        let (ready, not_ready) = (list(&subset.addresses), list(&subset.not_ready_addresses));
        if ready.is_empty() && not_ready.is_empty() {
            errors.required(at, "must specify `addresses` or `notReadyAddresses`");
        }
        for (name, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            let at = at.child(name);
            for (i, a) in addresses.iter().enumerate() {
                address(a, at.index(i), errors);
            }
        }
        let ports = list(&subset.ports);
        let at = at.child("ports");
        for (i, p) in ports.iter().enumerate() {
            port(p, ports.len() > 1, at.index(i), errors);
        }
    }
}

fn address(a: &EndpointAddress, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::ip(&a.ip, at.child("ip"), errors);
    if is_set(&a.hostname) {
        check::label(text(&a.hostname), at.child("hostname"), errors);
    }
    if let Some(node) = &a.node_name {
        check::subdomain(node, at.child("nodeName"), errors);
    }
    address_range(&a.ip, at.child("ip"), errors);
}

fn port(p: &EndpointPort, named: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let name = text(&p.name);
    if !name.is_empty() {
        check::label(name, at.child("name"), errors);
    } else if named {
        errors.required(at.child("name"), "");
    }
    check::port_number(p.port, at.child("port"), errors);
    check::protocol(&p.protocol, at.child("protocol"), errors);
    if let Some(protocol) = &p.app_protocol {
        check::qualified(protocol, at.child("appProtocol"), errors);
    }
}

/// An address that pods and hosts can have: not the node's own, not of the link alone.
pub fn address_range(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Ok(ip) = value.parse::<IpAddr>() else {
        return errors.invalid(at, &value, "must be a valid IP address");
    };
    if ip.is_unspecified() {
        errors.invalid(at, &value, format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        errors.invalid(at, &value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (unicast, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if unicast {
        let why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        errors.invalid(at, &value, why);
    }
    if multicast {
        let why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.invalid(at, &value, why);
    }
}
