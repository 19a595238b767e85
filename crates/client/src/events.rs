//! Events: what a daemon did to an object, for people to read. Like events become one with a count.
//! Start at [`EventRecorder`].

use crate::tasks;
use crate::verbs::{Client, Patch};
use api::time;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

/// Events that wait to be written; more are dropped, as upstream does.
const WAITING: usize = 1000;
/// As upstream's correlator: objects and series remembered, likeness, and how many for one object.
const REMEMBERED: usize = 4096;
const SIMILAR: usize = 10;
const SIMILAR_FOR: Duration = Duration::from_secs(600);
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const TRIES: usize = 12;

/// Whether something went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// It did.
    Normal,
    /// It may not have.
    Warning,
}

impl EventType {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

struct Message {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events. Never blocks; clones share a queue. Its task ends with the last clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Message>,
}

impl EventRecorder {
    /// Records as a component, which runs on `host` if that matters.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (queue, mut waiting) = mpsc::channel(WAITING);
        let source = EventSource {
            component: Some(component.into()),
            host: Some(host.to_string()).filter(|h| !h.is_empty()),
        };
        tokio::spawn(async move {
            let mut correlator = Correlator::default();
            while let Some(message) = waiting.recv().await {
                let written = AssertUnwindSafe(async {
                    if let Some(step) = correlator.decide(message, &source) {
                        write(&client, &mut correlator, step).await;
                    }
                });
                // What it remembers only makes like events one: it begins anew rather than write no more.
                if let Err(panic) = written.catch_unwind().await {
                    tracing::error!("writing an event panicked: {}", tasks::message(&*panic));
                    correlator = Correlator::default();
                }
            }
        });
        EventRecorder { queue }
    }

    /// Records that something happened to an object.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let message =
            Message { object: object.clone(), kind, reason: reason.into(), message: message.into() };
        if let Err(mpsc::error::TrySendError::Full(m)) = self.queue.try_send(message) {
            tracing::warn!("too many events, dropped {}: {}", m.reason, m.message);
        }
    }
}

/// What makes events one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SeriesKey {
    object: ObjectIdentity,
    kind: EventType,
    reason: String,
    message: String,
}

type ObjectIdentity = (String, String, String, String, String, String);

fn identity(o: &ObjectReference) -> ObjectIdentity {
    let s = |v: &Option<String>| v.clone().unwrap_or_default();
    (s(&o.api_version), s(&o.kind), s(&o.namespace), s(&o.name), s(&o.uid), s(&o.field_path))
}

struct Written {
    name: String,
    count: i32,
}

struct Similar {
    messages: HashSet<String>,
    last: Instant,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// What is to be written.
enum Step {
    Create(SeriesKey, Box<Event>),
    /// One more of a series: the event as it would be created anew, if it is gone.
    Count(SeriesKey, String, Box<Event>),
}

/// Remembers what was written.
#[derive(Default)]
struct Correlator {
    series: HashMap<SeriesKey, Written>,
    similar: HashMap<(ObjectIdentity, EventType, String), Similar>,
    buckets: HashMap<ObjectIdentity, Bucket>,
}

/// What is forgotten when there is too much is arbitrary: at worst an event is written anew.
fn make_room<K: Eq + Hash + Clone, V>(map: &mut HashMap<K, V>) {
    if map.len() >= REMEMBERED
        && let Some(key) = map.keys().next().cloned()
    {
        map.remove(&key);
    }
}

impl Correlator {
    fn decide(&mut self, m: Message, source: &EventSource) -> Option<Step> {
        let (object, now) = (identity(&m.object), Instant::now());
        if !self.take_token(&object, now) {
            return None;
        }
        let like = (object.clone(), m.kind, m.reason.clone());
        make_room(&mut self.similar);
        let similar =
            self.similar.entry(like).or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if now - similar.last > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR {
            similar.messages.insert(m.message.clone());
        }
        // Many different messages about one thing count as one.
        let combined = similar.messages.len() >= SIMILAR;
        let text =
            if combined { format!("(combined from similar events): {}", m.message) } else { m.message };
        let series_text = if combined { String::new() } else { text.clone() };
        let key = SeriesKey { object, kind: m.kind, reason: m.reason.clone(), message: series_text };
        let mut event = event(m.object, source, m.kind, m.reason, text);
        match self.series.get_mut(&key) {
            None => Some(Step::Create(key, Box::new(event))),
            Some(w) => {
                w.count = w.count.saturating_add(1);
                event.count = Some(w.count);
                Some(Step::Count(key, w.name.clone(), Box::new(event)))
            }
        }
    }

    fn take_token(&mut self, object: &ObjectIdentity, now: Instant) -> bool {
        make_room(&mut self.buckets);
        let bucket = self.buckets.entry(object.clone()).or_insert(Bucket { tokens: BURST, at: now });
        bucket.tokens = (bucket.tokens + (now - bucket.at).as_secs_f64() * REFILL_PER_SECOND).min(BURST);
        bucket.at = now;
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }

    fn written(&mut self, key: SeriesKey, event: &Event) {
        make_room(&mut self.series);
        let name = event.metadata.name.clone().unwrap_or_default();
        self.series.insert(key, Written { name, count: event.count.unwrap_or(1) });
    }
}

fn event(
    object: ObjectReference,
    source: &EventSource,
    kind: EventType,
    reason: String,
    message: String,
) -> Event {
    let now = time::now();
    let mut event = Event {
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        involved_object: object,
        message: Some(message),
        reason: Some(reason),
        source: Some(source.clone()),
        type_: Some(kind.as_str().into()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        ..Event::default()
    };
    // Events about cluster-scoped objects live in `default`.
    let namespace = event.involved_object.namespace.clone().filter(|n| !n.is_empty());
    event.metadata.namespace = Some(namespace.unwrap_or_else(|| "default".into()));
    let about = event.involved_object.name.as_deref().unwrap_or_default();
    event.metadata.name = Some(format!("{about}.{:x}", jiff::Timestamp::now().as_nanosecond()));
    event
}

async fn write(client: &Client, correlator: &mut Correlator, step: Step) {
    for attempt in 1..=TRIES {
        let (result, key) = match &step {
            Step::Create(key, event) => (client.create::<Event>(event).await, key),
            Step::Count(key, name, event) => {
                let patch = json!({
                    "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message,
                });
                let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
                match client.patch::<Event>(namespace, name, &Patch::Strategic(patch)).await {
                    // It is kept for an hour only.
                    Err(e) if e.is_not_found() => (client.create::<Event>(event).await, key),
                    other => (other, key),
                }
            }
        };
        match result {
            Ok(written) => return correlator.written(key.clone(), &written),
            Err(e) if e.is_already_exists() || e.is_namespace_terminating() => return,
            Err(e) if e.status().is_some() || attempt == TRIES => {
                tracing::warn!("an event was not written: {e}");
                return;
            }
            Err(e) => {
                tracing::debug!("writing an event again: {e}");
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, text: &str) -> Message {
        let object =
            ObjectReference { name: Some(name.into()), namespace: Some("ns".into()), ..Default::default() };
        Message { object, kind: EventType::Normal, reason: "R".into(), message: text.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn like_events_become_one() {
        let (mut c, source) = (Correlator::default(), EventSource::default());
        let Some(Step::Create(key, event)) = c.decide(message("a", "x"), &source) else {
            panic!("not created")
        };
        assert!(event.metadata.name.as_deref().is_some_and(|n| n.starts_with("a.")));
        c.written(key, &event);
        let Some(Step::Count(_, name, event)) = c.decide(message("a", "x"), &source) else {
            panic!("not counted")
        };
        assert_eq!((Some(name), event.count), (event.metadata.name.clone().map(|_| name_of(&c)), Some(2)));
        assert!(matches!(c.decide(message("b", "x"), &source), Some(Step::Create(..))));
        for i in 0..10 {
            let step = c.decide(message("a", &format!("m{i}")), &source);
            let Some(Step::Create(_, event)) = step else { panic!("not created") };
            let combined =
                event.message.as_deref().is_some_and(|m| m.starts_with("(combined from similar events): m"));
            assert_eq!(combined, i >= 8, "{i}"); // "x" was the first
        }
        let allowed = (0..30).filter(|_| c.decide(message("a", "y"), &source).is_some()).count();
        assert_eq!(allowed, 25 - 12);
    }

    fn name_of(c: &Correlator) -> String {
        c.series.values().next().map(|w| w.name.clone()).unwrap_or_default()
    }
}
