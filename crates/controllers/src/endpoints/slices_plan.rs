//! Which EndpointSlices a service should have: as few changes to those that are there as possible.

use super::{HEADLESS, TRIGGER, belongs, hostname, is_headless, port_number, publishes_unready, trigger};
use crate::common::{controller_ref, pods};
use client::ObjectExt;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What has to be written.
#[derive(Debug, Default)]
pub struct Changes {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

type Ports = Vec<EndpointPort>;

/// Plans for a service. `zone` says where a node is.
pub fn plan(
    service: &Service,
    selected: &[Arc<Pod>],
    there: &[Arc<EndpointSlice>],
    most: usize,
    zone: impl Fn(&str) -> Option<String>,
) -> Changes {
    let mut changes = Changes::default();
    // What was made for an earlier service of the name goes with it: it is replaced while it is there.
    let (there, left): (Vec<_>, Vec<_>) =
        there.iter().cloned().partition(|s| s.controller().is_none_or(|c| c.uid == service.uid()));
    changes.delete.extend(left);
    let families = families(service);
    for slice in there.iter().filter(|s| !families.contains(&s.address_type.as_str())) {
        changes.delete.push(slice.clone());
    }
    let at = trigger(service, selected);
    for family in families {
        let wanted = endpoints(service, selected, family, &zone);
        let mine: Vec<_> = there.iter().filter(|s| s.address_type == family).cloned().collect();
        let frame = Frame { service, family, trigger: at.as_deref() };
        frame.distribute(wanted, mine, most.max(1), &mut changes);
    }
    changes
}

fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    let mut found: Vec<_> = named.iter().map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if found.is_empty() {
        let v6 =
            spec.and_then(|s| s.cluster_ip.as_ref()?.parse::<IpAddr>().ok()).is_some_and(|a| a.is_ipv6());
        found.push(if v6 { "IPv6" } else { "IPv4" });
    }
    found
}

/// The endpoints by the ports they have.
fn endpoints(
    service: &Service,
    selected: &[Arc<Pod>],
    family: &str,
    zone: &impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, (Ports, Vec<Endpoint>)> {
    let spec = service.spec.as_ref();
    let mut groups: BTreeMap<String, (Ports, Vec<Endpoint>)> = BTreeMap::new();
    for pod in selected.iter().filter(|p| belongs(p, true)) {
        let fits = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|a| a.is_ipv6() == (family == "IPv6"));
        let status = pod.status.as_ref();
        let mut addresses: Vec<String> = status
            .iter()
            .flat_map(|s| s.pod_ips.iter().flatten())
            .map(|ip| ip.ip.clone())
            .filter(|ip| fits(ip))
            .collect();
        if addresses.is_empty() {
            addresses.extend(status.and_then(|s| s.pod_ip.clone()).filter(|ip| fits(ip)));
        }
        if addresses.is_empty() {
            continue;
        }
        let mut ports = Vec::new();
        for p in spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            if let Some(number) = port_number(pod, p) {
                ports.push(EndpointPort {
                    name: Some(p.name.clone().unwrap_or_default()),
                    port: Some(number),
                    protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: p.app_protocol.clone(),
                });
            }
        }
        ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
        let group = groups.entry(key(&ports)).or_insert_with(|| (ports, Vec::new()));
        group.1.push(endpoint(service, pod, addresses, zone));
    }
    groups
}

fn key(ports: &[EndpointPort]) -> String {
    serde_json::to_string(ports).unwrap_or_default()
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    addresses: Vec<String>,
    zone: &impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.is_deleting();
    let ready = publishes_unready(service) || (serving && !terminating);
    let node = Some(pods::node_name(pod).to_string()).filter(|n| !n.is_empty());
    let zone = node.as_deref().and_then(zone);
    let distribution = service.spec.as_ref().and_then(|s| s.traffic_distribution.as_deref());
    let hints = match distribution.filter(|_| ready) {
        Some("PreferClose" | "PreferSameZone") => zone.clone().map(|z| EndpointHints {
            for_zones: Some(vec![ForZone { name: z }]),
            ..EndpointHints::default()
        }),
        Some("PreferSameNode") => node.clone().map(|n| EndpointHints {
            for_nodes: Some(vec![ForNode { name: n }]),
            for_zones: zone.clone().map(|z| vec![ForZone { name: z }]),
        }),
        _ => None,
    };
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: node,
        zone,
        hints,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        deprecated_topology: None,
    }
}

fn target(e: &Endpoint) -> String {
    let uid = e.target_ref.as_ref().and_then(|r| r.uid.as_deref()).unwrap_or_default();
    format!("{uid} {}", e.addresses.join(" "))
}

/// What all slices of a service and family have in common.
struct Frame<'a> {
    service: &'a Service,
    family: &'static str,
    trigger: Option<&'a str>,
}

impl Frame<'_> {
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.service.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        if is_headless(self.service) {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), self.service.name().into());
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        labels
    }

    fn new_slice(&self, ports: &Ports, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let mut slice = EndpointSlice {
            address_type: self.family.into(),
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.service.name())),
                namespace: self.service.metadata.namespace.clone(),
                owner_references: Some(vec![controller_ref(self.service)]),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            endpoints: Some(endpoints),
            ports: Some(ports.clone()),
        };
        self.stamp(&mut slice);
        slice
    }

    fn stamp(&self, slice: &mut EndpointSlice) {
        if let Some(at) = self.trigger {
            slice.metadata.annotations.get_or_insert_default().insert(TRIGGER.into(), at.into());
        }
    }

    fn distribute(
        &self,
        wanted: BTreeMap<String, (Ports, Vec<Endpoint>)>,
        there: Vec<Arc<EndpointSlice>>,
        most: usize,
        changes: &mut Changes,
    ) {
        let mut by_ports: HashMap<String, Vec<Arc<EndpointSlice>>> = HashMap::new();
        for slice in there {
            by_ports.entry(key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
        }
        let empty = wanted.is_empty();
        for (ports_key, (ports, endpoints)) in wanted {
            self.fit(&ports, endpoints, by_ports.remove(&ports_key).unwrap_or_default(), most, changes);
        }
        let mut rest: Vec<_> = by_ports.into_values().flatten().collect();
        rest.sort_by(|a, b| a.name().cmp(b.name()));
        if empty {
            // One slice without endpoints says that there are none.
            let is_bare = |s: &Arc<EndpointSlice>| {
                s.endpoints.as_ref().is_none_or(Vec::is_empty) && s.ports.as_ref().is_none_or(Vec::is_empty)
            };
            match rest.iter().position(is_bare) {
                Some(i) => {
                    let kept = rest.remove(i);
                    self.touch(kept, changes);
                }
                None => changes.create.push(self.new_slice(&Vec::new(), Vec::new())),
            }
        }
        changes.delete.extend(rest);
    }

    /// Writes a slice whose labels are not what they should be.
    fn touch(&self, slice: Arc<EndpointSlice>, changes: &mut Changes) {
        if slice.metadata.labels.as_ref() != Some(&self.labels()) {
            let mut changed = (*slice).clone();
            changed.metadata.labels = Some(self.labels());
            changes.update.push(changed);
        }
    }

    /// Fits endpoints with the same ports into the slices that have them.
    fn fit(
        &self,
        ports: &Ports,
        endpoints: Vec<Endpoint>,
        there: Vec<Arc<EndpointSlice>>,
        most: usize,
        changes: &mut Changes,
    ) {
        let mut wanted: BTreeMap<String, Endpoint> = endpoints.into_iter().map(|e| (target(&e), e)).collect();
        // What is where it is stays there.
        let (mut changed, mut same): (Vec<EndpointSlice>, Vec<Arc<EndpointSlice>>) = (Vec::new(), Vec::new());
        for slice in there {
            let old = slice.endpoints.as_deref().unwrap_or_default();
            let kept: Vec<Endpoint> = old.iter().filter_map(|e| wanted.remove(&target(e))).collect();
            if kept == old && slice.metadata.labels.as_ref() == Some(&self.labels()) && old.len() <= most {
                same.push(slice);
            } else {
                let mut slice = (*slice).clone();
                let (fits, over) = kept.split_at(kept.len().min(most));
                wanted.extend(over.iter().map(|e| (target(e), e.clone())));
                slice.endpoints = Some(fits.to_vec());
                changed.push(slice);
            }
        }
        let mut left = wanted.into_values().collect::<Vec<_>>().into_iter();
        // The rest goes where something is written anyway, the fullest first; then into what has just room enough.
        changed.sort_by_key(|s| std::cmp::Reverse(s.endpoints.as_ref().map_or(0, Vec::len)));
        for slice in &mut changed {
            let list = slice.endpoints.get_or_insert_default();
            let room = most.saturating_sub(list.len());
            list.extend(left.by_ref().take(room));
        }
        while left.len() >= most {
            changes.create.push(self.new_slice(ports, left.by_ref().take(most).collect()));
        }
        if left.len() > 0 {
            let free = |s: &Arc<EndpointSlice>| most.saturating_sub(s.endpoints.as_ref().map_or(0, Vec::len));
            let tight =
                (0..same.len()).filter(|i| free(&same[*i]) >= left.len()).min_by_key(|i| free(&same[*i]));
            match tight {
                Some(i) => {
                    let mut slice = (*same.swap_remove(i)).clone();
                    slice.endpoints.get_or_insert_default().extend(left);
                    changed.push(slice);
                }
                None => changes.create.push(self.new_slice(ports, left.collect())),
            }
        }
        for mut slice in changed {
            if slice.endpoints.as_ref().is_none_or(Vec::is_empty) {
                changes.delete.push(Arc::new(slice));
                continue;
            }
            slice.metadata.labels = Some(self.labels());
            self.stamp(&mut slice);
            changes.update.push(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(i: usize) -> Arc<Pod> {
        let ip = format!("10.1.{}.{}", i / 250, i % 250);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{i}"), "namespace": "ns", "uid": format!("{i:04}")},
                "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
                "status": {"podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::1"}], "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }))
            .unwrap(),
        )
    }

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "ns", "uid": "u"},
            "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"a": "b"}, "ports": [{"port": 80}]},
        }))
        .unwrap()
    }

    fn stored(slices: Vec<EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
        let named = slices.into_iter().enumerate().map(|(i, mut s)| {
            s.metadata.name = Some(format!("s-{i}"));
            Arc::new(s)
        });
        named.collect()
    }

    fn sizes(v: &[EndpointSlice]) -> Vec<usize> {
        v.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect()
    }

    #[test]
    fn few_slices_change() {
        let (s, zone) = (service(), |_: &str| Some("z".to_string()));
        let pods: Vec<_> = (0..250).map(pod).collect();
        let first = plan(&s, &pods, &[], 100, zone);
        assert_eq!(
            (sizes(&first.create), first.update.len(), first.delete.len()),
            (vec![100, 100, 50], 0, 0)
        );
        let there = stored(first.create);
        let e = &there[0].endpoints.as_ref().unwrap()[0];
        assert_eq!(
            (e.addresses.as_slice(), e.zone.as_deref(), e.node_name.as_deref()),
            (&["10.1.0.0".to_string()][..], Some("z"), Some("n"))
        );
        assert_eq!(there[0].ports.as_ref().unwrap()[0].port, Some(80));
        // Nothing new: nothing to do.
        let none = plan(&s, &pods, &there, 100, zone);
        assert_eq!((none.create.len(), none.update.len(), none.delete.len()), (0, 0, 0));
        // One goes, one comes: the slice that lost one takes it.
        let mut other = pods[1..].to_vec();
        other.push(pod(999));
        let one = plan(&s, &other, &there, 100, zone);
        assert_eq!((sizes(&one.update), one.create.len(), one.delete.len()), (vec![100], 0, 0));
        // A few more: the slice with room.
        let more: Vec<_> = (0..260).map(pod).collect();
        let grown = plan(&s, &more, &there, 100, zone);
        assert_eq!((sizes(&grown.update), grown.create.len()), (vec![60], 0));
        // All gone: one bare slice says so.
        let bare = plan(&s, &[], &there, 100, zone);
        assert_eq!((sizes(&bare.create), bare.delete.len()), (vec![0], 3));
        let still = plan(&s, &[], &stored(bare.create), 100, zone);
        assert_eq!((still.create.len(), still.update.len(), still.delete.len()), (0, 0, 0));
    }

    #[test]
    fn slices_of_an_earlier_service_of_the_name_are_replaced() {
        let (s, zone) = (service(), |_: &str| None);
        let pods = [pod(1)];
        let there = stored(plan(&s, &pods, &[], 100, zone).create);
        let mut anew = service();
        anew.metadata.uid = Some("u2".into());
        let changes = plan(&anew, &pods, &there, 100, zone);
        assert_eq!((sizes(&changes.create), changes.update.len(), changes.delete.len()), (vec![1], 0, 1));
        assert_eq!(changes.create[0].controller().unwrap().uid, "u2");
    }

    #[test]
    fn conditions_tell_of_ending_pods() {
        let mut ending = (*pod(1)).clone();
        ending.metadata.deletion_timestamp = Some(api::time::now());
        let first = plan(&service(), &[Arc::new(ending)], &[], 100, |_| None);
        let c = first.create[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        assert_eq!((c.ready, c.serving, c.terminating), (Some(false), Some(true), Some(true)));
    }
}
