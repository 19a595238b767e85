//! Fills an informer: lists a collection, then watches it from there, for ever.
//! A version that is too old, and one that is too new for a server that was put back to an earlier state, lead to
//! a new list at no version at all.

use crate::error::Error;
use crate::informer::Informer;
use crate::object::Meta;
use crate::verbs::{Client, ListParams, Unreadable};
use crate::watch::WatchEvent;
use rand::Rng;
use std::time::{Duration, Instant};

const BACKOFF_START: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A watch that lasted so long was a good one.
const BACKOFF_RESET: Duration = Duration::from_secs(10);
/// A watch that ended sooner than this was none.
const HASTE: Duration = Duration::from_secs(1);

/// What is reflected.
pub(crate) struct Source<T> {
    pub client: Client,
    pub path: String,
    pub params: ListParams,
    pub accept_list: &'static str,
    pub accept_watch: &'static str,
    /// Takes away what nobody reads.
    pub strip: fn(&mut T),
}

/// Where a reflector stands.
enum State {
    /// It has to list, at a resource version at least this new.
    List { at_least: String },
    /// It has to list whatever is newest: what it knows may be of another past than the server's, in which the
    /// same version was another state.
    ListAnew,
    /// It knows all up to this resource version.
    Watch { from: String },
}

/// Doubles with each failure, up to a limit, with jitter so that many clients don't come back at once.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Backoff { next: BACKOFF_START }
    }

    pub fn reset(&mut self) {
        self.next = BACKOFF_START;
    }

    pub async fn wait(&mut self) {
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(self.next.mul_f64(jitter)).await;
        self.next = (self.next * 2).min(BACKOFF_MAX);
    }
}

/// Runs for ever; tells everything again after each `resync`, if there is one.
pub(crate) async fn run<T: Meta>(source: Source<T>, informer: Informer<T>, resync: Option<Duration>) {
    let again = async {
        let Some(period) = resync else { return std::future::pending().await };
        loop {
            // So that not all collections come at once.
            let jitter = rand::rng().random_range(1.0..2.0);
            tokio::time::sleep(period.mul_f64(jitter)).await;
            informer.resync();
        }
    };
    tokio::select! {
        () = reflect(&source, &informer) => {}
        () = again => {}
    }
}

async fn reflect<T: Meta>(source: &Source<T>, informer: &Informer<T>) {
    let mut backoff = Backoff::new();
    // The first list may be as old as the server has at hand.
    let mut state = State::List { at_least: "0".into() };
    loop {
        let started = Instant::now();
        let watched = matches!(state, State::Watch { .. });
        let (next, result) = match state {
            State::List { at_least } => match list(source, informer, &at_least, false).await {
                Ok(version) => (State::Watch { from: version }, Ok(())),
                Err(e) if e.is_expired() => (State::List { at_least: String::new() }, Err(e)),
                Err(e) if e.is_too_new() => (State::ListAnew, Err(e)),
                Err(e) => (State::List { at_least }, Err(e)),
            },
            State::ListAnew => match list(source, informer, "", true).await {
                Ok(version) => (State::Watch { from: version }, Ok(())),
                Err(e) => (State::ListAnew, Err(e)),
            },
            State::Watch { from } => {
                let result = watch(source, informer, &from).await;
                let seen = informer.lister().resource_version();
                match result {
                    Err(e) if e.is_expired() => (State::List { at_least: String::new() }, Ok(())),
                    Err(e) if e.is_too_new() => (State::ListAnew, Err(e)),
                    // An object we can't read would stay in the way for ever: see what is there now.
                    Err(e @ Error::Decode { .. }) => (State::List { at_least: seen }, Err(e)),
                    other => (State::Watch { from: seen }, other),
                }
            }
        };
        let lasted = started.elapsed();
        match result {
            Err(e) => {
                tracing::warn!("{}: {e}", source.path);
                if lasted >= BACKOFF_RESET {
                    backoff.reset();
                }
                backoff.wait().await;
            }
            // A watch that ends at once tells of trouble.
            Ok(()) if watched && lasted < HASTE => backoff.wait().await,
            Ok(()) => backoff.reset(),
        }
        state = next;
    }
}

async fn list<T: Meta>(
    source: &Source<T>,
    informer: &Informer<T>,
    at_least: &str,
    anew: bool,
) -> Result<String, Error> {
    let params = ListParams { resource_version: at_least.into(), ..source.params.clone() };
    let ask = |unreadable| {
        let (path, accept) = (source.path.clone(), source.accept_list);
        source.client.list_all_path::<T>(path, &params, accept, unreadable, source.strip)
    };
    let all = match ask(Unreadable::Fails).await {
        // One object that nobody understands must not keep all others from being seen.
        Err(Error::Decode { .. }) => ask(Unreadable::Skipped).await?,
        other => other?,
    };
    let version = all.resource_version;
    informer.replace(all.items, version.clone(), anew);
    Ok(version)
}

async fn watch<T: Meta>(source: &Source<T>, informer: &Informer<T>, from: &str) -> Result<(), Error> {
    let mut stream =
        source.client.watch_path::<T>(source.path.clone(), &source.params, from, source.accept_watch).await?;
    while let Some(event) = stream.next().await {
        match event? {
            WatchEvent::Added(mut object) | WatchEvent::Modified(mut object) => {
                (source.strip)(&mut object);
                informer.put(object);
            }
            WatchEvent::Deleted(mut object) => {
                (source.strip)(&mut object);
                informer.remove(object);
            }
            WatchEvent::Bookmark { resource_version, .. } => informer.advance(resource_version),
        }
    }
    Ok(())
}

/// Drops `managedFields`, which no component reads and which are half of many objects.
pub(crate) fn strip<T: Meta>(object: &mut T) {
    object.meta_mut().managed_fields = None;
}
