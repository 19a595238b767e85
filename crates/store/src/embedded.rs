//! The store for one machine: a redb file, written by one thread.
//!
//! Requests that wait while the disk is busy go into the next commit together (group commit), so the
//! cost of an fsync is shared by all who wait for it. Recent changes are kept in memory for watchers;
//! older ones are not kept at all: a watcher that is too far behind lists again.

use crate::{
    Announced, Batch, Change, Commit, Compaction, Durability, Event, Expect, KeyValue, Page, Revision, Store,
    StoreError, Watch,
};
use async_trait::async_trait;
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::VecDeque;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Key to revision (8 bytes), expiry in Unix seconds or 0 (8 bytes), value. Little-endian.
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
/// Expiry in Unix seconds and key, for keys that go away by themselves.
const EXPIRIES: TableDefinition<(u64, &str), ()> = TableDefinition::new("expiries");
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");

const HEADER: usize = 16;
/// Revisions are handed out from a block that is on disk before its first is used, so that none is
/// used twice after a crash that lost commits held in memory.
const REVISION_BLOCK: u64 = 100_000;
/// How long a commit with [`Durability::Memory`] may wait for the disk.
const FLUSH_AFTER: Duration = Duration::from_secs(5);
/// A commit waits this long at the most for others that were announced: each of a group costs a fraction of one alone.
const GATHER: Duration = Duration::from_micros(1000);
/// Requests in one commit at the most.
const MAX_GROUP: usize = 512;
/// Changes kept in memory for watchers that start: this many,
const HISTORY: usize = 4096;
/// or this many bytes of values.
const HISTORY_BYTES: usize = 8 << 20;
/// redb's page cache. The API server holds every object itself, so this serves commits only.
const PAGE_CACHE_BYTES: usize = 6 << 20;

enum Request {
    Commit(Commit, oneshot::Sender<Result<Revision, StoreError>>),
    Watch { prefix: Arc<str>, after: Revision, events: mpsc::Sender<Result<Batch, StoreError>> },
    Nudge,
    Stop,
}

/// The embedded store. Dropping it flushes and closes the file.
pub struct Embedded {
    requests: Mutex<std::sync::mpsc::SyncSender<Request>>,
    file: Arc<RwLock<Option<Database>>>,
    revision: Arc<AtomicU64>,
    /// Commits that are about to come.
    announced: Arc<AtomicUsize>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be made.
    #[error("cannot make the data directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("the store {0} is in use by another process")]
    InUse(PathBuf),
    /// It can't be read.
    #[error("cannot open the store {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Embedded {
    /// Opens the store in `dir`, making it if need be.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory { path: dir.into(), source })?;
        let path = dir.join("store.redb");
        let fail = |e: &dyn std::fmt::Display| OpenError::File { path: path.clone(), reason: e.to_string() };
        let database = open_file(&path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.clone()),
            e => fail(&e),
        })?;
        let revision = prepare(&database).map_err(|e| fail(&e))?;
        let file = Arc::new(RwLock::new(Some(database)));
        let revision = Arc::new(AtomicU64::new(revision));
        let announced = Arc::<AtomicUsize>::default();
        let (requests, inbox) = std::sync::mpsc::sync_channel(4 * MAX_GROUP);
        let writer = Writer {
            path: path.clone(),
            file: file.clone(),
            revision: revision.clone(),
            announced: announced.clone(),
            reserved: revision.load(Ordering::Acquire) + REVISION_BLOCK,
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: revision.load(Ordering::Acquire),
            watchers: Vec::new(),
            unflushed: None,
            next_expiry: Some(0),
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(inbox))
            .map_err(|e| fail(&e))?;
        Ok(Embedded { requests: Mutex::new(requests), file, revision, announced, writer: Some(thread) })
    }

    async fn ask(&self, request: Request) -> Result<(), StoreError> {
        let sender = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closed = || StoreError::Unavailable("the store is closed".into());
        match sender.try_send(request) {
            Ok(()) => {
                // The last of a group wakes who gathers it.
                if let (Some(writer), 0) = (&self.writer, self.announced.load(Ordering::Acquire)) {
                    writer.thread().unpark();
                }
                Ok(())
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => Err(closed()),
            // The queue is full: wait for room without holding up the runtime's threads.
            Err(std::sync::mpsc::TrySendError::Full(request)) => {
                tokio::task::spawn_blocking(move || sender.send(request))
                    .await
                    .map_err(|_| closed())?
                    .map_err(|_| closed())
            }
        }
    }

    fn read<T>(
        &self,
        f: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        let database =
            file.as_ref().ok_or_else(|| StoreError::Unavailable("the store is being reopened".into()))?;
        let transaction = database.begin_read().map_err(|e| StoreError::Unavailable(e.to_string()))?;
        f(&transaction).map_err(|e| StoreError::Unavailable(e.to_string()))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = self.requests.lock().unwrap_or_else(PoisonError::into_inner).send(Request::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.read(|t| Ok(t.open_table(OBJECTS)?.get(key)?.and_then(|v| parse(key, v.value()))))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let newest = self.revision.load(Ordering::Acquire);
        if let Some(at) = at.filter(|at| *at < newest) {
            return Err(StoreError::Compacted(at));
        }
        self.read(|t| {
            let revision = t.open_table(COUNTERS)?.get("revision")?.map_or(0, |v| v.value());
            let table = t.open_table(OBJECTS)?;
            let start = match after {
                Some(after) => Bound::Excluded(after),
                None => Bound::Included(prefix),
            };
            let mut page = Page { items: Vec::new(), revision, more: false };
            for entry in table.range::<&str>((start, Bound::Unbounded))? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                if page.items.len() == limit {
                    page.more = true;
                    break;
                }
                page.items.extend(parse(key.value(), value.value()));
            }
            Ok(page)
        })
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Commit(commit, answer)).await?;
        answered.await.map_err(|_| StoreError::Unavailable("the store is closed".into()))?
    }

    fn announce(&self) -> Option<Announced> {
        Some(Announced::new(&self.announced))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let (events, watch) = mpsc::channel(64);
        self.ask(Request::Watch { prefix: prefix.into(), after, events }).await?;
        Ok(watch)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.revision.load(Ordering::Acquire))
    }

    async fn nudge(&self) {
        let _ = self.ask(Request::Nudge).await;
    }

    async fn compact(&self, last: Compaction) -> Result<Compaction, StoreError> {
        // Nothing old is kept.
        Ok(Compaction { turn: last.turn + 1, revision: self.revision.load(Ordering::Acquire) })
    }

    fn shared_with_upstream(&self) -> bool {
        false
    }
}

fn open_file(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path)
}

/// Makes the tables, reserves a block of revisions, and answers the revision to go on from.
fn prepare(database: &Database) -> Result<Revision, redb::Error> {
    let transaction = database.begin_write()?;
    let revision = {
        transaction.open_table(OBJECTS)?;
        transaction.open_table(EXPIRIES)?;
        let mut counters = transaction.open_table(COUNTERS)?;
        let used = counters.get("reserved")?.map(|v| v.value());
        // A clean close writes `reserved` back down to what was used.
        let revision = used.unwrap_or(1);
        counters.insert("revision", revision)?;
        counters.insert("reserved", revision + REVISION_BLOCK)?;
        revision
    };
    transaction.commit()?;
    Ok(revision)
}

fn parse(key: &str, bytes: &[u8]) -> Option<KeyValue> {
    let mod_revision = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    Some(KeyValue { key: key.into(), value: Bytes::copy_from_slice(bytes.get(HEADER..)?), mod_revision })
}

fn expiry_of(bytes: &[u8]) -> u64 {
    bytes.get(8..HEADER).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// redb reports a full disk as an I/O error.
fn storage_error(e: &redb::Error) -> StoreError {
    match e {
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => {
            StoreError::Full(io.to_string())
        }
        e => StoreError::Unavailable(e.to_string()),
    }
}

struct Watcher {
    prefix: Arc<str>,
    events: mpsc::Sender<Result<Batch, StoreError>>,
}

struct Writer {
    path: PathBuf,
    file: Arc<RwLock<Option<Database>>>,
    revision: Arc<AtomicU64>,
    announced: Arc<AtomicUsize>,
    reserved: Revision,
    history: VecDeque<Event>,
    history_bytes: usize,
    /// Changes up to this revision are not in `history`.
    forgotten: Revision,
    watchers: Vec<Watcher>,
    /// Since when commits wait in memory for the disk.
    unflushed: Option<Instant>,
    /// When the next key goes away, in Unix seconds: known after the first look.
    next_expiry: Option<u64>,
}

/// What one group commit did.
#[derive(Default)]
struct Outcome {
    events: Vec<Event>,
    revision: Revision,
    durable: bool,
}

impl Writer {
    fn run(mut self, inbox: std::sync::mpsc::Receiver<Request>) {
        loop {
            let first = match self.patience() {
                Some(wait) => match inbox.recv_timeout(wait) {
                    Ok(r) => Some(r),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                },
                None => match inbox.recv() {
                    Ok(r) => Some(r),
                    Err(_) => break,
                },
            };
            self.gather();
            let mut group = Vec::new();
            let mut stop = false;
            for request in
                first.into_iter().chain(std::iter::from_fn(|| inbox.try_recv().ok()).take(MAX_GROUP))
            {
                match request {
                    Request::Commit(commit, answer) if !answer.is_closed() => group.push((commit, answer)),
                    Request::Commit(..) => {} // nobody waits for it any more, and nothing has been done
                    Request::Watch { prefix, after, events } => {
                        // Commits that came before the watch are told by it, or are in what it lists.
                        self.commit(std::mem::take(&mut group));
                        self.start_watch(prefix, after, events);
                    }
                    Request::Nudge => self.tell(Vec::new()),
                    Request::Stop => stop = true,
                }
            }
            self.commit(group);
            if self.next_expiry.is_some_and(|at| at <= unix_now()) {
                self.expire();
            }
            if self.unflushed.is_some_and(|since| since.elapsed() >= FLUSH_AFTER) {
                self.flush();
            }
            if stop {
                break;
            }
        }
        self.close();
    }

    /// Waits for commits that were announced, unless there are none.
    fn gather(&self) {
        let until = Instant::now() + GATHER;
        while self.announced.load(Ordering::Acquire) > 0 {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return,
                left => std::thread::park_timeout(left),
            }
        }
    }

    /// How long the writer may sleep if nobody asks for anything.
    fn patience(&self) -> Option<Duration> {
        let flush = self.unflushed.map(|since| FLUSH_AFTER.saturating_sub(since.elapsed()));
        let expiry = self.next_expiry.map(|at| Duration::from_secs(at.saturating_sub(unix_now())));
        [flush, expiry].into_iter().flatten().min()
    }

    fn commit(&mut self, group: Vec<(Commit, oneshot::Sender<Result<Revision, StoreError>>)>) {
        if group.is_empty() {
            return;
        }
        let (commits, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        match self.write(commits) {
            Ok((results, outcome)) => {
                self.finish(outcome);
                for (answer, result) in answers.into_iter().zip(results) {
                    let _ = answer.send(result);
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "the store could not commit; nothing of it was written");
                for answer in answers {
                    let _ = answer.send(Err(storage_error(&e)));
                }
                self.reopen(&e);
            }
        }
    }

    /// After a commit that went well: the new revision counts, watchers hear of it.
    fn finish(&mut self, outcome: Outcome) {
        self.revision.store(outcome.revision, Ordering::Release);
        if outcome.durable {
            self.unflushed = None;
        } else if !outcome.events.is_empty() {
            self.unflushed.get_or_insert_with(Instant::now);
        }
        self.tell(outcome.events);
    }

    #[allow(clippy::type_complexity)]
    fn write(
        &mut self,
        commits: Vec<Commit>,
    ) -> Result<(Vec<Result<Revision, StoreError>>, Outcome), redb::Error> {
        let file = self.file.clone();
        let file = file.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = file.as_ref() else {
            return Err(redb::Error::Io(std::io::Error::other("the store's file is closed")));
        };
        let mut transaction = database.begin_write()?;
        let mut outcome = Outcome { revision: self.revision.load(Ordering::Acquire), ..Outcome::default() };
        let mut results = Vec::with_capacity(commits.len());
        let mut durable = false;
        let mut next_expiry = self.next_expiry;
        let mut reserved = self.reserved;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut expiries = transaction.open_table(EXPIRIES)?;
            let mut counters = transaction.open_table(COUNTERS)?;
            for commit in commits {
                let current = objects.get(&*commit.key)?;
                let found = current
                    .as_ref()
                    .and_then(|v| v.value().get(..8)?.try_into().ok().map(u64::from_le_bytes));
                let as_expected = match commit.expect {
                    Expect::Absent => found.is_none(),
                    Expect::Unchanged(revision) => found == Some(revision),
                };
                if !as_expected {
                    let now = current.as_ref().and_then(|v| parse(&commit.key, v.value()));
                    results.push(Err(StoreError::Conflict(now)));
                    continue;
                }
                let old_expiry = current.as_ref().map_or(0, |v| expiry_of(v.value()));
                drop(current);
                let revision = outcome.revision + 1;
                if old_expiry != 0 {
                    expiries.remove((old_expiry, &*commit.key))?;
                }
                match commit.change {
                    Change::Put { value, ttl } => {
                        let expiry = ttl.map_or(0, |ttl| unix_now() + ttl.as_secs().max(1));
                        {
                            let mut room = objects.insert_reserve(&*commit.key, HEADER + value.len())?;
                            let room = room.as_mut();
                            let (head, body) = room.split_at_mut(HEADER);
                            let (head_revision, head_expiry) = head.split_at_mut(8);
                            head_revision.copy_from_slice(&revision.to_le_bytes());
                            head_expiry.copy_from_slice(&expiry.to_le_bytes());
                            body.copy_from_slice(&value);
                        }
                        if expiry != 0 {
                            expiries.insert((expiry, &*commit.key), ())?;
                            next_expiry = Some(next_expiry.map_or(expiry, |at| at.min(expiry)));
                        }
                        outcome.events.push(Event::Put(KeyValue {
                            key: commit.key,
                            value,
                            mod_revision: revision,
                        }));
                    }
                    Change::Delete => {
                        objects.remove(&*commit.key)?;
                        outcome.events.push(Event::Delete { key: commit.key, revision });
                    }
                }
                outcome.revision = revision;
                durable |= commit.durability == Durability::Disk;
                results.push(Ok(revision));
            }
            if outcome.revision >= reserved {
                reserved = outcome.revision + REVISION_BLOCK;
                counters.insert("reserved", reserved)?;
                durable = true;
            }
            counters.insert("revision", outcome.revision)?;
        }
        if outcome.events.is_empty() {
            transaction.abort()?;
            return Ok((results, outcome));
        }
        if !durable {
            transaction
                .set_durability(redb::Durability::None)
                .map_err(|e| redb::Error::Io(std::io::Error::other(e.to_string())))?;
        }
        transaction.commit()?;
        self.reserved = reserved;
        self.next_expiry = next_expiry;
        outcome.durable = durable;
        Ok((results, outcome))
    }

    /// Removes the keys whose time has come, as commits of their own.
    fn expire(&mut self) {
        let now = unix_now();
        let due = self.with_file(|database| {
            let transaction = database.begin_read()?;
            let objects = transaction.open_table(OBJECTS)?;
            let mut due = Vec::new();
            let mut next = None;
            for entry in transaction.open_table(EXPIRIES)?.iter()? {
                let (key, _) = entry?;
                let (at, key) = key.value();
                if at > now || due.len() == MAX_GROUP {
                    next = Some(at);
                    break;
                }
                let revision = objects
                    .get(key)?
                    .and_then(|v| v.value().get(..8)?.try_into().ok().map(u64::from_le_bytes));
                due.push((Arc::<str>::from(key), revision.unwrap_or(0)));
            }
            Ok((due, next))
        });
        match due {
            Ok((due, next)) => {
                self.next_expiry = next;
                let commits = due.into_iter().map(|(key, revision)| Commit {
                    key,
                    expect: Expect::Unchanged(revision),
                    change: Change::Delete,
                    durability: Durability::Memory,
                });
                let group = commits.map(|c| (c, oneshot::channel().0)).collect();
                self.commit(group);
            }
            Err(e) => {
                tracing::error!(error = %e, "the store could not look for expired keys");
                self.next_expiry = Some(now + 60);
            }
        }
    }

    fn with_file<T>(&self, f: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        match file.as_ref() {
            Some(database) => f(database),
            None => Err(redb::Error::Io(std::io::Error::other("the store's file is closed"))),
        }
    }

    fn flush(&mut self) {
        match self.with_file(|database| Ok(database.begin_write()?.commit()?)) {
            Ok(()) => self.unflushed = None,
            Err(e) => {
                tracing::error!(error = %e, "the store could not flush; it tries again");
                self.unflushed = Some(Instant::now());
                self.reopen(&e);
            }
        }
    }

    /// After an I/O error redb refuses to go on with the file it has open.
    fn reopen(&mut self, cause: &redb::Error) {
        if !matches!(cause, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)) {
            return;
        }
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        *file = None;
        match open_file(&self.path) {
            Ok(database) => {
                *file = Some(database);
                drop(file);
                // Commits that were held in memory may be lost: whoever follows the store looks at all of it again.
                let lost = || StoreError::Unavailable("the store was reopened".into());
                for watcher in self.watchers.drain(..) {
                    let _ = watcher.events.blocking_send(Err(lost()));
                }
                self.history.clear();
                self.history_bytes = 0;
                self.forgotten = self.revision.load(Ordering::Acquire);
            }
            Err(e) => {
                drop(file);
                tracing::error!(error = %e, path = %self.path.display(), "the store could not be reopened; it tries again at the next request");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn start_watch(
        &mut self,
        prefix: Arc<str>,
        after: Revision,
        events: mpsc::Sender<Result<Batch, StoreError>>,
    ) {
        if after < self.forgotten {
            let _ = events.try_send(Err(StoreError::Compacted(after)));
            return;
        }
        let missed = self
            .history
            .iter()
            .filter(|e| e.revision() > after && key_of(e).starts_with(&*prefix))
            .cloned()
            .collect();
        let batch = Batch { revision: self.revision.load(Ordering::Acquire), events: missed };
        if events.blocking_send(Ok(batch)).is_ok() {
            self.watchers.push(Watcher { prefix, events });
        }
    }

    /// Sends to every watcher, waiting for a slow one: the API server has few and they are quick.
    fn tell(&mut self, events: Vec<Event>) {
        let revision = self.revision.load(Ordering::Acquire);
        self.watchers.retain(|w| {
            let wanted = events.iter().filter(|e| key_of(e).starts_with(&*w.prefix)).cloned().collect();
            w.events.blocking_send(Ok(Batch { revision, events: wanted })).is_ok()
        });
        self.history_bytes += events.iter().map(size_of_value).sum::<usize>();
        self.history.extend(events);
        while self.history.len() > HISTORY || self.history_bytes > HISTORY_BYTES {
            if let Some(old) = self.history.pop_front() {
                self.history_bytes -= size_of_value(&old);
                self.forgotten = old.revision();
            }
        }
    }

    /// Writes down what is in memory, and gives back the revisions that were reserved and not used.
    fn close(&mut self) {
        let revision = self.revision.load(Ordering::Acquire);
        let closed = self.with_file(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(COUNTERS)?.insert("reserved", revision)?;
            Ok(transaction.commit()?)
        });
        if let Err(e) = closed {
            tracing::error!(error = %e, "the store could not be closed cleanly");
        }
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn size_of_value(event: &Event) -> usize {
    match event {
        Event::Put(kv) => kv.value.len(),
        Event::Delete { .. } => 0,
    }
}

fn key_of(event: &Event) -> &str {
    match event {
        Event::Put(kv) => &kv.key,
        Event::Delete { key, .. } => key,
    }
}
