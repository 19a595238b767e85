//! What every part of the kubelet shares: settings, the runtime, the API, the node's own facts.

use crate::admit::NodeFacts;
use crate::blocking::Blocking;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::events::Events;
use crate::exits::Exits;
use crate::health::Health;
use crate::images::Images;
use crate::objects::Objects;
use crate::quantity::{self, Amount, Resources};
use crate::resize::records::Records;
use crate::sources::mirror::Mirrors;
use crate::status::manager::StatusManager;
use cri::Runtime;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Where work goes that may block.
    pub(crate) blocking: Blocking,
    /// Whether the kernel bounds how much a container swaps.
    pub(crate) bounds_swap: bool,
    /// Whether SELinux is on.
    pub(crate) selinux: bool,
    /// Whether the kernel can enforce AppArmor profiles.
    pub(crate) apparmor: bool,
    /// What the runtime can do, as it last said.
    pub(crate) abilities: RwLock<Abilities>,
    /// Whether the kubelet's loops go round.
    pub(crate) health: Health,
}

/// What the runtime can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Handlers that can make what lies below a read-only mount read-only too.
    pub recursive_read_only: BTreeSet<String>,
    /// Whether a pod's groups can be all that its processes have.
    pub supplemental_groups_policy: bool,
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

    /// What pods are held against.
    pub(crate) fn node_facts(&self) -> NodeFacts {
        NodeFacts {
            allocatable: self.allocatable.read().unwrap_or_else(PoisonError::into_inner).clone(),
            labels: self.labels.read().unwrap_or_else(PoisonError::into_inner).clone(),
            name: self.config.node_name.clone(),
            supplemental_groups_policy: self.abilities().supplemental_groups_policy,
            apparmor: self.apparmor,
        }
    }

    /// Forgets all that is remembered of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.images.forget(uid);
        self.objects.forget(uid);
        self.records.forget(uid);
        self.status.forget(uid);
    }

    /// What the runtime can do.
    pub(crate) fn abilities(&self) -> Abilities {
        self.abilities.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The runtime's name.
    pub fn runtime_name(&self) -> String {
        self.runtime_name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
