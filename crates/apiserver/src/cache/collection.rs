//! All objects of one resource, as a value that readers take whole, and the watchers of its changes.

use super::entry::Entry;
use super::filter::Filter;
use super::own::OwnWrites;
use super::pluck::Selectable;
use super::queue::{Changes, Sender, queue};
use bytes::Bytes;
use imbl::OrdMap;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use store::{Event, KeyValue, Revision};

/// Objects by key. Cloning it is O(1), and a clone never changes.
pub type Items = OrdMap<Arc<str>, Arc<Entry>>;

/// Changes kept for watches that start in the past: this many,
const HISTORY: usize = 8000;
/// or this many bytes of objects.
const HISTORY_BYTES: usize = 8 << 20;
/// and for this long: twice what upstream's cache keeps at the least. Memory is given back when nothing happens.
const HISTORY_AGE: Duration = Duration::from_secs(150);
/// Snapshots kept for continue tokens, until the store is compacted,
const SNAPSHOTS: usize = 100;
/// or for this long.
const SNAPSHOT_AGE: Duration = Duration::from_secs(300);

/// The kinds of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It was.
    Modified,
    /// It is gone; the entry shows its last state.
    Deleted,
}

impl ChangeKind {
    /// As watch events name it.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Added => "ADDED",
            ChangeKind::Modified => "MODIFIED",
            ChangeKind::Deleted => "DELETED",
        }
    }
}

/// One change, shared by all who watch.
#[derive(Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object after it; before it, if it is gone.
    pub entry: Arc<Entry>,
    /// The object before it.
    pub old: Option<Arc<Entry>>,
    at: Instant,
    line: OnceLock<Bytes>,
    frame: OnceLock<Option<Bytes>>,
}

impl Change {
    /// A change.
    pub fn new(kind: ChangeKind, entry: Arc<Entry>, old: Option<Arc<Entry>>) -> Self {
        Change { kind, entry, old, at: Instant::now(), line: OnceLock::new(), frame: OnceLock::new() }
    }

    /// The watch event's JSON, with its newline; made once for all watchers.
    pub fn line(&self) -> Bytes {
        self.line.get_or_init(|| event_line(self.kind, &self.entry)).clone()
    }

    /// The watch event in protobuf, made by `make` once for all watchers.
    pub fn frame(&self, make: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        self.frame.get_or_init(make).clone()
    }
}

/// A watch event's JSON, with its newline.
pub fn event_line(kind: ChangeKind, entry: &Entry) -> Bytes {
    let mut line = Vec::with_capacity(entry.json.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.name().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(&entry.json);
    line.extend_from_slice(b"}\n");
    line.into()
}

struct Watcher {
    filter: Arc<Filter>,
    queue: Sender,
}

/// By what a watcher can be found without asking all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// It watches one object.
    Key(Box<str>),
    /// It watches objects with this value of a selectable field.
    Field(usize, Box<str>),
    /// It watches one namespace.
    Namespace(Box<str>),
    /// It watches everything.
    All,
}

#[derive(Default)]
struct State {
    items: Items,
    /// The same objects by the values of indexed fields.
    by_field: HashMap<(usize, Box<str>), Items>,
    /// The newest change.
    last: Revision,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// Changes up to this one are not in `history`.
    forgotten: Revision,
    watchers: HashMap<Index, Vec<Watcher>>,
    snapshots: VecDeque<(Revision, Items, Instant)>,
    /// Lists of how things were before are no longer to be had.
    compacted: Revision,
    /// Changes that came while the collection was loaded; `None` once it is.
    early: Option<Vec<Event>>,
}

/// All objects of one resource.
pub struct Collection {
    /// Store keys begin with this: `/registry/pods/`.
    pub prefix: String,
    /// The fields that selectors may name.
    pub selectable: Vec<Selectable>,
    decode: Decode,
    own: Mutex<OwnWrites>,
    state: Mutex<State>,
}

/// Makes stored bytes into canonical JSON.
pub type Decode = Arc<dyn Fn(&Bytes) -> Result<Bytes, String> + Send + Sync>;

/// Why a watch can't start.
#[derive(Debug, PartialEq)]
pub struct TooOld {
    /// Changes up to this revision are forgotten.
    pub forgotten: Revision,
}

impl Collection {
    /// An empty collection that waits to be loaded.
    pub fn new(prefix: String, selectable: Vec<Selectable>, decode: Decode) -> Self {
        let state = State { early: Some(Vec::new()), ..State::default() };
        Collection { prefix, selectable, decode, own: Mutex::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, OwnWrites> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what a write of this server makes of a key in the store, before it is tried.
    pub fn will_write(&self, key: &Arc<str>, stored: &Bytes, json: &Bytes) {
        self.own().put(key, stored, json);
    }

    /// Forgets what was said of a write that has failed.
    pub fn has_not_written(&self, key: &str) {
        self.own().take(key);
    }

    fn entry(&self, kv: &KeyValue) -> Option<Arc<Entry>> {
        let key = kv.key.strip_prefix(&*self.prefix)?;
        let own = self.own().take(&kv.key).filter(|own| own.stored == kv.value);
        if let Some(own) = &own {
            debug_assert_eq!(
                (self.decode)(&kv.value).as_ref(),
                Ok(&own.json),
                "what is kept reads otherwise"
            );
        }
        let json = own.map_or_else(|| (self.decode)(&kv.value), |own| Ok(own.json));
        let entry = json.and_then(|json| {
            Entry::new(key.into(), kv.mod_revision, &json, &self.selectable).map_err(|e| e.to_string())
        });
        entry.map(Arc::new).map_err(|e| tracing::error!(key = %kv.key, error = %e, "an object in the store can't be read; it is left out")).ok()
    }

    /// Takes what the store holds at `revision`; called at the start, and again when changes were missed.
    pub fn load(&self, items: Vec<KeyValue>, revision: Revision) {
        let fresh: Items = items.iter().filter_map(|kv| self.entry(kv)).map(|e| (e.key.clone(), e)).collect();
        let mut state = self.state();
        let mut changes: Vec<Arc<Change>> = Vec::new();
        if state.early.is_none() {
            // Watchers that are still there are told the difference.
            for (key, entry) in &fresh {
                match state.items.get(key) {
                    Some(old) if old.revision == entry.revision => {}
                    Some(old) => changes.push(Arc::new(Change::new(
                        ChangeKind::Modified,
                        entry.clone(),
                        Some(old.clone()),
                    ))),
                    None => changes.push(Arc::new(Change::new(ChangeKind::Added, entry.clone(), None))),
                }
            }
            for (key, old) in &state.items {
                if !fresh.contains_key(key) {
                    changes.push(Arc::new(Change::new(
                        ChangeKind::Deleted,
                        Arc::new(old.at(revision)),
                        Some(old.clone()),
                    )));
                }
            }
            changes.sort_by_key(|c| c.entry.revision);
        }
        state.by_field.clear();
        for entry in fresh.values() {
            state.index(None, Some(entry), &self.selectable);
        }
        state.items = fresh;
        state.last = revision;
        state.forgotten = revision;
        state.history.clear();
        state.history_bytes = 0;
        for change in &changes {
            state.tell(change);
        }
        let early = state.early.take().unwrap_or_default();
        drop(state);
        for event in early.iter().filter(|e| e.revision() > revision) {
            self.apply(event);
        }
    }

    /// Takes one change. Changes come in the order of their revisions.
    pub fn apply(&self, event: &Event) {
        {
            let mut state = self.state();
            if let Some(early) = &mut state.early {
                early.push(event.clone());
                return;
            }
            if event.revision() <= state.last {
                return; // it was loaded with it
            }
        }
        match event {
            Event::Put(kv) => {
                let Some(entry) = self.entry(kv) else { return };
                let mut state = self.state();
                let old = state.items.insert(entry.key.clone(), entry.clone());
                state.index(old.as_ref(), Some(&entry), &self.selectable);
                let kind = if old.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                state.record(Arc::new(Change::new(kind, entry, old)));
            }
            Event::Delete { key, revision } => {
                let Some(key) = key.strip_prefix(&*self.prefix) else { return };
                let mut state = self.state();
                if let Some(old) = state.items.remove(key) {
                    state.index(Some(&old), None, &self.selectable);
                    let last = Arc::new(old.at(*revision));
                    state.record(Arc::new(Change::new(ChangeKind::Deleted, last, Some(old))));
                }
            }
        }
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state().items.get(key).cloned()
    }

    /// All objects, and the revision they are of, which is at least `applied`: the revision up to
    /// which the whole cache has been brought.
    pub fn snapshot(&self, applied: Revision) -> (Items, Revision) {
        let state = self.state();
        (state.items.clone(), state.last.max(applied))
    }

    /// As [`Collection::snapshot`], without objects that a filter surely does not want.
    pub fn narrowed(&self, filter: &Filter, applied: Revision) -> (Items, Revision) {
        let state = self.state();
        (state.narrowed(filter, &self.selectable), state.last.max(applied))
    }

    /// The newest change.
    pub fn last(&self) -> Revision {
        self.state().last
    }

    /// Keeps a snapshot for those who read it page by page.
    pub fn keep(&self, items: Items, revision: Revision) {
        let mut state = self.state();
        if state.snapshots.iter().any(|(r, ..)| *r == revision) {
            return;
        }
        if state.snapshots.len() == SNAPSHOTS {
            state.snapshots.pop_front();
        }
        state.snapshots.push_back((revision, items, Instant::now()));
    }

    /// Forgets what is older than anyone should ask for: changes, and snapshots.
    pub fn forget_old(&self, now: Instant) {
        let mut state = self.state();
        let old = |at: Instant, age: Duration| now.saturating_duration_since(at) > age;
        while state.history.front().is_some_and(|c| old(c.at, HISTORY_AGE)) {
            state.forget_first();
        }
        if state.history.is_empty() {
            state.history.shrink_to_fit();
        }
        state.snapshots.retain(|(_, _, at)| !old(*at, SNAPSHOT_AGE));
    }

    /// Forgets how things were before `revision`, but for watchers.
    pub fn compact(&self, revision: Revision) {
        let mut state = self.state();
        state.compacted = revision;
        state.snapshots.retain(|(r, ..)| *r >= revision);
    }

    /// The collection as it was at exactly `revision`, if that is still known.
    pub fn at(&self, revision: Revision, applied: Revision) -> Option<Items> {
        let state = self.state();
        if revision < state.compacted {
            return None;
        }
        if revision >= state.last && revision <= applied.max(state.last) {
            return Some(state.items.clone());
        }
        if let Some((_, items, _)) = state.snapshots.iter().find(|(r, ..)| *r == revision) {
            return Some(items.clone());
        }
        if revision < state.forgotten {
            return None;
        }
        // Undo the changes that came after it.
        let mut items = state.items.clone();
        for change in state.history.iter().rev().take_while(|c| c.entry.revision > revision) {
            match &change.old {
                Some(old) => items.insert(change.entry.key.clone(), old.clone()),
                None => items.remove(&change.entry.key),
            };
        }
        Some(items)
    }

    /// Starts a watch of changes after `after`. Answers those already known that fit, and the queue of those to come.
    pub fn watch(&self, filter: Arc<Filter>, after: Revision) -> Result<(Vec<Arc<Change>>, Changes), TooOld> {
        let mut state = self.state();
        if after < state.forgotten {
            return Err(TooOld { forgotten: state.forgotten });
        }
        let start = state.history.partition_point(|c| c.entry.revision <= after);
        let missed = state.history.range(start..).filter(|c| filter.concerns(c)).cloned().collect();
        Ok((missed, state.add_watcher(filter)))
    }

    /// Starts a watch from now on. Answers what [`Collection::narrowed`] does, and the queue of changes to come.
    pub fn watch_from_now(&self, filter: Arc<Filter>, applied: Revision) -> (Items, Revision, Changes) {
        let mut state = self.state();
        let items = state.narrowed(&filter, &self.selectable);
        let queue = state.add_watcher(filter);
        (items, state.last.max(applied), queue)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state().items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends all watches, as when the resource is no longer served.
    pub fn close(&self) {
        self.state().watchers.clear();
    }
}

impl State {
    /// Puts an object where its indexed values are now, and takes it away from where they were.
    fn index(&mut self, old: Option<&Arc<Entry>>, new: Option<&Arc<Entry>>, selectable: &[Selectable]) {
        for i in selectable.iter().enumerate().filter(|(_, s)| s.indexed).map(|(i, _)| i) {
            let of = |entry: &Entry| (i, entry.fields.get(i).cloned().flatten().unwrap_or_default());
            let (old, new) = (old.map(|e| (of(e), e)), new.map(|e| (of(e), e)));
            if let Some((at, old)) = old.filter(|(at, _)| new.as_ref().is_none_or(|(now, _)| now != at))
                && let Some(items) = self.by_field.get_mut(&at)
            {
                items.remove(&old.key);
                if items.is_empty() {
                    self.by_field.remove(&at);
                }
            }
            if let Some((at, new)) = new {
                self.by_field.entry(at).or_default().insert(new.key.clone(), new.clone());
            }
        }
    }

    fn narrowed(&self, filter: &Filter, selectable: &[Selectable]) -> Items {
        match filter.index() {
            Index::Field(i, value) if selectable.get(i).is_some_and(|s| s.indexed) => {
                self.by_field.get(&(i, value)).cloned().unwrap_or_default()
            }
            _ => self.items.clone(),
        }
    }

    fn add_watcher(&mut self, filter: Arc<Filter>) -> Changes {
        let (queue, changes) = queue();
        let watchers = self.watchers.entry(filter.index()).or_default();
        watchers.retain(|w| !w.queue.is_closed());
        watchers.push(Watcher { filter, queue });
        changes
    }

    fn record(&mut self, change: Arc<Change>) {
        self.last = change.entry.revision;
        self.tell(&change);
        self.history_bytes += change.entry.json.len();
        self.history.push_back(change);
        while self.history.len() > HISTORY || self.history_bytes > HISTORY_BYTES && self.history.len() > 1 {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(gone) = self.history.pop_front() {
            self.history_bytes -= gone.entry.json.len();
            self.forgotten = gone.entry.revision;
        }
    }

    fn tell(&mut self, change: &Arc<Change>) {
        if self.watchers.is_empty() {
            return;
        }
        let entry = &change.entry;
        self.tell_indexed(&Index::All, change);
        self.tell_indexed(&Index::Key((&*entry.key).into()), change);
        self.tell_indexed(&Index::Namespace(entry.namespace().into()), change);
        for (i, value) in entry.fields.iter().enumerate() {
            let value = value.as_deref().unwrap_or_default();
            self.tell_indexed(&Index::Field(i, value.into()), change);
            // An object that leaves a selection is told to those who had it.
            let before = change
                .old
                .as_ref()
                .map(|old| old.fields.get(i).and_then(|v| v.as_deref()).unwrap_or_default());
            if let Some(before) = before.filter(|before| *before != value) {
                self.tell_indexed(&Index::Field(i, before.into()), change);
            }
        }
    }

    fn tell_indexed(&mut self, index: &Index, change: &Arc<Change>) {
        let Some(watchers) = self.watchers.get_mut(index) else { return };
        // A watcher whose queue is full is dropped; its stream ends, and it starts anew.
        watchers.retain(|w| {
            !w.filter.concerns(change) && !w.queue.is_closed()
                || w.filter.concerns(change) && w.queue.send(change)
        });
        if watchers.is_empty() {
            self.watchers.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::filter::{Field, FieldTest};

    fn pods() -> Collection {
        let selectable = vec![
            Selectable::new("*spec.nodeName", &api::schema::any()),
            Selectable::new("status.phase", &api::schema::any()),
        ];
        let pods = Collection::new("/registry/pods/".into(), selectable, Arc::new(|bytes| Ok(bytes.clone())));
        pods.load(vec![put("a", 1, "n1")], 1);
        pods
    }

    fn put(name: &str, revision: Revision, node: &str) -> KeyValue {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"nodeName":"{node}"}},"status":{{"phase":"Running"}}}}"#
        );
        let key = format!("/registry/pods/ns/{name}").into();
        KeyValue { key, value: json.into(), mod_revision: revision }
    }

    fn test(field: usize, value: &str) -> FieldTest {
        FieldTest { field: Field::Selectable(field), value: value.into(), equal: true }
    }

    fn names(pods: &Collection, fields: &[FieldTest]) -> Vec<String> {
        let filter = Filter { fields: fields.to_vec(), ..Filter::default() };
        let (items, _) = pods.narrowed(&filter, 0);
        items.values().map(|e| e.name().to_string()).collect()
    }

    #[test]
    fn an_indexed_field_narrows_what_is_looked_through() {
        let pods = pods();
        let on = |node: &str| names(&pods, &[test(0, node)]);
        for (name, revision, node) in [("b", 2, "n1"), ("c", 3, "n2"), ("d", 4, "")] {
            pods.apply(&Event::Put(put(name, revision, node)));
        }
        assert_eq!(
            (on("n1"), on("n2"), on("")),
            (vec!["a".into(), "b".into()], vec!["c".into()], vec!["d".into()])
        );
        let (before, _) = pods.narrowed(&Filter { fields: vec![test(0, "n1")], ..Filter::default() }, 0);
        pods.apply(&Event::Put(put("d", 5, "n2"))); // it is bound
        pods.apply(&Event::Put(put("a", 6, "n1"))); // it changes
        pods.apply(&Event::Delete { key: "/registry/pods/ns/b".into(), revision: 7 });
        assert_eq!((on("n1"), on("n2"), on("")), (vec!["a".into()], vec!["c".into(), "d".into()], vec![]));
        assert_eq!(before.len(), 2, "what was handed out does not change");
        let (now, _) = pods.narrowed(&Filter { fields: vec![test(0, "n1")], ..Filter::default() }, 0);
        assert_eq!(now.values().map(|e| e.revision).collect::<Vec<_>>(), [6]);
        // Whatever is not indexed is looked for in everything.
        assert_eq!(names(&pods, &[test(1, "Running")]).len(), 3);
        assert_eq!(names(&pods, &[test(1, "Running"), test(0, "n2")]).len(), 3);
        // Loaded anew, it is the same.
        pods.load(vec![put("c", 3, "n2"), put("e", 8, "n3")], 9);
        assert_eq!((on("n1"), on("n2"), on("n3")), (vec![], vec!["c".into()], vec!["e".into()]));
    }

    #[test]
    fn what_is_old_is_forgotten_without_further_changes() {
        let pods = pods();
        pods.apply(&Event::Put(put("b", 2, "n1")));
        let (items, revision) = pods.snapshot(2);
        pods.keep(items, revision);
        pods.apply(&Event::Put(put("b", 3, "n1")));
        let filter = Arc::new(Filter::default());
        pods.forget_old(Instant::now());
        assert!(pods.watch(filter.clone(), 1).is_ok_and(|(missed, _)| missed.len() == 2));
        pods.forget_old(Instant::now() + HISTORY_AGE + Duration::from_secs(1));
        assert_eq!(pods.watch(filter.clone(), 1).err(), Some(TooOld { forgotten: 3 }));
        assert!(pods.watch(filter, 3).is_ok(), "who has seen all goes on");
        assert!(pods.at(2, 3).is_some());
        pods.forget_old(Instant::now() + SNAPSHOT_AGE + Duration::from_secs(1));
        assert!(pods.at(2, 3).is_none() && pods.at(3, 3).is_some());
    }

    #[test]
    fn the_past_ends_with_compaction() {
        let pods = pods();
        let (items, revision) = pods.snapshot(1);
        pods.keep(items, revision);
        pods.apply(&Event::Put(put("b", 2, "n1")));
        assert_eq!(pods.at(1, 2).map(|items| items.len()), Some(1));
        pods.compact(2);
        assert!(pods.at(1, 2).is_none());
        assert_eq!(pods.at(2, 2).map(|items| items.len()), Some(2));
    }
}
