//! Watches: changes of a collection as they happen, one line of JSON or one protobuf frame each.

use super::get::{resource_version, wait};
use super::list::{Selection, check_options};
use super::{Answer, Request};
use crate::body::{Body, BodyError};
use crate::cache::collection::event_line;
use crate::cache::{Change, ChangeKind, Changes, Entry, Filter};
use crate::negotiate::{Format, View};
use crate::{respond, tables};
use api::Status;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use rand::Rng;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// Watchers who want bookmarks get one this often.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(55);
/// Bytes gathered into one frame while changes are waiting.
const FRAME: usize = 32 << 10;

/// Starts a watch.
pub async fn watch(request: Arc<Request>) -> Answer {
    let collection = request.resource.collection("watch")?.clone();
    check_options(&request, true)?;
    let filter = Arc::new(request.face.filter(&request.info)?);
    let bookmarks = request.query.flag("allowWatchBookmarks");
    let sent = request.query.get("sendInitialEvents");
    let initial = sent.map(|_| request.query.flag("sendInitialEvents"));
    let wanted = resource_version(&request)?;
    let mut pending: VecDeque<Out> = VecDeque::new();
    // Looked for as they are sent: a thousand watchers that start at once share one snapshot.
    let mut initial_events = None;
    let changes = match (initial, wanted) {
        // From a point in the past.
        (None, Some(after)) | (Some(false), Some(after)) if after > 0 => {
            wait(&request, Some(after)).await?;
            let Ok((missed, changes)) = collection.watch(filter.clone(), after) else {
                return ended(&request, &gone(after));
            };
            pending.extend(missed.into_iter().map(Out::Change));
            changes
        }
        // From now on, without what is there.
        (Some(false), _) => {
            wait(&request, None).await?;
            collection.watch_from_now(filter.clone(), 0).2
        }
        // What is there first.
        (initial, wanted) => {
            wait(&request, wanted.filter(|_| initial.is_none() || wanted.is_some_and(|w| w > 0))).await?;
            let (items, revision, changes) =
                collection.watch_from_now(filter.clone(), request.server.cache.applied());
            initial_events = Some(Selection::new(items, (*filter).clone(), None));
            if initial == Some(true) && bookmarks {
                pending.push_back(Out::Bookmark { revision, end_of_list: true });
            }
            changes
        }
    };
    let timeout = match request.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds as u64),
        _ => Duration::from_secs(request.server.options.min_request_timeout.into())
            .mul_f64(1.0 + rand::rng().random::<f64>()),
    };
    let media_type = match request.accepted.format {
        Format::Json => "application/json",
        Format::Yaml => return Err(Status::not_acceptable("a watch can't be written as application/yaml")),
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
    };
    let plain = request.accepted.view == View::Whole && request.face.facet.is_none();
    let stream = WatchBody {
        progress: request.server.cache.progress(),
        filter,
        plain,
        initial: initial_events,
        pending,
        changes,
        reached: wanted.unwrap_or(0),
        end: Box::pin(tokio::time::sleep(timeout)),
        bookmark: bookmarks.then(|| Box::pin(tokio::time::sleep(BOOKMARK_INTERVAL))),
        first: true,
        request,
    };
    Ok(respond::bytes(200, media_type, Body::Stream(Box::pin(stream))))
}

/// A watch that can't begin where it was to: it says so as an event, by which clients start anew.
fn ended(request: &Request, why: &Status) -> Answer {
    let object = serde_json::to_value(why).map_err(super::internal)?;
    if request.accepted.format == Format::Protobuf {
        let schema = api::schema::builtin().kind_of("", "v1", "Status");
        let schema = schema.ok_or_else(|| super::internal("the schema of Status is missing"))?;
        let wire = api::protobuf::to_wire(&object, schema).map_err(super::internal)?;
        let frame = api::protobuf::watch_frame("ERROR", &wire);
        return Ok(respond::bytes(200, "application/vnd.kubernetes.protobuf;stream=watch", frame));
    }
    let mut line =
        serde_json::to_vec(&json!({"type": "ERROR", "object": object})).map_err(super::internal)?;
    line.push(b'\n');
    Ok(respond::bytes(200, "application/json", line))
}

fn gone(after: u64) -> Status {
    Status::expired(format!("too old resource version: {after}"))
}

enum Out {
    Change(Arc<Change>),
    Existing(Arc<Entry>),
    Bookmark { revision: u64, end_of_list: bool },
}

struct WatchBody {
    request: Arc<Request>,
    filter: Arc<Filter>,
    progress: watch::Receiver<u64>,
    /// Whether events go out as they are kept: whole, in the kind's own version.
    plain: bool,
    /// What was there at the start and is still to be told.
    initial: Option<Selection>,
    pending: VecDeque<Out>,
    changes: Changes,
    /// The newest revision told.
    reached: u64,
    end: Pin<Box<Sleep>>,
    bookmark: Option<Pin<Box<Sleep>>>,
    /// A table's first rows carry its headings.
    first: bool,
}

impl WatchBody {
    fn bytes(&mut self, out: &Out) -> Option<Bytes> {
        match out {
            Out::Change(change) => {
                self.reached = change.entry.revision;
                let kind = self.filter.view(change)?;
                if self.plain && kind == change.kind {
                    return match self.request.accepted.format {
                        Format::Protobuf => change.frame(|| self.event(kind, &change.entry)),
                        _ => Some(change.line()),
                    };
                }
                // Leaving a selection shows the object as it was when it still belonged, at the new revision.
                match (&change.old, kind == ChangeKind::Deleted && change.kind != ChangeKind::Deleted) {
                    (Some(old), true) => self.event(kind, &old.at(change.entry.revision)),
                    _ => self.event(kind, &change.entry),
                }
            }
            Out::Existing(entry) => self.event(ChangeKind::Added, entry),
            Out::Bookmark { revision, end_of_list } => {
                let mut metadata = json!({"resourceVersion": revision.to_string()});
                if *end_of_list {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                let gvk = &self.request.face.gvk;
                let object = match &self.request.accepted.view {
                    View::Whole => {
                        json!({"kind": gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata})
                    }
                    View::Table(version) => {
                        json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata, "columnDefinitions": null, "rows": []})
                    }
                    View::Metadata(version) => {
                        json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
                    }
                };
                self.frame("BOOKMARK", &object)
            }
        }
    }

    fn event(&mut self, kind: ChangeKind, entry: &Entry) -> Option<Bytes> {
        let request = &self.request;
        if self.plain && request.accepted.format == Format::Json {
            return Some(event_line(kind, entry));
        }
        if request.accepted.format == Format::Protobuf && request.accepted.view == View::Whole {
            let entry = request.shown(entry).ok()?;
            let wire = entry.protobuf(&request.face.schema)?;
            return Some(api::protobuf::watch_frame(kind.name(), &wire).into());
        }
        let object = match &request.accepted.view {
            View::Table(version) => {
                let meta = json!({"resourceVersion": entry.revision.to_string()});
                let mut table = tables::table(request, version, &[entry], meta).ok()?;
                if !std::mem::take(&mut self.first) {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
            View::Metadata(version) if request.accepted.format == Format::Json => {
                let head = respond::metadata_head(version);
                let line =
                    [r#"{"type":""#, kind.name(), r#"","object":"#, &head, entry.metadata(), "}}\n"].concat();
                return Some(line.into());
            }
            View::Metadata(version) => respond::metadata(version, entry).ok()?,
            View::Whole => request.shown(entry).ok()?.value().ok()?,
        };
        self.frame(kind.name(), &object)
    }

    fn frame(&self, kind: &str, object: &Value) -> Option<Bytes> {
        if self.request.accepted.format == Format::Protobuf {
            let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
            let gv = api::GroupVersion::parse(text("apiVersion"));
            let schema = api::schema::builtin().kind_of(&gv.group, &gv.version, text("kind"))?;
            let wire = api::protobuf::to_wire(object, schema).ok()?;
            return Some(api::protobuf::watch_frame(kind, &wire).into());
        }
        let mut line = serde_json::to_vec(&json!({"type": kind, "object": object})).ok()?;
        line.push(b'\n');
        Some(line.into())
    }
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // However much there is to tell, a watch ends when it is time.
        if this.initial.is_none() && this.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        // Read before the queue is: changes up to it are there by now.
        let progress = this.bookmark.as_ref().map(|_| *this.progress.borrow());
        let mut one: Option<Bytes> = None;
        let mut many = BytesMut::new();
        // Everything that waits goes into one frame: it is one write, and one encryption.
        while many.len() + one.as_ref().map_or(0, Bytes::len) < FRAME {
            let existing = this.initial.as_mut().and_then(Iterator::next);
            if existing.is_none() {
                this.initial = None;
            }
            let next = match existing.map(Out::Existing).or_else(|| this.pending.pop_front()) {
                Some(out) => out,
                None => match this.changes.poll_next(cx) {
                    Poll::Ready(Some(change)) => Out::Change(change),
                    // The queue was full: what is left has been told, and the client starts anew from there.
                    Poll::Ready(None) if one.is_none() && many.is_empty() => return Poll::Ready(None),
                    Poll::Ready(None) | Poll::Pending => break,
                },
            };
            let Some(bytes) = this.bytes(&next) else { continue };
            match one.take() {
                None if many.is_empty() => one = Some(bytes),
                Some(first) => {
                    many.extend_from_slice(&first);
                    many.extend_from_slice(&bytes);
                }
                None => many.extend_from_slice(&bytes),
            }
        }
        if let Some(bytes) = one {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !many.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(many.freeze()))));
        }
        if let Some(timer) = &mut this.bookmark
            && timer.as_mut().poll(cx).is_ready()
        {
            timer.as_mut().reset(Instant::now() + BOOKMARK_INTERVAL);
            let _ = timer.as_mut().poll(cx);
            if let Some(revision) = progress.filter(|p| *p > this.reached)
                && let Some(bytes) = this.bytes(&Out::Bookmark { revision, end_of_list: false })
            {
                this.reached = revision;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
        Poll::Pending
    }
}
