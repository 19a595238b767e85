//! EndpointSlice: addresses behind a service.

use crate::addresses::address;
use crate::check::{self, immutable};
use crate::kind::{age_column, subdomain_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use serde_json::Value;
use std::net::IpAddr;

const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
const ENDPOINTS: usize = 1000;
const TOPOLOGY: usize = 16;
const HINTS: usize = 8;
/// Items that a cell shows.
const SHOWN: usize = 3;

/// The rules of EndpointSlice.
pub static KIND: Kind<EndpointSlice> = Kind {
    has_generation: true,
    default: |s| {
        for port in s.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
            port.name.get_or_insert_default();
        }
    },
    validate: |s, errors| validate(s, None, errors),
    validate_update: |new, old, errors| {
        validate(new, Some(old), errors);
        immutable(&new.address_type, &old.address_type, FieldPath::root("addressType"), errors);
    },
    warnings: |s, _| {
        let text = "addressType: FQDN endpoints are deprecated";
        (s.address_type == "FQDN").then(|| text.to_string()).into_iter().collect()
    },
    columns: &[
        Column::text("AddressType", "IPv4, IPv6 or FQDN.", |s: &EndpointSlice, _| {
            s.address_type.clone().into()
        }),
        Column::text("Ports", "The ports.", |s: &EndpointSlice, _| {
            listed(s.ports.iter().flatten().map(|p| match (p.port, &p.name) {
                (Some(port), _) => port.to_string(),
                (None, Some(name)) => name.clone(),
                (None, None) => "*".into(),
            }))
        }),
        Column::text("Endpoints", "The addresses.", |s: &EndpointSlice, _| {
            listed(s.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned()))
        }),
        age_column(),
    ],
    ..Kind::namespaced("endpointslice", "endpointslices")
};

fn listed(all: impl Iterator<Item = String>) -> Value {
    let all: Vec<String> = all.collect();
    let text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match all.len() {
        0 => "<unset>".into(),
        n if n <= SHOWN => text.into(),
        n => format!("{text} + {} more...", n - SHOWN).into(),
    }
}

fn validate(s: &EndpointSlice, old: Option<&EndpointSlice>, errors: &mut FieldErrors) {
    check::required_one_of(
        &s.address_type,
        &["FQDN", "IPv4", "IPv6"],
        FieldPath::root("addressType"),
        errors,
    );
    validate_ports(s.ports.as_deref().unwrap_or_default(), errors);
    // Endpoints that were accepted before need not fulfil what is asked for since.
    if old.is_none_or(|o| o.endpoints != s.endpoints) {
        let at = FieldPath::root("endpoints");
        let endpoints = s.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > ENDPOINTS {
            return errors.push(at, FieldFault::TooMany(endpoints.len(), ENDPOINTS));
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(endpoint, &s.address_type, at.index(i), errors);
        }
    }
}

fn validate_ports(ports: &[EndpointPort], errors: &mut FieldErrors) {
    let list = FieldPath::root("ports");
    if ports.len() > PORTS {
        return errors.push(list, FieldFault::TooMany(ports.len(), PORTS));
    }
    for (i, port) in ports.iter().enumerate() {
        let at = list.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.all_invalid(at.child("name"), name, names::dns1123_label(name));
        }
        if ports.iter().take(i).any(|p| p.name.as_deref().unwrap_or_default() == name) {
            errors.duplicate(at.child("name"), &name);
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        check::required_one_of(protocol, &["SCTP", "TCP", "UDP"], at.child("protocol"), errors);
        if let Some(app) = &port.app_protocol {
            errors.all_invalid(at.child("appProtocol"), app, names::qualified_name(app));
        }
    }
}

fn validate_endpoint(e: &Endpoint, kind: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let list = at.child("addresses");
    match e.addresses.len() {
        0 => errors.required(list, "must contain at least 1 address"),
        n if n > ADDRESSES => errors.push(list, FieldFault::TooMany(n, ADDRESSES)),
        _ => {}
    }
    for (i, text) in e.addresses.iter().enumerate() {
        match kind {
            "IPv4" | "IPv6" => {
                address(text, kind == "IPv6", list.index(i), errors);
                if let Ok(parsed) = text.parse::<IpAddr>() {
                    if parsed.is_ipv4() != (kind == "IPv4") {
                        errors.invalid(list, text, format!("must be an {kind} address"));
                    }
                    endpoint_address(parsed, text, list.index(i), errors);
                }
            }
            "FQDN" => full_domain(text, list.index(i), errors),
            _ => {}
        }
    }
    if let Some(node) = &e.node_name {
        errors.all_invalid(at.child("nodeName"), node, subdomain_name(node, false));
    }
    let topology = at.child("deprecatedTopology");
    let count = e.deprecated_topology.as_ref().map_or(0, |t| t.len());
    if count > TOPOLOGY {
        errors.push(topology, FieldFault::TooMany(count, TOPOLOGY));
    }
    crate::meta::labels(e.deprecated_topology.as_ref(), topology, errors);
    if let Some(host) = &e.hostname {
        errors.all_invalid(at.child("hostname"), host, names::dns1123_label(host));
    }
    if let Some(hints) = &e.hints {
        validate_hints(hints, at.child("hints"), errors);
    }
}

/// Checks that an address is one that traffic may be sent to.
fn endpoint_address(parsed: IpAddr, text: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if parsed.is_unspecified() {
        errors.invalid(at, &text, format!("may not be unspecified ({text})"));
    }
    if parsed.is_loopback() {
        errors.invalid(at, &text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link, link_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), matches!(v4.octets(), [224, 0, 0, _])),
        IpAddr::V6(v6) => {
            (v6.is_unicast_link_local(), v6.segments().first().is_some_and(|s| s & 0xff0f == 0xff02))
        }
    };
    if link {
        errors.invalid(at, &text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_multicast {
        errors.invalid(at, &text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn full_domain(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let found = names::dns1123_subdomain(name).join(",");
    if !found.is_empty() {
        return errors.invalid(at, &name, found);
    }
    if name.split('.').count() < 2 {
        return errors.invalid(at, &name, "should be a domain with at least two segments separated by dots");
    }
    for label in name.split('.') {
        let found = names::dns1123_label(label).join(",");
        if !found.is_empty() {
            errors.invalid(at, &label, found);
        }
    }
}

fn validate_hints(hints: &EndpointHints, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let zones: Vec<&str> = hints.for_zones.iter().flatten().map(|z| z.name.as_str()).collect();
    let nodes: Vec<&str> = hints.for_nodes.iter().flatten().map(|n| n.name.as_str()).collect();
    let node_rule = |name: &str| subdomain_name(name, false);
    let rules: [(&str, Vec<&str>, &dyn Fn(&str) -> Vec<String>); 2] =
        [("forZones", zones, &names::label_value), ("forNodes", nodes, &node_rule)];
    for (field, list, rule) in rules {
        let at = at.child(field);
        if list.len() > HINTS {
            return errors.push(at, FieldFault::TooMany(list.len(), HINTS));
        }
        for (i, name) in list.iter().enumerate() {
            let at = at.index(i);
            if list.iter().take(i).any(|n| n == name) {
                errors.duplicate(at.child("name"), name);
            }
            errors.all_invalid(at.child("name"), name, rule(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_of_slices() {
        let check = |value: Value| {
            let mut s: EndpointSlice = serde_json::from_value(value).unwrap();
            (KIND.default)(&mut s);
            let mut errors = FieldErrors::default();
            validate(&s, None, &mut errors);
            errors.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
        assert_eq!(check(good), [""; 0]);
        assert_eq!(
            check(
                json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1", "::2"]}, {"addresses": []}], "ports": [{"port": 1}, {"port": 2}]})
            ),
            [
                "ports[1].name: Duplicate value: \"\"",
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "endpoints[0].addresses: Invalid value: \"::2\": must be an IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
