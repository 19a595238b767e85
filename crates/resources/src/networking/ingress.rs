//! Ingress: which requests from outside reach which services.

use super::ingress_v1beta1::V1BETA1;
use super::typed_reference;
use crate::addresses;
use crate::check::required_text;
use crate::kind::{age_column, label_name, subdomain_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressLoadBalancerIngress, IngressRule, IngressSpec,
};
use std::collections::BTreeSet;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Hosts that a cell shows.
const HOSTS: usize = 3;

/// The rules of Ingress.
pub static KIND: Kind<Ingress> = Kind {
    has_status: true,
    has_generation: true,
    versions: &[V1BETA1],
    validate: |i, errors| {
        let spec = i.spec.clone().unwrap_or_default();
        validate(&spec, Leniency::default(), errors);
        if let (Some(noted), Some(class)) = (class_annotation(i), &spec.ingress_class_name)
            && noted != class
        {
            let at = FieldPath::root("annotations");
            let why = "must match `ingressClassName` when both are specified";
            errors.invalid(at.child(CLASS_ANNOTATION), noted, why);
        }
    },
    validate_update: |new, old, errors| {
        let old = old.spec.clone().unwrap_or_default();
        validate(&new.spec.clone().unwrap_or_default(), Leniency::of(&old), errors);
    },
    validate_status: |new, old, errors| {
        let root = FieldPath::root("status");
        let balancer = root.child("loadBalancer");
        let list = balancer.child("ingress");
        for (i, point) in points(new).iter().enumerate() {
            let at = list.index(i);
            let kept = points(old).iter().any(|p| p.ip == point.ip);
            if let Some(ip) = point.ip.as_deref().filter(|ip| !ip.is_empty() && !kept) {
                addresses::address(ip, false, at.child("ip"), errors);
            }
            if let Some(host) = point.hostname.as_deref().filter(|h| !h.is_empty()) {
                errors.all_invalid(at.child("hostname"), host, names::dns1123_subdomain(host));
                if addresses::is_address(host) {
                    errors.invalid(at.child("hostname"), &host, "must be a DNS name, not an IP address");
                }
            }
        }
    },
    warnings: |i, _| {
        let old_style =
            class_annotation(i).is_some() && i.spec.as_ref().is_none_or(|s| s.ingress_class_name.is_none());
        let text = format!(
            "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
        );
        old_style.then_some(text).into_iter().collect()
    },
    columns: &[
        Column::text("Class", "The name of the IngressClass that serves it.", |i: &Ingress, _| {
            let class = i.spec.as_ref().and_then(|s| s.ingress_class_name.clone());
            class.unwrap_or_else(|| "<none>".into()).into()
        }),
        Column::text("Hosts", "Hosts that requests are matched against.", |i: &Ingress, _| {
            hosts(i.spec.as_ref().and_then(|s| s.rules.as_deref()).unwrap_or_default()).into()
        }),
        Column::text("Address", "Where the load balancer takes requests.", |i: &Ingress, _| {
            let text = |p: &IngressLoadBalancerIngress| {
                p.ip.clone().filter(|ip| !ip.is_empty()).or(p.hostname.clone().filter(|h| !h.is_empty()))
            };
            let all: BTreeSet<String> = points(i).iter().filter_map(text).collect();
            all.into_iter().collect::<Vec<_>>().join(",").into()
        }),
        Column::text("Ports", "Ports that open.", |i: &Ingress, _| {
            let tls = i.spec.as_ref().and_then(|s| s.tls.as_ref()).is_some_and(|t| !t.is_empty());
            if tls { "80, 443" } else { "80" }.into()
        }),
        age_column(),
    ],
    ..Kind::namespaced("ingress", "ingress").called(&["ing"], &[])
};

fn class_annotation(i: &Ingress) -> Option<&String> {
    i.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION)
}

fn points(i: &Ingress) -> &[IngressLoadBalancerIngress] {
    let balancer = i.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default()
}

fn hosts(rules: &[IngressRule]) -> String {
    let named = rules.iter().filter_map(|r| r.host.as_deref()).filter(|h| !h.is_empty());
    let list: Vec<&str> = named.take(HOSTS).collect();
    if list.is_empty() {
        return "*".into();
    }
    let full = rules
        .iter()
        .scan(0, |n, r| {
            let before = *n;
            *n += usize::from(r.host.as_ref().is_some_and(|h| !h.is_empty()));
            Some(before)
        })
        .any(|before| before == HOSTS);
    let text = list.join(",");
    if full { format!("{text} + {} more...", rules.len() - HOSTS) } else { text }
}

/// Faults that an old object has are left to a new one.
#[derive(Clone, Copy, Default)]
struct Leniency {
    secret_names: bool,
    wildcard_rules: bool,
}

impl Leniency {
    fn of(old: &IngressSpec) -> Self {
        let mut secrets = old.tls.iter().flatten().filter_map(|t| t.secret_name.as_deref());
        let bad_rule = |rule: &IngressRule| {
            let mut errors = FieldErrors::default();
            rule_paths(rule, FieldPath::root(""), &mut errors);
            rule.host.as_ref().is_some_and(|h| h.contains('*')) && !errors.is_empty()
        };
        Leniency {
            secret_names: secrets.any(|s| !s.is_empty() && !subdomain_name(s, false).is_empty()),
            wildcard_rules: old.rules.iter().flatten().any(bad_rule),
        }
    }
}

fn host_name(host: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let rule = if host.contains('*') { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain };
    errors.all_invalid(at, host, rule(host));
}

fn validate(spec: &IngressSpec, lenient: Leniency, errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        errors.invalid(root, &spec.rules, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(backend, root.child("defaultBackend"), errors);
    }
    let list = root.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        let at = list.index(i);
        let host = rule.host.as_deref().unwrap_or_default();
        if !host.is_empty() {
            if addresses::is_address(host) {
                errors.invalid(at.child("host"), &host, "must be a DNS name, not an IP address");
            }
            host_name(host, at.child("host"), errors);
        }
        if !(host.contains('*') && lenient.wildcard_rules) {
            rule_paths(rule, at, errors);
        }
    }
    let list = root.child("tls");
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        let at = list.index(i);
        for (j, host) in tls.hosts.iter().flatten().enumerate() {
            host_name(host, at.child("hosts").index(j), errors);
        }
        if let Some(secret) = tls.secret_name.as_deref().filter(|s| !s.is_empty() && !lenient.secret_names) {
            errors.all_invalid(at.child("secretName"), secret, subdomain_name(secret, false));
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        errors.all_invalid(root.child("ingressClassName"), class, subdomain_name(class, false));
    }
}

fn rule_paths(rule: &IngressRule, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(http) = &rule.http else { return };
    let at = at.child("http");
    let list = at.child("paths");
    if http.paths.is_empty() {
        errors.required(list, "");
    }
    for (i, path) in http.paths.iter().enumerate() {
        validate_path(path, list.index(i), errors);
    }
}

fn validate_path(path: &HTTPIngressPath, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let text = path.path.as_deref().unwrap_or_default();
    let absolute = text.starts_with('/');
    let where_ = at.child("path");
    match path.path_type.as_str() {
        "" => return errors.required(at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !absolute {
                errors.invalid(where_, &text, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|p| text.contains(**p)) {
                errors.invalid(where_, &text, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|e| text.ends_with(**e)) {
                errors.invalid(where_, &text, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !absolute {
                errors.invalid(where_, &text, "must be an absolute path");
            }
        }
        other => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.not_supported(at.child("pathType"), other, &types);
        }
    }
    validate_backend(&path.backend, at.child("backend"), errors);
}

fn validate_backend(backend: &IngressBackend, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let service = match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            return errors.invalid(at, &"", "cannot set both resource and service backends");
        }
        (None, None) => return errors.invalid(at, &"", "resource or service backend is required"),
        (Some(resource), None) => {
            return typed_reference(
                resource.api_group.as_deref(),
                &resource.kind,
                &resource.name,
                at.child("resource"),
                errors,
            );
        }
        (None, Some(service)) => service,
    };
    let here = at.child("service");
    required_text(&service.name, here.child("name"), "", |n| label_name(n, false), errors);
    let port = service.port.clone().unwrap_or_default();
    let name = port.name.as_deref().unwrap_or_default();
    let ports = here.child("port");
    match (name, port.number.unwrap_or(0)) {
        ("", 0) => errors.required(at, "port name or number is required"),
        ("", number) => {
            for fault in names::port_number(number) {
                errors.invalid(ports.child("number"), &number, fault);
            }
        }
        (name, 0) => errors.all_invalid(ports.child("name"), name, names::port_name(name)),
        _ => errors.invalid(at, &"", "cannot set both port name & port number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value) -> Vec<String> {
        let ingress: Ingress =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
        let mut errors = FieldErrors::default();
        (KIND.validate)(&ingress, &mut errors);
        errors.as_slice().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn validation() {
        let backend = json!({"service": {"name": "a", "port": {"number": 80}}});
        assert!(check(json!({"defaultBackend": backend})).is_empty());
        assert_eq!(
            check(json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        assert_eq!(
            check(json!({"rules": [
                {"host": "1.2.3.4", "http": {"paths": []}},
                {"host": "*.x", "http": {"paths": [{"path": "a/../b", "pathType": "Exact", "backend": {}}, {"backend": backend}]}},
            ]})),
            [
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths: Required value",
                "spec.rules[1].http.paths[0].path: Invalid value: \"a/../b\": must be an absolute path",
                "spec.rules[1].http.paths[0].path: Invalid value: \"a/../b\": must not contain '/../'",
                "spec.rules[1].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                "spec.rules[1].http.paths[1].pathType: Required value: pathType must be specified",
            ]
        );
    }

    #[test]
    fn hosts_in_a_cell() {
        let rules = |n: usize| -> Vec<IngressRule> {
            (0..n).map(|i| IngressRule { host: Some(format!("h{i}")), http: None }).collect()
        };
        for (n, text) in [(0, "*"), (2, "h0,h1"), (3, "h0,h1,h2"), (5, "h0,h1,h2 + 2 more...")] {
            assert_eq!(hosts(&rules(n)), text);
        }
    }
}
