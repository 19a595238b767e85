//! Service.

mod prepare;
mod update;
mod validate;

use crate::check::{list, text};
use crate::core::pod::warnings::address;
use crate::kind::{Served, age_column, label_name};
use crate::{Column, Kind};
use api::field::FieldPath;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;

/// The rules of Service.
pub static KIND: Kind<Service> = Kind {
    answers_deleted: true,
    has_status: true,
    create_on_update: true,
    name_rule: label_name,
    default: |s| {
        default(s.spec.get_or_insert_default());
        default_ip_modes(s);
    },
    prepare_create: |s, _| s.status = None,
    prepare_update: prepare::update,
    validate: |s, errors| validate::service(s, None, errors),
    validate_update: update::validate,
    validate_status: validate::status,
    warnings: |s, _| warnings(s),
    served: &[Served {
        name: "proxy",
        body: ("", "v1", "ServiceProxyOptions"),
        verbs: &["create", "delete", "get", "patch", "update"],
    }],
    selectable: &["spec.clusterIP", "spec.type"],
    columns: &[
        Column::text("Type", "How it is exposed.", |s: &Service, _| text(&spec(s).type_).into()),
        Column::text("Cluster-IP", "Its address.", |s: &Service, _| {
            list(&spec(s).cluster_ips).first().map_or("<none>", String::as_str).into()
        }),
        Column::text("External-IP", "Its addresses from outside.", |s: &Service, _| external(s).into()),
        Column::text("Port(s)", "Its ports.", |s: &Service, _| ports(list(&spec(s).ports)).into()),
        age_column(),
        Column::text("Selector", "The pods behind it.", |s: &Service, _| {
            crate::table::labels(spec(s).selector.as_ref())
        })
        .wide(),
    ],
    ..Kind::namespaced("service", "services/specs").called(&["svc"], &["all"])
};

static NO_SPEC: std::sync::LazyLock<ServiceSpec> = std::sync::LazyLock::new(ServiceSpec::default);

fn spec(s: &Service) -> &ServiceSpec {
    s.spec.as_ref().unwrap_or(&NO_SPEC)
}

/// Whether it has no address of its own.
fn is_headless(s: &ServiceSpec) -> bool {
    matches!(list(&s.cluster_ips), [ip] if ip == "None")
}

fn is_external_name(s: &ServiceSpec) -> bool {
    text(&s.type_) == "ExternalName"
}

/// Whether it can be reached from outside the cluster.
fn is_external(s: &ServiceSpec) -> bool {
    match text(&s.type_) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(&s.external_ips).is_empty(),
        _ => false,
    }
}

fn needs_health_check(s: &ServiceSpec) -> bool {
    text(&s.type_) == "LoadBalancer" && text(&s.external_traffic_policy) == "Local"
}

fn external(s: &Service) -> String {
    let spec = spec(s);
    let own = list(&spec.external_ips);
    match text(&spec.type_) {
        "ExternalName" => text(&spec.external_name).into(),
        "LoadBalancer" => {
            let status = s.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let ingress = status.map_or(&[][..], |l| list(&l.ingress));
            let name = |i: &'_ k8s_openapi::api::core::v1::LoadBalancerIngress| {
                i.ip.clone().filter(|ip| !ip.is_empty()).or(i.hostname.clone()).filter(|n| !n.is_empty())
            };
            let given: BTreeSet<String> = ingress.iter().filter_map(name).collect();
            let all: Vec<String> = given.into_iter().chain(own.iter().cloned()).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => own.join(","),
        _ => "<unknown>".into(),
    }
}

fn ports(ports: &[ServicePort]) -> String {
    let one = |p: &ServicePort| {
        let protocol = text(&p.protocol);
        match p.node_port.filter(|n| *n > 0) {
            Some(node) => format!("{}:{node}/{protocol}", p.port),
            None => format!("{}/{protocol}", p.port),
        }
    };
    let all: Vec<String> = ports.iter().map(one).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

fn warnings(s: &Service) -> Vec<String> {
    let mut out = Vec::new();
    let (service, s) = (s, spec(s));
    let hints = "service.kubernetes.io/topology-aware-hints";
    if service.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(hints)) {
        out.push(format!(
            "annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let root = FieldPath::root("spec");
    let path = root.child("clusterIPs");
    for (i, ip) in list(&s.cluster_ips).iter().enumerate() {
        address(ip, path.index(i), &mut out);
    }
    let headless = text(&s.type_) == "ClusterIP" && text(&s.cluster_ip) == "None";
    let outside = list(&s.external_ips);
    if headless {
        if !text(&s.load_balancer_ip).is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if !outside.is_empty() {
            out.push("spec.externalIPs is ignored for headless services".into());
        }
        if text(&s.session_affinity) != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
    let path = root.child("externalIPs");
    for (i, ip) in outside.iter().enumerate() {
        address(ip, path.index(i), &mut out);
    }
    if !outside.is_empty() && !headless && !is_external_name(s) {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if !text(&s.load_balancer_ip).is_empty() {
        address(text(&s.load_balancer_ip), root.child("loadBalancerIP"), &mut out);
    }
    if is_external_name(s) && !outside.is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !is_external_name(s) && !text(&s.external_name).is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if s.traffic_distribution.as_deref() == Some("PreferClose") {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    out
}

/// Whoever gives a load balancer's address alone means one that packets are sent to as they are.
fn default_ip_modes(service: &mut Service) {
    let kind = service.spec.as_ref().and_then(|s| s.type_.as_deref());
    if kind != Some("LoadBalancer") {
        return;
    }
    let balancer = service.status.as_mut().and_then(|s| s.load_balancer.as_mut());
    for one in balancer.into_iter().flat_map(|b| b.ingress.iter_mut().flatten()) {
        if one.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
            one.ip_mode.get_or_insert_with(|| "VIP".into());
        }
    }
}

fn default(spec: &mut ServiceSpec) {
    spec.session_affinity.get_or_insert_with(|| "None".into());
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
        config.timeout_seconds.get_or_insert(10800);
    } else if spec.session_affinity.as_deref() == Some("None") {
        spec.session_affinity_config = None;
    }
    spec.type_.get_or_insert_with(|| "ClusterIP".into());
    for port in spec.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if matches!(&port.target_port, None | Some(IntOrString::Int(0))) {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    let kind = spec.type_.clone().unwrap_or_default();
    if is_external(spec) && text(&spec.external_traffic_policy).is_empty() {
        spec.external_traffic_policy = Some("Cluster".into());
    }
    if kind == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    // The two forms of the address.
    match (&spec.cluster_ip, &spec.cluster_ips) {
        (Some(ip), None) if !ip.is_empty() => spec.cluster_ips = Some(vec![ip.clone()]),
        (None, Some(ips)) => spec.cluster_ip = ips.first().cloned(),
        _ => {}
    }
}
