//! The store for one machine: a log of changes, written by one thread.
//!
//! Requests that wait while the disk is busy go into the next write together (group commit), so the
//! cost of an fsync is shared by all who wait for it. Recent changes are kept in memory for watchers;
//! older ones are not kept at all: a watcher that is too far behind lists again.

mod index;
mod log;
mod record;

use crate::{
    Announced, Batch, Change, Commit, Compaction, Durability, Event, Expect, KeyValue, Page, Revision, Store,
    StoreError, Watch,
};
use async_trait::async_trait;
use index::{Index, Slot};
use log::{Failure, Log};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// How long a commit with [`Durability::Memory`] may wait for the disk.
const FLUSH_AFTER: Duration = Duration::from_secs(5);
/// A commit waits this long at the most for others that were announced: each of a group costs a fraction of one alone.
const GATHER: Duration = Duration::from_micros(1000);
/// Requests written together at the most,
const MAX_GROUP: usize = 512;
/// or this many bytes of values.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// More values than this are read on a thread of their own.
const FEW: usize = 64;
/// After the store failed at something it does by itself, it tries again this much later.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Changes kept in memory for watchers that start: this many,
const HISTORY: usize = 4096;
/// or this many bytes of values.
const HISTORY_BYTES: usize = 8 << 20;

enum Request {
    Commit(Commit, oneshot::Sender<Result<Revision, StoreError>>),
    Watch { prefix: Arc<str>, after: Revision, events: mpsc::Sender<Result<Batch, StoreError>> },
    Nudge,
    Check(oneshot::Sender<bool>),
    Stop,
}

/// The embedded store. Dropping it writes down what is in memory.
pub struct Embedded {
    requests: Mutex<std::sync::mpsc::SyncSender<Request>>,
    index: Arc<RwLock<Index>>,
    revision: Arc<AtomicU64>,
    /// Commits that are about to come.
    announced: Arc<AtomicUsize>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be made.
    #[error("cannot make the data directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the store in {0} is in use by another process")]
    InUse(PathBuf),
    /// It can't be read.
    #[error("cannot open the store: {path} {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl OpenError {
    fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        OpenError::File { path: path.into(), reason: reason.to_string() }
    }
}

impl Embedded {
    /// Opens the store in `dir`, making it if need be.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory { path: dir.into(), source })?;
        let log = Log::open(dir, log::SEGMENT)?;
        let index = log.index().clone();
        let start = index.read().unwrap_or_else(PoisonError::into_inner).revision;
        let revision = Arc::new(AtomicU64::new(start));
        let announced = Arc::<AtomicUsize>::default();
        let (requests, inbox) = std::sync::mpsc::sync_channel(4 * MAX_GROUP);
        let writer = Writer {
            log,
            broken: false,
            clean_from: Instant::now(),
            expire_from: Instant::now(),
            revision: revision.clone(),
            announced: announced.clone(),
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: start,
            watchers: Vec::new(),
            unflushed: None,
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(inbox))
            .map_err(|e| OpenError::file(dir, e))?;
        Ok(Embedded { requests: Mutex::new(requests), index, revision, announced, writer: Some(thread) })
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

    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
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
        let (slot, file) = {
            let index = self.index();
            let Some(slot) = index.get(key) else { return Ok(None) };
            (*slot, index.file(slot).map_err(unreadable)?)
        };
        index::value(key.into(), &slot, &file).map(Some).map_err(unreadable)
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
        let start = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let (found, revision, more) = {
            let index = self.index();
            let mut keys = index.range(start).take_while(|(key, _)| key.starts_with(prefix));
            let place = |(key, slot): (&Arc<str>, &Slot)| Ok((key.clone(), *slot, index.file(slot)?));
            let found: io::Result<Vec<_>> = keys.by_ref().take(limit).map(place).collect();
            let more = keys.next().is_some();
            (found.map_err(unreadable)?, index.revision, more)
        };
        // What is written to the log stays there while anyone has its file.
        let many = found.len() > FEW;
        let read = move || -> io::Result<Vec<KeyValue>> {
            found.into_iter().map(|(key, slot, file)| index::value(key, &slot, &file)).collect()
        };
        let items = match many {
            true => tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten(),
            false => read(),
        };
        Ok(Page { items: items.map_err(unreadable)?, revision, more })
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

    async fn check(&self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Check(answer)).await?;
        match answered.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Unavailable("the log can't be written".into())),
            Err(_) => Err(StoreError::Unavailable("the store is closed".into())),
        }
    }

    async fn compact(&self, last: Compaction) -> Result<Compaction, StoreError> {
        // Nothing old is kept.
        Ok(Compaction { turn: last.turn + 1, revision: self.revision.load(Ordering::Acquire) })
    }

    fn shared_with_upstream(&self) -> bool {
        false
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn unreadable(e: io::Error) -> StoreError {
    StoreError::Unavailable(format!("the store can't be read: {e}"))
}

fn unwritten(failure: &Failure) -> StoreError {
    match failure {
        Failure::Nothing(e) if e.kind() == io::ErrorKind::StorageFull => StoreError::Full(e.to_string()),
        Failure::Nothing(e) | Failure::Unknown(e) => StoreError::Unavailable(e.to_string()),
    }
}

struct Watcher {
    prefix: Arc<str>,
    events: mpsc::Sender<Result<Batch, StoreError>>,
}

struct Writer {
    log: Log,
    /// Whether the log has to be read again before anything is written.
    broken: bool,
    /// When the log may be cleaned, and keys be removed that go away by themselves.
    clean_from: Instant,
    expire_from: Instant,
    revision: Arc<AtomicU64>,
    announced: Arc<AtomicUsize>,
    history: VecDeque<Event>,
    history_bytes: usize,
    /// Changes up to this revision are not in `history`.
    forgotten: Revision,
    watchers: Vec<Watcher>,
    /// Since when commits wait for the disk.
    unflushed: Option<Instant>,
}

/// Who made a commit, and hears how it went.
type Answer = oneshot::Sender<Result<Revision, StoreError>>;

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
            let mut bytes = 0;
            let mut stop = false;
            let mut next = first;
            while let Some(request) = next {
                match request {
                    Request::Commit(commit, answer) if !answer.is_closed() => {
                        if let Change::Put { value, .. } = &commit.change {
                            bytes += value.len();
                        }
                        group.push((commit, answer));
                    }
                    Request::Commit(..) => {} // nobody waits for it any more, and nothing has been done
                    Request::Watch { prefix, after, events } => {
                        // Commits that came before the watch are told by it, or are in what it lists.
                        self.commit(std::mem::take(&mut group));
                        self.start_watch(prefix, after, events);
                    }
                    Request::Nudge => self.tell(Vec::new()),
                    Request::Check(answer) => {
                        let _ = answer.send(!self.broken); // nobody waits for it any more
                    }
                    Request::Stop => stop = true,
                }
                let room = group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES;
                next = if room { inbox.try_recv().ok() } else { None };
            }
            self.commit(group);
            self.expire();
            if self.unflushed.is_some_and(|since| since.elapsed() >= FLUSH_AFTER) {
                self.flush();
            }
            self.clean(bytes);
            if stop {
                break;
            }
        }
        if let Err(e) = self.log.close() {
            tracing::error!(error = %unwritten(&e), "the store could not be closed cleanly");
        }
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
        let index = self.log.index().read().unwrap_or_else(PoisonError::into_inner);
        let until = |(at, _): &(u64, _)| Duration::from_secs(at.saturating_sub(unix_now()));
        let soonest = self.expire_from.saturating_duration_since(Instant::now());
        let expiry = index.next_expiry().map(|next| until(next).max(soonest));
        [flush, expiry].into_iter().flatten().min()
    }

    /// Makes changes and answers those who asked for them; whether that could be tried.
    fn commit(&mut self, group: Vec<(Commit, Answer)>) -> bool {
        if group.is_empty() {
            return true;
        }
        let (commits, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let failure = match self.write(commits) {
            Ok(results) => {
                answers.into_iter().zip(results).for_each(|(answer, result)| drop(answer.send(result)));
                return true;
            }
            Err(failure) => failure,
        };
        tracing::error!(error = %unwritten(&failure), "the store could not commit");
        for answer in answers {
            let _ = answer.send(Err(unwritten(&failure)));
        }
        self.failed(&failure);
        false
    }

    /// Writes what is as expected, and tells watchers of it.
    fn write(&mut self, commits: Vec<Commit>) -> Result<Vec<Result<Revision, StoreError>>, Failure> {
        self.mend()?;
        self.log.begin()?;
        let index = self.log.index().clone();
        let now = unix_now();
        let mut revision = self.revision.load(Ordering::Acquire);
        let mut durable = false;
        let mut events: Vec<Event> = Vec::with_capacity(commits.len());
        let mut results = Vec::with_capacity(commits.len());
        // Keys that this group has written, and the events that say how.
        let mut written: HashMap<Arc<str>, usize> = HashMap::new();
        for Commit { key, expect, change, durability } in commits {
            let current = match written.get(&key).and_then(|at| events.get(*at)) {
                Some(Event::Put(kv)) => Current::Written(kv.clone()),
                Some(Event::Delete { .. }) => Current::Absent,
                None => match index.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
                    Some(slot) => Current::Kept(*slot),
                    None => Current::Absent,
                },
            };
            let as_expected = match expect {
                Expect::Absent => current.revision().is_none(),
                Expect::Unchanged(revision) => current.revision() == Some(revision),
            };
            if !as_expected {
                results.push(Err(match current.value(&key, &index) {
                    Ok(now) => StoreError::Conflict(now),
                    Err(e) => unreadable(e),
                }));
                continue;
            }
            revision += 1;
            written.insert(key.clone(), events.len());
            match change {
                Change::Put { value, ttl } => {
                    let expiry = ttl.map_or(0, |ttl| now + ttl.as_secs().max(1));
                    self.log.put(key.clone(), revision, expiry, &value);
                    events.push(Event::Put(KeyValue { key, value, mod_revision: revision }));
                }
                Change::Delete => {
                    self.log.delete(key.clone(), revision);
                    events.push(Event::Delete { key, revision });
                }
            }
            durable |= durability == Durability::Disk;
            results.push(Ok(revision));
        }
        if !events.is_empty() {
            self.log.write(revision, durable)?;
            self.unflushed = match durable {
                true => None,
                false => self.unflushed.or_else(|| Some(Instant::now())),
            };
            self.revision.store(revision, Ordering::Release);
            self.tell(events);
        }
        Ok(results)
    }

    /// Removes the keys whose time has come, as commits of their own.
    fn expire(&mut self) {
        if Instant::now() < self.expire_from {
            return;
        }
        let now = unix_now();
        let mut due = Vec::new();
        {
            let index = self.log.index().read().unwrap_or_else(PoisonError::into_inner);
            for (_, key) in index.expired(now).take(MAX_GROUP) {
                due.extend(index.get(key).map(|slot| (key.clone(), slot.revision)));
            }
        }
        let removal = |(key, revision)| Commit {
            key,
            expect: Expect::Unchanged(revision),
            change: Change::Delete,
            durability: Durability::Memory,
        };
        let group = due.into_iter().map(removal).map(|commit| (commit, oneshot::channel().0));
        if !self.commit(group.collect()) {
            self.expire_from = Instant::now() + TRY_AGAIN;
        }
    }

    fn flush(&mut self) {
        match self.log.sync() {
            Ok(()) => self.unflushed = None,
            Err(e) => {
                tracing::error!(error = %unwritten(&e), "the store could not flush; it tries again");
                self.unflushed = Some(Instant::now());
                self.failed(&e);
            }
        }
    }

    fn clean(&mut self, written: usize) {
        if written == 0 || self.broken || Instant::now() < self.clean_from {
            return;
        }
        if let Err(e) = self.log.clean(written as u64) {
            tracing::error!(error = %unwritten(&e), "the store could not clean its log; it tries again");
            self.clean_from = Instant::now() + TRY_AGAIN;
            self.failed(&e);
        }
    }

    /// After a failure that leaves open what is on the disk, that is found out.
    fn failed(&mut self, failure: &Failure) {
        self.broken |= matches!(failure, Failure::Unknown(_));
        let _ = self.mend(); // if it does not succeed, the next commit tries again, and is answered why
    }

    fn mend(&mut self) -> Result<(), Failure> {
        if !self.broken {
            return Ok(());
        }
        if let Err(e) = self.log.reopen() {
            tracing::error!(error = %e, "the store could not be read again; it tries at the next commit");
            return Err(Failure::Unknown(io::Error::other(e)));
        }
        self.broken = false;
        self.unflushed = None;
        let revision = self.log.index().read().unwrap_or_else(PoisonError::into_inner).revision;
        self.revision.store(revision, Ordering::Release);
        // Commits that were held in memory may be lost: whoever follows the store looks at all of it again.
        for watcher in self.watchers.drain(..) {
            let lost = StoreError::Unavailable("the store was read again".into());
            let _ = watcher.events.blocking_send(Err(lost));
        }
        self.history.clear();
        self.history_bytes = 0;
        self.forgotten = revision;
        Ok(())
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
}

/// How a key is when a commit comes to it.
enum Current {
    Absent,
    /// By a commit of the same group.
    Written(KeyValue),
    /// In the log.
    Kept(Slot),
}

impl Current {
    fn revision(&self) -> Option<Revision> {
        match self {
            Current::Absent => None,
            Current::Written(kv) => Some(kv.mod_revision),
            Current::Kept(slot) => Some(slot.revision),
        }
    }

    fn value(self, key: &Arc<str>, index: &RwLock<Index>) -> io::Result<Option<KeyValue>> {
        match self {
            Current::Absent => Ok(None),
            Current::Written(kv) => Ok(Some(kv)),
            Current::Kept(slot) => {
                let file = index.read().unwrap_or_else(PoisonError::into_inner).file(&slot)?;
                index::value(key.clone(), &slot, &file).map(Some)
            }
        }
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
