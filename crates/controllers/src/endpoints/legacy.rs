//! Endpoints objects, for those who still read them: one per service, at most 1000 addresses.
//! Watches services, pods and Endpoints; all lead to the service.

use super::{
    HEADLESS, TRIGGER, belongs, hostname, is_headless, on_pod, port_number, publishes_unready, selected,
    selects, trigger,
};
use crate::common::{gone_is_fine, pods};
use crate::serviceaccount::ignore_lost_race;
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{Client, Lister, ObjectExt};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const NAME: &str = "endpoints-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const CAPACITY: usize = 1000;

struct Legacy {
    client: Client,
    services: Lister<Service>,
    pods: Lister<Pod>,
    endpoints: Lister<Endpoints>,
}

/// Keeps Endpoints.
pub async fn run(ctx: Context) {
    let client = ctx.client("endpoint-controller");
    let (services, pods) = (ctx.informers.informer::<Service>(), ctx.pods());
    let endpoints = ctx.informers.informer::<Endpoints>();
    let this = Arc::new(Legacy {
        client,
        services: services.lister(),
        pods: pods.lister(),
        endpoints: endpoints.lister(),
    });
    let known = services.lister();
    ctx.controller(NAME)
        .each(&services)
        .on(&endpoints, |event, queue| {
            if event.old().is_none() || event.is_deleted() {
                queue.add(event.object().key()); // one whose service is gone goes too
            }
        })
        .on(&pods, move |event, queue| on_pod(event, queue, &known))
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

impl Legacy {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let there = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // Only what we made: others use Endpoints without a service, too.
            if there.is_some_and(|e| e.label(MANAGED_BY) == Some(MANAGER)) {
                let options = Default::default();
                gone_is_fine(self.client.delete::<Endpoints>(&key.namespace, &key.name, &options).await)?;
            }
            return Ok(None);
        };
        if !selects(&service) {
            return Ok(None);
        }
        let selected = selected(&service, &self.pods);
        let Some(wanted) = plan(&service, &selected, there.as_deref()) else { return Ok(None) };
        if there.is_some() {
            self.client.update(&wanted).await?;
        } else {
            ignore_lost_race(self.client.create(&wanted).await).map_err(Error::from)?;
        }
        Ok(None)
    }
}

/// The Endpoints a service should have, if they are not what is there.
fn plan(service: &Service, selected: &[Arc<Pod>], there: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, truncated) = truncate(subsets(service, selected));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let subsets = if subsets.is_empty() { None } else { Some(subsets) };
    if let Some(there) = there {
        let marked = there.annotation(OVER_CAPACITY).is_some();
        if without_versions(&there.subsets) == subsets
            && there.metadata.labels.as_ref() == Some(&labels)
            && marked == truncated
        {
            return None;
        }
    }
    let mut wanted = there.cloned().unwrap_or_default();
    wanted.metadata.name = service.metadata.name.clone();
    wanted.metadata.namespace = service.metadata.namespace.clone();
    wanted.metadata.labels = Some(labels);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    if let Some(at) = trigger(service, selected) {
        annotations.insert(TRIGGER.into(), at);
    }
    wanted.subsets = subsets;
    Some(wanted)
}

/// A pod's version changes with what does not matter here.
fn without_versions(subsets: &Option<Vec<EndpointSubset>>) -> Option<Vec<EndpointSubset>> {
    let mut subsets = subsets.clone().filter(|s| !s.is_empty())?;
    for s in &mut subsets {
        for a in s.addresses.iter_mut().flatten().chain(s.not_ready_addresses.iter_mut().flatten()) {
            if let Some(r) = &mut a.target_ref {
                r.resource_version = None;
            }
        }
    }
    Some(subsets)
}

fn endpoint_port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        name: port.name.clone().filter(|n| !n.is_empty()),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    }
}

/// Groups addresses by the ports they have: first per address, then addresses with the same ports.
fn subsets(service: &Service, selected: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let v6 = spec.ip_families.iter().flatten().next().map(String::as_str) == Some("IPv6");
    let unready = publishes_unready(service);
    // By port list, as text so that it can be ordered: the ports, the ready, the others.
    type Group = (Vec<EndpointPort>, Vec<EndpointAddress>, Vec<EndpointAddress>);
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in selected.iter().filter(|p| belongs(p, unready)) {
        let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str());
        let own = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
        let fits = |ip: &&str| ip.parse::<IpAddr>().is_ok_and(|a| a.is_ipv6() == v6);
        let Some(ip) = ips.chain(own).find(fits) else { continue };
        let address = EndpointAddress {
            ip: ip.into(),
            hostname: hostname(pod, service),
            node_name: Some(pods::node_name(pod).to_string()).filter(|n| !n.is_empty()),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        let mut own_ports: Vec<EndpointPort> =
            ports.iter().filter_map(|p| Some(endpoint_port(p, port_number(pod, p)?))).collect();
        if own_ports.is_empty() && !(ports.is_empty() && is_headless(service)) {
            continue;
        }
        own_ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
        let key = serde_json::to_string(&own_ports).unwrap_or_default();
        let group = groups.entry(key).or_insert_with(|| (own_ports, Vec::new(), Vec::new()));
        if unready || pods::is_ready(pod) { group.1.push(address) } else { group.2.push(address) }
    }
    let finish = |(ports, mut ready, mut others): Group| {
        let by = |a: &EndpointAddress, b: &EndpointAddress| {
            let uid = |x: &EndpointAddress| x.target_ref.as_ref().and_then(|r| r.uid.clone());
            (&a.ip, uid(a)).cmp(&(&b.ip, uid(b)))
        };
        ready.sort_by(by);
        others.sort_by(by);
        let some = |v: Vec<EndpointAddress>| if v.is_empty() { None } else { Some(v) };
        let ports = if ports.is_empty() { None } else { Some(ports) };
        EndpointSubset { addresses: some(ready), not_ready_addresses: some(others), ports }
    };
    groups.into_values().map(finish).collect()
}

/// Cuts to the capacity, the ready first; whether anything was cut.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |f: fn(&EndpointSubset) -> &Option<Vec<EndpointAddress>>, s: &[EndpointSubset]| {
        s.iter().map(|s| f(s).as_ref().map_or(0, Vec::len)).sum::<usize>()
    };
    let all = count(|s| &s.addresses, &subsets) + count(|s| &s.not_ready_addresses, &subsets);
    if all <= CAPACITY {
        return (subsets, false);
    }
    let mut room = CAPACITY;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(l) = list {
            l.truncate(room);
            room -= l.len();
            if l.is_empty() {
                *list = None;
            }
        }
    };
    subsets.iter_mut().for_each(|s| cut(&mut s.addresses));
    subsets.iter_mut().for_each(|s| cut(&mut s.not_ready_addresses));
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    (subsets, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, ip: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
                "status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap(),
        )
    }

    fn service(extra: serde_json::Value) -> Service {
        let mut v = json!({
            "metadata": {"name": "s", "namespace": "ns", "labels": {"l": "v"}},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"a": "b"}, "ports": [{"name": "w", "port": 80, "targetPort": "http"}]},
        });
        v["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(v).unwrap()
    }

    #[test]
    fn addresses_are_grouped_by_ports() {
        let pods = [
            pod("b", "10.1.0.2", true),
            pod("a", "10.1.0.1", true),
            pod("c", "10.1.0.3", false),
            pod("d", "", true),
        ];
        let e = plan(&service(json!({})), &pods, None).unwrap();
        let s = &e.subsets.as_ref().unwrap()[0];
        let ips = |v: &Option<Vec<EndpointAddress>>| {
            v.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            (ips(&s.addresses), ips(&s.not_ready_addresses)),
            ("10.1.0.1 10.1.0.2".into(), "10.1.0.3".into())
        );
        assert_eq!(s.ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(e.metadata.labels.as_ref().unwrap().len(), 2);
        assert!(plan(&service(json!({})), &pods, Some(&e)).is_none());
        let all = plan(&service(json!({"publishNotReadyAddresses": true, "clusterIP": "None"})), &pods, None)
            .unwrap();
        assert_eq!(ips(&all.subsets.unwrap()[0].addresses), "10.1.0.1 10.1.0.2 10.1.0.3");
        assert!(all.metadata.labels.unwrap().contains_key(HEADLESS));
    }

    #[test]
    fn many_addresses_are_cut() {
        let pods: Vec<_> = (0..1100)
            .map(|i| pod(&format!("p{i}"), &format!("10.1.{}.{}", i / 250, i % 250), i % 2 == 0))
            .collect();
        let e = plan(&service(json!({})), &pods, None).unwrap();
        assert_eq!(e.annotation(OVER_CAPACITY), Some("truncated"));
        let s = &e.subsets.unwrap()[0];
        assert_eq!(
            (s.addresses.as_ref().unwrap().len(), s.not_ready_addresses.as_ref().unwrap().len()),
            (550, 450)
        );
    }
}
