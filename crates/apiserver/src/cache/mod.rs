//! Every object of the cluster in memory, kept current by one watch on the store.
//!
//! Start at [`Cache`]. Reads are served from here alone; a consistent read asks the store how far it is
//! and waits until the cache is there.

pub mod collection;
pub mod entry;
pub mod filter;
mod own;
pub mod pluck;
pub mod queue;

pub use collection::{Change, ChangeKind, Collection, Items};
pub use entry::Entry;
pub use filter::{Field, FieldTest, Filter};
pub use queue::Changes;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::{Compaction, Event, KeyValue, Revision, Store, StoreError, Watch};
use tokio::sync::watch;

/// While someone waits for a revision the store is asked this often how far it is.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Old changes and snapshots are looked for this often.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// Keys read at a time when everything is loaded.
const PAGE: usize = 2000;

/// Every object of the cluster.
pub struct Cache {
    store: Arc<dyn Store>,
    /// By the part of the prefix after the root, such as `pods` or `services/specs`.
    collections: RwLock<HashMap<String, Arc<Collection>>>,
    applied: watch::Sender<Revision>,
    root: String,
}

impl Cache {
    /// An empty cache over a store, in which all keys begin with `root`; [`Cache::run`] fills it.
    pub fn new(store: Arc<dyn Store>, root: String) -> Arc<Self> {
        Arc::new(Cache { store, collections: RwLock::default(), applied: watch::Sender::new(0), root })
    }

    /// The root of all keys, with its slash: `--etcd-prefix`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The revision up to which all changes are here; 0 before the first load.
    pub fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Whether everything has been loaded once. Until then nothing here says what is there.
    pub fn is_loaded(&self) -> bool {
        self.applied() > 0
    }

    /// Follows [`Cache::applied`].
    pub fn progress(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// Adds a resource. If the cache runs already, its objects are loaded before this returns.
    pub async fn add(&self, path: &str, collection: Arc<Collection>) -> Result<(), StoreError> {
        self.collections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.to_string(), collection.clone());
        if self.applied() > 0 {
            let (items, revision) = self.read_all(&collection.prefix).await?;
            collection.load(items, revision);
        }
        Ok(())
    }

    /// Forgets a resource and ends its watches.
    pub fn remove(&self, path: &str) {
        if let Some(gone) = self.collections.write().unwrap_or_else(PoisonError::into_inner).remove(path) {
            gone.close();
        }
    }

    /// Waits until every change up to `revision` is here. `false` if it is not after `patience`.
    pub async fn reach(&self, revision: Revision, patience: Duration) -> bool {
        // Any state will do, but not that before the first load.
        let revision = revision.max(1);
        let mut applied = self.applied.subscribe();
        if *applied.borrow_and_update() >= revision {
            return true;
        }
        let until = tokio::time::Instant::now() + patience;
        // The store is asked again and again how far it is: an answer may be older than the question.
        while tokio::time::Instant::now() < until {
            self.store.nudge().await;
            let step = (tokio::time::Instant::now() + ASK_AGAIN).min(until);
            match tokio::time::timeout_at(step, applied.wait_for(|r| *r >= revision)).await {
                Ok(reached) => return reached.is_ok(),
                Err(_) => continue,
            }
        }
        false
    }

    /// Waits until the cache shows everything that was answered to anyone before this call.
    pub async fn consistent(&self) -> Result<Revision, StoreError> {
        let newest = self.store.revision().await?;
        if self.reach(newest, Duration::from_secs(10)).await {
            Ok(newest)
        } else {
            Err(StoreError::Unavailable("the store's changes do not arrive".into()))
        }
    }

    async fn read_all(&self, prefix: &str) -> Result<(Vec<KeyValue>, Revision), StoreError> {
        // The embedded store keeps no past, so all has to come from one page.
        let size = if self.store.shared_with_upstream() { PAGE } else { usize::MAX };
        let mut page = self.store.list(prefix, None, None, size).await?;
        let revision = page.revision;
        let mut items = page.items;
        while page.more {
            let after = items.last().map(|kv| kv.key.clone());
            page = self.store.list(prefix, after.as_deref(), Some(revision), PAGE).await?;
            items.append(&mut page.items);
        }
        Ok((items, revision))
    }

    /// Loads everything and follows the store until the process ends. When the store is away, reads
    /// go on from what is here and this tries again.
    pub async fn run(self: Arc<Self>) {
        loop {
            match self.follow().await {
                Ok(()) => return,
                Err(e) => {
                    tracing::warn!(error = %e, "the cache lost the store's changes; it loads again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Forgets what is old, again and again.
    pub async fn forget_old(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            let all = self.collections.read().unwrap_or_else(PoisonError::into_inner);
            all.values().for_each(|c| c.forget_old(std::time::Instant::now()));
        }
    }

    /// Has the store forget the past every `interval`, what is younger than that apart, and forgets it too.
    pub async fn compact(self: Arc<Self>, interval: Duration) {
        let mut last = Compaction::default();
        loop {
            match self.store.compact(last).await {
                Ok(next) => {
                    let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
                    collections.values().for_each(|c| c.compact(last.revision));
                    last = next;
                }
                Err(e) => tracing::warn!(error = %e, "the store could not be compacted; it is tried again"),
            }
            tokio::time::sleep(interval).await;
        }
    }

    async fn follow(&self) -> Result<(), StoreError> {
        let (mut watch, revision) = self.load().await?;
        self.applied.send_replace(revision);
        while let Some(batch) = watch.recv().await {
            let batch = batch?;
            for event in &batch.events {
                if let Some(collection) = self.collection_of(event) {
                    collection.apply(event);
                }
            }
            if batch.revision > *self.applied.borrow() {
                self.applied.send_replace(batch.revision);
            }
        }
        Ok(())
    }

    async fn load(&self) -> Result<(Watch, Revision), StoreError> {
        // The watch starts first where no past is kept, so that nothing falls between the two.
        let start = self.store.revision().await?;
        let watch = self.store.watch(&self.root, start).await?;
        let (items, revision) = self.read_all(&self.root).await?;
        let collections: Vec<(String, Arc<Collection>)> = self
            .collections
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut by_path: HashMap<String, Vec<KeyValue>> = HashMap::new();
        for kv in items {
            let path = path_of(&self.root, &kv.key)
                .find(|p| collections.iter().any(|(k, _)| k == p))
                .map(str::to_string);
            if let Some(path) = path {
                by_path.entry(path).or_default().push(kv);
            }
        }
        for (path, collection) in collections {
            let items = by_path.remove(&path).unwrap_or_default();
            let bytes = items.iter().map(|kv| kv.value.len()).sum();
            crate::heavy::on(bytes, || collection.load(items, revision));
        }
        Ok((watch, revision))
    }

    fn collection_of(&self, event: &Event) -> Option<Arc<Collection>> {
        let key = match event {
            Event::Put(kv) => &kv.key,
            Event::Delete { key, .. } => key,
        };
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        path_of(&self.root, key).find_map(|path| collections.get(path)).cloned()
    }
}

/// What may be a collection's path in a key: its first segment after the root, or its first two.
fn path_of<'a>(root: &str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let rest = key.strip_prefix(root).unwrap_or_default();
    let mut slashes = rest.match_indices('/').map(|(i, _)| i);
    [slashes.next(), slashes.next()].into_iter().flatten().map(|i| &rest[..i])
}

/// The objects of one namespace.
pub fn within<'a>(items: &'a Items, namespace: &str) -> impl Iterator<Item = &'a Arc<Entry>> {
    let start: Arc<str> = format!("{namespace}/").into();
    let prefix = start.clone();
    items.range(start..).map(|(_, e)| e).take_while(move |e| e.key.starts_with(&*prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list that any state would do for must not be answered with none.
    #[tokio::test]
    async fn nothing_is_read_before_it_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(store::embedded::Embedded::open(dir.path()).unwrap());
        let commit = store::Commit {
            key: "/registry/pods/ns/a".into(),
            expect: store::Expect::Absent,
            change: store::Change::Put { value: r#"{"metadata":{"name":"a"}}"#.into(), ttl: None },
            durability: store::Durability::Disk,
        };
        store.commit(commit).await.unwrap();
        assert!(store.check().await.is_ok());
        let cache = Cache::new(store, "/registry/".into());
        let pods = Collection::new("/registry/pods/".into(), Vec::new(), Arc::new(|bytes| Ok(bytes.clone())));
        let pods = Arc::new(pods);
        cache.add("pods", pods.clone()).await.unwrap();
        assert!(!cache.is_loaded() && !cache.reach(0, Duration::from_millis(150)).await);
        let running = tokio::spawn(cache.clone().run());
        assert!(cache.reach(0, Duration::from_secs(60)).await);
        assert_eq!(pods.len(), 1);
        running.abort();
    }
}
