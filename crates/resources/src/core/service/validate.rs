//! Whether a Service is well formed.

use super::{is_external, is_external_name, is_headless, needs_health_check, spec};
use crate::check::{self, is_set, list, text};
use crate::core::endpoints;
use api::field::{FieldErrors, FieldFault, FieldPath};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;

const AT: FieldPath<'static> = FieldPath::root("spec");
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
/// The longest that clients are kept to one pod.
const MAX_AFFINITY: i32 = 86400;

pub(super) fn service(s: &Service, old: Option<&Service>, errors: &mut FieldErrors) {
    let annotation = |key: &str| s.metadata.annotations.as_ref().and_then(|a| a.get(key));
    let metadata = FieldPath::root("metadata");
    let annotations = metadata.child("annotations");
    if let (Some(hints), Some(mode)) = (annotation(HINTS), annotation(MODE))
        && hints != mode
    {
        let why = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(annotations.key(MODE), mode, why);
    }
    let ranges = annotation(RANGES);
    let old_ranges = old.and_then(|o| o.metadata.annotations.as_ref()?.get(RANGES));
    let (s, old) = (spec(s), old.map(spec));
    let kind = text(&s.type_);
    let headless = is_headless(s);
    if list(&s.ports).is_empty() && !headless && !is_external_name(s) {
        errors.required(AT.child("ports"), "");
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let ips = AT.child("clusterIPs");
        let why = format!("may not be set to 'None' for {kind} services");
        errors.invalid(ips.index(0), &"None", why);
    }
    if is_external_name(s) {
        external_name(s, errors);
    }
    ports(s, errors);
    crate::meta::labels(s.selector.as_ref(), AT.child("selector"), errors);
    let affinities = ["ClientIP", "None"];
    check::required_one_of(text(&s.session_affinity), &affinities, AT.child("sessionAffinity"), errors);
    affinity(s, errors);
    if !is_external_name(s) {
        cluster_ips(s, old, errors);
    }
    let path = AT.child("externalIPs");
    let had = old.map_or(&[][..], |o| list(&o.external_ips));
    for (i, ip) in list(&s.external_ips).iter().enumerate() {
        if had.contains(ip) || check::ip(ip, path.index(i), errors) {
            endpoints::address_range(ip, path.index(i), errors);
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    check::required_one_of(text(&s.type_), &kinds, AT.child("type"), errors);
    let balanced = kind == "LoadBalancer";
    let sources = list(&s.load_balancer_source_ranges);
    let path = AT.child("LoadBalancerSourceRanges");
    if !sources.is_empty() {
        if !balanced {
            errors.forbidden(path, BALANCED);
        }
        let had = old.map_or(&[][..], |o| list(&o.load_balancer_source_ranges));
        for (i, range) in sources.iter().enumerate().filter(|(_, r)| !had.contains(r)) {
            check::cidr(range.trim(), path.index(i), errors);
        }
    } else if let Some(ranges) = ranges {
        let at = annotations.key(RANGES);
        if !balanced {
            errors.forbidden(at, BALANCED);
        }
        if old_ranges != Some(ranges) && !ranges.trim().is_empty() {
            ranges.trim().split(',').for_each(|range| {
                check::cidr(range.trim(), at, errors);
            });
        }
    }
    match s.allocate_load_balancer_node_ports {
        Some(_) if !balanced => errors.forbidden(AT.child("allocateLoadBalancerNodePorts"), BALANCED),
        None if balanced => errors.required(FieldPath::root("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    if let Some(class) = &s.load_balancer_class {
        match balanced {
            true => check::qualified(class, AT.child("loadBalancerClass"), errors),
            false => errors.forbidden(AT.child("loadBalancerClass"), BALANCED),
        }
    }
    traffic(s, errors);
}

fn external_name(s: &ServiceSpec, errors: &mut FieldErrors) {
    let why = "may not be set for ExternalName services";
    for (name, set) in [
        ("clusterIPs", !list(&s.cluster_ips).is_empty()),
        ("ipFamilies", !list(&s.ip_families).is_empty()),
        ("ipFamilyPolicy", s.ip_family_policy.is_some()),
    ] {
        if set {
            errors.forbidden(AT.child(name), why);
        }
    }
    let name = text(&s.external_name);
    let name = name.strip_suffix('.').unwrap_or(name);
    if !check::required(name, AT.child("externalName"), errors) {
        check::subdomain(name, AT.child("externalName"), errors);
    }
}

fn ports(s: &ServiceSpec, errors: &mut FieldErrors) {
    let ports = list(&s.ports);
    let path = AT.child("ports");
    let zero = IntOrString::Int(0);
    for (i, p) in ports.iter().enumerate() {
        let at = path.index(i);
        let (name, before) = (text(&p.name), &ports[..i]);
        if !name.is_empty() {
            check::label(name, at.child("name"), errors);
            if before.iter().any(|o| text(&o.name) == name) {
                errors.duplicate(at.child("name"), &name);
            }
        } else if ports.len() > 1 {
            errors.required(at.child("name"), "");
        }
        check::port_number(p.port, at.child("port"), errors);
        check::protocol(&p.protocol, at.child("protocol"), errors);
        check::port(p.target_port.as_ref().unwrap_or(&zero), at.child("targetPort"), errors);
        if let Some(protocol) = &p.app_protocol {
            check::qualified(protocol, at.child("appProtocol"), errors);
        }
        let node = p.node_port.unwrap_or(0);
        if node != 0 && text(&s.type_) == "ClusterIP" {
            errors.forbidden(at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let same = |o: &ServicePort| text(&o.protocol) == text(&p.protocol);
        if node != 0 && before.iter().any(|o| same(o) && o.node_port == p.node_port) {
            errors.duplicate(at.child("nodePort"), &node);
        }
        if before.iter().any(|o| same(o) && o.port == p.port) {
            // As upstream's inner type is printed.
            let said = format!(
                "{{\"Name\":\"\",\"Protocol\":{:?},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                text(&p.protocol),
                p.port
            );
            errors.push(at, FieldFault::Duplicate(said));
        }
    }
}

fn affinity(s: &ServiceSpec, errors: &mut FieldErrors) {
    let at = AT.child("sessionAffinityConfig");
    let config = s.session_affinity_config.as_ref();
    match text(&s.session_affinity) {
        "ClientIP" => {
            let why = "when session affinity type is ClientIP";
            let client = at.child("clientIP");
            match config.map(|c| c.client_ip.as_ref().map(|c| c.timeout_seconds)) {
                None => errors.required(at, why),
                Some(None) => errors.required(client, why),
                Some(Some(None)) => errors.required(client.child("timeoutSeconds"), why),
                Some(Some(Some(n))) if !(1..=MAX_AFFINITY).contains(&n) => errors.invalid(
                    client.child("timeoutSeconds"),
                    &n,
                    format!("must be greater than 0 and less than {MAX_AFFINITY}"),
                ),
                Some(Some(Some(_))) => {}
            }
        }
        "None" if config.is_some() => errors.forbidden(at, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(s: &ServiceSpec, old: Option<&ServiceSpec>, errors: &mut FieldErrors) {
    let path = AT.child("clusterIPs");
    let (ip, ips) = (text(&s.cluster_ip), list(&s.cluster_ips));
    match ips.first() {
        None if !ip.is_empty() => errors.required(path, ""),
        Some(_) if ip.is_empty() => {
            errors.invalid(path, &ips, "must be empty when `clusterIP` is not specified");
        }
        Some(first) if first != ip => errors.invalid(path, &ips, "first value must match `clusterIP`"),
        _ => {}
    }
    let families = list(&s.ip_families);
    let families_at = AT.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        check::one_of(family, &["IPv4", "IPv6"], families_at.index(i), errors);
        if families[..i].contains(family) {
            errors.duplicate(families_at.index(i), family);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    check::maybe_one_of(&s.ip_family_policy, &policies, AT.child("ipFamilyPolicy"), errors);
    let had = old.map_or(&[][..], |o| list(&o.cluster_ips));
    let before = errors.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                errors.invalid(path, &ips, "'None' must be the first and only value");
            }
        } else if !had.contains(ip) {
            check::ip(ip, path.index(i), errors);
        }
    }
    let fits = errors.len() == before;
    if ips.len() > 2 {
        errors.invalid(path, &ips, "may only hold up to 2 values");
    }
    if !fits {
        return;
    }
    if ips.len() > 1 && !check::is_dual_stack(ips.iter().map(String::as_str)) {
        errors.invalid(path, &ips, "may specify no more than one IP for each IP family");
    }
    if is_headless(s) {
        return;
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        let is_v6 = ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
        if matches!((family.as_str(), is_v6), ("IPv4", true) | ("IPv6", false)) {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(path.index(i), ip, why);
        }
    }
}

fn traffic(s: &ServiceSpec, errors: &mut FieldErrors) {
    let at = AT.child("externalTrafficPolicy");
    let policies = ["Cluster", "Local"];
    match (is_external(s), is_set(&s.external_traffic_policy)) {
        (false, true) => {
            let why = "may only be set for externally-accessible services";
            errors.invalid(at, &s.external_traffic_policy, why);
        }
        (true, _) => check::required_one_of(text(&s.external_traffic_policy), &policies, at, errors),
        (false, false) => {}
    }
    let at = AT.child("healthCheckNodePort");
    match s.health_check_node_port.filter(|n| *n != 0) {
        Some(n) if !needs_health_check(s) => errors.invalid(
            at,
            &n,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        Some(n) => check::port_number(n, at, errors),
        // Where there is none, one is given once this is checked.
        None => {}
    }
    let at = AT.child("internalTrafficPolicy");
    match &s.internal_traffic_policy {
        None if matches!(text(&s.type_), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.required(at, "")
        }
        policy => check::maybe_one_of(policy, &policies, at, errors),
    }
    let ways = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    check::maybe_one_of(&s.traffic_distribution, &ways, AT.child("trafficDistribution"), errors);
}

pub(super) fn status(new: &Service, old: &Service, errors: &mut FieldErrors) {
    let root = FieldPath::root("status");
    let balancer = root.child("loadBalancer");
    let path = balancer.child("ingress");
    let ingress = |s: &'_ Service| -> Vec<k8s_openapi::api::core::v1::LoadBalancerIngress> {
        let balancer = s.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        balancer.map(|l| list(&l.ingress).to_vec()).unwrap_or_default()
    };
    let (all, had) = (ingress(new), ingress(old));
    if text(&spec(new).type_) != "LoadBalancer" && !all.is_empty() {
        return errors.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (i, one) in all.iter().enumerate() {
        let at = path.index(i);
        let ip = text(&one.ip);
        if !ip.is_empty() && !had.iter().any(|h| text(&h.ip) == ip) {
            check::ip(ip, at.child("ip"), errors);
        }
        match &one.ip_mode {
            None if !ip.is_empty() => {
                errors.required(at.child("ipMode"), "must be specified when `ip` is set")
            }
            Some(_) if ip.is_empty() => {
                errors.forbidden(at.child("ipMode"), "may not be specified when `ip` is not set");
            }
            mode => check::maybe_one_of(mode, &["Proxy", "VIP"], at.child("ipMode"), errors),
        }
        let name = text(&one.hostname);
        if !name.is_empty() {
            check::subdomain(name, at.child("hostname"), errors);
            if name.parse::<IpAddr>().is_ok() {
                errors.invalid(at.child("hostname"), &name, "must be a DNS name, not an IP address");
            }
        }
    }
}
