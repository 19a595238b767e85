//! What every part of the kubelet shares: settings, the runtime, the API, the node's own facts.

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::events::Events;
use crate::exits::Exits;
use crate::images::Images;
use crate::objects::Objects;
use crate::quantity::{self, Amount, Resources};
use crate::resize::records::Records;
use crate::sources::mirror::Mirrors;
use crate::status::manager::StatusManager;
use cri::Runtime;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Shared by all tasks of a kubelet.
pub struct Context {
    /// What the operator wants.
    pub config: Config,
    /// The container runtime.
    pub runtime: Runtime,
    /// The runtime's name, the prefix of container ids.
    pub runtime_name: RwLock<String>,
    /// Objects that pods are made from.
    pub objects: Objects,
    /// Where events go.
    pub events: Events,
    /// What ended a moment ago.
    pub exits: Exits,
    /// Images on this node.
    pub images: Images,
    /// Cgroups of pods.
    pub cgroups: Cgroups,
    /// What pods were allocated and given.
    pub records: Records,
    /// What the API shows of static pods.
    pub mirrors: Arc<Mirrors>,
    /// What the API is told of pods.
    pub status: StatusManager,
    /// Bytes of memory the node has.
    pub memory_capacity: u64,
    /// What pods may use, by resource.
    pub allocatable: RwLock<Resources>,
    /// The node's labels, as the API has them.
    pub labels: RwLock<BTreeMap<String, String>>,
    /// The node's addresses.
    pub addresses: RwLock<Vec<String>>,
}

impl Context {
    /// What pods may use of a resource.
    pub fn allocatable(&self, resource: &str) -> Amount {
        quantity::of(Some(&self.allocatable.read().unwrap_or_else(PoisonError::into_inner)), resource)
    }

    /// The node's addresses, the main one first.
    pub fn host_ips(&self) -> Vec<String> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The runtime's name.
    pub fn runtime_name(&self) -> String {
        self.runtime_name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
