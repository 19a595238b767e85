//! Objects that belong to others: how their events lead to the owner, or to those who may adopt them.

use super::expectations::Expectations;
use super::selectors::Selectors;
use api::ObjectKey;
use api::selector::{LabelSelector, SelectorError};
use client::{Event, Lister, Meta, Object, ObjectExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ReplicationController;
use std::sync::Arc;

/// A kind that owns what its selector matches.
pub trait Owner: Object {
    /// Its selector; an empty one selects nothing.
    fn selector(&self) -> Result<LabelSelector, SelectorError>;
}

macro_rules! owners {
    ($($kind:ty),*) => {
        $(impl Owner for $kind {
            fn selector(&self) -> Result<LabelSelector, SelectorError> {
                let spec = self.spec.as_ref();
                spec.map_or(Ok(LabelSelector::default()), |s| LabelSelector::from_object(&s.selector))
            }
        })*
    };
}

owners!(ReplicaSet, Deployment, DaemonSet, StatefulSet);

impl Owner for Job {
    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        let selector = self.spec.as_ref().and_then(|s| s.selector.as_ref());
        selector.map_or(Ok(LabelSelector::default()), LabelSelector::from_object)
    }
}

impl Owner for ReplicationController {
    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        Ok(LabelSelector::from_map(self.spec.iter().filter_map(|s| s.selector.as_ref()).flatten()))
    }
}

/// Who owns what.
pub struct Owned<K> {
    owners: Lister<K>,
    expected: Option<Arc<Expectations>>,
    selectors: Selectors,
}

impl<K: Owner> Owned<K> {
    /// What these own. Creations and deletions that were expected are noted as they are seen.
    pub fn by(owners: Lister<K>, expected: Option<Arc<Expectations>>) -> Self {
        Owned { owners, expected, selectors: Selectors::default() }
    }

    /// The owner of an object, if it is the very one and not another of its name.
    pub fn owner_of<T: Meta>(&self, object: &T) -> Option<Arc<K>> {
        let owner = object.controller().filter(|c| c.kind == K::KIND && c.api_version == K::API_VERSION)?;
        self.owners.get(object.namespace(), &owner.name).filter(|o| o.uid() == owner.uid)
    }

    /// An owner changed or is gone.
    pub fn owner_changed(&self, event: &Event<K>) {
        if event.is_deleted() {
            let owner = event.object();
            self.selectors.forget(owner.uid());
            if let Some(expected) = &self.expected {
                expected.forget(&owner.key());
            }
        }
    }

    /// Who has to look because of an object's event: the owner it had, the one it has, or all who may adopt it.
    pub fn observe<T: Meta>(&self, event: &Event<T>, mut look: impl FnMut(ObjectKey)) {
        let object = event.object();
        let before = event.old().filter(|old| old.controller() != object.controller());
        if let Some(owner) = before.and_then(|old| self.owner_of(&**old)) {
            look(owner.key());
        }
        if object.controller().is_some() {
            let Some(owner) = self.owner_of(&**object) else { return };
            let key = owner.key();
            if let Some(expected) = &self.expected {
                match event {
                    Event::Added(_) if !object.is_deleting() => expected.created(&key, 1),
                    _ if object.is_deleting() || event.is_deleted() => expected.deleted(&key, object.uid()),
                    _ => {}
                }
            }
            return look(key);
        }
        let changed = |old: &Arc<T>| old.meta().labels != object.meta().labels || old.controller().is_some();
        if event.is_deleted() || !event.old().is_none_or(changed) {
            return;
        }
        for owner in self.owners.list_namespace(object.namespace()) {
            let selector = self.selectors.of(&*owner, Owner::selector);
            if selector.is_some_and(|s| !s.is_empty() && s.matches_labels(object.meta().labels.as_ref())) {
                look(owner.key());
            }
        }
    }
}
