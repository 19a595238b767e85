//! Who owns whom, of all objects in the cluster: by unique id, as the metadata informers tell it.

use client::{Event, ObjectExt, PartialObject, ResourceId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";
/// Owners remembered to be gone.
const ABSENT: usize = 500;

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// See whether it has to go.
    Check(String),
    /// Cut its dependents loose.
    Orphan(String),
}

#[derive(Clone)]
pub struct Node {
    pub resource: Arc<ResourceId>,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    /// It is being deleted.
    pub deleting: bool,
    /// It waits for its dependents to be deleted.
    pub foreground: bool,
    /// It waits for its dependents to be cut loose.
    pub orphaning: bool,
}

#[derive(Default)]
struct State {
    nodes: HashMap<String, Node>,
    /// By owner; the owner itself need not be known.
    dependents: HashMap<String, HashSet<String>>,
    absent: VecDeque<(String, String)>,
}

#[derive(Default)]
pub struct Graph(Mutex<State>);

fn node(resource: &Arc<ResourceId>, object: &PartialObject) -> Node {
    let deleting = object.is_deleting();
    let has =
        |finalizer: &str| deleting && object.metadata.finalizers.iter().flatten().any(|f| f == finalizer);
    Node {
        resource: resource.clone(),
        namespace: object.namespace().into(),
        name: object.name().into(),
        owners: object.metadata.owner_references.clone().unwrap_or_default(),
        deleting,
        foreground: has(FOREGROUND),
        orphaning: has(ORPHAN),
    }
}

/// Whether one object can own another: what has the unique id, but in another namespace, is none of its owners.
pub fn near(owner: &Node, of: &Node) -> bool {
    owner.namespace.is_empty() || owner.namespace == of.namespace
}

impl Graph {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes in what happened; answers what is to be looked at because of it.
    pub fn observe(&self, resource: &Arc<ResourceId>, event: &Event<PartialObject>) -> Vec<Work> {
        let mut state = self.lock();
        let object = event.object();
        // Another object of the name has taken its place.
        let replaced = event.old().filter(|old| old.uid() != object.uid() && !event.is_deleted());
        let mut work = replaced.map(|old| state.remove(old.uid())).unwrap_or_default();
        work.extend(match event {
            Event::Deleted(o) => state.remove(o.uid()),
            Event::Added(o) | Event::Updated(_, o) => state.put(o.uid(), node(resource, o)),
        });
        work
    }

    pub fn get(&self, uid: &str) -> Option<Node> {
        self.lock().nodes.get(uid).cloned()
    }

    /// Whether all owners of an object are known to be there, and none of them waits for it.
    pub fn owners_stand(&self, node: &Node) -> bool {
        let state = self.lock();
        let stands = |o: &OwnerReference| {
            state.nodes.get(&o.uid).is_some_and(|owner| !owner.foreground && near(owner, node))
        };
        node.owners.iter().all(stands)
    }

    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let state = self.lock();
        let uids = state.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|u| Some((u.clone(), state.nodes.get(u)?.clone()))).collect()
    }

    /// The object is not there after all.
    pub fn forget(&self, uid: &str) -> Vec<Work> {
        self.lock().remove(uid)
    }

    /// Remembers that an owner is not there, as seen from a namespace.
    pub fn note_absent(&self, uid: &str, namespace: &str) {
        let mut state = self.lock();
        if state.absent.len() >= ABSENT {
            state.absent.pop_front();
        }
        state.absent.push_back((uid.into(), namespace.into()));
    }

    pub fn is_absent(&self, uid: &str, namespace: &str) -> bool {
        self.lock().absent.iter().any(|(u, n)| u == uid && n == namespace)
    }

    pub fn len(&self) -> usize {
        self.lock().nodes.len()
    }
}

impl State {
    fn put(&mut self, uid: &str, new: Node) -> Vec<Work> {
        let mut work = Vec::new();
        let old = self.nodes.insert(uid.into(), new.clone());
        let before: Vec<&OwnerReference> = old.iter().flat_map(|o| &o.owners).collect();
        for gone in before.iter().filter(|b| !new.owners.iter().any(|o| o.uid == b.uid)) {
            self.cut(&gone.uid, uid);
        }
        // An owner that waits for this one may not have to any more.
        for b in &before {
            let blocks = new.owners.iter().any(|o| o.uid == b.uid && o.block_owner_deletion == Some(true));
            if b.block_owner_deletion == Some(true)
                && !blocks
                && self.nodes.get(&b.uid).is_some_and(|o| o.foreground)
            {
                work.push(Work::Check(b.uid.clone()));
            }
        }
        for owner in &new.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.into());
        }
        if new.orphaning && old.as_ref().is_none_or(|o| !o.orphaning) {
            work.push(Work::Orphan(uid.into()));
        }
        if new.foreground && old.as_ref().is_none_or(|o| !o.foreground) {
            work.push(Work::Check(uid.into()));
            work.extend(self.dependents.get(uid).into_iter().flatten().cloned().map(Work::Check));
        }
        // Those who took it for their owner, though it is elsewhere.
        let strangers = |u: &&String| self.nodes.get(*u).is_some_and(|d| !near(&new, d));
        if old.is_none() {
            let dependents = self.dependents.get(uid).into_iter().flatten();
            work.extend(dependents.filter(strangers).cloned().map(Work::Check));
        }
        let changed = old.is_none_or(|o| o.owners != new.owners);
        let stands = |o: &OwnerReference| {
            self.nodes.get(&o.uid).is_some_and(|owner| !owner.foreground && near(owner, &new))
        };
        let dubious = !new.owners.iter().all(stands);
        if changed && dubious && !new.deleting {
            work.push(Work::Check(uid.into()));
        }
        work
    }

    fn remove(&mut self, uid: &str) -> Vec<Work> {
        let mut work: Vec<Work> =
            self.dependents.get(uid).into_iter().flatten().cloned().map(Work::Check).collect();
        if let Some(node) = self.nodes.remove(uid) {
            for owner in &node.owners {
                self.cut(&owner.uid, uid);
                if self.nodes.get(&owner.uid).is_some_and(|o| o.foreground) {
                    work.push(Work::Check(owner.uid.clone()));
                }
            }
        }
        work
    }

    fn cut(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(uid: &str, owners: &[&str], finalizer: &str) -> Arc<PartialObject> {
        let owners: Vec<_> = owners
            .iter()
            .map(
                |o| json!({"apiVersion": "v1", "kind": "K", "name": o, "uid": o, "blockOwnerDeletion": true}),
            )
            .collect();
        let mut meta = json!({"name": uid, "uid": uid, "namespace": "ns", "ownerReferences": owners});
        if !finalizer.is_empty() {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            meta["finalizers"] = json!([finalizer]);
        }
        Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
    }

    #[test]
    fn events_lead_to_what_must_be_looked_at() {
        let g = Graph::default();
        let r = Arc::new(ResourceId {
            group: String::new(),
            version: "v1".into(),
            plural: "ks".into(),
            namespaced: true,
        });
        let check = |u: &str| Work::Check(u.into());
        let see = |e: Event<PartialObject>| g.observe(&r, &e);
        // An owner that is not known has to be looked for; one that is known is fine.
        assert_eq!(see(Event::Added(object("d", &["o"], ""))), [check("d")]);
        assert_eq!(see(Event::Added(object("o", &[], ""))), []);
        assert_eq!(see(Event::Added(object("e", &["o"], ""))), []);
        assert_eq!(g.dependents("o").len(), 2);
        // Foreground: the owner and its dependents.
        let mut work = see(Event::Updated(object("o", &[], ""), object("o", &[], FOREGROUND)));
        work.sort_by_key(|w| format!("{w:?}"));
        assert_eq!(work, [check("d"), check("e"), check("o")]);
        // A dependent that goes, or no longer blocks, may let its owner go.
        assert_eq!(see(Event::Deleted(object("e", &["o"], ""))), [check("o")]);
        assert_eq!(see(Event::Updated(object("d", &["o"], ""), object("d", &[], ""))), [check("o")]);
        assert_eq!(g.dependents("o").len(), 0);
        assert_eq!(
            see(Event::Updated(object("d", &[], ""), object("d", &[], ORPHAN))),
            [Work::Orphan("d".into())]
        );
        // The owner goes: its dependents are looked at.
        see(Event::Added(object("f", &["o"], "")));
        assert_eq!(see(Event::Deleted(object("o", &[], FOREGROUND))), [check("f")]);
        // What is in another namespace can't be an owner, whoever is seen first.
        let elsewhere = |uid: &str, owners: &[&str]| {
            let mut o = (*object(uid, owners, "")).clone();
            o.metadata.namespace = Some("elsewhere".into());
            Arc::new(o)
        };
        see(Event::Added(object("p", &[], "")));
        assert_eq!(see(Event::Added(elsewhere("q", &["p"]))), [check("q")]);
        assert_eq!(see(Event::Added(elsewhere("s", &["t"]))), [check("s")]);
        assert_eq!(see(Event::Added(object("t", &[], ""))), [check("s")]);
        g.note_absent("x", "ns");
        assert!(g.is_absent("x", "ns") && !g.is_absent("x", "other"));
    }
}
