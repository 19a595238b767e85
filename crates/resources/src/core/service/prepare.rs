//! What an update of a Service keeps of the old one, and what a change of its type takes away.

use super::{is_external, is_external_name, needs_health_check};
use crate::Context;
use crate::check::{list, text};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

pub(super) fn update(new: &mut Service, old: &Service, _: &Context<'_>) {
    let balanced = new.spec.as_ref().is_some_and(|s| text(&s.type_) == "LoadBalancer");
    if let (false, Some(status)) = (balanced, &mut new.status) {
        status.load_balancer = Some(Default::default());
    }
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else { return };
    keep_addresses(new, old);
    keep_ports(new, old);
    drop_by_type(new, old);
}

/// What was given to it and is not spoken of stays.
fn keep_addresses(new: &mut ServiceSpec, old: &ServiceSpec) {
    if is_external_name(new) || is_external_name(old) {
        return;
    }
    // The first of the addresses is also the one address: who changes one means both.
    let one_changed = text(&new.cluster_ip) != text(&old.cluster_ip);
    let all_changed = list(&new.cluster_ips) != list(&old.cluster_ips);
    if text(&new.cluster_ip).is_empty() && (list(&new.cluster_ips).is_empty() || !all_changed) {
        new.cluster_ip.clone_from(&old.cluster_ip);
        new.cluster_ips.clone_from(&old.cluster_ips);
    } else if one_changed && !all_changed {
        match (new.cluster_ips.as_mut().and_then(|ips| ips.first_mut()), &new.cluster_ip) {
            (Some(first), Some(ip)) => first.clone_from(ip),
            _ => new.cluster_ips = new.cluster_ip.clone().map(|ip| vec![ip]),
        }
    } else if all_changed && !one_changed && !list(&new.cluster_ips).is_empty() {
        new.cluster_ip = list(&new.cluster_ips).first().cloned();
    } else if list(&new.cluster_ips).is_empty() {
        new.cluster_ips = match one_changed {
            false => old.cluster_ips.clone(),
            true => new.cluster_ip.clone().map(|ip| vec![ip]),
        };
    }
    if new.ip_family_policy.is_none() {
        new.ip_family_policy.clone_from(&old.ip_family_policy);
    }
    if list(&new.ip_families).is_empty() {
        new.ip_families.clone_from(&old.ip_families);
    }
    // Without the second family its address goes too.
    if text(&new.ip_family_policy) == "SingleStack" && text(&old.ip_family_policy) != "SingleStack" {
        if let Some(ips) = new.cluster_ips.as_mut().filter(|ips| **ips == *list(&old.cluster_ips)) {
            ips.truncate(1);
        }
        if let Some(families) = new.ip_families.as_mut().filter(|f| **f == *list(&old.ip_families)) {
            families.truncate(1);
        }
    }
}

fn needs_node_port(s: &ServiceSpec) -> bool {
    match text(&s.type_) {
        "NodePort" => true,
        "LoadBalancer" => s.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn keep_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_node_port(new) && needs_node_port(old) {
        let used: Vec<i32> = list(&new.ports).iter().filter_map(|p| p.node_port).collect();
        for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
            let same = list(&old.ports).iter().find(|o| o.port == port.port && o.protocol == port.protocol);
            port.node_port = same.and_then(|o| o.node_port).filter(|n| !used.contains(n));
        }
    }
    if needs_health_check(new) && needs_health_check(old) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Takes away what means nothing to the new type and was not changed along with it.
fn drop_by_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    if is_external_name(new) && !is_external_name(old) {
        if text(&new.cluster_ip) == text(&old.cluster_ip) && list(&new.cluster_ips) == list(&old.cluster_ips)
        {
            (new.cluster_ip, new.cluster_ips) = (None, None);
        }
        if list(&new.ip_families) == list(&old.ip_families) {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    let may_have_ports = |s: &ServiceSpec| matches!(text(&s.type_), "NodePort" | "LoadBalancer");
    if may_have_ports(old) && !may_have_ports(new) {
        let numbers = |s: &ServiceSpec| {
            list(&s.ports).iter().map(|p| p.node_port.unwrap_or(0)).filter(|n| *n != 0).collect::<Vec<_>>()
        };
        let before = numbers(old);
        if numbers(new).iter().all(|n| before.contains(n)) {
            new.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
        }
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    let balanced = |s: &ServiceSpec| text(&s.type_) == "LoadBalancer";
    if balanced(old) && !balanced(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if is_external(old) && !is_external(new) && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy = None;
    }
}
