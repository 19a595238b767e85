//! Server-side apply: who owns which field of an object. Start at [`apply`], for `PATCH` with an applied
//! configuration, and [`update`], which every other write goes through
//! but for most that make an object: [`created`].

mod created;
mod entries;
mod set;
mod walk;

pub use created::created;
pub use set::FieldSet;

use crate::schema::{Schema, SchemaRef};
use crate::status::Status;
use entries::{Entries, Entry};
use jiff::Timestamp;
use serde_json::Value;

/// Who writes, and through what.
#[derive(Clone, Copy)]
pub struct Author<'a> {
    /// The field manager; `unknown` if empty.
    pub manager: &'a str,
    /// The version the object is written in.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The time.
    pub now: Timestamp,
    /// Fields that are never written through this endpoint, such as `status`.
    pub reset: Option<&'a FieldSet>,
    /// Set where the kind is served in several versions, since each entry names fields in its own.
    pub versions: Option<&'a dyn Versions>,
}

/// Converts objects between the versions of their kind.
pub trait Versions: Sync {
    /// The object in another version, and that version's schema; `None` if it is not served.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, SchemaRef)>;
}

/// What changed, as the versions see it in which the owners name their fields.
struct Views {
    own: walk::Difference,
    others: Vec<(String, walk::Difference)>,
}

impl Views {
    fn new(live: &Value, new: &Value, schema: &Schema, by: &Author<'_>, entries: &Entries) -> Self {
        let own = filtered(walk::compare(live, new, schema), by);
        let mut others: Vec<(String, walk::Difference)> = Vec::new();
        for e in &entries.0 {
            let known = e.api_version == by.api_version || others.iter().any(|(v, _)| *v == e.api_version);
            if known {
                continue;
            }
            let there = |object: &Value| match object.as_object().is_some_and(|o| o.is_empty()) {
                true => Some(object.clone()),
                false => Some(by.versions?.convert(object, &e.api_version)?.0),
            };
            let converted = by.versions.and_then(|v| v.convert(new, &e.api_version));
            if let (Some(live), Some((new, schema))) = (there(live), converted) {
                others.push((e.api_version.clone(), filtered(walk::compare(&live, &new, &schema), by)));
            }
        }
        Views { own, others }
    }

    fn of(&self, api_version: &str) -> &walk::Difference {
        self.others.iter().find(|(v, _)| v == api_version).map_or(&self.own, |(_, d)| d)
    }
}

/// Why a configuration was not applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that it would change: 409.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// It is not a configuration of this kind.
    #[error("{0}")]
    Invalid(String),
}

/// Fields that others own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts {
    /// The owner, as messages name it (`"kubectl" using apps/v1`), and the field's path.
    pub list: Vec<(String, String)>,
}

impl std::fmt::Display for Conflicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let [(owner, path)] = &*self.list {
            return write!(f, "Apply failed with 1 conflict: conflict with {owner}: {path}");
        }
        write!(f, "Apply failed with {} conflicts: ", self.list.len())?;
        let mut owners: Vec<&String> = self.list.iter().map(|(o, _)| o).collect();
        owners.sort();
        owners.dedup();
        for (i, owner) in owners.into_iter().enumerate() {
            write!(f, "{}conflicts with {owner}:", if i > 0 { "\n" } else { "" })?;
            for (_, path) in self.list.iter().filter(|(o, _)| o == owner) {
                write!(f, "\n- {path}")?;
            }
        }
        Ok(())
    }
}

impl Conflicts {
    /// The answer that says so.
    pub fn status(&self) -> Status {
        let mut status = Status::failure(409, "Conflict", self.to_string());
        for (owner, path) in &self.list {
            status = status.cause("FieldManagerConflict", format!("conflict with {owner}"), path);
        }
        status
    }
}

/// What `kubectl apply` keeps of its last configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Of metadata, what nobody owns.
const UNOWNED: [&str; 9] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

/// Takes out the fields that nobody owns.
fn stripped(set: &mut FieldSet) {
    set.0.remove("f:apiVersion");
    set.0.remove("f:kind");
    let Some(Value::Object(metadata)) = set.0.get_mut("f:metadata") else { return };
    for name in UNOWNED.into_iter().chain(["."]) {
        metadata.remove(name);
    }
    if metadata.is_empty() {
        set.0.remove("f:metadata");
    }
}

fn is_manager_of(e: &Entry, by: &Author<'_>, operation: &str) -> bool {
    let manager = if by.manager.is_empty() { "unknown" } else { by.manager };
    e.manager == manager
        && e.operation == operation
        && e.subresource == by.subresource
        && (operation == "Apply" || e.api_version == by.api_version)
}

fn entry(by: &Author<'_>, operation: &str, fields: FieldSet) -> Entry {
    Entry {
        manager: if by.manager.is_empty() { "unknown".into() } else { by.manager.into() },
        operation: operation.into(),
        api_version: by.api_version.into(),
        subresource: by.subresource.into(),
        time: Some(crate::json::scalar::seconds(by.now)),
        fields,
    }
}

fn filtered(mut difference: walk::Difference, by: &Author<'_>) -> walk::Difference {
    if let Some(reset) = by.reset {
        difference.added.subtract_below(reset);
        difference.removed.subtract_below(reset);
        difference.modified.subtract_below(reset);
    }
    difference
}

/// Writes down who now owns what, after an object was created or changed by other means than apply.
/// `live` is the object as it was, `None` for a new one. A sender may clear `managedFields`, by sending
/// an empty list or a list of one empty item; without them they are taken from the live object.
pub fn update(live: Option<&Value>, new: &mut Value, schema: &Schema, by: &Author<'_>) {
    let sent = entries::take(new);
    let before = live.and_then(entries::of);
    let ours = || before.cloned().and_then(Entries::ours).unwrap_or_default();
    let mut entries = match sent {
        Some(sent) if Some(&sent) == before => Entries::ours(sent).unwrap_or_default(),
        Some(sent) if by.subresource.is_empty() => match Entries::read(&sent) {
            _ if entries::is_reset(&sent) => Entries::default(),
            Some(read) if !read.0.is_empty() => read,
            _ => ours(),
        },
        _ => ours(),
    };
    if entries.0.is_empty() && live.is_some() {
        return; // nobody tracks this object
    }
    track(live, new, schema, by, &mut entries);
    entries.put(new);
}

/// Moves the fields that changed to the one who changed them.
fn track(live: Option<&Value>, new: &Value, schema: &Schema, by: &Author<'_>, entries: &mut Entries) {
    let views = Views::new(live.unwrap_or(&walk::EMPTY), new, schema, by, entries);
    for e in &mut entries.0 {
        let changes = views.of(&e.api_version);
        for set in [&changes.added, &changes.modified, &changes.removed] {
            e.fields.subtract(set);
        }
    }
    entries.0.retain(|e| !e.fields.is_empty());
    let mut mine = views.own.into_written();
    stripped(&mut mine);
    if mine.is_empty() {
        return;
    }
    match entries.0.iter_mut().find(|e| is_manager_of(e, by, "Update")) {
        Some(e) => {
            e.fields.add(&mine);
            e.time = Some(crate::json::scalar::seconds(by.now));
        }
        None => entries.0.push(entry(by, "Update", mine)),
    }
    entries.cap();
}

/// Applies a configuration: the merged object, with its `managedFields`. Where nothing changes, it equals
/// the live object.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: &Schema,
    by: &Author<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let said = config.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if said != by.api_version {
        return Err(ApplyError::Invalid(format!(
            "Incorrect version specified in apply patch. Specified patch version: {said}, expected: {}",
            by.api_version
        )));
    }
    if entries::of(config).is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".into()));
    }
    match merge(live, config, schema, by, force) {
        Err(Refused::Conflicts(mut owned)) if by.manager == "kubectl" => {
            // what client-side apply last set may pass to server-side apply
            let allowed = live.and_then(|live| last_applied(live, schema, by));
            let Some(allowed) = allowed else { return Err(conflicts(owned)) };
            owned.iter_mut().for_each(|(_, set)| set.subtract(&allowed));
            owned.retain(|(_, set)| !set.is_empty());
            if !owned.is_empty() {
                return Err(conflicts(owned));
            }
            merge(live, config, schema, by, true)
        }
        other => other,
    }
    .map_err(|e| match e {
        Refused::Conflicts(owned) => conflicts(owned),
        Refused::Invalid(why) => ApplyError::Invalid(why),
    })
    .map(|mut object| {
        if by.manager == "kubectl" {
            keep_last_applied(&mut object, config);
        }
        object
    })
}

/// Why a merge was refused; conflicts as sets, since some may yet be allowed.
enum Refused {
    Conflicts(Vec<(String, FieldSet)>),
    Invalid(String),
}

fn conflicts(owned: Vec<(String, FieldSet)>) -> ApplyError {
    let list =
        owned.into_iter().flat_map(|(owner, set)| set.paths().into_iter().map(move |p| (owner.clone(), p)));
    ApplyError::Conflicts(Conflicts { list: list.collect() })
}

fn merge(
    live: Option<&Value>,
    config: &Value,
    schema: &Schema,
    by: &Author<'_>,
    force: bool,
) -> Result<Value, Refused> {
    let mut set = walk::fields_of(config, schema)
        .map_err(|why| Refused::Invalid(format!("failed to create typed patch object: {why}")))?;
    let mut entries = match live.and_then(entries::of) {
        Some(m) => {
            Entries::read(m).ok_or_else(|| Refused::Invalid("failed to decode managed fields".into()))?
        }
        None => Entries::default(),
    };
    if let (true, Some(live)) = (entries.0.is_empty(), live) {
        track(None, live, schema, &Author { manager: "before-first-apply", ..*by }, &mut entries);
    }
    for e in &mut entries.0 {
        let theirs = live.filter(|_| e.api_version != by.api_version);
        let theirs = theirs.and_then(|live| by.versions?.convert(live, &e.api_version));
        let schema = theirs.as_ref().map_or(schema, |(_, schema)| schema);
        e.fields = walk::reconciled(std::mem::take(&mut e.fields), schema);
    }
    let base = live.unwrap_or(&walk::EMPTY);
    let mut object = walk::merged(Some(base), Some(config), schema, false).unwrap_or_default();
    entries::take(&mut object);
    if let Some(reset) = by.reset {
        set.subtract_below(reset);
    }
    let at = entries.0.iter().position(|e| is_manager_of(e, by, "Apply"));
    let last = at.map(|at| entries.0.swap_remove(at));
    if let Some(last) = &last {
        // What was applied in another version is looked for in that version.
        let there = Some(last).filter(|last| last.api_version != by.api_version);
        let there = there.and_then(|last| {
            let versions = by.versions?;
            let (object, schema) = versions.convert(&object, &last.api_version)?;
            let now = walk::fields_of(&versions.convert(config, &last.api_version)?.0, &schema).ok()?;
            let left = pruned(object, &last.fields, &now, &entries, &schema);
            Some(versions.convert(&left, by.api_version)?.0)
        });
        let whole = object.clone();
        object = there.unwrap_or_else(|| pruned(object, &last.fields, &set, &entries, schema));
        object = with_owned_elsewhere(&whole, object, &entries, by);
    }
    let views = Views::new(base, &object, schema, by, &entries);
    let owned: Vec<(String, FieldSet)> = entries
        .0
        .iter()
        .map(|e| (e.owner(), e.fields.intersection(&views.of(&e.api_version).written())))
        .filter(|(_, s)| !s.is_empty())
        .collect();
    if !force && !owned.is_empty() {
        return Err(Refused::Conflicts(owned));
    }
    for e in &mut entries.0 {
        let changes = views.of(&e.api_version);
        e.fields.subtract(&changes.written());
        e.fields.subtract(&changes.removed);
    }
    entries.0.retain(|e| !e.fields.is_empty());
    stripped(&mut set);
    if !set.is_empty() {
        let mut mine = entry(by, "Apply", set);
        let mut plain = base.clone();
        entries::take(&mut plain);
        if let (Some(last), true) = (last, plain == object) {
            mine.time = last.time; // nothing changed
        }
        entries.0.push(mine);
    }
    entries.put(&mut object);
    Ok(object)
}

/// The merged object without the fields that this applier set last time, does not set now, and nobody
/// else owns.
fn pruned(merged: Value, last: &FieldSet, now: &FieldSet, others: &Entries, schema: &Schema) -> Value {
    let all_of = |v: &Value| walk::with_named(&walk::fields_of_live(v, schema), schema);
    let last = walk::with_named(last, schema);
    let all = all_of(&merged);
    let mut without = merged.clone();
    walk::remove(&mut without, &last, schema);
    // back come the fields that someone owns ..
    let mut kept = now.clone();
    others.0.iter().for_each(|e| kept.add(&e.fields));
    let mut gone = all.clone();
    gone.subtract(&all_of(&without));
    gone.subtract(&walk::with_named(&kept, schema));
    let mut without = merged.clone();
    walk::remove(&mut without, &gone, schema);
    // .. and those that went with them without having been ours
    let mut gone = all;
    gone.subtract(&all_of(&without));
    let gone = gone.intersection(&last);
    let mut out = merged;
    walk::remove(&mut out, &gone, schema);
    out
}

/// Puts back what others own who name their fields in other versions.
fn with_owned_elsewhere(whole: &Value, mut left: Value, others: &Entries, by: &Author<'_>) -> Value {
    let Some(versions) = by.versions else { return left };
    let mut seen: Vec<&str> = vec![by.api_version];
    for version in others.0.iter().map(|e| e.api_version.as_str()) {
        if seen.contains(&version) {
            continue;
        }
        seen.push(version);
        let there = (versions.convert(whole, version), versions.convert(&left, version));
        let (Some((whole, schema)), Some((less, _))) = there else { continue };
        let mut owned = FieldSet::default();
        others.0.iter().filter(|e| e.api_version == version).for_each(|e| owned.add(&e.fields));
        let all_of = |v: &Value| walk::with_named(&walk::fields_of_live(v, &schema), &schema);
        let mut gone = all_of(&whole);
        gone.subtract(&all_of(&less));
        gone.subtract(&walk::with_named(&owned, &schema));
        let mut back = whole;
        walk::remove(&mut back, &gone, &schema);
        if let Some((back, _)) = versions.convert(&back, by.api_version).filter(|_| back != less) {
            left = back;
        }
    }
    left
}

/// What client-side apply last set and is still so.
fn last_applied(live: &Value, schema: &Schema, by: &Author<'_>) -> Option<FieldSet> {
    let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    let last = crate::json::decode_any(text.as_bytes()).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(by.api_version) {
        return None;
    }
    let mut set = walk::fields_of(&last, schema).ok()?;
    let changes = walk::compare(&last, live, schema);
    set.subtract(&changes.modified);
    set.subtract(&changes.added);
    set.subtract(&changes.removed);
    Some(set)
}

/// Keeps the annotation of client-side apply in step, if the object has it.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let annotation = object.pointer_mut("/metadata/annotations").and_then(|a| a.get_mut(LAST_APPLIED));
    let Some(annotation) = annotation.filter(|a| a.as_str().is_some_and(|a| !a.is_empty())) else { return };
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = Value::String(format!("{config}\n"));
}

#[cfg(test)]
mod tests;
