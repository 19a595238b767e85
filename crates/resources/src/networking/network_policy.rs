//! NetworkPolicy: which traffic pods take and send.

use crate::addresses::range;
use crate::check;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The rules of NetworkPolicy.
pub static KIND: Kind<NetworkPolicy> = Kind {
    has_generation: true,
    default: |p| {
        let spec = p.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        for port in spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
        for port in spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
        let types = spec.policy_types.get_or_insert_default();
        if types.is_empty() {
            types.push("Ingress".into());
            if spec.egress.as_ref().is_some_and(|e| !e.is_empty()) {
                types.push("Egress".into());
            }
        }
    },
    validate: |p, errors| validate(&p.spec.clone().unwrap_or_default(), &[], errors),
    validate_update: |new, old, errors| {
        let old = old.spec.clone().unwrap_or_default();
        let known: Vec<&str> = peers(&old)
            .filter_map(|p| p.ip_block.as_ref())
            .flat_map(|b| std::iter::once(&b.cidr).chain(b.except.iter().flatten()))
            .map(String::as_str)
            .collect();
        validate(&new.spec.clone().unwrap_or_default(), &known, errors);
    },
    columns: &[
        Column::text("Pod-Selector", "The pods it holds for.", |p: &NetworkPolicy, _| {
            let selector = p.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
            let text = crate::apps::selector_text(selector);
            if text.is_empty() { "<none>".into() } else { text.into() }
        }),
        age_column(),
    ],
    ..Kind::namespaced("networkpolicy", "networkpolicies").called(&["netpol"], &[])
};

fn peers(spec: &NetworkPolicySpec) -> impl Iterator<Item = &NetworkPolicyPeer> {
    let from = spec.ingress.iter().flatten().flat_map(|r| r.from.iter().flatten());
    from.chain(spec.egress.iter().flatten().flat_map(|r| r.to.iter().flatten()))
}

/// Ranges in `known` were there before: they stay, whatever is wrong with them.
fn validate(spec: &NetworkPolicySpec, known: &[&str], errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    check::label_selector(spec.pod_selector.as_ref(), false, root.child("podSelector"), errors);
    let rules = |name: &'static str,
                 i: usize,
                 ports: &Option<Vec<NetworkPolicyPort>>,
                 side: &'static str,
                 peers: &Option<Vec<NetworkPolicyPeer>>,
                 errors: &mut FieldErrors| {
        let list = root.child(name);
        let at = list.index(i);
        for (j, port) in ports.iter().flatten().enumerate() {
            validate_port(port, at.child("ports").index(j), errors);
        }
        for (j, peer) in peers.iter().flatten().enumerate() {
            validate_peer(peer, known, at.child(side).index(j), errors);
        }
    };
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        rules("ingress", i, &rule.ports, "from", &rule.from, errors);
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        rules("egress", i, &rule.ports, "to", &rule.to, errors);
    }
    let at = root.child("policyTypes");
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.len() > 2 {
        return errors.invalid(at, &types, "may not specify more than two policyTypes");
    }
    for (i, kind) in types.iter().enumerate().filter(|(_, t)| !matches!(t.as_str(), "Ingress" | "Egress")) {
        errors.not_supported(at.index(i), kind, &["Ingress", "Egress"]);
    }
}

fn validate_port(port: &NetworkPolicyPort, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(protocol) = port.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
        errors.not_supported(at.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let end = at.child("endPort");
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), last) => {
            for fault in names::port_number(*number) {
                errors.invalid(at.child("port"), number, fault);
            }
            if let Some(last) = last {
                if last < *number {
                    errors.invalid(end, number, "must be greater than or equal to `port`");
                }
                for fault in names::port_number(last) {
                    errors.invalid(end, &last, fault);
                }
            }
        }
        (Some(IntOrString::String(name)), last) => {
            if let Some(last) = last {
                errors.invalid(end, &last, "may not be specified when `port` is non-numeric");
            }
            errors.all_invalid(at.child("port"), name, names::port_name(name));
        }
        (None, Some(last)) => {
            errors.invalid(end, &last, "may not be specified when `port` is not specified");
        }
        (None, None) => {}
    }
}

fn validate_peer(peer: &NetworkPolicyPeer, known: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::label_selector(peer.pod_selector.as_ref(), false, at.child("podSelector"), errors);
    check::label_selector(peer.namespace_selector.as_ref(), false, at.child("namespaceSelector"), errors);
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        Some(block) => {
            validate_block(block, known, at.child("ipBlock"), errors);
            if selects {
                errors.forbidden(at, "may not specify both ipBlock and another peer");
            }
        }
        None if !selects => errors.required(at, "must specify a peer"),
        None => {}
    }
}

fn validate_block(block: &IPBlock, known: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let check = |text: &str, at: FieldPath<'_>, errors: &mut FieldErrors| {
        if known.contains(&text) {
            return crate::addresses::Range::parse(text);
        }
        range(text, false, at, errors)
    };
    if block.cidr.is_empty() {
        return errors.required(at.child("cidr"), "");
    }
    let Some(whole) = check(&block.cidr, at.child("cidr"), errors) else { return };
    let list = at.child("except");
    for (i, text) in block.except.iter().flatten().enumerate() {
        let Some(part) = check(text, list.index(i), errors) else { continue };
        if !whole.contains(part.address) || whole.prefix >= part.prefix {
            errors.invalid(list.index(i), text, "must be a strict subset of `cidr`");
        }
    }
}
