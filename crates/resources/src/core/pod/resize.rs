//! The `resize` subresource: what containers and the pod ask for may change while it runs.

use super::update;
use crate::check::{amount, list};
use crate::core::pod_spec::containers::is_sidecar;
use crate::core::pod_spec::resources::Amounts;
use crate::core::pod_spec::{MIRROR, qos_class};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

const AT: FieldPath<'static> = FieldPath::root("spec");

pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let none = PodSpec::default();
    let (now, had) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return errors.forbidden(FieldPath::root(""), "static pods cannot be resized");
    }
    if had.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors.forbidden(FieldPath::root(""), "windows pods cannot be resized");
    }
    let before = errors.len();
    update::spec(new, old, errors);
    let status = old.status.as_ref();
    let class = status.and_then(|s| s.qos_class.as_deref()).filter(|c| !c.is_empty());
    if class.unwrap_or_else(|| qos_class(Some(had))) != qos_class(Some(now)) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(AT, &class.unwrap_or_default(), why);
    }
    let statuses = status.map_or(&[][..], |s| list(&s.container_statuses));
    let running = statuses.iter().find(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    if running.is_some_and(|s| s.resources.is_none()) {
        errors.forbidden(AT, "Pod running on node without support for resize");
    }
    pod_level(now.resources.as_ref(), had.resources.as_ref(), errors);
    if status.is_some_and(|s| !list(&s.node_allocatable_resource_claim_statuses).is_empty()) {
        errors.forbidden(AT, "pods with node allocatable resource claims cannot be resized");
    }
    let (inits, old_inits) = (list(&now.init_containers), list(&had.init_containers));
    let ordered = same_containers("containers", &now.containers, &had.containers, errors)
        & same_containers("initContainers", inits, old_inits, errors);
    if !ordered {
        return;
    }
    let path = AT.child("initContainers");
    for (i, (now, had)) in inits.iter().zip(old_inits).enumerate() {
        let at = path.index(i);
        removed(now.resources.as_ref(), had.resources.as_ref(), at.child("resources"), errors);
        if !same_but_basic(now, had) {
            let why = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(at, why);
        }
        let restarts = list(&now.resize_policy).iter().any(|p| p.restart_policy == "RestartContainer");
        if now != had && !is_sidecar(now) && restarts {
            let why =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(at, why);
        }
    }
    let path = AT.child("containers");
    for (i, (now, had)) in now.containers.iter().zip(&had.containers).enumerate() {
        let at = path.index(i);
        removed(now.resources.as_ref(), had.resources.as_ref(), at.child("resources"), errors);
        if !same_but_basic(now, had) {
            errors.forbidden(AT, "only cpu and memory resources are mutable");
        }
    }
    if errors.len() > before {
        return;
    }
    let mut rest = now.clone();
    rest.resources.clone_from(&had.resources);
    rest.containers.clone_from(&had.containers);
    rest.init_containers.clone_from(&had.init_containers);
    if rest != *had {
        errors.forbidden(AT, "only cpu and memory resources are mutable");
    }
}

fn same_containers(name: &str, now: &[Container], had: &[Container], errors: &mut FieldErrors) -> bool {
    let at = AT.child(name);
    if now.len() != had.len() {
        errors.forbidden(at, &format!("{name} may not be added or removed on resize"));
        return false;
    }
    let mut same = true;
    for (i, _) in now.iter().zip(had).enumerate().filter(|(_, (now, had))| now.name != had.name) {
        let here = at.index(i);
        errors.forbidden(here.child("name"), &format!("{name} may not be renamed or reordered on resize"));
        same = false;
    }
    same
}

/// Whether an amount that was asked for is no longer.
fn lacks(now: Option<&Amounts>, had: Option<&Amounts>) -> bool {
    had.into_iter().flatten().any(|(name, _)| !now.is_some_and(|n| n.contains_key(name)))
}

fn removed(
    now: Option<&ResourceRequirements>,
    had: Option<&ResourceRequirements>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let requests = |r: Option<&'_ ResourceRequirements>| r.and_then(|r| r.requests.clone());
    let limits = |r: Option<&'_ ResourceRequirements>| r.and_then(|r| r.limits.clone());
    if lacks(requests(now).as_ref(), requests(had).as_ref()) {
        errors.forbidden(at.child("requests"), "resource requests cannot be removed");
    }
    if lacks(limits(now).as_ref(), limits(had).as_ref()) {
        errors.forbidden(at.child("limits"), "resource limits cannot be removed");
    }
}

/// Whether amounts other than those of processors and memory are the same.
fn same_rest(now: Option<&Amounts>, had: Option<&Amounts>) -> bool {
    let rest = |a: Option<&Amounts>| {
        a.into_iter()
            .flatten()
            .filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory"))
            .map(|(name, value)| (name.clone(), amount(value).nano_value()))
            .collect::<Vec<_>>()
    };
    rest(now) == rest(had)
}

fn same_requirements(now: Option<&ResourceRequirements>, had: Option<&ResourceRequirements>) -> bool {
    same_rest(now.and_then(|r| r.requests.as_ref()), had.and_then(|r| r.requests.as_ref()))
        && same_rest(now.and_then(|r| r.limits.as_ref()), had.and_then(|r| r.limits.as_ref()))
        && now.map_or(&[][..], |r| list(&r.claims)) == had.map_or(&[][..], |r| list(&r.claims))
}

/// A container with claims is never the same, as upstream has it.
fn same_but_basic(now: &Container, had: &Container) -> bool {
    let mut rest = now.clone();
    rest.resources.clone_from(&had.resources);
    let claims = had.resources.as_ref().is_some_and(|r| !list(&r.claims).is_empty());
    rest == *had && !claims && same_requirements(now.resources.as_ref(), had.resources.as_ref())
}

fn pod_level(
    now: Option<&ResourceRequirements>,
    had: Option<&ResourceRequirements>,
    errors: &mut FieldErrors,
) {
    let at = AT.child("resources");
    let Some(now) = now else {
        if had.is_some() {
            errors.forbidden(at, "pod-level resources cannot be removed");
        }
        return;
    };
    if lacks(now.requests.as_ref(), had.and_then(|r| r.requests.as_ref())) {
        errors.forbidden(at.child("requests"), "pod-level resource requests cannot be removed");
    }
    if lacks(now.limits.as_ref(), had.and_then(|r| r.limits.as_ref())) {
        errors.forbidden(at.child("limits"), "pod-level resource limits cannot be removed");
    }
    if !same_requirements(Some(now), had) {
        errors.forbidden(AT, "only cpu and memory resources are mutable at pod-level");
    }
}
