//! The store for several machines: etcd, with upstream's keys and compaction, so that several API
//! servers, ours and upstream's, can share it.

use crate::{
    Batch, Change, Commit, Compaction, Event, Expect, KeyValue, Page, Revision, Store, StoreError, Watch,
};
use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions, Identity,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, watch};

/// Where etcd is and how to speak with it; the API server's `--etcd-*` flags.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--etcd-servers`.
    pub servers: Vec<String>,
    /// `--etcd-cafile`.
    pub ca_file: Option<PathBuf>,
    /// `--etcd-certfile`.
    pub cert_file: Option<PathBuf>,
    /// `--etcd-keyfile`.
    pub key_file: Option<PathBuf>,
}

/// Why etcd could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file named by a flag can't be read.
    #[error("--{flag}: cannot read {path}: {source}")]
    File {
        /// The flag.
        flag: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No server answers.
    #[error("cannot reach etcd at {servers}: {reason}")]
    Unreachable {
        /// The servers.
        servers: String,
        /// Why.
        reason: String,
    },
}

/// How long one member may take for a request; then another is asked, since a change that a lost leader had is lost.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The same for a page of a list, which may be large.
const PAGE_ATTEMPT: Duration = Duration::from_secs(30);
/// How long a request is tried again while members are away: an election takes a second or two.
const PATIENCE: Duration = Duration::from_secs(6);
/// Pauses between tries, doubled from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// Questions for the newest revision are this far apart at least: etcd spends half a millisecond on one, and all who
/// wait share the answer.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Where the servers of a cluster agree on who compacts: upstream's.
const COMPACTION_KEY: &str = "compact_rev_key";
/// A list's page may be large.
const MAX_MESSAGE: usize = 1 << 30;
/// Keys with nearly the same time to live share a lease, as upstream's do: up to this many keys,
const LEASE_KEYS: usize = 1000;
/// and for this long, but no longer than a twentieth of that time: what is meant to go soon goes soon.
const LEASE_REUSE: Duration = Duration::from_secs(60);

fn lease_reuse(seconds: u64) -> Duration {
    LEASE_REUSE.min(Duration::from_secs(seconds) / 20)
}

struct SharedLease {
    id: i64,
    since: Instant,
    keys: usize,
}

/// The newest revision as etcd said it last.
#[derive(Default)]
struct Answered {
    /// How many of those who asked have it.
    count: u64,
    revision: Revision,
    /// When it was asked for.
    at: Option<tokio::time::Instant>,
}

/// etcd behind the [`Store`] trait.
pub struct Etcd {
    client: Client,
    leases: Mutex<BTreeMap<u64, SharedLease>>,
    /// Counts who wants to know how far a watch is: no question is lost, however many come at once.
    nudged: watch::Sender<u64>,
    /// How many have asked for the newest revision.
    asked: AtomicU64,
    answered: Mutex<Answered>,
}

impl Etcd {
    /// Connects; waits until a server answers, at most `patience`.
    pub async fn connect(options: &Options, patience: Duration) -> Result<Self, ConnectError> {
        let read = |flag: &'static str, path: &PathBuf| {
            std::fs::read(path).map_err(|source| ConnectError::File { flag, path: path.clone(), source })
        };
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_require_leader(true)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true);
        if options.servers.iter().any(|s| s.starts_with("https:")) {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &options.ca_file {
                tls = tls.ca_certificate(Certificate::from_pem(read("etcd-cafile", ca)?));
            }
            if let (Some(cert), Some(key)) = (&options.cert_file, &options.key_file) {
                tls = tls
                    .identity(Identity::from_pem(read("etcd-certfile", cert)?, read("etcd-keyfile", key)?));
            }
            connect = connect.with_tls(tls);
        }
        let deadline = Instant::now() + patience;
        let mut said = false;
        loop {
            let attempt = async {
                let client = Client::connect(&options.servers, Some(connect.clone())).await?;
                client.kv_client().get("health", None).await?;
                Ok::<_, Error>(client)
            };
            let late = |_| Err(Error::EndpointError(format!("no answer within {ATTEMPT:?}")));
            match tokio::time::timeout(ATTEMPT, attempt).await.unwrap_or_else(late) {
                Ok(client) => {
                    return Ok(Etcd {
                        client,
                        leases: Mutex::default(),
                        nudged: watch::Sender::new(0),
                        asked: AtomicU64::new(0),
                        answered: Mutex::default(),
                    });
                }
                Err(e) if Instant::now() < deadline => {
                    if !said {
                        tracing::warn!(servers = ?options.servers, error = %e, "etcd does not answer; waiting for it");
                        said = true;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(e) => {
                    return Err(ConnectError::Unreachable {
                        servers: options.servers.join(","),
                        reason: e.to_string(),
                    });
                }
            }
        }
    }

    /// Asks a member, and others while none answers. With the answer comes whether a try before may have been heard.
    async fn ask<T, F>(
        &self,
        attempt: Duration,
        request: impl Fn(Client) -> F,
    ) -> Result<(T, bool), StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + PATIENCE;
        let [mut pause, longest] = PAUSES;
        let mut repeated = false;
        loop {
            let error = match tokio::time::timeout(attempt, request(self.client.clone())).await {
                Ok(Ok(answer)) => return Ok((answer, repeated)),
                Ok(Err(e)) if !is_passing(&e) => return Err(unavailable(e)),
                Ok(Err(e)) => unavailable(e),
                Err(_) => StoreError::Unavailable(format!("etcd did not answer within {attempt:?}")),
            };
            if Instant::now() + pause > until {
                return Err(error);
            }
            repeated = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// A lease of `ttl` for one more key.
    async fn lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        let seconds = ttl.as_secs().max(1);
        let mut leases = self.leases.lock().await;
        leases.retain(|seconds, l| l.since.elapsed() < lease_reuse(*seconds) && l.keys < LEASE_KEYS);
        if let Some(lease) = leases.get_mut(&seconds) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        // It may be used until the end of that time, and no key may go away early.
        let length = (seconds + lease_reuse(seconds).as_secs().max(1)) as i64;
        let (granted, _) =
            self.ask(ATTEMPT, |c| async move { c.lease_client().grant(length, None).await }).await?;
        leases.insert(seconds, SharedLease { id: granted.id(), since: Instant::now(), keys: 1 });
        Ok(granted.id())
    }
}

/// Whether another member, or the same one a moment later, may answer.
fn is_passing(e: &Error) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, Internal, Unavailable, Unknown};
    match e {
        Error::GRpcStatus(s) => {
            matches!(s.code(), Aborted | Cancelled | DeadlineExceeded | Internal | Unavailable | Unknown)
        }
        Error::TransportError(_) | Error::IoError(_) => true,
        _ => false,
    }
}

fn unavailable(e: Error) -> StoreError {
    match &e {
        Error::GRpcStatus(s) if s.message().contains("compacted") => StoreError::Compacted(0),
        Error::GRpcStatus(s) if s.message().contains("request is too large") => {
            StoreError::TooLarge(s.message().into())
        }
        Error::GRpcStatus(s) if s.message().contains("no space") => StoreError::Full(s.message().into()),
        _ => StoreError::Unavailable(e.to_string()),
    }
}

fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: String::from_utf8_lossy(kv.key()).into(),
        value: bytes::Bytes::copy_from_slice(kv.value()),
        mod_revision: kv.mod_revision() as Revision,
    }
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    header.map_or(0, |h| h.revision() as Revision)
}

/// The first key after all that start with `prefix`.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let (answer, _) = self.ask(ATTEMPT, |c| async move { c.kv_client().get(key, None).await }).await?;
        Ok(answer.kvs().first().map(key_value))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let start = match after {
            Some(after) => format!("{after}\0"),
            None => prefix.to_string(),
        };
        let mut options = GetOptions::new().with_range(prefix_end(prefix)).with_limit(limit as i64);
        if let Some(at) = at {
            options = options.with_revision(at as i64);
        }
        let page = |c: Client| {
            let (start, options) = (start.clone(), options.clone());
            async move { c.kv_client().max_decoding_message_size(MAX_MESSAGE).get(start, Some(options)).await }
        };
        let (answer, _) = self.ask(PAGE_ATTEMPT, page).await.map_err(|e| match e {
            StoreError::Compacted(_) => StoreError::Compacted(at.unwrap_or(0)),
            e => e,
        })?;
        let revision = at.unwrap_or(header_revision(answer.header()));
        Ok(Page { items: answer.kvs().iter().map(key_value).collect(), revision, more: answer.more() })
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        let key = commit.key.as_bytes().to_vec();
        let expected = match commit.expect {
            Expect::Absent => 0,
            Expect::Unchanged(revision) => revision as i64,
        };
        let (change, value) = match commit.change {
            Change::Put { value, ttl } => {
                let options = match ttl {
                    Some(ttl) => Some(PutOptions::new().with_lease(self.lease(ttl).await?)),
                    None => None,
                };
                (TxnOp::put(key.clone(), value.to_vec(), options), Some(value))
            }
            Change::Delete => (TxnOp::delete(key.clone(), None), None),
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, expected)])
            .and_then([change])
            .or_else([TxnOp::get(key, None)]);
        let (answer, repeated) = self
            .ask(ATTEMPT, |c| {
                let txn = txn.clone();
                async move { c.kv_client().txn(txn).await }
            })
            .await?;
        if answer.succeeded() {
            return Ok(header_revision(answer.header()));
        }
        let current = answer.op_responses().into_iter().find_map(|r| match r {
            TxnOpResponse::Get(get) => get.kvs().first().map(key_value),
            _ => None,
        });
        // A try whose answer was lost may have done it: then the key is as it was to be.
        match (&current, value) {
            (Some(now), Some(value)) if repeated && now.value == value => Ok(now.mod_revision),
            (None, None) if repeated => Ok(header_revision(answer.header())),
            _ => Err(StoreError::Conflict(current)),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let (events, watch) = mpsc::channel(64);
        let follow = Follow {
            client: self.client.clone(),
            prefix: prefix.into(),
            reached: after,
            nudged: self.nudged.subscribe(),
            events,
        };
        tokio::spawn(follow.run());
        Ok(watch)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        // All who came before a question is put have their answer by it.
        let own = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.answered.lock().await;
        if answered.count < own {
            if let Some(last) = answered.at {
                tokio::time::sleep_until(last + ASK_EVERY).await;
            }
            answered.at = Some(tokio::time::Instant::now());
            let asked = self.asked.load(Ordering::Acquire);
            let options = GetOptions::new().with_count_only();
            let question = |c: Client| {
                let options = options.clone();
                async move { c.kv_client().get("\0", Some(options)).await }
            };
            let (answer, _) = self.ask(ATTEMPT, question).await?;
            (answered.count, answered.revision) = (asked, header_revision(answer.header()));
        }
        Ok(answered.revision)
    }

    async fn nudge(&self) {
        self.nudged.send_modify(|count| *count += 1);
    }

    async fn compact(&self, last: Compaction) -> Result<Compaction, StoreError> {
        // Of all servers, upstream's too, the first in each interval finds the key as it left it, and compacts.
        let txn = Txn::new()
            .when([Compare::version(COMPACTION_KEY, CompareOp::Equal, last.turn)])
            .and_then([TxnOp::put(COMPACTION_KEY, last.revision.to_string(), None)])
            .or_else([TxnOp::get(COMPACTION_KEY, None)]);
        let answer = self.client.kv_client().txn(txn).await.map_err(unavailable)?;
        let revision = header_revision(answer.header());
        if !answer.succeeded() {
            let theirs = answer.op_responses().into_iter().find_map(|r| match r {
                TxnOpResponse::Get(get) => get.kvs().first().map(etcd_client::KeyValue::version),
                _ => None,
            });
            return Ok(Compaction { turn: theirs.unwrap_or(0), revision });
        }
        if last.revision > 0 {
            self.client.kv_client().compact(last.revision as i64, None).await.map_err(unavailable)?;
        }
        Ok(Compaction { turn: last.turn + 1, revision })
    }

    fn shared_with_upstream(&self) -> bool {
        true
    }
}

/// One watch, held up over lost connections.
struct Follow {
    client: Client,
    prefix: Arc<str>,
    reached: Revision,
    nudged: watch::Receiver<u64>,
    events: mpsc::Sender<Result<Batch, StoreError>>,
}

impl Follow {
    async fn run(mut self) {
        let mut backoff = Duration::from_millis(100);
        loop {
            let reached = self.reached;
            match self.follow().await {
                Ok(()) => return, // nobody listens any more
                Err(e @ StoreError::Compacted(_)) => {
                    let _ = self.events.send(Err(e)).await;
                    return;
                }
                Err(e) => {
                    if self.reached > reached {
                        backoff = Duration::from_millis(100);
                    }
                    tracing::warn!(error = %e, "lost the watch on etcd; it is taken up again");
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        () = self.events.closed() => return,
                    }
                    backoff = (backoff * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        let options = WatchOptions::new()
            .with_range(prefix_end(&self.prefix))
            .with_start_revision(self.reached as i64 + 1)
            .with_progress_notify();
        let mut client = self.client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let mut stream = client.watch(&*self.prefix, Some(options)).await.map_err(unavailable)?;
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(unavailable)?,
                Ok(()) = self.nudged.changed() => {
                    stream.request_progress().await.map_err(unavailable)?;
                    continue;
                }
                () = self.events.closed() => return Ok(()),
            };
            let Some(message) = message else {
                return Err(StoreError::Unavailable("etcd ended the watch".into()));
            };
            if message.compact_revision() > 0 {
                return Err(StoreError::Compacted(self.reached));
            }
            if message.canceled() {
                return Err(StoreError::Unavailable(format!(
                    "etcd cancelled the watch: {}",
                    message.cancel_reason()
                )));
            }
            if message.created() {
                continue; // its revision may be ahead of changes that are still to be told
            }
            let events: Vec<Event> = message.events().iter().filter_map(event).collect();
            // A message without changes is etcd's word that all up to its revision have been told.
            let revision = match events.last() {
                Some(last) => last.revision(),
                None => header_revision(message.header()),
            };
            self.reached = self.reached.max(revision);
            if self.events.send(Ok(Batch { revision: self.reached, events })).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn event(event: &etcd_client::Event) -> Option<Event> {
    let kv = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => Event::Put(key_value(kv)),
        EventType::Delete => Event::Delete {
            key: String::from_utf8_lossy(kv.key()).into(),
            revision: kv.mod_revision() as Revision,
        },
    })
}
