//! Nodes as columns of numbers, and the pods on them: what decisions are made from.

use crate::pod::{PodInfo, Resources};
use client::ObjectExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The columns: an entry a node, all in the same order.
#[derive(Default)]
pub struct Columns {
    /// Processor time that pods may ask for, in thousandths.
    pub cpu: Vec<i64>,
    /// Memory that pods may ask for.
    pub memory: Vec<i64>,
    /// Local storage that pods may ask for.
    pub storage: Vec<i64>,
    /// How many pods there may be.
    pub pods: Vec<i64>,
    /// Processor time asked for.
    pub used_cpu: Vec<i64>,
    /// Memory asked for.
    pub used_memory: Vec<i64>,
    /// Local storage asked for.
    pub used_storage: Vec<i64>,
    /// How many pods there are.
    pub used_pods: Vec<i64>,
    /// Processor time asked for or assumed.
    pub assumed_cpu: Vec<i64>,
    /// Memory asked for or assumed.
    pub assumed_memory: Vec<i64>,
}

impl Columns {
    fn all(&mut self) -> [&mut Vec<i64>; 10] {
        [
            &mut self.cpu,
            &mut self.memory,
            &mut self.storage,
            &mut self.pods,
            &mut self.used_cpu,
            &mut self.used_memory,
            &mut self.used_storage,
            &mut self.used_pods,
            &mut self.assumed_cpu,
            &mut self.assumed_memory,
        ]
    }

    fn count(&mut self, at: usize, pod: &PodInfo, sign: i64) {
        let r = &pod.requests;
        let (cpu, memory) = pod.assumed;
        for (column, amount) in [
            (&mut self.used_cpu, r.cpu),
            (&mut self.used_memory, r.memory),
            (&mut self.used_storage, r.storage),
            (&mut self.used_pods, 1),
            (&mut self.assumed_cpu, cpu),
            (&mut self.assumed_memory, memory),
        ] {
            if let Some(n) = column.get_mut(at) {
                *n = n.saturating_add(amount.saturating_mul(sign));
            }
        }
    }
}

/// What is not a number that every node has.
pub struct NodeRow {
    /// The node; `None` if pods were seen on it before it was.
    pub node: Option<Arc<Node>>,
    /// Its name.
    pub name: String,
    /// Other resources: what there is.
    pub other: BTreeMap<String, i64>,
    /// Other resources: what is asked for.
    pub used_other: BTreeMap<String, i64>,
    /// Its pods, by uid.
    pub pods: HashMap<String, Arc<PodInfo>>,
}

impl NodeRow {
    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.label(key)
    }
}

/// All nodes and pods.
#[derive(Default)]
pub struct Cluster {
    /// Numbers.
    pub columns: Columns,
    /// The rest.
    pub rows: Vec<NodeRow>,
    by_name: HashMap<String, usize>,
    /// Where pods are, by uid.
    places: HashMap<String, String>,
    /// Pods with affinity or anti-affinity, and their node's name.
    pub with_affinity: BTreeMap<String, (String, Arc<PodInfo>)>,
    /// Labels of namespaces.
    pub namespaces: HashMap<String, BTreeMap<String, String>>,
    /// Which images are where, and their size.
    pub images: HashMap<String, HashMap<String, i64>>,
    /// Claims, by namespace and name.
    pub claims: HashMap<(String, String), Arc<PersistentVolumeClaim>>,
    /// Volumes, by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// Storage classes, by name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// What was decided about claims that their objects do not show yet, by namespace and name.
    pub decided: HashMap<(String, String), Decided>,
}

/// Where a claim's volume will be.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The node, of the first pod that was placed with it.
    pub node: String,
    /// The volume that is kept for it, if one was there.
    pub volume: Option<String>,
    /// The pod for which it was decided.
    pub pod: String,
}

impl Cluster {
    /// How many nodes there are; rows without a node don't count.
    pub fn node_count(&self) -> usize {
        self.rows.iter().filter(|r| r.node.is_some()).count()
    }

    /// A claim shows what was decided about it, or is gone.
    pub fn claim_told(&mut self, key: &(String, String)) {
        self.decided.remove(key);
    }

    /// What was decided for a pod is off.
    pub fn undecide(&mut self, pod: &str) {
        self.decided.retain(|_, decided| decided.pod != pod);
    }

    /// A node's place in the columns.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    fn row(&mut self, name: &str) -> usize {
        if let Some(at) = self.index(name) {
            return at;
        }
        let at = self.rows.len();
        for column in self.columns.all() {
            column.push(0);
        }
        self.rows.push(NodeRow {
            node: None,
            name: name.into(),
            other: BTreeMap::new(),
            used_other: BTreeMap::new(),
            pods: HashMap::new(),
        });
        self.by_name.insert(name.into(), at);
        at
    }

    /// Puts a node's newest state in place.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let at = self.row(node.name());
        let mut allocatable = Resources::read(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        let pods = allocatable.other.remove("pods").unwrap_or(0);
        let c = &mut self.columns;
        for (column, amount) in [
            (&mut c.cpu, allocatable.cpu),
            (&mut c.memory, allocatable.memory),
            (&mut c.storage, allocatable.storage),
            (&mut c.pods, pods),
        ] {
            if let Some(n) = column.get_mut(at) {
                *n = amount;
            }
        }
        let Some(row) = self.rows.get_mut(at) else { return };
        let old = row.node.replace(node.clone());
        row.other = allocatable.other;
        let images = |n: &Node| n.status.as_ref().and_then(|s| s.images.clone());
        if old.as_ref().map(|o| images(o)) != Some(images(&node)) {
            self.forget_images(node.name());
            for image in node.status.iter().filter_map(|s| s.images.as_ref()).flatten() {
                for name in image.names.iter().flatten() {
                    let sizes = self.images.entry(name.clone()).or_default();
                    sizes.insert(node.name().into(), image.size_bytes.unwrap_or(0));
                }
            }
        }
    }

    fn forget_images(&mut self, node: &str) {
        self.images.retain(|_, sizes| {
            sizes.remove(node);
            !sizes.is_empty()
        });
    }

    /// A node is gone. Its pods may be seen for a while.
    pub fn remove_node(&mut self, name: &str) {
        self.forget_images(name);
        if let Some(row) = self.index(name).and_then(|at| self.rows.get_mut(at)) {
            row.node = None;
        }
        self.drop_if_empty(name);
    }

    fn drop_if_empty(&mut self, name: &str) {
        let Some(at) = self.index(name) else { return };
        if self.rows.get(at).is_none_or(|r| r.node.is_some() || !r.pods.is_empty()) {
            return;
        }
        self.by_name.remove(name);
        self.rows.swap_remove(at);
        for column in self.columns.all() {
            column.swap_remove(at);
        }
        if let Some(moved) = self.rows.get(at) {
            self.by_name.insert(moved.name.clone(), at);
        }
    }

    /// Puts a pod on a node, from wherever it was.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        let uid = pod.pod.uid().to_string();
        self.remove_pod(&uid);
        let at = self.row(node);
        self.columns.count(at, &pod, 1);
        if let Some(row) = self.rows.get_mut(at) {
            for (name, amount) in &pod.requests.other {
                *row.used_other.entry(name.clone()).or_default() += amount;
            }
            row.pods.insert(uid.clone(), pod.clone());
        }
        if pod.has_affinity() {
            self.with_affinity.insert(uid.clone(), (node.into(), pod));
        }
        self.places.insert(uid, node.into());
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<(String, Arc<PodInfo>)> {
        let node = self.places.remove(uid)?;
        self.with_affinity.remove(uid);
        let at = self.index(&node)?;
        let row = self.rows.get_mut(at)?;
        let pod = row.pods.remove(uid)?;
        for (name, amount) in &pod.requests.other {
            if let Some(used) = row.used_other.get_mut(name) {
                *used -= amount;
                if *used == 0 {
                    row.used_other.remove(name);
                }
            }
        }
        self.columns.count(at, &pod, -1);
        self.drop_if_empty(&node);
        Some((node, pod))
    }

    /// Where a pod is.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
    }

    /// All pods, with their row.
    pub fn pods(&self) -> impl Iterator<Item = (usize, &Arc<PodInfo>)> {
        self.rows.iter().enumerate().flat_map(|(at, row)| row.pods.values().map(move |p| (at, p)))
    }
}
