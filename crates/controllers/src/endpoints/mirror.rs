//! Slices of Endpoints that somebody wrote by hand, for services without a selector.
//! Watches Endpoints, services and our slices; all lead to the Endpoints.

use super::TRIGGER;
use super::slices::{key_of, observe, write};
use super::slices_plan::{Changes, MANAGED_BY, SERVICE_NAME};
use crate::common::controller_ref;
use crate::common::expectations::Expectations;
use crate::{Context, Outcome};
use api::ObjectKey;
use client::{Client, EventRecorder, EventType, Lister, ObjectExt, object_ref};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const NAME: &str = "endpointslice-mirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const BY_ENDPOINTS: &str = "mirrored";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

struct Mirror {
    client: Client,
    events: EventRecorder,
    endpoints: Lister<Endpoints>,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    expected: Arc<Expectations>,
    most: usize,
}

/// Keeps the slices of Endpoints that no controller of ours wrote.
pub async fn run(ctx: Context) {
    let client = ctx.client("endpointslicemirroring-controller");
    let endpoints = ctx.informers.informer::<Endpoints>();
    let (services, slices) = (ctx.informers.informer::<Service>(), ctx.informers.informer::<EndpointSlice>());
    slices.index(BY_ENDPOINTS, |s| key_of(s, MANAGER).map(|k| k.to_string()).into_iter().collect());
    let expected = Arc::new(Expectations::default());
    let this = Arc::new(Mirror {
        events: ctx.events(&client, "endpoint-slice-mirroring-controller"),
        client,
        endpoints: endpoints.lister(),
        services: services.lister(),
        slices: slices.lister(),
        expected: expected.clone(),
        most: ctx.config.mirroring_max_endpoints_per_subset,
    });
    let lacks = |s: &Service| s.spec.as_ref().is_none_or(|s| s.selector.is_none());
    ctx.controller(NAME)
        .each(&endpoints)
        .on(&services, move |event, queue| {
            let service = event.object();
            if event.old().is_none_or(|old| lacks(old) != lacks(service)) {
                queue.add(service.key());
            }
        })
        .on(&slices, move |event, queue| observe(event, queue, &expected, MANAGER))
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let this = this.clone();
            async move { this.reconcile(key).await }
        })
        .await;
}

impl Mirror {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let there = self.slices.by_index(BY_ENDPOINTS, &key.to_string());
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let service = self.services.get(&key.namespace, &key.name);
        let lacks_selector = service.is_some_and(|s| s.spec.as_ref().is_none_or(|s| s.selector.is_none()));
        let Some(endpoints) = endpoints.filter(|e| lacks_selector && is_mirrored(e)) else {
            if there.is_empty() {
                self.expected.forget(&key);
            }
            let delete = there.into_iter().filter(|s| !s.is_deleting()).collect();
            write(&self.client, &self.expected, &key, &Changes { delete, ..Changes::default() }).await?;
            return Ok(None);
        };
        if !self.expected.met(&key) {
            return Ok(None);
        }
        let plan = plan(&endpoints, &there, self.most);
        let warn = |reason, message: String| {
            self.events.event(&object_ref(&*endpoints), EventType::Warning, reason, message)
        };
        if plan.invalid > 0 {
            let text =
                format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
            warn("InvalidIPAddress", text);
        }
        if plan.skipped > plan.invalid {
            let text = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                self.most, plan.skipped
            );
            warn("TooManyAddressesToMirror", text);
        }
        write(&self.client, &self.expected, &key, &plan.changes).await?;
        Ok(None)
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.label(SKIP) != Some("true")
        && endpoints.annotation(LEADER).is_none()
        && !endpoints.is_deleting()
}

#[derive(Default)]
struct Plan {
    changes: Changes,
    /// Addresses that are none.
    invalid: usize,
    /// Those, and the ones beyond what a slice holds.
    skipped: usize,
}

type Ports = Vec<EndpointPort>;

fn plan(endpoints: &Endpoints, there: &[Arc<EndpointSlice>], most: usize) -> Plan {
    let mut plan = Plan::default();
    let mut wanted: Vec<(&'static str, Ports, Vec<Endpoint>)> = Vec::new();
    for (ports, addresses) in repack(endpoints.subsets.as_deref().unwrap_or_default()) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let all = addresses.len();
        for (address, ready) in addresses {
            if v4.len() + v6.len() == most {
                break;
            }
            match parse(&address.ip) {
                Some(ip) if ip.is_ipv4() => v4.push(endpoint(address, ip, ready)),
                Some(ip) => v6.push(endpoint(address, ip, ready)),
                None => plan.invalid += 1,
            }
        }
        plan.skipped += all - v4.len() - v6.len();
        for (family, endpoints) in [("IPv4", v4), ("IPv6", v6)] {
            if !endpoints.is_empty() {
                wanted.push((family, ports.clone(), endpoints));
            }
        }
    }
    let mut left: Vec<Arc<EndpointSlice>> = there.to_vec();
    left.sort_by(|a, b| a.name().cmp(b.name()));
    let mut missing = Vec::new();
    for (family, ports, list) in wanted {
        let fits = |s: &Arc<EndpointSlice>| {
            s.address_type == family && s.ports.as_deref().unwrap_or_default() == ports
        };
        match left.iter().position(fits).map(|i| left.remove(i)) {
            Some(slice) => {
                let new = slice_of(endpoints, &slice, family, ports, list);
                if !is_same(&new, &slice) {
                    plan.changes.update.push(new);
                }
            }
            None => missing.push((family, ports, list)),
        }
    }
    // A slice that nobody wants any more is written anew before another is made.
    for (family, ports, list) in missing {
        match left.iter().position(|s| s.address_type == family).map(|i| left.remove(i)) {
            Some(old) => plan.changes.update.push(slice_of(endpoints, &old, family, ports, list)),
            None => {
                let blank = EndpointSlice {
                    metadata: ObjectMeta {
                        generate_name: Some(format!("{}-", endpoints.name())),
                        namespace: endpoints.metadata.namespace.clone(),
                        ..ObjectMeta::default()
                    },
                    ..EndpointSlice::default()
                };
                plan.changes.create.push(slice_of(endpoints, &blank, family, ports, list));
            }
        }
    }
    plan.changes.delete = left;
    plan
}

fn slice_of(
    endpoints: &Endpoints,
    old: &EndpointSlice,
    family: &str,
    ports: Ports,
    list: Vec<Endpoint>,
) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|k, _| k != TRIGGER && k != LAST_APPLIED);
    let metadata = ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations).filter(|a| !a.is_empty()),
        owner_references: Some(vec![controller_ref(endpoints)]),
        ..old.metadata.clone()
    };
    EndpointSlice { metadata, address_type: family.into(), ports: Some(ports), endpoints: Some(list) }
}

fn is_same(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    let rest = |s: &EndpointSlice| {
        let m = &s.metadata;
        let annotations = m.annotations.clone().filter(|a| !a.is_empty());
        (annotations, m.labels.clone(), m.owner_references.clone(), s.endpoints.clone())
    };
    rest(a) == rest(b)
}

/// An address as text may have leading zeros, and an IPv4 one may be written as IPv6.
fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let parts: Option<Vec<u8>> = text.split('.').map(|p| p.parse().ok()).collect();
    let parts: [u8; 4] = parts?.try_into().ok()?;
    Some(Ipv4Addr::from(parts).into())
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// Which addresses have which ports, those with the same together: subsets may be written in any way.
/// The ready addresses come first.
fn repack(subsets: &[EndpointSubset]) -> Vec<(Ports, Vec<(&EndpointAddress, bool)>)> {
    type AddressKey<'a> = (&'a str, Option<&'a str>);
    let mut known: BTreeMap<AddressKey, &EndpointAddress> = BTreeMap::new();
    // By the port as text, as that can be ordered; a subset without ports has one that is none.
    type ByPort<'a> = BTreeMap<String, (Option<&'a LegacyPort>, BTreeMap<AddressKey<'a>, bool>)>;
    let mut by_port: ByPort = BTreeMap::new();
    for subset in subsets {
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let other = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        let addresses: Vec<_> = ready.chain(other).collect();
        let mut ports: Vec<Option<&LegacyPort>> = subset.ports.iter().flatten().map(Some).collect();
        if ports.is_empty() {
            ports.push(None);
        }
        for port in ports {
            let text = port.map(|p| serde_json::to_string(p).unwrap_or_default()).unwrap_or_default();
            let group = by_port.entry(text).or_insert_with(|| (port, BTreeMap::new()));
            for (address, ready) in &addresses {
                let key = (address.ip.as_str(), address.target_ref.as_ref().and_then(|t| t.uid.as_deref()));
                known.entry(key).or_insert(address);
                *group.1.entry(key).or_insert(true) &= *ready;
            }
        }
    }
    let mut by_addresses: BTreeMap<BTreeMap<AddressKey, bool>, Ports> = BTreeMap::new();
    for (port, addresses) in by_port.into_values() {
        by_addresses.entry(addresses).or_default().extend(port.map(|p| EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(p.port),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: p.app_protocol.clone(),
        }));
    }
    let packed = by_addresses.into_iter().map(|(addresses, mut ports)| {
        ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
        let mut list: Vec<_> =
            addresses.into_iter().filter_map(|(k, ready)| Some((*known.get(&k)?, ready))).collect();
        list.sort_by_key(|(_, ready)| !ready);
        (ports, list)
    });
    packed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "ns", "uid": "u", "labels": {"l": "v"}, "annotations": {LAST_APPLIED: "{}", "a": "b"}},
            "subsets": subsets,
        }))
        .unwrap()
    }

    fn stored(slices: Vec<EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
        let named = slices.into_iter().enumerate().map(|(i, mut s)| {
            s.metadata.name = Some(format!("e-{i}"));
            Arc::new(s)
        });
        named.collect()
    }

    #[test]
    fn endpoints_become_slices() {
        // The subsets; what the slices hold: family, port numbers, addresses with those that are not ready starred.
        let a = |ip: &str| json!({"ip": ip});
        let cases = [
            (json!([]), vec![]),
            (
                json!([{"ports": [{"port": 80}], "addresses": [a("10.0.0.1"), a("fd00::1")], "notReadyAddresses": [a("10.0.0.2")]}]),
                vec!["IPv4 [80] 10.0.0.1 10.0.0.2*", "IPv6 [80] fd00::1"],
            ),
            // The same addresses with other ports are one slice.
            (
                json!([{"ports": [{"name": "a", "port": 80}], "addresses": [a("10.0.0.1")]}, {"ports": [{"name": "b", "port": 81}], "addresses": [a("10.0.0.1")]}]),
                vec!["IPv4 [80, 81] 10.0.0.1"],
            ),
            // Not ready anywhere is not ready.
            (
                json!([{"ports": [{"port": 80}], "addresses": [a("10.0.0.1")]}, {"ports": [{"port": 80}], "notReadyAddresses": [a("10.0.0.1")]}]),
                vec!["IPv4 [80] 10.0.0.1*"],
            ),
            (
                json!([{"addresses": [a("010.0.0.01"), a("::ffff:10.0.0.2")]}]),
                vec!["IPv4 [] 10.0.0.1 10.0.0.2"],
            ),
        ];
        for (subsets, want) in cases {
            let plan = plan(&endpoints(subsets.clone()), &[], 1000);
            let show = |s: &EndpointSlice| {
                let ports: Vec<i32> = s.ports.iter().flatten().filter_map(|p| p.port).collect();
                let list = s.endpoints.iter().flatten().map(|e| {
                    let ready = e.conditions.as_ref().and_then(|c| c.ready) == Some(true);
                    format!(" {}{}", e.addresses[0], if ready { "" } else { "*" })
                });
                format!("{} {ports:?}{}", s.address_type, list.collect::<String>())
            };
            assert_eq!(plan.changes.create.iter().map(show).collect::<Vec<_>>(), want, "{subsets}");
        }
    }

    #[test]
    fn slices_follow_their_endpoints() {
        let of = |ip: &str, port: i32| json!([{"ports": [{"port": port}], "addresses": [{"ip": ip}]}]);
        let first = plan(&endpoints(of("10.0.0.1", 80)), &[], 1000).changes.create;
        let meta = &first[0].metadata;
        assert_eq!(meta.annotations, Some([("a".to_string(), "b".to_string())].into()));
        assert_eq!(first[0].label("l"), Some("v"));
        let there = stored(first);
        let count = |e: &Endpoints| {
            let c = plan(e, &there, 1000).changes;
            (c.create.len(), c.update.len(), c.delete.len())
        };
        assert_eq!(count(&endpoints(of("10.0.0.1", 80))), (0, 0, 0));
        assert_eq!(count(&endpoints(of("10.0.0.2", 80))), (0, 1, 0));
        assert_eq!(count(&endpoints(of("10.0.0.1", 81))), (0, 1, 0));
        assert_eq!(count(&endpoints(of("fd00::1", 80))), (1, 0, 1));
        let mut other = endpoints(of("10.0.0.1", 80));
        other.metadata.uid = Some("made anew".into());
        assert_eq!(count(&other), (0, 1, 0));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let e = endpoints(
            json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}, {"ip": "!"}]}]),
        );
        let plan = plan(&e, &[], 2);
        assert_eq!((plan.invalid, plan.skipped), (1, 2));
    }
}
