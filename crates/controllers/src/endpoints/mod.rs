//! Which pods a service reaches: as EndpointSlices, and as Endpoints for those who still read them.

mod legacy;
mod mirror;
mod slices;
mod slices_plan;

pub use legacy::run as run_endpoints;
pub use mirror::run as run_mirror;
pub use slices::run as run_slices;

use crate::common::pods;
use api::ObjectKey;
use api::selector::LabelSelector;
use client::{Event, Lister, ObjectExt, WorkQueue};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// When a change that led to new endpoints happened, for those who measure how long that took.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Whether a service's endpoints come from pods.
fn selects(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|s| s.type_.as_deref() != Some("ExternalName") && s.selector.is_some())
}

fn is_headless(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    ip.is_empty() || ip == "None"
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or_default()
}

/// Whether a pod belongs among a service's endpoints at all.
fn belongs(pod: &Pod, with_ending: bool) -> bool {
    let has_address = pod.status.as_ref().is_some_and(|s| s.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty()));
    has_address && !pods::is_terminal(pod) && (with_ending || !pod.is_deleting())
}

/// The pod's name in DNS, if it has one below the service's.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let own = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain.as_deref() == Some(service.name())).then_some(own)
}

/// The pod's number for a port of the service.
fn port_number(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".into());
            // Init containers that keep running serve as well.
            let lasting = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let mut ports = spec.containers.iter().chain(lasting).flat_map(|c| c.ports.iter().flatten());
            let found = ports
                .find(|p| p.name.as_ref() == Some(name) && protocol(&p.protocol) == protocol(&port.protocol));
            found.map(|p| p.container_port)
        }
    }
}

/// Leads a pod's event to the services that it may mean something to.
fn on_pod(event: &Event<Pod>, queue: &WorkQueue<ObjectKey>, services: &Lister<Service>) {
    let pod = event.object();
    let old = event.old().filter(|_| !event.is_deleted());
    if old.is_some_and(|old| same_for_services(old, pod)) {
        return;
    }
    for service in services.list_namespace(pod.namespace()).into_iter().filter(|s| selects(s)) {
        let selector =
            LabelSelector::from_map(service.spec.iter().filter_map(|s| s.selector.as_ref()).flatten());
        let hits = |p: &Pod| selector.matches_labels(p.metadata.labels.as_ref());
        if hits(pod) || old.is_some_and(|o| hits(o)) {
            queue.add(service.key());
        }
    }
}

fn same_for_services(a: &Pod, b: &Pod) -> bool {
    let status = |p: &Pod| p.status.as_ref().map(|s| (s.pod_ips.clone(), s.pod_ip.clone(), s.phase.clone()));
    let name =
        |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.hostname.clone(), s.subdomain.clone()));
    a.metadata.labels == b.metadata.labels
        && a.is_deleting() == b.is_deleting()
        && pods::is_ready(a) == pods::is_ready(b)
        && status(a) == status(b)
        && name(a) == name(b)
}

/// The pods a service selects, by name.
fn selected(service: &Service, all: &Lister<Pod>) -> Vec<std::sync::Arc<Pod>> {
    let selector = LabelSelector::from_map(service.spec.iter().filter_map(|s| s.selector.as_ref()).flatten());
    let mut found = all.list_namespace(service.namespace());
    found.retain(|p| selector.matches_labels(p.metadata.labels.as_ref()));
    found
}

/// When what led here happened: the newest readiness of a pod, or the service's making.
fn trigger(service: &Service, pods: &[std::sync::Arc<Pod>]) -> Option<String> {
    let newest = pods.iter().filter_map(|p| pods::condition(p, "Ready")?.last_transition_time.as_ref()).max();
    let made = service.metadata.creation_timestamp.as_ref();
    newest.into_iter().chain(made).max().map(|t| api::time::format(t.0))
}
