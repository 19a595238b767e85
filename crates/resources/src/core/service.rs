//! Service.

use crate::kind::{Served, age_column, label_1035_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use std::collections::BTreeSet;

/// The rules of Service.
pub static KIND: Kind<Service> = Kind {
    has_status: true,
    create_on_update: true,
    name_rule: label_1035_name,
    default: |s| default(s.spec.get_or_insert_default()),
    validate: |s, errors| validate(&s.spec.clone().unwrap_or_default(), errors),
    validate_update: |new, old, errors| {
        let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let external = |s: &ServiceSpec| s.type_.as_deref() == Some("ExternalName");
        let had = old.cluster_ip.as_ref().is_some_and(|ip| !ip.is_empty());
        if had && new.cluster_ip != old.cluster_ip && !external(&new) && !external(&old) {
            let spec = FieldPath::root("spec");
            let ips = spec.child("clusterIPs");
            errors.invalid(ips.index(0), &new.cluster_ips, "may not change once set");
        }
        validate(&new, errors);
    },
    served: &[Served {
        name: "proxy",
        body: ("", "v1", "ServiceProxyOptions"),
        verbs: &["create", "delete", "get", "patch", "update"],
    }],
    selectable: &["spec.clusterIP", "spec.type"],
    columns: &[
        Column::text("Type", "How it is exposed.", |s: &Service, _| spec(s).type_.into()),
        Column::text("Cluster-IP", "Its address.", |s: &Service, _| none_if_empty(spec(s).cluster_ip)),
        Column::text("External-IP", "Its addresses from outside.", |s: &Service, _| external(s).into()),
        Column::text("Port(s)", "Its ports.", |s: &Service, _| ports(&spec(s)).into()),
        age_column(),
        Column::text("Selector", "The pods behind it.", |s: &Service, _| {
            let labels: Vec<String> =
                spec(s).selector.unwrap_or_default().iter().map(|(k, v)| format!("{k}={v}")).collect();
            none_if_empty(Some(labels.join(",")))
        })
        .wide(),
    ],
    ..Kind::namespaced("service", "services/specs").called(&["svc"], &["all"])
};

fn spec(s: &Service) -> ServiceSpec {
    s.spec.clone().unwrap_or_default()
}

fn none_if_empty(text: Option<String>) -> Value {
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| "<none>".into()).into()
}

fn external(s: &Service) -> String {
    let spec = spec(s);
    let own = spec.external_ips.clone().unwrap_or_default();
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.unwrap_or_default(),
        Some("LoadBalancer") => {
            let status = s.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let given = status
                .iter()
                .flat_map(|l| l.ingress.iter().flatten())
                .filter_map(|i| i.ip.clone().or(i.hostname.clone()));
            let all: Vec<String> = given.chain(own).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        _ if own.is_empty() => "<none>".into(),
        _ => own.join(","),
    }
}

fn ports(spec: &ServiceSpec) -> String {
    let one = |p: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = p.protocol.as_deref().unwrap_or("TCP");
        match p.node_port.filter(|n| *n > 0) {
            Some(node) => format!("{}:{node}/{protocol}", p.port),
            None => format!("{}/{protocol}", p.port),
        }
    };
    let all: Vec<String> = spec.ports.iter().flatten().map(one).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

fn default(spec: &mut ServiceSpec) {
    spec.session_affinity.get_or_insert_with(|| "None".into());
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
        config.timeout_seconds.get_or_insert(10800);
    } else {
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
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        spec.external_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    if kind == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if kind != "ExternalName" {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
    }
    // The two forms of the address.
    match (&spec.cluster_ip, &spec.cluster_ips) {
        (Some(ip), None) if !ip.is_empty() => spec.cluster_ips = Some(vec![ip.clone()]),
        (None, Some(ips)) => spec.cluster_ip = ips.first().cloned(),
        _ => {}
    }
}

fn validate(s: &ServiceSpec, errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = s.type_.as_deref().unwrap_or_default();
    if !kinds.contains(&kind) {
        errors.not_supported(root.child("type"), kind, &kinds);
    }
    let headless = s.cluster_ip.as_deref() == Some("None");
    let all: Vec<_> = s.ports.iter().flatten().collect();
    if all.is_empty() && !headless && kind != "ExternalName" {
        errors.required(root.child("ports"), "");
    }
    if kind == "ExternalName" {
        match s.external_name.as_deref().unwrap_or_default().trim_end_matches('.') {
            "" => errors.required(root.child("externalName"), ""),
            name => {
                for fault in names::dns1123_subdomain(name) {
                    errors.invalid(root.child("externalName"), &name, fault);
                }
            }
        }
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let ips = root.child("clusterIPs");
        errors.invalid(ips.index(0), &"None", format!("may not be set to 'None' for {kind} services"));
    }
    if !matches!(s.session_affinity.as_deref(), Some("None" | "ClientIP")) {
        errors.not_supported(
            root.child("sessionAffinity"),
            s.session_affinity.as_deref().unwrap_or_default(),
            &["ClientIP", "None"],
        );
    }
    crate::meta::labels(s.selector.as_ref(), root.child("selector"), errors);
    let ports = root.child("ports");
    let (mut seen_names, mut seen_ports) = (BTreeSet::new(), BTreeSet::new());
    for (i, p) in all.iter().enumerate() {
        let at = ports.index(i);
        match p.name.as_deref().unwrap_or_default() {
            "" if all.len() > 1 => errors.required(at.child("name"), ""),
            "" => {}
            name => {
                for fault in names::dns1123_label(name) {
                    errors.invalid(at.child("name"), &name, fault);
                }
                if !seen_names.insert(name) {
                    errors.duplicate(at.child("name"), &name);
                }
            }
        }
        for fault in names::port_number(p.port) {
            errors.invalid(at.child("port"), &p.port, fault);
        }
        let protocol = p.protocol.as_deref().unwrap_or_default();
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.not_supported(at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        if !seen_ports.insert((protocol, p.port)) {
            errors.duplicate(at, &serde_json::json!({"port": p.port, "protocol": protocol}));
        }
        let faults = match &p.target_port {
            Some(IntOrString::Int(n)) => names::port_number(*n),
            Some(IntOrString::String(name)) => names::port_name(name),
            None => Vec::new(),
        };
        for fault in faults {
            errors.invalid(at.child("targetPort"), &p.target_port, fault);
        }
        if p.node_port.is_some_and(|n| n != 0) && kind == "ClusterIP" {
            errors.forbidden(at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
}
