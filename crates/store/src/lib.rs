//! A revisioned key-value store: what the API server keeps its objects in.
//!
//! Start at [`Store`]. Two engines stand behind it: [`etcd`] for several machines and [`embedded`] for one.
//! Both count every change with one revision, commit on the condition that a key is as the caller saw it,
//! and tell watchers of every change in order. The same tests run against both (`tests/engines.rs`).
//! Knows no kind and no encoding: a value is bytes.

pub mod embedded;
pub mod etcd;

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Counts the changes of a store, from 1; the `resourceVersion` of the API.
pub type Revision = u64;

/// A key and its value, as of some revision.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    /// Such as `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// What the API server wrote.
    pub value: Bytes,
    /// The revision that last changed it.
    pub mod_revision: Revision,
}

/// What a commit expects of its key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// It is not there.
    Absent,
    /// It was last changed at this revision.
    Unchanged(Revision),
}

/// What a commit does to its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Writes the value; it goes away by itself after `ttl`, if there is one.
    Put {
        /// The new value.
        value: Bytes,
        /// Time to live.
        ttl: Option<Duration>,
    },
    /// Removes the key.
    Delete,
}

/// How safe a commit has to be before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk (with etcd: on a majority's disks).
    Disk,
    /// In memory; on disk within seconds. For what the cluster renews by itself: leases and events.
    /// etcd treats it as `Disk`.
    Memory,
}

/// One conditional change of one key.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The key.
    pub key: Arc<str>,
    /// The condition.
    pub expect: Expect,
    /// The change.
    pub change: Change,
    /// How safe it has to be.
    pub durability: Durability,
}

/// A change, as watchers see it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A key was written.
    Put(KeyValue),
    /// A key was removed.
    Delete {
        /// The key.
        key: Arc<str>,
        /// The revision that removed it.
        revision: Revision,
    },
}

impl Event {
    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put(kv) => kv.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// Changes in order. Every change up to and with `revision` has been told once this is received,
/// so an empty batch tells that nothing changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// How far this batch brings the watcher.
    pub revision: Revision,
    /// The changes, oldest first.
    pub events: Vec<Event>,
}

/// One page of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// In the order of keys.
    pub items: Vec<KeyValue>,
    /// The revision at which the page was read.
    pub revision: Revision,
    /// Whether keys with the prefix follow the last one.
    pub more: bool,
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key is not as the commit expected; this is how it is.
    #[error("the key is not as expected")]
    Conflict(Option<KeyValue>),
    /// The revision to read or watch from is no longer kept.
    #[error("revision {0} has been compacted")]
    Compacted(Revision),
    /// What is to be written is larger than the store takes. Nothing was written.
    #[error("the store does not take so much: {0}")]
    TooLarge(String),
    /// The disk is full. Nothing was written.
    #[error("the store's disk is full: {0}")]
    Full(String),
    /// The store can't be reached, or is broken; what was asked may or may not have happened.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// One of the compactions that the servers of a store take turns with: upstream's `compact_rev_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compaction {
    /// How many there were.
    pub turn: i64,
    /// The newest revision then; what is older goes in the next one.
    pub revision: Revision,
}

/// A commit that is about to come.
pub struct Announced(Arc<AtomicUsize>);

impl Announced {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Announced(count.clone())
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The receiving end of a watch. It ends with an error that says why, or when the store closes.
pub type Watch = mpsc::Receiver<Result<Batch, StoreError>>;

/// A revisioned key-value store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value of a key, read consistently.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;

    /// Up to `limit` keys that start with `prefix` and come after `after`, at revision `at` or the newest.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Makes a change if the key is as expected. Answers the change's revision.
    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError>;

    /// Says that a commit is about to come, until what is answered is dropped: a store that writes commits together
    /// may wait a moment for it.
    fn announce(&self) -> Option<Announced> {
        None
    }

    /// Every change after `after` to keys that start with `prefix`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// The newest revision, read consistently: no change answered before this call has a newer one.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Asks that watchers hear how far they are, soon, even if nothing changes.
    async fn nudge(&self);

    /// Whether it does its work: it would answer, and could write.
    async fn check(&self) -> Result<(), StoreError> {
        self.revision().await.map(drop)
    }

    /// Forgets how things were before `last.revision`, unless another server has done so since `last` was answered.
    /// Answers what to say the next time, which is to be as much later as things are to be remembered.
    async fn compact(&self, last: Compaction) -> Result<Compaction, StoreError>;

    /// Whether values are to be in upstream's storage encoding, for others to read.
    fn shared_with_upstream(&self) -> bool;
}
