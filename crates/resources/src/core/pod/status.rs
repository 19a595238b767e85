//! What may be said of a pod's state.

use super::update;
use crate::check::{self, amount, is_set, list, text};
use crate::core::pod_spec::resources;
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};

const AT: FieldPath<'static> = FieldPath::root("status");
/// The longest word on a device's health.
const MAX_HEALTH: usize = 1024;

pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    update::annotations(&new.metadata, &old.metadata, errors);
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let (spec, old_spec) = (new.spec.as_ref().unwrap_or(&no_spec), old.spec.as_ref().unwrap_or(&no_spec));
    let (now, was) = (new.status.as_ref().unwrap_or(&no_status), old.status.as_ref().unwrap_or(&no_status));
    conditions(now, errors);
    if text(&spec.node_name) != text(&old_spec.node_name) {
        errors.forbidden(AT.child("nodeName"), "may not be changed directly");
    }
    let nominated = text(&now.nominated_node_name);
    if !nominated.is_empty() && nominated != text(&was.nominated_node_name) {
        check::subdomain(nominated, AT.child("nominatedNodeName"), errors);
        if is_set(&old_spec.node_name) {
            let why = "may not be set on pods that are already bound to a node";
            errors.forbidden(AT.child("nominatedNodeName"), why);
        }
    }
    observed(now.observed_generation, AT.child("observedGeneration"), errors);
    if text(&now.qos_class) != text(&was.qos_class) {
        errors.invalid(AT.child("qosClass"), &text(&now.qos_class), check::IMMUTABLE);
    }
    transitions(now, was, old_spec, errors);
    claims(now, spec, errors);
    extended_claim(now, spec, errors);
    allocatable_claims(now, spec, errors);
    let ips = |s: &PodStatus| list(&s.pod_ips).iter().map(|i| i.ip.clone()).collect::<Vec<_>>();
    addresses(&ips(now), &ips(was), list(&now.pod_ips), AT.child("podIPs"), errors);
    let ips = |s: &PodStatus| list(&s.host_ips).iter().map(|i| i.ip.clone()).collect::<Vec<_>>();
    if let Some(first) = ips(now).first()
        && text(&now.host_ip) != first
    {
        let path = AT.child("hostIPs");
        let at = path.index(0);
        errors.invalid(at.child("ip"), first, "must be equal to `hostIP`");
    }
    addresses(&ips(now), &ips(was), list(&now.host_ips), AT.child("hostIPs"), errors);
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    for (name, statuses, containers) in [
        ("containerStatuses", list(&now.container_statuses), Some(&spec.containers[..])),
        ("initContainerStatuses", list(&now.init_container_statuses), Some(list(&spec.init_containers))),
        ("ephemeralContainerStatuses", list(&now.ephemeral_container_statuses), None),
    ] {
        let at = AT.child(name);
        for (i, s) in statuses.iter().enumerate() {
            container(s, windows, containers, at.index(i), errors);
        }
    }
}

fn observed(generation: Option<i64>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(generation) = generation.filter(|g| *g < 0) {
        errors.invalid(at, &generation, "must be a non-negative integer");
    }
}

fn conditions(status: &PodStatus, errors: &mut FieldErrors) {
    let path = AT.child("conditions");
    for (i, c) in list(&status.conditions).iter().enumerate() {
        let at = path.index(i);
        observed(c.observed_generation, at.child("observedGeneration"), errors);
        if !matches!(c.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            check::qualified(&c.type_, at.child("Type"), errors);
        }
    }
}

fn exit_code(s: &ContainerStatus) -> Option<i32> {
    s.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

/// What has ended and is not restarted does not run again.
fn transitions(now: &PodStatus, was: &PodStatus, spec: &PodSpec, errors: &mut FieldErrors) {
    let inits = list(&spec.init_containers);
    let restarts_all =
        |c: &Container| list(&c.restart_policy_rules).iter().any(|r| r.action == "RestartAllContainers");
    let all_restart = spec.containers.iter().chain(inits).any(restarts_all);
    for (name, new, old, containers) in [
        (
            "containerStatuses",
            list(&now.container_statuses),
            list(&was.container_statuses),
            Some(&spec.containers[..]),
        ),
        (
            "initContainerStatuses",
            list(&now.init_container_statuses),
            list(&was.init_container_statuses),
            Some(inits),
        ),
        (
            "ephemeralContainerStatuses",
            list(&now.ephemeral_container_statuses),
            list(&was.ephemeral_container_statuses),
            None,
        ),
    ] {
        if containers.is_some() && all_restart {
            continue;
        }
        let at = AT.child(name);
        for (i, s) in old.iter().enumerate() {
            let Some(code) = exit_code(s) else { continue };
            if !new.iter().any(|n| n.name == s.name && exit_code(n).is_none()) {
                continue;
            }
            let c = containers.and_then(|all| all.iter().find(|c| c.name == s.name));
            if !c.is_some_and(|c| should_restart(c, spec, code)) {
                let here = at.index(i);
                errors.forbidden(here.child("state"), "may not be transitioned to non-terminated state");
            }
        }
    }
}

/// Whether a container that ended with a code is to run again.
fn should_restart(c: &Container, spec: &PodSpec, code: i32) -> bool {
    let by = |policy: &str| match policy {
        "Always" => Some(true),
        "OnFailure" => Some(code != 0),
        "Never" => Some(false),
        _ => None,
    };
    let own = c.restart_policy.as_deref().and_then(|policy| {
        let rule = list(&c.restart_policy_rules).iter().find(|r| {
            r.exit_codes.as_ref().is_some_and(|e| match e.operator.as_str() {
                "In" => list(&e.values).contains(&code),
                "NotIn" => !list(&e.values).contains(&code),
                _ => false,
            })
        });
        if rule.is_some_and(|r| r.action == "Restart") { Some(true) } else { by(policy) }
    });
    own.or_else(|| by(text(&spec.restart_policy))).unwrap_or(true)
}

fn claims(status: &PodStatus, spec: &PodSpec, errors: &mut FieldErrors) {
    let path = AT.child("resourceClaimStatuses");
    let statuses = list(&status.resource_claim_statuses);
    for (i, s) in statuses.iter().enumerate() {
        let at = path.index(i);
        if !list(&spec.resource_claims).iter().any(|c| c.name == s.name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(at.child("name"), &s.name, why);
        }
        if statuses[..i].iter().any(|other| other.name == s.name) {
            errors.duplicate(at.child("name"), &s.name);
        }
        if let Some(name) = &s.resource_claim_name {
            check::subdomain(name, at.child("resourceClaimName"), errors);
        }
    }
}

fn extended_claim(status: &PodStatus, spec: &PodSpec, errors: &mut FieldErrors) {
    let Some(s) = &status.extended_resource_claim_status else { return };
    let at = AT.child("extendedResourceClaimStatus");
    let path = at.child("requestMappings");
    if s.request_mappings.is_empty() {
        errors.required(path, "at least one request mapping is required");
    }
    for (i, m) in s.request_mappings.iter().enumerate() {
        let here = path.index(i);
        let c = spec
            .containers
            .iter()
            .rev()
            .chain(list(&spec.init_containers).iter().rev())
            .find(|c| c.name == m.container_name);
        match c.map(|c| c.resources.as_ref().and_then(|r| r.requests.as_ref())) {
            None => errors.invalid(
                here.child("containerName"),
                &m.container_name,
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            ),
            Some(requests) if !requests.is_some_and(|r| r.contains_key(&m.resource_name)) => errors.invalid(
                here.child("resourceName"),
                &m.resource_name,
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests",
            ),
            Some(_) => {}
        }
        check::label(&m.request_name, at.child("requestName"), errors);
        if s.request_mappings[..i].contains(m) {
            errors.duplicate(here.child("containerName"), &m.container_name);
            errors.duplicate(here.child("resourceName"), &m.resource_name);
            errors.duplicate(here.child("requestName"), &m.request_name);
        }
    }
    if !check::required(&s.resource_claim_name, at.child("resourceClaimName"), errors) {
        check::subdomain(&s.resource_claim_name, at.child("resourceClaimName"), errors);
    }
}

fn allocatable_claims(status: &PodStatus, spec: &PodSpec, errors: &mut FieldErrors) {
    let path = AT.child("nodeAllocatableResourceClaimStatuses");
    for (i, s) in list(&status.node_allocatable_resource_claim_statuses).iter().enumerate() {
        let at = path.index(i);
        let name_at = at.child("resourceClaimName");
        if s.resource_claim_name.is_empty() {
            errors.required(name_at, "must not be empty");
        }
        let is = |name: &Option<String>| name.as_ref() == Some(&s.resource_claim_name);
        let known = list(&spec.resource_claims).iter().any(|c| is(&c.resource_claim_name))
            || list(&status.resource_claim_statuses).iter().any(|c| is(&c.resource_claim_name));
        if !known {
            errors.invalid(name_at, &s.resource_claim_name, "no mapping found in pod reference");
        }
        if list(&s.containers).is_empty() {
            errors.required(at.child("containers"), "must not be empty");
        }
        let resources_at = at.child("resources");
        if s.resources.is_empty() {
            errors.required(resources_at, "must not be empty");
        }
        for (name, value) in &s.resources {
            let at = resources_at.key(name);
            if !resources::is_native(name) {
                errors.invalid(at, name, "must be a node allocatable resource name");
            }
            let value = amount(value);
            if value.sign() < 0 {
                errors.invalid(at, &value.to_string(), "must be non-negative");
            }
        }
    }
}

/// Addresses are well formed, unless they were there before, and one of each family.
fn addresses(
    ips: &[String],
    before: &[String],
    said: &(impl serde::Serialize + ?Sized),
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !before.contains(ip)) {
        check::ip(ip, at.index(i), errors);
    }
    if ips.len() > 1 && !check::is_dual_stack(ips.iter().map(String::as_str)) {
        errors.invalid(at, &said, "may specify no more than one IP for each IP family");
    }
}

fn container(
    s: &ContainerStatus,
    windows: bool,
    containers: Option<&[Container]>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    if let Some(user) = s.user.as_ref().and_then(|u| u.linux.as_ref()) {
        let user_at = at.child("user");
        let at = user_at.child("linux");
        if windows {
            errors.forbidden(at, "cannot be set for a windows pod");
        } else {
            check::unix_id(Some(user.uid), at.child("uid"), errors);
            check::unix_id(Some(user.gid), at.child("gid"), errors);
            let groups = at.child("supplementalGroups");
            for (i, group) in list(&user.supplemental_groups).iter().enumerate() {
                check::unix_id(Some(*group), groups.index(i), errors);
            }
        }
    }
    let allocated = list(&s.allocated_resources_status);
    let path = at.child("allocatedResourcesStatus");
    let Some(containers) = containers else {
        if !allocated.is_empty() {
            errors.forbidden(path, "must not be specified in container status");
        }
        return;
    };
    let c = containers.iter().find(|c| c.name == s.name);
    for (i, a) in allocated.iter().enumerate() {
        let at = path.index(i);
        if let Some(c) = c {
            let r = c.resources.as_ref();
            let (found, why) = if a.name.starts_with("claim:") {
                let is = |claim: &k8s_openapi::api::core::v1::ResourceClaim| {
                    let rest =
                        a.name.strip_prefix("claim:").and_then(|n| n.strip_prefix(claim.name.as_str()));
                    match text(&claim.request) {
                        "" => rest == Some(""),
                        request => rest.and_then(|r| r.strip_prefix('/')) == Some(request),
                    }
                };
                let why = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
                (r.is_some_and(|r| list(&r.claims).iter().any(is)), why)
            } else {
                let requests = r.and_then(|r| r.requests.as_ref());
                let why = "must match one of the container's resource requests";
                (requests.is_some_and(|r| r.contains_key(&a.name)), why)
            };
            if !found {
                errors.invalid(at.child("name"), &a.name, why);
            }
        }
        let resources = at.child("resources");
        for (i, health) in list(&a.resources).iter().enumerate() {
            let at = resources.index(i);
            check::one_of(
                text(&health.health),
                &["Healthy", "Unhealthy", "Unknown"],
                at.child("health"),
                errors,
            );
            match health.message.as_ref().map(String::len) {
                Some(0) => errors.required(at.child("message"), "must be non-empty if specified"),
                Some(n) if n > MAX_HEALTH => errors.too_long(at.child("message"), MAX_HEALTH),
                _ => {}
            }
            if list(&a.resources)[..i].iter().any(|o| o.resource_id == health.resource_id) {
                errors.duplicate(at.child("resourceID"), &health.resource_id);
            }
        }
    }
}
