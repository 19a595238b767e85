//! What a name means: the records of Services, their endpoints and pods, as of now.

use client::{Lister, ObjectExt};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// How long answers may be kept.
pub const TTL: u32 = 5;
/// The version of the specification that is followed.
const VERSION: &str = "1.1.0";
/// The index of slices by their service.
pub const BY_SERVICE: &str = "service";
/// The index of services, and of slices, by address.
pub const BY_ADDRESS: &str = "address";

/// What was found for a name.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Records of the type that was asked for.
    pub answers: Vec<Record>,
    /// Records that help.
    pub additionals: Vec<Record>,
    /// Whether the name is there at all, with whatever records.
    pub exists: bool,
    /// A name elsewhere that the answers end with.
    pub elsewhere: Option<Name>,
}

/// Where the objects come from.
pub trait Objects: Send + Sync {
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// A Service's slices.
    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>>;
    /// Whether there is such a namespace.
    fn has_namespace(&self, name: &str) -> bool;
    /// Services with a cluster address.
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>>;
    /// Slices with an endpoint's address.
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// Objects that informers keep.
pub struct Cached {
    /// Services, indexed [`BY_ADDRESS`].
    pub services: Lister<Service>,
    /// Slices, indexed [`BY_SERVICE`] and [`BY_ADDRESS`].
    pub slices: Lister<EndpointSlice>,
    /// Namespaces.
    pub namespaces: Lister<Namespace>,
}

impl Objects for Cached {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }
    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &format!("{namespace}/{name}"))
    }
    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get("", name).is_some()
    }
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &ip.to_string())
    }
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &ip.to_string())
    }
}

/// The service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.label("kubernetes.io/service-name")
}

/// The addresses of a Service, as [`BY_ADDRESS`] has them.
pub fn service_addresses(service: &Service) -> Vec<String> {
    cluster_ips(service).iter().map(IpAddr::to_string).collect()
}

/// The addresses in a slice, as [`BY_ADDRESS`] has them.
pub fn slice_addresses(slice: &EndpointSlice) -> Vec<String> {
    let all = slice.endpoints.iter().flatten().flat_map(|e| &e.addresses);
    all.filter_map(|a| a.parse::<IpAddr>().ok()).map(|ip| ip.to_string()).collect()
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut ips: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(spec.cluster_ip.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
    }
    ips
}

/// An endpoint of a headless service.
struct Endpoint {
    label: String,
    ip: IpAddr,
    ports: Vec<Port>,
}

#[derive(Clone)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

/// The cluster's domain.
pub struct Zone {
    domain: Vec<String>,
    origin: Name,
    objects: Box<dyn Objects>,
}

impl Zone {
    /// The zone of a domain such as `cluster.local`.
    pub fn new(domain: &str, objects: Box<dyn Objects>) -> Option<Zone> {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let origin = Name::from_ascii(format!("{domain}.")).ok()?;
        let labels: Vec<String> = domain.split('.').map(Into::into).collect();
        (!domain.is_empty()).then_some(Zone { domain: labels, origin, objects })
    }

    /// Who speaks for the zone; goes with answers that have no records.
    pub fn soa(&self) -> Record {
        static SERIAL: OnceLock<u32> = OnceLock::new();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs() as u32);
        let name = |host: &str| {
            Name::from_ascii(host).and_then(|n| n.append_domain(&self.origin)).unwrap_or_default()
        };
        let soa =
            SOA::new(name("ns.dns"), name("hostmaster"), *SERIAL.get_or_init(now), 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    /// Looks a name up; `None` if it is not ours.
    pub fn look_up(&self, name: &Name, kind: RecordType) -> Option<Found> {
        let labels: Vec<String> =
            name.iter().map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
        if let Some(ip) = reverse(&labels) {
            // Only addresses of ours: the rest is for others to answer.
            return self.pointer(name, ip, kind);
        }
        let within = labels.len().checked_sub(self.domain.len())?;
        let (rest, domain) = labels.split_at_checked(within)?;
        if domain != self.domain.as_slice() {
            return None;
        }
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let mut found = Found::default();
        match rest.as_slice() {
            [] => {
                found.exists = true;
                match kind {
                    RecordType::SOA => found.answers.push(self.soa()),
                    RecordType::NS => {
                        let host =
                            Name::from_ascii("ns.dns").and_then(|n| n.append_domain(&self.origin)).ok();
                        let ns = host.map(|h| RData::NS(hickory_proto::rr::rdata::NS(h)));
                        found.answers.extend(ns.map(|ns| Record::from_rdata(name.clone(), TTL, ns)));
                    }
                    _ => {}
                }
            }
            ["dns-version"] => {
                found.exists = true;
                if kind == RecordType::TXT {
                    let text = hickory_proto::rr::rdata::TXT::new(vec![VERSION.into()]);
                    found.answers.push(Record::from_rdata(name.clone(), TTL, RData::TXT(text)));
                }
            }
            ["svc"] | ["pod"] => found.exists = true,
            [namespace, "svc" | "pod"] => found.exists = self.objects.has_namespace(namespace),
            [address, namespace, "pod"] => {
                if let Some(ip) = dashed(address).filter(|_| self.objects.has_namespace(namespace)) {
                    found.exists = true;
                    found.answers.extend(address_record(name, ip, kind));
                }
            }
            [.., namespace, "svc"] => {
                let before = rest.get(..rest.len() - 2).unwrap_or_default();
                self.service(name, before, namespace, kind, &mut found);
            }
            _ => {}
        }
        Some(found)
    }

    fn service(&self, name: &Name, labels: &[&str], namespace: &str, kind: RecordType, found: &mut Found) {
        let Some((service_name, before)) = labels.split_last() else { return };
        let Some(service) = self.objects.service(namespace, service_name) else { return };
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            if before.is_empty()
                && let Some(target) = spec.external_name.as_deref().and_then(|n| Name::from_ascii(n).ok())
            {
                let mut target = target;
                target.set_fqdn(true);
                found.exists = true;
                found.answers.push(Record::from_rdata(
                    name.clone(),
                    TTL,
                    RData::CNAME(CNAME(target.clone())),
                ));
                found.elsewhere = (kind != RecordType::CNAME).then_some(target);
            }
            return;
        }
        let ips = cluster_ips(&service);
        if ips.is_empty() {
            return self.headless(name, before, &service, kind, found);
        }
        let ports = spec.ports.iter().flatten().filter_map(|p| {
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into()).to_ascii_lowercase();
            Some(Port {
                name: p.name.clone().unwrap_or_default(),
                protocol,
                number: u16::try_from(p.port).ok()?,
            })
        });
        match before {
            [] => {
                found.exists = true;
                found.answers.extend(ips.iter().filter_map(|ip| address_record(name, *ip, kind)));
                if kind == RecordType::SRV {
                    for port in ports {
                        found.answers.push(srv(name, &port, name, 1));
                    }
                    found.additionals.extend(ips.iter().flat_map(|ip| both(name, *ip)));
                }
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let target = self.name_of(&service);
                for port in ports.filter(|p| is_port(p, port, protocol)) {
                    found.exists = true;
                    if kind == RecordType::SRV {
                        found.answers.push(srv(name, &port, &target, 1));
                        found.additionals.extend(ips.iter().flat_map(|ip| both(&target, *ip)));
                    }
                }
            }
            // An endpoint's own name, as a StatefulSet behind a usual service has it.
            [_] => self.headless(name, before, &service, kind, found),
            _ => {}
        }
    }

    fn headless(&self, name: &Name, before: &[&str], service: &Service, kind: RecordType, found: &mut Found) {
        let endpoints = self.endpoints(service);
        let base = self.name_of(service);
        match before {
            [] => {
                // Without endpoints there is no such name, for now.
                found.exists = !endpoints.is_empty();
                found.answers.extend(endpoints.iter().filter_map(|e| address_record(name, e.ip, kind)));
                if kind == RecordType::SRV {
                    self.service_records(name, &base, &endpoints, |_| true, found);
                }
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                found.exists = endpoints.iter().flat_map(|e| &e.ports).any(|p| is_port(p, port, protocol));
                if kind == RecordType::SRV {
                    self.service_records(name, &base, &endpoints, |p| is_port(p, port, protocol), found);
                }
            }
            [label] => {
                for e in endpoints.iter().filter(|e| e.label == *label) {
                    found.exists = true;
                    found.answers.extend(address_record(name, e.ip, kind));
                    if kind == RecordType::SRV {
                        found.answers.extend(e.ports.iter().map(|p| srv(name, p, name, 1)));
                        found.additionals.extend(both(name, e.ip));
                    }
                }
            }
            _ => {}
        }
        found.answers.dedup();
    }

    fn service_records(
        &self,
        name: &Name,
        base: &Name,
        endpoints: &[Endpoint],
        wanted: impl Fn(&Port) -> bool,
        found: &mut Found,
    ) {
        let weight = u16::try_from(100 / endpoints.len().max(1)).unwrap_or(1).max(1);
        for e in endpoints {
            let Ok(target) = Name::from_ascii(&e.label).and_then(|l| l.append_domain(base)) else { continue };
            let before = found.answers.len();
            found.answers.extend(e.ports.iter().filter(|p| wanted(p)).map(|p| srv(name, p, &target, weight)));
            if found.answers.len() > before {
                found.additionals.extend(both(&target, e.ip));
            }
        }
    }

    /// The endpoints of a headless service that are ready, or wanted before they are.
    fn endpoints(&self, service: &Service) -> Vec<Endpoint> {
        let spec = service.spec.as_ref();
        let all = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
        let (mut endpoints, mut seen) = (Vec::new(), BTreeSet::new());
        for slice in self.objects.slices(service.namespace(), service.name()) {
            let ports: Vec<Port> = slice
                .ports
                .iter()
                .flatten()
                .filter_map(|p| {
                    let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into()).to_ascii_lowercase();
                    let number = u16::try_from(p.port?).ok()?;
                    Some(Port { name: p.name.clone().unwrap_or_default(), protocol, number })
                })
                .collect();
            for e in slice.endpoints.iter().flatten() {
                let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                if !ready && !all {
                    continue;
                }
                for ip in e.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                    if seen.insert(ip) {
                        let label = e.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| dash(ip));
                        endpoints.push(Endpoint {
                            label: label.to_ascii_lowercase(),
                            ip,
                            ports: ports.clone(),
                        });
                    }
                }
            }
        }
        endpoints
    }

    fn name_of(&self, service: &Service) -> Name {
        let name = Name::from_ascii(format!("{}.{}.svc", service.name(), service.namespace()));
        name.and_then(|n| n.append_domain(&self.origin)).unwrap_or_default()
    }

    fn pointer(&self, name: &Name, ip: IpAddr, kind: RecordType) -> Option<Found> {
        let mut targets: Vec<Name> = self.objects.services_at(ip).iter().map(|s| self.name_of(s)).collect();
        if targets.is_empty() {
            for slice in self.objects.slices_at(ip) {
                let Some(service) =
                    service_of(&slice).and_then(|s| self.objects.service(slice.namespace(), s))
                else {
                    continue;
                };
                if !cluster_ips(&service).is_empty() {
                    continue;
                }
                let here = self.endpoints(&service).into_iter().filter(|e| e.ip == ip);
                let base = self.name_of(&service);
                targets.extend(
                    here.filter_map(|e| Name::from_ascii(&e.label).and_then(|l| l.append_domain(&base)).ok()),
                );
            }
        }
        if targets.is_empty() {
            return None;
        }
        targets.dedup();
        let mut found = Found { exists: true, ..Found::default() };
        if kind == RecordType::PTR {
            let record = |target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)));
            found.answers.extend(targets.into_iter().map(record));
        }
        Some(found)
    }
}

fn is_port(port: &Port, name: &str, protocol: &str) -> bool {
    name.strip_prefix('_') == Some(&port.name.to_ascii_lowercase())
        && protocol.strip_prefix('_') == Some(&port.protocol)
}

fn srv(name: &Name, port: &Port, target: &Name, weight: u16) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, weight, port.number, target.clone())))
}

fn both(name: &Name, ip: IpAddr) -> Option<Record> {
    address_record(name, ip, if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA })
}

fn address_record(name: &Name, ip: IpAddr, kind: RecordType) -> Option<Record> {
    let data = match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A) => RData::A(A(ip)),
        (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(AAAA(ip)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

/// `10-0-0-1` for `10.0.0.1`: an address as a label.
fn dash(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = || label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(labels: &[String]) -> Option<IpAddr> {
    let words: Vec<&str> = labels.iter().rev().map(String::as_str).collect();
    match words.as_slice() {
        ["arpa", "in-addr", octets @ ..] if octets.len() == 4 => {
            octets.join(".").parse().ok().map(IpAddr::V4)
        }
        ["arpa", "ip6", nibbles @ ..] if nibbles.len() == 32 => {
            let mut bits = 0u128;
            for nibble in nibbles {
                bits = bits << 4 | u128::from(u8::from_str_radix(nibble, 16).ok().filter(|n| *n < 16)?);
            }
            Some(IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

/// Objects from memory: for tests and for those who have them already.
#[derive(Default)]
pub struct Fixed {
    /// Services by namespace and name.
    pub services: HashMap<(String, String), Arc<Service>>,
    /// All slices.
    pub slices: Vec<Arc<EndpointSlice>>,
}

impl Objects for Fixed {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&(namespace.into(), name.into())).cloned()
    }
    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |s: &&Arc<EndpointSlice>| s.namespace() == namespace && service_of(s) == Some(name);
        self.slices.iter().filter(of).cloned().collect()
    }
    fn has_namespace(&self, name: &str) -> bool {
        self.services.keys().any(|(namespace, _)| namespace == name)
    }
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.values().filter(|s| cluster_ips(s).contains(&ip)).cloned().collect()
    }
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.iter().filter(|s| slice_addresses(s).contains(&ip.to_string())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::str::FromStr;

    const OBJECTS: &str = r#"{
        "services": [
            {"metadata": {"name": "web", "namespace": "a"},
             "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ports": [{"name": "http", "port": 80}]}},
            {"metadata": {"name": "db", "namespace": "a"}, "spec": {"clusterIP": "None"}},
            {"metadata": {"name": "empty", "namespace": "a"}, "spec": {"clusterIP": "None"}},
            {"metadata": {"name": "ext", "namespace": "a"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}
        ],
        "slices": [
            {"metadata": {"name": "db-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "db"}},
             "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
             "endpoints": [{"addresses": ["10.1.0.1"], "hostname": "db-0"}, {"addresses": ["10.1.0.2"]},
                           {"addresses": ["10.1.0.3"], "conditions": {"ready": false}}]}
        ]
    }"#;

    #[derive(serde::Deserialize)]
    struct Objects {
        services: Vec<Service>,
        slices: Vec<EndpointSlice>,
    }

    fn zone() -> Zone {
        let objects: Objects = serde_json::from_str(OBJECTS).unwrap();
        let key = |s: &Service| (s.namespace().to_string(), s.name().to_string());
        let services = objects.services.into_iter().map(|s| (key(&s), Arc::new(s))).collect();
        let slices = objects.slices.into_iter().map(Arc::new).collect();
        Zone::new("cluster.local.", Box::new(Fixed { services, slices })).unwrap()
    }

    fn check(questions: &str, expected: Expect) {
        let zone = zone();
        let mut text = String::new();
        for question in questions.lines().map(str::trim).filter(|q| !q.is_empty()) {
            let (name, kind) = question.split_once(' ').unwrap();
            let found = zone.look_up(&Name::from_str(name).unwrap(), RecordType::from_str(kind).unwrap());
            text += &match &found {
                None => format!("{question}: not ours\n"),
                Some(found) if !found.exists => format!("{question}: no such name\n"),
                Some(_) => format!("{question}:\n"),
            };
            for record in found.iter().flat_map(|f| f.answers.iter().chain(&f.additionals)) {
                text += &format!("  {} {} {}\n", record.name, record.record_type(), record.data);
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn services() {
        check(
            "web.a.svc.cluster.local. A
             WEB.a.svc.cluster.local. AAAA
             web.a.svc.cluster.local. MX
             _http._tcp.web.a.svc.cluster.local. SRV
             _http._udp.web.a.svc.cluster.local. SRV
             x.web.a.svc.cluster.local. A
             web.b.svc.cluster.local. A
             ext.a.svc.cluster.local. A",
            expect![[r#"
                web.a.svc.cluster.local. A:
                  web.a.svc.cluster.local. A 10.0.0.1
                WEB.a.svc.cluster.local. AAAA:
                  web.a.svc.cluster.local. AAAA fd00::1
                web.a.svc.cluster.local. MX:
                _http._tcp.web.a.svc.cluster.local. SRV:
                  _http._tcp.web.a.svc.cluster.local. SRV 0 1 80 web.a.svc.cluster.local.
                  web.a.svc.cluster.local. A 10.0.0.1
                  web.a.svc.cluster.local. AAAA fd00::1
                _http._udp.web.a.svc.cluster.local. SRV: no such name
                x.web.a.svc.cluster.local. A: no such name
                web.b.svc.cluster.local. A: no such name
                ext.a.svc.cluster.local. A:
                  ext.a.svc.cluster.local. CNAME example.com.
            "#]],
        );
    }

    #[test]
    fn headless_services() {
        check(
            "db.a.svc.cluster.local. A
             db.a.svc.cluster.local. AAAA
             db-0.db.a.svc.cluster.local. A
             10-1-0-2.db.a.svc.cluster.local. A
             10-1-0-3.db.a.svc.cluster.local. A
             _sql._tcp.db.a.svc.cluster.local. SRV
             empty.a.svc.cluster.local. A",
            expect![[r#"
                db.a.svc.cluster.local. A:
                  db.a.svc.cluster.local. A 10.1.0.1
                  db.a.svc.cluster.local. A 10.1.0.2
                db.a.svc.cluster.local. AAAA:
                db-0.db.a.svc.cluster.local. A:
                  db-0.db.a.svc.cluster.local. A 10.1.0.1
                10-1-0-2.db.a.svc.cluster.local. A:
                  10-1-0-2.db.a.svc.cluster.local. A 10.1.0.2
                10-1-0-3.db.a.svc.cluster.local. A: no such name
                _sql._tcp.db.a.svc.cluster.local. SRV:
                  _sql._tcp.db.a.svc.cluster.local. SRV 0 50 5432 db-0.db.a.svc.cluster.local.
                  _sql._tcp.db.a.svc.cluster.local. SRV 0 50 5432 10-1-0-2.db.a.svc.cluster.local.
                  db-0.db.a.svc.cluster.local. A 10.1.0.1
                  10-1-0-2.db.a.svc.cluster.local. A 10.1.0.2
                empty.a.svc.cluster.local. A: no such name
            "#]],
        );
    }

    #[test]
    fn the_rest() {
        check(
            "10-1-0-9.a.pod.cluster.local. A
             10-1-0-9.b.pod.cluster.local. A
             x.a.pod.cluster.local. A
             a.svc.cluster.local. A
             svc.cluster.local. A
             cluster.local. A
             dns-version.cluster.local. TXT
             1.0.0.10.in-addr.arpa. PTR
             1.0.1.10.in-addr.arpa. PTR
             9.9.9.9.in-addr.arpa. PTR
             1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR
             example.com. A",
            expect![[r#"
                10-1-0-9.a.pod.cluster.local. A:
                  10-1-0-9.a.pod.cluster.local. A 10.1.0.9
                10-1-0-9.b.pod.cluster.local. A: no such name
                x.a.pod.cluster.local. A: no such name
                a.svc.cluster.local. A:
                svc.cluster.local. A:
                cluster.local. A:
                dns-version.cluster.local. TXT:
                  dns-version.cluster.local. TXT 1.1.0
                1.0.0.10.in-addr.arpa. PTR:
                  1.0.0.10.in-addr.arpa. PTR web.a.svc.cluster.local.
                1.0.1.10.in-addr.arpa. PTR:
                  1.0.1.10.in-addr.arpa. PTR db-0.db.a.svc.cluster.local.
                9.9.9.9.in-addr.arpa. PTR: not ours
                1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR:
                  1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR web.a.svc.cluster.local.
                example.com. A: not ours
            "#]],
        );
    }
}
