//! GET of a collection.

use super::get::{resource_version, wait};
use super::{Answer, Request, internal};
use crate::cache::{Entry, Filter, Items};
use crate::respond::{self, ListMeta};
use api::field::{FieldErrors, FieldPath};
use api::{GroupKind, Status};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where a list goes on: upstream's continue token.
#[derive(Serialize, Deserialize)]
pub struct Continue {
    v: String,
    rv: i64,
    start: String,
    /// How many there are from there on, if that is known: otherwise each page would have them counted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
}

impl Continue {
    /// Reads one. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let json = B64.decode(text.trim_end_matches('=')).ok()?;
        let token: Self = serde_json::from_slice(&json).ok()?;
        (token.v == TOKEN_VERSION && !token.start.is_empty()).then_some(token)
    }
}

/// Continue tokens of this version of the form.
const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Answers with a collection, or a page of it.
pub async fn list(request: &Arc<Request>) -> Answer {
    let collection = request.resource.collection("list")?;
    check_options(request, false)?;
    let filter = request.face.filter(&request.info)?;
    let limit = request.query.number("limit")?.unwrap_or(0).max(0) as usize;
    let mut left = None;
    let (snapshot, revision, after) = match request.query.text("continue") {
        Some(token) => {
            left = Continue::parse(token).filter(|t| t.rv > 0).and_then(|t| t.left);
            go_on(request, token).await?
        }
        None => {
            let wanted = resource_version(request)?;
            let rule = request.query.text("resourceVersionMatch");
            match (rule, wanted) {
                (Some("Exact"), Some(revision)) => {
                    wait(request, Some(revision)).await?;
                    let items = collection
                        .at(revision, request.server.cache.applied())
                        .ok_or_else(|| too_old(revision))?;
                    (items, revision, None)
                }
                (_, wanted) => {
                    wait(request, wanted).await?;
                    let applied = request.server.cache.applied();
                    // What is read in pages is kept whole.
                    let (items, revision) = match limit {
                        0 => collection.narrowed(&filter, applied),
                        _ => collection.snapshot(applied),
                    };
                    (items, revision, None)
                }
            }
        }
    };
    let mut meta = ListMeta { revision, next: None, remaining: None };
    if limit == 0 {
        return respond::list(request, Selection::new(snapshot, filter, after), meta).await;
    }
    let mut items = select(&snapshot, &filter, after.as_deref(), limit + 1);
    if items.len() > limit {
        items.truncate(limit);
        let last = items.last().map(|e| e.key.to_string()).unwrap_or_default();
        if filter.takes_all() {
            let rest = left.and_then(|l: usize| l.checked_sub(limit)).filter(|rest| *rest > 0);
            meta.remaining = Some(rest.unwrap_or_else(|| wanted(&snapshot, &filter, Some(&last)).count()));
        }
        let start = format!("{last}\0");
        let token = Continue { v: TOKEN_VERSION.into(), rv: revision as i64, start, left: meta.remaining };
        meta.next = Some(B64.encode(serde_json::to_vec(&token).map_err(internal)?));
        collection.keep(snapshot, revision);
    }
    respond::list(request, items.into_iter(), meta).await
}

/// Refuses options that contradict each other, as upstream's ListOptions are checked.
pub fn check_options(request: &Request, watch: bool) -> Result<(), Status> {
    let query = &request.query;
    let mut errors = FieldErrors::default();
    let at = || FieldPath::root("resourceVersionMatch");
    let initial = query.get("sendInitialEvents").is_some();
    let rule = query.text("resourceVersionMatch");
    if watch && initial && rule != Some("NotOlderThan") {
        errors.forbidden(at(), "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !watch && initial {
        errors.forbidden(FieldPath::root("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    if let Some(rule) = rule {
        if watch && !initial {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.forbidden(at(), why);
        }
        if !watch && query.text("resourceVersion").is_none() {
            errors.forbidden(at(), "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if query.text("continue").is_some() {
            errors.forbidden(at(), "resourceVersionMatch is forbidden when continue is provided");
        }
        match (watch, rule) {
            (_, "NotOlderThan") | (false, "Exact") => {}
            (true, other) => errors.not_supported(at(), other, &["NotOlderThan"]),
            (false, other) => errors.not_supported(at(), other, &["Exact", "NotOlderThan", ""]),
        }
        if !watch && rule == "Exact" && query.text("resourceVersion") == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.forbidden(at(), why);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: "meta.k8s.io".into(), kind: "ListOptions".into() };
    Err(Status::invalid(&kind, "", &errors))
}

fn too_old(revision: u64) -> Status {
    Status::expired(format!("The resourceVersion for the provided list is too old: {revision}"))
}

/// The snapshot that a continue token speaks of.
async fn go_on(request: &Request, token: &str) -> Result<(Items, u64, Option<String>), Status> {
    let collection = request.resource.collection("list")?;
    if resource_version(request)?.is_some_and(|rv| rv != 0) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let token = Continue::parse(token).ok_or_else(|| Status::bad_request("continue key is not valid"))?;
    let after = token.start.trim_end_matches('\0').to_string();
    if token.rv < 0 {
        // What an expired token was answered with: go on, though not from the same state.
        wait(request, None).await?;
        let (items, revision) = collection.snapshot(request.server.cache.applied());
        return Ok((items, revision, Some(after)));
    }
    let revision = token.rv as u64;
    // Another server may have given the token, and be ahead of this one.
    wait(request, Some(revision)).await?;
    match collection.at(revision, request.server.cache.applied()) {
        Some(items) => Ok((items, revision, Some(after))),
        None => {
            let on = Continue { v: TOKEN_VERSION.into(), rv: -1, start: token.start, left: None };
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
            );
            status.metadata =
                serde_json::json!({"continue": B64.encode(serde_json::to_vec(&on).map_err(internal)?)});
            Err(status)
        }
    }
}

/// The objects that a filter wants, in the order of their keys, after a key, at most `limit`.
pub fn select(items: &Items, filter: &Filter, after: Option<&str>, limit: usize) -> Vec<Arc<Entry>> {
    wanted(items, filter, after).take(limit).cloned().collect()
}

fn wanted<'a>(
    items: &'a Items,
    filter: &'a Filter,
    after: Option<&'a str>,
) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
    let namespace = filter.namespace.as_deref();
    if let Some(name) = &filter.name {
        let key = namespace.map_or_else(|| name.clone(), |n| format!("{n}/{name}"));
        let one = items.get(key.as_str()).filter(|e| after.is_none_or(|after| &*e.key > after));
        return Box::new(one.into_iter().filter(|e| filter.matches(e)));
    }
    let prefix = namespace.map(|n| format!("{n}/")).unwrap_or_default();
    let start: Arc<str> = after.filter(|after| **after > *prefix).unwrap_or(&prefix).into();
    let from = items.range(start..).map(|(_, e)| e).skip_while(move |e| after == Some(&*e.key));
    Box::new(from.take_while(move |e| e.key.starts_with(&prefix)).filter(|e| filter.matches(e)))
}

/// [`select`] without an end, looked for while it is taken: a long list is not gathered before its first byte goes out.
pub struct Selection {
    items: Items,
    filter: Filter,
    after: Option<String>,
    some: std::vec::IntoIter<Arc<Entry>>,
    done: bool,
}

/// Objects that a [`Selection`] looks for at a time.
const AT_A_TIME: usize = 64;

impl Selection {
    /// Of a snapshot what a filter wants, after a key.
    pub fn new(items: Items, filter: Filter, after: Option<String>) -> Self {
        Selection { items, filter, after, some: Vec::new().into_iter(), done: false }
    }
}

impl Iterator for Selection {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        if let Some(entry) = self.some.next() {
            return Some(entry);
        }
        if self.done {
            return None;
        }
        let some = select(&self.items, &self.filter, self.after.as_deref(), AT_A_TIME);
        self.done = some.len() < AT_A_TIME;
        self.after = some.last().map(|e| e.key.to_string());
        self.some = some.into_iter();
        self.some.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_finds_what_is_found_at_once() {
        for count in [0, 1, AT_A_TIME - 1, AT_A_TIME, AT_A_TIME + 1, AT_A_TIME * 2, AT_A_TIME * 3 + 7] {
            let entries = (0..count).flat_map(|i| {
                ["a", "b"].map(|namespace| {
                    let key: Arc<str> = format!("{namespace}/{i:04}").into();
                    (key.clone(), Arc::new(Entry::answer(key, 1, b"{}")))
                })
            });
            let items: Items = entries.collect();
            for (namespace, name) in
                [(None, None), (Some("a"), None), (Some("b"), None), (Some("a"), Some("0000"))]
            {
                let filter = Filter {
                    namespace: namespace.map(Into::into),
                    name: name.map(Into::into),
                    ..Filter::default()
                };
                for after in [None, Some("a/0001".to_string()), Some("b/0000".to_string())] {
                    let keys =
                        |found: Vec<Arc<Entry>>| found.iter().map(|e| e.key.clone()).collect::<Vec<_>>();
                    let want = keys(select(&items, &filter, after.as_deref(), usize::MAX));
                    let got = keys(Selection::new(items.clone(), filter.clone(), after.clone()).collect());
                    assert_eq!(got, want, "{count} {namespace:?} {name:?} {after:?}");
                }
            }
        }
    }
}
