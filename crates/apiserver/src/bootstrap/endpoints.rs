//! The endpoints of the `kubernetes` service: all servers that live. Each has a lease of its address in the store,
//! upstream's, so that its servers and ours may share a cluster; what the leases say goes into the endpoints, whoever
//! writes them.

use super::{make, request};
use crate::options::Reconciler;
use crate::server::Server;
use crate::verbs::modify::{How, Made, modify};
use crate::verbs::{internal, store_failed};
use api::{GroupResource, Status};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{Change, Commit, Durability, Expect, StoreError};

/// Where the leases are, below the root.
const LEASES: &str = "masterleases/";
/// How long a lease holds: upstream's.
const LEASE: Duration = Duration::from_secs(15);
/// More servers than this one cluster does not have.
const SERVERS: usize = 1000;
/// How often a lease may change while it is renewed.
const TRIES: usize = 4;

fn prefix(server: &Server) -> String {
    format!("{}{LEASES}", server.cache.root())
}

fn own_key(server: &Server) -> String {
    format!("{}{}", prefix(server), server.options.advertised())
}

/// Renews this server's lease, and brings the endpoints up to date.
pub async fn reconcile(server: &Arc<Server>) -> Result<(), Status> {
    if server.options.endpoint_reconciler_type == Reconciler::None
        || server.health.ending.load(Ordering::Acquire)
    {
        return Ok(());
    }
    renew(server).await?;
    let addresses = addresses(server).await?;
    if addresses.is_empty() {
        return Err(internal("no server has a lease, not even this one"));
    }
    write(server, &addresses).await
}

/// Takes this server out of the endpoints: it is about to end.
pub async fn leave(server: &Arc<Server>) -> Result<(), Status> {
    if server.options.endpoint_reconciler_type == Reconciler::None {
        return Ok(());
    }
    let key = own_key(server);
    if let Some(kept) = server.store.get(&key).await.map_err(store_failed)? {
        let commit = Commit {
            key: key.into(),
            expect: Expect::Unchanged(kept.mod_revision),
            change: Change::Delete,
            durability: Durability::Memory,
        };
        server.store.commit(commit).await.map_err(store_failed)?;
    }
    let addresses = addresses(server).await?;
    write(server, &addresses).await
}

async fn renew(server: &Arc<Server>) -> Result<(), Status> {
    let key = own_key(server);
    let endpoints = GroupResource::new("", "endpoints");
    let catalog = server.catalog();
    let resource = catalog.resource(&endpoints).ok_or_else(|| internal("endpoints are not kept"))?;
    for _ in 0..TRIES {
        let kept = server.store.get(&key).await.map_err(store_failed)?;
        // As upstream does, so that each renewal differs from the last.
        let generation = jiff::Timestamp::now().as_millisecond();
        let lease = json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"generation": generation},
            "subsets": [{"addresses": [{"ip": server.options.advertised().to_string()}]}],
        });
        let json = crate::cache::entry::canonical(&lease).map_err(internal)?.into();
        let value = crate::codec::encode(&*server.store, &json, &resource.schema, &*resource.kind);
        let commit = Commit {
            key: key.as_str().into(),
            expect: kept.map_or(Expect::Absent, |k| Expect::Unchanged(k.mod_revision)),
            change: Change::Put { value: value.map_err(internal)?, ttl: Some(LEASE) },
            durability: Durability::Memory,
        };
        match server.store.commit(commit).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict(_)) => {}
            Err(e) => return Err(store_failed(e)),
        }
    }
    Err(internal("the lease of this server changed again and again"))
}

/// The servers that have a lease, in order.
async fn addresses(server: &Server) -> Result<Vec<IpAddr>, Status> {
    let prefix = prefix(server);
    let page = server.store.list(&prefix, None, None, SERVERS).await.map_err(store_failed)?;
    let address = |key: &str| key.strip_prefix(&*prefix)?.parse().ok();
    let mut all: Vec<IpAddr> = page.items.iter().filter_map(|kv| address(&kv.key)).collect();
    all.sort();
    Ok(all)
}

async fn write(server: &Arc<Server>, addresses: &[IpAddr]) -> Result<(), Status> {
    let port = server.options.secure_port;
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let of_endpoints: Vec<Value> = addresses.iter().map(|a| json!({"ip": a.to_string()})).collect();
    let subsets = match addresses {
        [] => json!([]),
        _ => json!([{"addresses": of_endpoints, "ports": ports}]),
    };
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": subsets,
    });
    // A slice has addresses of one family: this server's.
    let own = server.options.advertised();
    let same = addresses.iter().filter(|a| a.is_ipv4() == own.is_ipv4());
    let of_slice: Vec<Value> =
        same.map(|a| json!({"addresses": [a.to_string()], "conditions": {"ready": true}})).collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "addressType": if own.is_ipv4() { "IPv4" } else { "IPv6" },
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": of_slice, "ports": ports,
    });
    ensure(server, GroupResource::new("", "endpoints"), endpoints, "subsets").await?;
    ensure(server, GroupResource::new("discovery.k8s.io", "endpointslices"), slice, "endpoints").await
}

/// Makes an object, or brings `field` of it, and its ports, up to date.
async fn ensure(
    server: &Arc<Server>,
    resource: GroupResource,
    value: Value,
    field: &str,
) -> Result<(), Status> {
    make(server, vec![(resource.clone(), value.clone())]).await?;
    let Some(request) = request(server, &resource, "default", "kubernetes") else { return Ok(()) };
    let make = |old: &Value| {
        let mut new = old.clone();
        for field in [field, "ports"] {
            if let Some(wanted) = value.get(field) {
                new[field] = wanted.clone();
            }
        }
        Ok(Made { value: new, applied: false })
    };
    modify(&request, How { part: None, checked: true, manager: "kube-apiserver" }, &make).await.map(drop)
}
