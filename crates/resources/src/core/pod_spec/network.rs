//! How a pod is connected: ports of the node, DNS, host names; and claims for devices.

use super::Scope;
use crate::check::{self, list, required, text};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::PodSpec;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// On the node's network, a container's port is the node's.
pub(super) fn host_ports(scope: &Scope<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if scope.spec.host_network != Some(true) {
        return;
    }
    for (i, c) in scope.spec.containers.iter().enumerate() {
        let here = at.index(i);
        let ports = here.child("ports");
        for (i, p) in list(&c.ports).iter().enumerate() {
            let host = p.host_port.unwrap_or(0);
            if (scope.lenient.pod || host != 0) && host != p.container_port {
                let port = ports.index(i);
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(port.child("hostPort"), &host, why);
            }
        }
    }
}

pub(super) fn dns(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let none = text(&spec.dns_policy) == "None";
    let Some(config) = &spec.dns_config else {
        if none {
            errors.required(at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let (servers, searches) = (list(&config.nameservers), list(&config.searches));
    let servers_at = at.child("nameservers");
    if none && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return errors.required(servers_at, why);
    }
    if servers.len() > MAX_NAMESERVERS {
        let why = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(servers_at, &servers, why);
    }
    for (i, server) in servers.iter().enumerate() {
        check::ip(server, servers_at.index(i), errors);
    }
    let searches_at = at.child("searches");
    if searches.len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(searches_at, &searches, why);
    }
    let chars = searches.iter().map(|s| s.len() + 1).sum::<usize>().saturating_sub(1);
    if chars > MAX_SEARCH_CHARS {
        let why = format!(
            "must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        );
        errors.invalid(searches_at, &searches, why);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.all_invalid(searches_at.index(i), search, names::dns1123_subdomain_with_underscore(search));
    }
    let options = at.child("options");
    for (i, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.required(options.index(i), "must not be empty");
        }
    }
}

pub(super) fn host_aliases(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        let at = at.index(i);
        check::ip(&alias.ip, at.child("ip"), errors);
        let names = at.child("hostnames");
        for (i, name) in list(&alias.hostnames).iter().enumerate() {
            check::subdomain(name, names.index(i), errors);
        }
    }
}

pub(super) fn resource_claims(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let claims = list(&spec.resource_claims);
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        if required(&claim.name, at.child("name"), errors) {
        } else if claims[..i].iter().any(|other| other.name == claim.name) {
            errors.duplicate(at.child("name"), &claim.name);
        } else {
            check::label(&claim.name, at.child("name"), errors);
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => errors.invalid(
                at,
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (None, None) => errors.invalid(
                at,
                claim,
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            _ => {}
        }
        if let Some(name) = &claim.resource_claim_name {
            check::subdomain(name, at.child("resourceClaimName"), errors);
        }
        if let Some(name) = &claim.resource_claim_template_name {
            check::subdomain(name, at.child("resourceClaimTemplateName"), errors);
        }
    }
}
