//! Changes of a collection, for a consumer that takes its time: changes to one object become one, so
//! that there are never more waiting than there are objects, and none is lost.

use crate::informer::Event;
use crate::object::{Meta, ObjectExt};
use api::ObjectKey;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::sync::Notify;

/// What the consumer knows of an object, and what is there now.
struct Pending<T> {
    known: Option<Arc<T>>,
    now: Option<Arc<T>>,
}

struct State<T> {
    order: VecDeque<ObjectKey>,
    pending: HashMap<ObjectKey, Pending<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A queue of changes. Dropping it ends it.
pub struct Subscription<T>(Arc<Shared<T>>);

pub(crate) struct Feed<T>(Weak<Shared<T>>);

impl<T: Meta> Subscription<T> {
    pub(crate) fn new() -> (Self, Feed<T>) {
        let state = State { order: VecDeque::new(), pending: HashMap::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Notify::new() });
        let feed = Feed(Arc::downgrade(&shared));
        (Subscription(shared), feed)
    }

    /// The next change; waits for one. May be dropped while it waits without losing any.
    pub async fn next(&mut self) -> Event<T> {
        loop {
            // A change that arrives between these two leaves a permit behind.
            if let Some(event) = self.try_next() {
                return event;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next change, if one is waiting.
    pub fn try_next(&mut self) -> Option<Event<T>> {
        let mut state = self.0.state();
        loop {
            let key = state.order.pop_front()?;
            match state.pending.remove(&key)? {
                Pending { known: None, now: Some(new) } => return Some(Event::Added(new)),
                Pending { known: Some(old), now: None } => return Some(Event::Deleted(old)),
                Pending { known: Some(old), now: Some(new) } if old.uid() == new.uid() => {
                    return Some(Event::Updated(old, new));
                }
                // Another object of the same name: the old one is gone first.
                Pending { known: Some(old), now } => {
                    state.pending.insert(key.clone(), Pending { known: None, now });
                    state.order.push_front(key);
                    return Some(Event::Deleted(old));
                }
                // It came and went unseen.
                Pending { known: None, now: None } => {}
            }
        }
    }
}

impl<T: Meta> Feed<T> {
    pub(crate) fn push(&self, event: &Event<T>) {
        let Some(shared) = self.0.upgrade() else { return };
        let key = event.object().key();
        let mut state = shared.state();
        let State { order, pending } = &mut *state;
        let waiting = pending.entry(key.clone()).or_insert_with(|| {
            order.push_back(key);
            Pending { known: event.old().cloned(), now: None }
        });
        match event {
            Event::Added(o) | Event::Updated(_, o) => waiting.now = Some(o.clone()),
            Event::Deleted(last) => {
                // What is told is the last state of the object that the consumer knows.
                if waiting.known.as_ref().is_some_and(|k| k.uid() == last.uid()) {
                    waiting.known = Some(last.clone());
                }
                waiting.now = None;
            }
        }
        drop(state);
        shared.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Informer;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, uid: &str, rv: &str) -> Pod {
        let mut p = Pod::default();
        p.metadata.name = Some(name.into());
        p.metadata.uid = Some(uid.into());
        p.metadata.resource_version = Some(rv.into());
        p
    }

    #[tokio::test]
    async fn changes_to_one_object_become_one() {
        let informer = Informer::empty();
        informer.put(pod("a", "1", "1"));
        let mut s = informer.subscribe();
        assert!(matches!(s.next().await, Event::Added(p) if p.uid() == "1"));
        informer.put(pod("a", "1", "2"));
        informer.put(pod("b", "2", "3"));
        informer.put(pod("a", "1", "4"));
        informer.remove(pod("b", "2", "5"));
        assert!(
            matches!(s.next().await, Event::Updated(o, n) if o.resource_version() == "1" && n.resource_version() == "4")
        );
        assert!(s.try_next().is_none());
        informer.remove(pod("a", "1", "6"));
        informer.put(pod("a", "3", "7"));
        assert!(matches!(s.next().await, Event::Deleted(p) if p.resource_version() == "6"));
        assert!(matches!(s.next().await, Event::Added(p) if p.uid() == "3"));
        assert!(s.try_next().is_none());
    }
}
