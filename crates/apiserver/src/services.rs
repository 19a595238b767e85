//! Addresses and ports of services. An address is claimed by making its IPAddress object, which only one
//! server can do; what a claim took is given back when the object is not made after all.

use crate::cache::Entry;
use crate::options::{Cidr, Options};
use crate::server::Server;
use crate::verbs::{Request, internal, store_failed};
use api::field::{FieldErrors, FieldPath};
use api::object::Object;
use api::{GroupKind, GroupResource, Status, read};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use rand::Rng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use store::{Change, Commit, Durability, Expect, StoreError};
use tokio::sync::Mutex;

/// Hands out addresses and ports.
pub struct Allocator {
    ranges: Vec<Cidr>,
    ports: (u16, u16),
    /// Ports are chosen one service at a time; those in use are read from the services themselves.
    choosing: Mutex<BTreeSet<i32>>,
}

/// What was claimed for one service.
#[derive(Default)]
pub struct Claim {
    addresses: Vec<IpAddr>,
    ports: Vec<i32>,
}

impl Claim {
    /// Gives everything back.
    pub async fn undo(self, server: &Server) {
        for address in &self.addresses {
            release_address(server, &address.to_string()).await;
        }
        if !self.ports.is_empty() {
            let mut chosen = server.services.choosing.lock().await;
            self.ports.iter().for_each(|p| {
                chosen.remove(p);
            });
        }
    }
}

/// Where IPAddress objects are kept.
const ADDRESSES: &str = "/registry/ipaddresses/";
/// Addresses tried at random before the range is called full.
const TRIES: usize = 256;

impl Allocator {
    /// An allocator for the ranges of `--service-cluster-ip-range` and `--service-node-port-range`.
    pub fn new(options: &Options) -> Self {
        let ranges = options.service_cluster_ip_range.clone();
        Allocator { ranges, ports: options.service_node_port_range, choosing: Mutex::default() }
    }

    /// The ranges of the flags, and of those ServiceCIDRs besides that are ready.
    fn ranges(&self, server: &Server) -> Vec<Cidr> {
        let mut ranges = self.ranges.clone();
        for cidr in read::list::<ServiceCIDR>(server, None) {
            // Without a condition it counts as ready: nobody may look after it.
            let conditions = cidr.status.and_then(|s| s.conditions).unwrap_or_default();
            let ready = conditions.iter().find(|c| c.type_ == "Ready").is_none_or(|c| c.status == "True");
            if !ready || cidr.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let more = cidr.spec.and_then(|s| s.cidrs).unwrap_or_default();
            for range in more.iter().filter_map(|c| c.parse::<Cidr>().ok()) {
                if !ranges.contains(&range) {
                    ranges.push(range);
                }
            }
        }
        ranges
    }

    /// Claims what a new or changed service needs; nothing for other kinds.
    pub async fn claim(
        &self,
        request: &Request,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Claim, Status> {
        let dry_run = request.options.dry_run;
        let mut claim = Claim::default();
        let Some(service) = object.get_mut::<Service>() else { return Ok(claim) };
        request.withdraw();
        let name = service.metadata.name.clone().unwrap_or_default();
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let Some(spec) = service.spec.as_mut() else { return Ok(claim) };
        let old_spec = old.and_then(|o| o.get::<Service>()).and_then(|s| s.spec.as_ref());
        let done =
            match self.addresses(request, spec, old_spec, (&namespace, &name), dry_run, &mut claim).await {
                Ok(()) => self.node_ports(request, spec, old_spec, &name, dry_run, &mut claim).await,
                failed => failed,
            };
        if let Err(e) = done {
            claim.undo(&request.server).await;
            return Err(e);
        }
        Ok(claim)
    }

    async fn addresses(
        &self,
        request: &Request,
        spec: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        owner: (&str, &str),
        dry_run: bool,
        claim: &mut Claim,
    ) -> Result<(), Status> {
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(old) = old {
                for address in old.cluster_ips.iter().flatten().filter(|a| *a != "None") {
                    release_address(&request.server, address).await;
                }
            }
            (spec.cluster_ip, spec.cluster_ips, spec.ip_families, spec.ip_family_policy) =
                (None, None, None, None);
            return Ok(());
        }
        let held: Vec<String> = old.and_then(|o| o.cluster_ips.clone()).unwrap_or_default();
        let mut wanted: Vec<String> = spec.cluster_ips.clone().unwrap_or_default();
        if wanted.is_empty() {
            wanted.extend(spec.cluster_ip.clone().filter(|ip| !ip.is_empty()));
        }
        if wanted.is_empty() && !held.is_empty() {
            wanted.clone_from(&held);
        }
        let ranges = self.ranges(&request.server);
        let dual = matches!(spec.ip_family_policy.as_deref(), Some("PreferDualStack" | "RequireDualStack"));
        let family = |c: &Cidr| if c.is_ipv4() { "IPv4" } else { "IPv6" };
        if wanted.first().map(String::as_str) == Some("None") {
            let families =
                ranges.iter().take(if dual { 2 } else { 1 }).map(|c| family(c).to_string()).collect();
            spec.ip_families.get_or_insert(families);
            spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
            (spec.cluster_ip, spec.cluster_ips) = (Some("None".into()), Some(vec!["None".into()]));
            return Ok(());
        }
        let mut families = spec.ip_families.clone().filter(|f| !f.is_empty()).unwrap_or_else(|| {
            let of = |ip: &String| {
                ip.parse::<IpAddr>().map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" }.to_string()).ok()
            };
            let given: Vec<String> = wanted.iter().filter_map(of).collect();
            if given.is_empty() {
                ranges.first().map(|c| family(c).to_string()).into_iter().collect()
            } else {
                given
            }
        });
        if dual && families.len() == 1 {
            families.extend(ranges.iter().map(|c| family(c).to_string()).find(|f| *f != families[0]));
        }
        let mut got = Vec::new();
        for (i, wants) in families.iter().enumerate() {
            let fitting: Vec<&Cidr> = ranges.iter().filter(|c| family(c) == wants).collect();
            if fitting.is_empty() {
                let mut errors = FieldErrors::default();
                errors.invalid(
                    FieldPath::root("spec").child("ipFamilies").index(i),
                    wants,
                    "not configured on this cluster",
                );
                return Err(invalid(owner.1, &errors));
            }
            match wanted.get(i) {
                Some(ip) if held.contains(ip) => got.push(ip.clone()),
                Some(ip) => {
                    let address: IpAddr =
                        ip.parse().map_err(|_| bad_address(owner.1, i, ip, "must be a valid IP address"))?;
                    if !fitting.iter().any(|r| r.contains(address)) {
                        return Err(bad_address(
                            owner.1,
                            i,
                            ip,
                            "failed to allocate IP: the provided IP is not in the valid range",
                        ));
                    }
                    if !dry_run && !take_address(&request.server, request.now, address, owner).await? {
                        return Err(bad_address(
                            owner.1,
                            i,
                            ip,
                            &format!("failed to allocate IP {ip}: provided IP is already allocated"),
                        ));
                    }
                    claim.addresses.extend((!dry_run).then_some(address));
                    got.push(address.to_string());
                }
                None => {
                    let mut found = None;
                    for range in &fitting {
                        found = self.choose(request, range, owner, dry_run).await?;
                        if found.is_some() {
                            break;
                        }
                    }
                    let full = "failed to allocate a serviceIP: range is full";
                    let address = found.ok_or_else(|| Status::internal(full))?;
                    claim.addresses.extend((!dry_run).then_some(address));
                    got.push(address.to_string());
                }
            }
        }
        for gone in held.iter().filter(|h| !got.contains(h) && *h != "None") {
            release_address(&request.server, gone).await;
        }
        spec.cluster_ip = got.first().cloned();
        spec.cluster_ips = Some(got);
        spec.ip_families = Some(families);
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
        Ok(())
    }

    async fn choose(
        &self,
        request: &Request,
        range: &Cidr,
        owner: (&str, &str),
        dry_run: bool,
    ) -> Result<Option<IpAddr>, Status> {
        // The lower part of the range is left to those who ask for a certain address (KEP-3070).
        let (reserved, size) = (range.reserved(), range.size());
        for attempt in 0..TRIES {
            let low = if attempt < TRIES / 2 { reserved.min(size.saturating_sub(2)) } else { 1 };
            let address = range.nth(rand::rng().random_range(low..size.saturating_sub(1).max(low + 1)));
            if dry_run || take_address(&request.server, request.now, address, owner).await? {
                return Ok(Some(address));
            }
        }
        for n in 1..size.saturating_sub(1).min(1 << 16) {
            if take_address(&request.server, request.now, range.nth(n), owner).await? {
                return Ok(Some(range.nth(n)));
            }
        }
        Ok(None)
    }

    async fn node_ports(
        &self,
        request: &Request,
        spec: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        name: &str,
        dry_run: bool,
        claim: &mut Claim,
    ) -> Result<(), Status> {
        let kind = spec.type_.clone().unwrap_or_default();
        let wants = kind == "NodePort"
            || kind == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false);
        // A load balancer that sends to nodes with pods alone has to learn which those are.
        let checked = kind == "LoadBalancer"
            && spec.external_traffic_policy.as_deref() == Some("Local")
            && spec.health_check_node_port.unwrap_or(0) == 0;
        let held: BTreeSet<i32> = old
            .iter()
            .flat_map(|o| o.ports.iter().flatten())
            .filter_map(|p| p.node_port)
            .filter(|p| *p > 0)
            .collect();
        if !wants {
            if kind != "LoadBalancer" {
                spec.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
            }
            if !checked {
                return Ok(());
            }
        }
        let mut chosen = self.choosing.lock().await;
        let services: Vec<Service> = read::list(&*request.server, None);
        let used: BTreeSet<i32> = services
            .iter()
            .filter_map(|s| s.spec.as_ref())
            .flat_map(|s| {
                s.ports.iter().flatten().filter_map(|p| p.node_port).chain(s.health_check_node_port)
            })
            .collect();
        // A port chosen for a service that is there by now is remembered by the service.
        chosen.retain(|p| !used.contains(p));
        let mut taken: Vec<(i32, String)> = Vec::new();
        let old_port = |p: &k8s_openapi::api::core::v1::ServicePort| {
            let same =
                |o: &&k8s_openapi::api::core::v1::ServicePort| o.port == p.port && o.protocol == p.protocol;
            old.and_then(|o| o.ports.iter().flatten().find(same)).and_then(|o| o.node_port).filter(|n| *n > 0)
        };
        for (i, port) in spec.ports.iter_mut().flatten().enumerate().filter(|_| wants) {
            let protocol = port.protocol.clone().unwrap_or_default();
            let free = |n: i32, taken: &[(i32, String)]| {
                !used.contains(&n) && !chosen.contains(&n) && !taken.iter().any(|(t, _)| *t == n)
            };
            let asked = port.node_port.filter(|n| *n > 0).or_else(|| old_port(port));
            let number = match asked {
                Some(n) if held.contains(&n) => n,
                // TCP and UDP of one service may share a number.
                Some(n) if taken.iter().any(|(t, p)| *t == n && *p != protocol) => n,
                Some(n) => {
                    let mut errors = FieldErrors::default();
                    let spec = FieldPath::root("spec");
                    let ports = spec.child("ports");
                    let at = ports.index(i);
                    if n < i32::from(self.ports.0) || n > i32::from(self.ports.1) {
                        errors.invalid(
                            at.child("nodePort"),
                            &n,
                            format!(
                                "provided port is not in the valid range. The range of valid ports is {}-{}",
                                self.ports.0, self.ports.1
                            ),
                        );
                    } else if !free(n, &taken) {
                        errors.invalid(at.child("nodePort"), &n, "provided port is already allocated");
                    }
                    if !errors.is_empty() {
                        return Err(invalid(name, &errors));
                    }
                    n
                }
                None => {
                    let (low, high) = (i32::from(self.ports.0), i32::from(self.ports.1));
                    let mut pick = (0..TRIES).map(|_| rand::rng().random_range(low..=high)).chain(low..=high);
                    pick.find(|n| free(*n, &taken))
                        .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?
                }
            };
            port.node_port = Some(number);
            taken.push((number, protocol));
        }
        if checked {
            let free =
                |n: &i32| !used.contains(n) && !chosen.contains(n) && !taken.iter().any(|(t, _)| t == n);
            let (low, high) = (i32::from(self.ports.0), i32::from(self.ports.1));
            let mut pick = (0..TRIES).map(|_| rand::rng().random_range(low..=high)).chain(low..=high);
            let number = pick
                .find(free)
                .ok_or_else(|| Status::internal("failed to allocate a healthCheckNodePort: range is full"))?;
            spec.health_check_node_port = Some(number);
            taken.push((number, "TCP".into()));
        }
        if !dry_run {
            let new: Vec<i32> = taken.iter().map(|(n, _)| *n).filter(|n| !held.contains(n)).collect();
            chosen.extend(&new);
            claim.ports.extend(new);
        }
        Ok(())
    }

    /// Gives back what a service that is gone had.
    pub async fn release(&self, request: &Request, gone: &Arc<Entry>) {
        if request.resource.group_resource != GroupResource::new("", "services") {
            return;
        }
        let Ok(service) = serde_json::from_slice::<Service>(&gone.json) else { return };
        for address in
            service.spec.iter().flat_map(|s| s.cluster_ips.iter().flatten()).filter(|a| *a != "None")
        {
            release_address(&request.server, address).await;
        }
    }
}

fn invalid(name: &str, errors: &FieldErrors) -> Status {
    Status::invalid(&GroupKind { group: String::new(), kind: "Service".into() }, name, errors)
}

fn bad_address(name: &str, i: usize, ip: &str, why: &str) -> Status {
    let mut errors = FieldErrors::default();
    errors.invalid(FieldPath::root("spec").child("clusterIPs").index(i), &ip, why);
    invalid(name, &errors)
}

/// A claim that no service has is given back once it is this old: its server ended before it was used.
const ABANDONED: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// The label of addresses that this code claims.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// Gives back addresses whose service is gone, and claims those that a service has without a claim.
pub async fn repair(server: &Server) -> Result<(), Status> {
    let now = jiff::Timestamp::now();
    let mut used: BTreeMap<String, (String, String)> = BTreeMap::new();
    for service in read::list::<Service>(server, None) {
        let owner = (
            service.metadata.namespace.clone().unwrap_or_default(),
            service.metadata.name.clone().unwrap_or_default(),
        );
        for address in service.spec.iter().flat_map(|s| s.cluster_ips.iter().flatten()) {
            used.insert(address.clone(), owner.clone());
        }
    }
    for claim in read::list::<IPAddress>(server, None) {
        let meta = claim.metadata;
        let ours = meta.labels.as_ref().and_then(|l| l.get(MANAGED_BY.0)).is_some_and(|v| v == MANAGED_BY.1);
        let old = meta.creation_timestamp.is_some_and(|t| now.duration_since(t.0) > ABANDONED);
        let name = meta.name.unwrap_or_default();
        if used.remove(&name).is_none() && ours && old {
            tracing::info!(address = %name, "no service has this address any more");
            release_address(server, &name).await;
        }
    }
    for (address, (namespace, name)) in used {
        if let Ok(address) = address.parse() {
            take_address(server, now, address, (&namespace, &name)).await?;
        }
    }
    Ok(())
}

async fn take_address(
    server: &Server,
    now: jiff::Timestamp,
    address: IpAddr,
    (namespace, name): (&str, &str),
) -> Result<bool, Status> {
    let resource = GroupResource::new("networking.k8s.io", "ipaddresses");
    let catalog = server.catalog();
    let resource = catalog.resource(&resource).ok_or_else(|| internal("ipaddresses are not served"))?;
    let value = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(), "uid": crate::verbs::create::uid(),
            "creationTimestamp": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now),
            "labels": {MANAGED_BY.0: MANAGED_BY.1, "ipaddress.kubernetes.io/ip-family": if address.is_ipv4() { "IPv4" } else { "IPv6" }},
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    });
    let json = crate::cache::entry::canonical(&value).map_err(internal)?.into();
    let stored =
        crate::codec::encode(&*server.store, &json, &resource.schema, &*resource.kind).map_err(internal)?;
    let commit = Commit {
        key: format!("{ADDRESSES}{address}").into(),
        expect: Expect::Absent,
        change: Change::Put { value: stored, ttl: None },
        durability: Durability::Disk,
    };
    match server.store.commit(commit).await {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict(_)) => Ok(false),
        Err(e) => Err(store_failed(e)),
    }
}

async fn release_address(server: &Server, address: &str) {
    let key = format!("{ADDRESSES}{address}");
    let Ok(Some(kept)) = server.store.get(&key).await else { return };
    let commit = Commit {
        key: key.as_str().into(),
        expect: Expect::Unchanged(kept.mod_revision),
        change: Change::Delete,
        durability: Durability::Disk,
    };
    if let Err(e) = server.store.commit(commit).await {
        tracing::warn!(%address, error = %e, "a service's address could not be given back");
    }
}
