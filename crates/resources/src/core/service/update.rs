//! What may change of a Service.

use super::{is_external_name, is_headless, needs_health_check, spec, validate};
use crate::check::{list, text};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

const AT: FieldPath<'static> = FieldPath::root("spec");
const FIXED: &str = "may not change once set";

pub(super) fn validate(new: &Service, old: &Service, errors: &mut FieldErrors) {
    let (now, had) = (spec(new), spec(old));
    if !is_external_name(now) && !is_external_name(had) {
        let (headless, was_headless) = (is_headless(now), is_headless(had));
        if !(headless && was_headless) {
            cluster_ips(now, had, errors);
        }
        if !headless && !was_headless {
            ip_families(now, had, errors);
        }
    }
    let balanced = |s: &ServiceSpec| text(&s.type_) == "LoadBalancer";
    if balanced(now) && balanced(had) && now.load_balancer_class != had.load_balancer_class {
        errors.invalid(AT.child("loadBalancerClass"), &now.load_balancer_class, FIXED);
    }
    if needs_health_check(had)
        && needs_health_check(now)
        && had.health_check_node_port.is_some()
        && now.health_check_node_port != had.health_check_node_port
    {
        errors.forbidden(AT.child("healthCheckNodePort"), "field is immutable");
    }
    validate::service(new, Some(old), errors);
}

fn single(s: &ServiceSpec) -> bool {
    text(&s.ip_family_policy) == "SingleStack"
}

fn cluster_ips(now: &ServiceSpec, had: &ServiceSpec, errors: &mut FieldErrors) {
    let path = AT.child("clusterIPs");
    let (ips, before) = (list(&now.cluster_ips), list(&had.cluster_ips));
    let first_changed = !before.is_empty() && !ips.is_empty() && ips.first() != before.first();
    match ips.len().cmp(&before.len()) {
        std::cmp::Ordering::Equal => {
            for (i, _) in before.iter().zip(ips).enumerate().filter(|(_, (old, new))| old != new) {
                errors.invalid(path.index(i), &ips, FIXED);
            }
        }
        std::cmp::Ordering::Less => {
            if ips.is_empty() {
                errors.invalid(path.index(0), &ips, "primary clusterIP can not be unset");
            }
            if first_changed {
                errors.invalid(path.index(0), &ips, FIXED);
            }
            if ips.len() == 1 && !single(now) {
                let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
                errors.invalid(AT.child("ipFamilyPolicy"), &now.ip_family_policy, why);
            }
        }
        std::cmp::Ordering::Greater if first_changed => errors.invalid(path.index(0), &ips, FIXED),
        std::cmp::Ordering::Greater => {}
    }
}

fn ip_families(now: &ServiceSpec, had: &ServiceSpec, errors: &mut FieldErrors) {
    let path = AT.child("ipFamilies");
    let (families, before) = (list(&now.ip_families), list(&had.ip_families));
    let ips = list(&now.cluster_ips);
    let first_changed = !before.is_empty() && !families.is_empty() && families.first() != before.first();
    match families.len().cmp(&before.len()) {
        std::cmp::Ordering::Equal => {
            for _ in before.iter().zip(families).filter(|(old, new)| old != new) {
                errors.invalid(path.index(0), &families, FIXED);
            }
        }
        std::cmp::Ordering::Less => {
            if ips.is_empty() {
                errors.invalid(path.index(0), &families, "primary ipFamily can not be unset");
            }
            if first_changed {
                errors.invalid(path.index(0), &ips, FIXED);
            }
            if families.len() == 1 && !single(now) {
                let why = "must be set to 'SingleStack' when releasing the secondary ipFamily";
                errors.invalid(AT.child("ipFamilyPolicy"), &now.ip_family_policy, why);
            }
        }
        std::cmp::Ordering::Greater if first_changed => errors.invalid(path.index(0), &ips, FIXED),
        std::cmp::Ordering::Greater => {}
    }
}
