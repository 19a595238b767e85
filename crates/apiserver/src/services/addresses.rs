//! Addresses of services. One is claimed by making its IPAddress object, which only one server can do.

use super::{Allocator, Claim, invalid};
use crate::catalog::Resource;
use crate::options::Cidr;
use crate::server::Server;
use crate::verbs::{Request, internal, store_failed};
use api::field::{FieldErrors, FieldPath};
use api::{GroupResource, Status, read};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use rand::Rng;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use store::{Change, Commit, Durability, Expect, StoreError};

/// Addresses tried at random before the range is called full.
const TRIES: usize = 256;

impl Allocator {
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

    pub(super) async fn addresses(
        &self,
        request: &Request,
        spec: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        owner: (&str, &str),
        claim: &mut Claim,
    ) -> Result<(), Status> {
        let dry_run = request.options.dry_run;
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(old) = old {
                let gone = old.cluster_ips.iter().flatten().filter(|a| *a != "None");
                claim.old_addresses.extend(gone.cloned());
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
        let both = ranges.iter().any(Cidr::is_ipv4) && !ranges.iter().all(Cidr::is_ipv4);
        if spec.ip_family_policy.as_deref() == Some("RequireDualStack") && !both {
            let mut errors = FieldErrors::default();
            let why = "this cluster is not configured for dual-stack services";
            errors.invalid(FieldPath::root("spec").child("ipFamilyPolicy"), &"RequireDualStack", why);
            return Err(invalid(owner.1, &errors));
        }
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
                    if !fitting.iter().any(|r| r.hands_out(address)) {
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
                        found = self.choose(request, range, owner).await?;
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
        claim.old_addresses.extend(held.into_iter().filter(|h| !got.contains(h) && h != "None"));
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
    ) -> Result<Option<IpAddr>, Status> {
        let dry_run = request.options.dry_run;
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
            release(server, &name).await;
        }
    }
    for (address, (namespace, name)) in used {
        if let Ok(address) = address.parse() {
            take_address(server, now, address, (&namespace, &name)).await?;
        }
    }
    Ok(())
}

fn resource(server: &Server) -> Result<Arc<Resource>, Status> {
    let resource = GroupResource::new("networking.k8s.io", "ipaddresses");
    server.catalog().resource(&resource).cloned().ok_or_else(|| internal("ipaddresses are not served"))
}

fn key(server: &Server, address: &str) -> Result<String, Status> {
    Ok(format!("{}{address}", resource(server)?.collection("create")?.prefix))
}

async fn take_address(
    server: &Server,
    now: jiff::Timestamp,
    address: IpAddr,
    (namespace, name): (&str, &str),
) -> Result<bool, Status> {
    let resource = resource(server)?;
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
        key: key(server, &address.to_string())?.into(),
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

/// Gives an address back.
pub async fn release(server: &Server, address: &str) {
    let Ok(key) = key(server, address) else { return };
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
