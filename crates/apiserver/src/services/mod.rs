//! Addresses and ports of services. What a service needs is claimed in the store before it is written, where only one
//! server can claim it; what it no longer needs is given back once that is written, and what was claimed, if it is not.

mod addresses;
mod ports;

pub use addresses::repair as repair_addresses;
pub use ports::repair as repair_ports;

use crate::cache::Entry;
use crate::options::{Cidr, Options};
use crate::verbs::Request;
use api::field::FieldErrors;
use api::object::Object;
use api::{GroupKind, GroupResource, Status};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use std::net::IpAddr;
use std::sync::Arc;

/// Hands out addresses and ports.
pub struct Allocator {
    ranges: Vec<Cidr>,
    ports: ports::Ports,
}

/// What was claimed for one service, and what it no longer needs.
#[derive(Default)]
pub struct Claim {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    old_addresses: Vec<String>,
    old_ports: Vec<u16>,
}

impl Claim {
    /// The service is written, or is not. A dry run claims nothing and gives nothing back.
    pub async fn settle(self, request: &Request, written: bool) {
        if request.options.dry_run {
            return;
        }
        let server = &request.server;
        let (addresses, ports) = match written {
            true => (self.old_addresses, self.old_ports),
            false => (self.addresses.iter().map(ToString::to_string).collect(), self.ports),
        };
        for address in &addresses {
            addresses::release(server, address).await;
        }
        server.services.ports.release(server, &ports).await;
    }
}

impl Allocator {
    /// An allocator for the ranges of `--service-cluster-ip-range` and `--service-node-port-range`.
    pub fn new(options: &Options) -> Self {
        let ranges = options.service_cluster_ip_range.clone();
        Allocator { ranges, ports: ports::Ports::new(options.service_node_port_range) }
    }

    /// Claims what a new or changed service needs; nothing for other kinds. The claim has to be settled.
    pub async fn claim(
        &self,
        request: &Request,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Claim, Status> {
        let mut claim = Claim::default();
        let Some(service) = object.get_mut::<Service>() else { return Ok(claim) };
        request.withdraw();
        let name = service.metadata.name.clone().unwrap_or_default();
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let Some(spec) = service.spec.as_mut() else { return Ok(claim) };
        let old_spec = old.and_then(|o| o.get::<Service>()).and_then(|s| s.spec.as_ref());
        let done = match self.addresses(request, spec, old_spec, (&namespace, &name), &mut claim).await {
            Ok(()) => self.ports.claim(request, spec, old_spec, &name, &mut claim).await,
            failed => failed,
        };
        if let Err(e) = done {
            claim.settle(request, false).await;
            return Err(e);
        }
        Ok(claim)
    }

    /// Gives back what a service that is gone had.
    pub async fn release(&self, request: &Request, gone: &Arc<Entry>) {
        if request.resource.group_resource != GroupResource::new("", "services") {
            return;
        }
        let Ok(service) = serde_json::from_slice::<Service>(&gone.json) else { return };
        let Some(spec) = service.spec else { return };
        for address in spec.cluster_ips.iter().flatten().filter(|a| *a != "None") {
            addresses::release(&request.server, address).await;
        }
        self.ports.release(&request.server, &node_ports(&spec)).await;
    }
}

/// The ports of nodes that a service has.
fn node_ports(spec: &ServiceSpec) -> Vec<u16> {
    let ports = spec.ports.iter().flatten().filter_map(|p| p.node_port);
    ports
        .chain(spec.health_check_node_port)
        .filter_map(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0)
        .collect()
}

fn invalid(name: &str, errors: &FieldErrors) -> Status {
    Status::invalid(&GroupKind { group: String::new(), kind: "Service".into() }, name, errors)
}
