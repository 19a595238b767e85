//! A local picture of one collection: the cache, its indexes and who is told about changes.
//! Start at [`Informer`]; callers read its [`Lister`].

use crate::object::{Meta, ObjectExt};
use crate::subscription::Subscription;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use tokio::sync::watch;

/// What happened to an object.
#[derive(Debug)]
pub enum Event<T> {
    /// It is there, and was not before.
    Added(Arc<T>),
    /// It changed: before, after.
    Updated(Arc<T>, Arc<T>),
    /// It is gone: the last that was seen of it.
    Deleted(Arc<T>),
}

impl<T> Event<T> {
    /// The newest that is known of the object.
    pub fn object(&self) -> &Arc<T> {
        match self {
            Event::Added(o) | Event::Updated(_, o) | Event::Deleted(o) => o,
        }
    }

    /// What was known of the object before, if it was there.
    pub fn old(&self) -> Option<&Arc<T>> {
        match self {
            Event::Added(_) => None,
            Event::Updated(o, _) | Event::Deleted(o) => Some(o),
        }
    }

    /// Whether the object is gone.
    pub fn is_deleted(&self) -> bool {
        matches!(self, Event::Deleted(_))
    }
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        match self {
            Event::Added(o) => Event::Added(o.clone()),
            Event::Updated(o, n) => Event::Updated(o.clone(), n.clone()),
            Event::Deleted(o) => Event::Deleted(o.clone()),
        }
    }
}

/// Namespace and name, of an object or as text: sets of objects are searched by it, so that no object's
/// key is kept twice.
trait Key {
    fn parts(&self) -> (&str, &str);
}

impl Key for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

struct Entry<T>(Arc<T>);

impl<T: Meta> Key for Entry<T> {
    fn parts(&self) -> (&str, &str) {
        (self.0.namespace(), self.0.name())
    }
}

impl<'a, T: Meta> Borrow<dyn Key + 'a> for Entry<T> {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}
impl Eq for dyn Key + '_ {}
impl PartialOrd for dyn Key + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for dyn Key + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}
impl<T: Meta> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}
impl<T: Meta> Eq for Entry<T> {}
impl<T: Meta> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T: Meta> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

type IndexFn<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;

struct Index<T> {
    of: IndexFn<T>,
    entries: HashMap<String, BTreeSet<Entry<T>>>,
}

impl<T: Meta> Index<T> {
    fn add(&mut self, object: &Arc<T>) {
        for key in (self.of)(object) {
            self.entries.entry(key).or_default().replace(Entry(object.clone()));
        }
    }

    fn remove(&mut self, object: &Arc<T>) {
        for key in (self.of)(object) {
            if let Some(set) = self.entries.get_mut(&key) {
                set.remove(&Entry(object.clone()));
                if set.is_empty() {
                    self.entries.remove(&key);
                }
            }
        }
    }
}

struct Cache<T> {
    objects: BTreeSet<Entry<T>>,
    indexes: HashMap<&'static str, Index<T>>,
    resource_version: String,
}

impl<T: Meta> Cache<T> {
    fn put(&mut self, object: &Arc<T>) -> Option<Arc<T>> {
        let old = self.objects.replace(Entry(object.clone())).map(|e| e.0);
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.add(object);
        }
        old
    }

    fn take(&mut self, key: (&str, &str)) -> Option<Arc<T>> {
        let old = self.objects.take(&key as &dyn Key)?.0;
        for index in self.indexes.values_mut() {
            index.remove(&old);
        }
        Some(old)
    }
}

type Handler<T> = Box<dyn Fn(&Event<T>) + Send>;

pub(crate) struct Inner<T> {
    cache: RwLock<Cache<T>>,
    /// Held while the cache changes and handlers hear of it, so that a new handler misses nothing and
    /// hears nothing twice.
    handlers: Mutex<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
}

/// Keeps a picture of a collection up to date. Clones share it.
pub struct Informer<T>(pub(crate) Arc<Inner<T>>);

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Informer(self.0.clone())
    }
}

/// Reads an informer's cache.
pub struct Lister<T>(Arc<Inner<T>>);

impl<T> Clone for Lister<T> {
    fn clone(&self) -> Self {
        Lister(self.0.clone())
    }
}

impl<T: Meta> Informer<T> {
    pub(crate) fn empty() -> Self {
        let cache =
            Cache { objects: BTreeSet::new(), indexes: HashMap::new(), resource_version: String::new() };
        Informer(Arc::new(Inner {
            cache: RwLock::new(cache),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }))
    }

    /// Reads its cache.
    pub fn lister(&self) -> Lister<T> {
        Lister(self.0.clone())
    }

    /// Whether the cache has held all that was there, once.
    pub fn has_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until the cache has held all that was there.
    pub async fn synced(&self) {
        // The sender lives in `self`.
        let _ = self.0.synced.subscribe().wait_for(|s| *s).await;
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler<T>>> {
        self.0.handlers.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Calls `handler` for every change from now on, one after the other, after telling it of what is
    /// there already. It must be quick and must not add handlers itself.
    pub fn on(&self, handler: impl Fn(&Event<T>) + Send + 'static) {
        let mut handlers = self.handlers();
        for object in self.lister().list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// A queue of the changes from now on, beginning with what is there already.
    pub fn subscribe(&self) -> Subscription<T> {
        let (subscription, feed) = Subscription::new();
        self.on(move |event| feed.push(event));
        subscription
    }

    /// Adds an index: `of` says under which keys an object is found. A name that is taken stays as it is.
    pub fn index(&self, name: &'static str, of: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) {
        let mut cache = self.0.cache.write().unwrap_or_else(|e| e.into_inner());
        if cache.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { of: Box::new(of), entries: HashMap::new() };
        for entry in &cache.objects {
            index.add(&entry.0);
        }
        cache.indexes.insert(name, index);
    }

    fn change<R>(&self, f: impl FnOnce(&mut Cache<T>) -> R) -> R {
        f(&mut self.0.cache.write().unwrap_or_else(|e| e.into_inner()))
    }

    fn tell(handlers: &[Handler<T>], event: Event<T>) {
        for handler in handlers {
            handler(&event);
        }
    }

    pub(crate) fn put(&self, object: T) {
        let handlers = self.handlers();
        let object = Arc::new(object);
        let old = self.change(|cache| {
            cache.resource_version = object.resource_version().into();
            cache.put(&object)
        });
        match old {
            None => Self::tell(&handlers, Event::Added(object)),
            Some(old) => Self::tell(&handlers, Event::Updated(old, object)),
        }
    }

    pub(crate) fn remove(&self, last: T) {
        let handlers = self.handlers();
        let old = self.change(|cache| {
            cache.resource_version = last.resource_version().into();
            cache.take((last.namespace(), last.name()))
        });
        if old.is_some() {
            Self::tell(&handlers, Event::Deleted(Arc::new(last)));
        }
    }

    pub(crate) fn advance(&self, resource_version: String) {
        self.change(|cache| cache.resource_version = resource_version);
    }

    /// Tells all that is there again, as a change to itself: what was lost on the way is made good.
    pub(crate) fn resync(&self) {
        let handlers = self.handlers();
        for object in self.lister().list() {
            Self::tell(&handlers, Event::Updated(object.clone(), object));
        }
    }

    /// Takes over a whole list: what is not in it is gone. With `anew` the same version may be another state.
    pub(crate) fn replace(&self, objects: Vec<T>, resource_version: String, anew: bool) {
        let handlers = self.handlers();
        let new: BTreeSet<Entry<T>> = objects.into_iter().map(|o| Entry(Arc::new(o))).collect();
        let gone: Vec<Arc<T>> =
            self.lister().list().into_iter().filter(|o| !new.contains(&Entry(o.clone()))).collect();
        for old in gone {
            self.change(|cache| cache.take((old.namespace(), old.name())));
            Self::tell(&handlers, Event::Deleted(old));
        }
        for Entry(object) in new {
            match self.change(|cache| cache.put(&object)) {
                None => Self::tell(&handlers, Event::Added(object)),
                Some(old) if !anew && old.resource_version() == object.resource_version() => {}
                Some(old) => Self::tell(&handlers, Event::Updated(old, object)),
            }
        }
        self.change(|cache| cache.resource_version = resource_version);
        drop(handlers);
        self.0.synced.send_replace(true);
    }
}

impl<T: Meta> Lister<T> {
    fn read<R>(&self, f: impl FnOnce(&Cache<T>) -> R) -> R {
        f(&self.0.cache.read().unwrap_or_else(|e| e.into_inner()))
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read(|c| c.objects.get(&(namespace, name) as &dyn Key).map(|e| e.0.clone()))
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.read(|c| c.objects.iter().map(|e| e.0.clone()).collect())
    }

    /// All objects of a namespace.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let from = (namespace, "");
        let range = (Bound::Included(&from as &dyn Key), Bound::Unbounded);
        self.read(|c| {
            let found = c.objects.range::<dyn Key, _>(range).take_while(|e| e.0.namespace() == namespace);
            found.map(|e| e.0.clone()).collect()
        })
    }

    /// All objects that an index has under a key. An index that was not added finds nothing.
    pub fn by_index(&self, index: &str, key: &str) -> Vec<Arc<T>> {
        self.read(|c| {
            let found = c.indexes.get(index).and_then(|i| i.entries.get(key));
            found.into_iter().flatten().map(|e| e.0.clone()).collect()
        })
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read(|c| c.objects.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How new the picture is.
    pub fn resource_version(&self) -> String {
        self.read(|c| c.resource_version.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(ns: &str, name: &str, rv: &str, node: &str) -> Pod {
        let mut p = Pod::default();
        p.metadata.namespace = Some(ns.into());
        p.metadata.name = Some(name.into());
        p.metadata.resource_version = Some(rv.into());
        p.spec.get_or_insert_default().node_name = Some(node.into());
        p
    }

    fn names(pods: Vec<Arc<Pod>>) -> String {
        pods.iter().map(|p| p.name()).collect::<Vec<_>>().join(",")
    }

    fn of_node(p: &Pod) -> Vec<String> {
        p.spec.as_ref().and_then(|s| s.node_name.clone()).into_iter().collect()
    }

    #[test]
    fn the_cache_is_searched_by_name_namespace_and_index() {
        let informer = Informer::empty();
        informer.index("node", of_node);
        informer.replace(
            vec![pod("b", "1", "1", "x"), pod("a", "2", "2", "x"), pod("a", "1", "3", "y")],
            "3".into(),
            false,
        );
        informer.index("late", of_node);
        let l = informer.lister();
        assert!(informer.has_synced());
        assert_eq!(names(l.list()), "1,2,1");
        assert_eq!(names(l.list_namespace("a")), "1,2");
        assert_eq!(names(l.list_namespace("")), "");
        assert_eq!(names(l.by_index("node", "x")), "2,1");
        informer.put(pod("a", "2", "4", "y"));
        assert_eq!(
            (names(l.by_index("node", "x")), names(l.by_index("late", "y"))),
            ("1".into(), "1,2".into())
        );
        informer.remove(pod("a", "1", "5", "y"));
        assert_eq!(
            (names(l.by_index("node", "y")), l.len(), l.resource_version()),
            ("2".into(), 2, "5".into())
        );
        assert!(l.get("a", "1").is_none() && l.get("a", "2").is_some_and(|p| p.resource_version() == "4"));
    }

    #[test]
    fn handlers_hear_of_everything_once() {
        let informer = Informer::empty();
        informer.put(pod("a", "1", "1", ""));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = heard.clone();
        informer.on(move |e: &Event<Pod>| {
            let word = match e {
                Event::Added(o) => format!("+{}", o.name()),
                Event::Updated(o, n) => {
                    format!("{}:{}>{}", n.name(), o.resource_version(), n.resource_version())
                }
                Event::Deleted(o) => format!("-{}", o.name()),
            };
            to.lock().unwrap().push(word);
        });
        informer.put(pod("a", "2", "2", ""));
        informer.replace(vec![pod("a", "2", "2", ""), pod("a", "3", "3", "")], "3".into(), false);
        informer.replace(vec![pod("a", "2", "4", ""), pod("a", "3", "3", "")], "4".into(), false);
        assert_eq!(heard.lock().unwrap().join(" "), "+1 +2 -1 +3 2:2>4");
        heard.lock().unwrap().clear();
        informer.resync();
        informer.replace(vec![pod("a", "2", "4", "x")], "2".into(), true);
        assert_eq!(heard.lock().unwrap().join(" "), "2:4>4 3:3>3 -3 2:4>4");
    }
}
