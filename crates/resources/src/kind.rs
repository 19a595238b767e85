//! The shape that every kind's rules have: [`Kind`], and [`AnyKind`], which forgets the type.

use crate::table::{Column, Heading};
use api::field::FieldErrors;
use api::object::{AnyObject, Object};
use api::{GroupResource, GroupVersionKind, Status};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;

/// How a kind is called.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind, such as `Pod`.
    pub kind: &'static str,
    /// Resource, such as `pods`.
    pub plural: &'static str,
    /// Such as `pod`.
    pub singular: &'static str,
    /// Such as `po`.
    pub short: &'static [&'static str],
    /// Such as `all`.
    pub categories: &'static [&'static str],
}

impl Names {
    /// The resource whatever its version.
    pub fn resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }
}

/// Which requests a resource takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// All of them.
    All,
    /// All but the deletion of a collection.
    NotDeleteCollection,
    /// Create alone: review kinds, which are answered and never kept.
    CreateOnly,
    /// Get and list: kinds that the server's own code makes up, and that are never kept.
    Computed,
}

/// How a kind's objects are kept.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The path below the store's root, such as `services/specs`: upstream's, so that data can be handed over.
    pub prefix: &'static str,
    /// Acknowledged from memory, since the cluster renews it by itself.
    pub in_memory: bool,
    /// Seconds after which an object goes away by itself; 0 for never.
    pub ttl_seconds: u64,
}

/// What a rule may know of the request besides the object.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// When the request came.
    pub now: Timestamp,
    /// Who asks.
    pub user: &'a str,
    /// What tells two users of one name apart; often empty.
    pub uid: &'a str,
    /// The groups of who asks.
    pub groups: &'a [String],
    /// What else is known of who asks.
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// A subresource that shows the whole object and lets a part of it be changed.
pub struct Part<T: 'static> {
    /// Such as `approval`.
    pub name: &'static str,
    /// Makes `new`, as the client sent it, into the object that is kept: usually `old` with that part of `new`.
    pub prepare: fn(new: &mut T, old: &T, context: &Context<'_>),
    /// Checks the change.
    pub validate: fn(new: &T, old: &T, errors: &mut FieldErrors),
}

/// The `scale` subresource.
pub struct Scale<T: 'static> {
    /// `spec.replicas`.
    pub replicas: fn(&T) -> i32,
    /// Sets `spec.replicas`.
    pub set_replicas: fn(&mut T, i32),
    /// `status.replicas`.
    pub current: fn(&T) -> i32,
    /// The label selector, in its string form.
    pub selector: fn(&T) -> String,
}

/// A subresource of a kind, with its type forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `status` or another [`Part`].
    Part(&'static str),
    /// `scale`.
    Scale,
    /// POST changes the object: `binding`.
    Edit(&'static str),
    /// The server has code for it, found by resource and this name: `token`, `eviction`, `log`, `exec`, `proxy`.
    Served(&'static str),
}

impl Subresource {
    /// Its path segment.
    pub fn name(self) -> &'static str {
        match self {
            Subresource::Part(name) | Subresource::Edit(name) | Subresource::Served(name) => name,
            Subresource::Scale => "scale",
        }
    }
}

/// A POST that changes an object: `pods/binding`.
pub struct Edit<T: 'static> {
    /// Path segment.
    pub name: &'static str,
    /// Kind of the body.
    pub body: (&'static str, &'static str, &'static str),
    /// Changes the object.
    pub apply: fn(object: &mut T, body: &Value) -> Result<(), Status>,
}

/// A kind served by the server's own code.
pub struct Served {
    /// Path segment.
    pub name: &'static str,
    /// Group, version and kind of its body; of the parent where there is no body.
    pub body: (&'static str, &'static str, &'static str),
    /// The HTTP methods, lower case API verbs for discovery.
    pub verbs: &'static [&'static str],
}

/// A further version in which a kind's objects are served. They are kept, checked and admitted in the
/// kind's own; what is here stands at the edge. Group, version and kind are rewritten by the server.
pub struct Version {
    /// How the kind is called in this version.
    pub names: Names,
    /// Makes an object of this version one of the kind's own.
    pub to_own: fn(&mut Value),
    /// The other way; nothing is lost on the way there and back.
    pub from_own: fn(&mut Value),
    /// What is asked of objects that are made or changed through this version, beyond what the kind asks; they
    /// are in the kind's own form.
    pub check: Option<fn(new: &Value, old: Option<&Value>, errors: &mut FieldErrors)>,
    /// What clients are told who still use it; empty where nothing is wrong with it.
    pub deprecated: &'static str,
    /// Fields that selectors may name in this version, and their names in the kind's own.
    pub selectable: &'static [(&'static str, &'static str)],
}

/// All rules of one kind. Take [`Kind::namespaced`] or [`Kind::cluster`] and set what is particular.
pub struct Kind<T: 'static> {
    /// How it is called.
    pub names: Names,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Other versions in which it is served.
    pub versions: &'static [Version],
    /// Which requests it takes.
    pub verbs: Verbs,
    /// How it is kept.
    pub stored: Stored,
    /// The version in which etcd has it, of the same form, where upstream has not moved to this one; or empty.
    pub stored_version: &'static str,
    /// Whether there is a `status` subresource: then it alone changes `status`.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    pub has_generation: bool,
    /// Whether PUT to a name that is not there creates it.
    pub create_on_update: bool,
    /// Whether an update without resourceVersion is accepted.
    pub unconditional_update: bool,
    /// Names are valid by this; answers what is wrong.
    pub name_rule: fn(&str, bool) -> Vec<String>,
    /// Sets what depends on other fields, after the schema's own defaults.
    pub default: fn(&mut T),
    /// Drops what a client must not set, and sets what only the server does, at creation.
    pub prepare_create: fn(&mut T, &Context<'_>),
    /// The same for an update.
    pub prepare_update: fn(new: &mut T, old: &T, context: &Context<'_>),
    /// Checks a new object. `metadata` is checked for all kinds alike.
    pub validate: fn(&T, &mut FieldErrors),
    /// Checks an update. It must repeat what [`Kind::validate`] checks if that still holds.
    pub validate_update: fn(new: &T, old: &T, errors: &mut FieldErrors),
    /// Checks an update of `status`.
    pub validate_status: fn(new: &T, old: &T, errors: &mut FieldErrors),
    /// Sets what a write of `status` leaves out, and drops what it must not set.
    pub prepare_status: fn(new: &mut T, old: &T, &Context<'_>),
    /// Warnings for the client that sent it, in the place of an old one or as a new one.
    pub warnings: fn(new: &T, old: Option<&T>) -> Vec<String>,
    /// Other subresources that show the whole object.
    pub parts: &'static [Part<T>],
    /// The `scale` subresource.
    pub scale: Option<Scale<T>>,
    /// POSTs that change the object.
    pub edits: &'static [Edit<T>],
    /// Subresources of the server's own.
    pub served: &'static [Served],
    /// JSON paths that field selectors may name, besides `metadata.name` and `metadata.namespace`;
    /// `name=path` where selectors call it otherwise, `name=path|other` where another field stands in for it. With
    /// a `*` in front, objects are also kept by its value, since each of many clients asks for one.
    pub selectable: &'static [&'static str],
    /// Columns after the name. The age is written here too, if there is one.
    pub columns: &'static [Column<T>],
    /// Seconds that an object is given to end before it is removed; `None` for removal at once.
    pub grace: fn(&T, asked: Option<i64>) -> Option<i64>,
    /// Whether what it owns stays when it is deleted, unless the client says otherwise.
    pub orphans: bool,
    /// Whether a deletion is answered with the object, and not with a Status.
    pub answers_deleted: bool,
    /// Changes an object that is about to wait for its end.
    pub prepare_delete: fn(&mut T),
    /// Whether something besides `metadata.finalizers` keeps a deleted object from going away.
    pub held: fn(&T) -> bool,
}

fn held_by_nothing<T>(_: &T) -> bool {
    false
}
fn nothing<T>(_: &mut T) {}
fn nothing_to_create<T>(_: &mut T, _: &Context<'_>) {}
fn nothing_to_update<T>(_: &mut T, _: &T, _: &Context<'_>) {}
fn valid<T>(_: &T, _: &mut FieldErrors) {}
fn valid_update<T>(_: &T, _: &T, _: &mut FieldErrors) {}
fn no_warnings<T>(_: &T, _: Option<&T>) -> Vec<String> {
    Vec::new()
}
fn at_once<T>(_: &T, _: Option<i64>) -> Option<i64> {
    None
}

/// The age column, for kinds whose table has just that.
pub const fn age_column<T: AnyObject>() -> Column<T> {
    Column::text("Age", "How long ago it was created.", |o, now| {
        crate::table::age(o.meta().creation_timestamp.as_ref(), now)
    })
}

/// A first column that shows more than the name.
pub const fn name_column<T>(cell: fn(&T, Timestamp) -> Value) -> Column<T> {
    let mut column = Column::text("Name", "The name, which is unique within a namespace.", cell);
    column.format = "name";
    column
}

impl<T: k8s_openapi::Resource> Kind<T> {
    /// The rules of a namespaced kind without anything particular.
    pub const fn namespaced(singular: &'static str, prefix: &'static str) -> Self {
        Kind {
            names: Names {
                group: T::GROUP,
                version: T::VERSION,
                kind: T::KIND,
                plural: T::URL_PATH_SEGMENT,
                singular,
                short: &[],
                categories: &[],
            },
            namespaced: true,
            versions: &[],
            verbs: Verbs::All,
            stored: Stored { prefix, in_memory: false, ttl_seconds: 0 },
            stored_version: "",
            has_status: false,
            has_generation: false,
            create_on_update: false,
            unconditional_update: true,
            name_rule: crate::kind::subdomain_name,
            default: nothing,
            prepare_create: nothing_to_create,
            prepare_update: nothing_to_update,
            validate: valid,
            validate_update: valid_update,
            validate_status: valid_update,
            prepare_status: nothing_to_update,
            warnings: no_warnings,
            parts: &[],
            scale: None,
            edits: &[],
            served: &[],
            selectable: &[],
            columns: &[],
            grace: at_once,
            orphans: false,
            answers_deleted: false,
            prepare_delete: nothing,
            held: held_by_nothing,
        }
    }

    /// The rules of a cluster-scoped kind without anything particular.
    pub const fn cluster(singular: &'static str, prefix: &'static str) -> Self {
        let mut kind = Self::namespaced(singular, prefix);
        kind.namespaced = false;
        kind
    }
}

impl<T> Kind<T> {
    /// Short names and categories.
    pub const fn called(
        mut self,
        short: &'static [&'static str],
        categories: &'static [&'static str],
    ) -> Self {
        self.names.short = short;
        self.names.categories = categories;
        self
    }
}

/// Names are DNS subdomains (RFC 1123). With `prefix`, it is the start of a generated name.
pub fn subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    api::names::dns1123_subdomain(without_dash(name, prefix))
}

/// Names are DNS labels (RFC 1123).
pub fn label_name(name: &str, prefix: bool) -> Vec<String> {
    api::names::dns1123_label(without_dash(name, prefix))
}

/// Names are DNS labels by the older rule (RFC 1035), as services' are.
pub fn label_1035_name(name: &str, prefix: bool) -> Vec<String> {
    api::names::dns1035_label(without_dash(name, prefix))
}

/// Any name that can stand in a path: no `/`, no `%`, not `.` or `..`.
pub fn path_segment_name(name: &str, prefix: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if !prefix && (name == "." || name == "..") {
        faults.push(format!("may not be '{name}'"));
    }
    for c in ['/', '%'] {
        if name.contains(c) {
            faults.push(format!("may not contain '{c}'"));
        }
    }
    faults
}

fn without_dash(name: &str, prefix: bool) -> &str {
    if prefix { name.strip_suffix('-').unwrap_or(name) } else { name }
}

/// [`Kind`] with its type forgotten: what the server works with.
/// Objects handed in must be of the kind; others are reported as an internal error.
pub trait AnyKind: Send + Sync {
    /// How it is called.
    fn names(&self) -> Names;
    /// Whether its objects live in namespaces.
    fn namespaced(&self) -> bool;
    /// See [`Kind::versions`].
    fn versions(&self) -> &'static [Version];
    /// Which requests it takes.
    fn verbs(&self) -> Verbs;
    /// How it is kept.
    fn stored(&self) -> Stored;
    /// See [`Kind::stored_version`].
    fn stored_version(&self) -> &'static str;
    /// See [`Kind::has_status`].
    fn has_status(&self) -> bool;
    /// See [`Kind::has_generation`].
    fn has_generation(&self) -> bool;
    /// See [`Kind::create_on_update`].
    fn create_on_update(&self) -> bool;
    /// See [`Kind::unconditional_update`].
    fn unconditional_update(&self) -> bool;
    /// See [`Kind::name_rule`].
    fn name_faults(&self, name: &str, prefix: bool) -> Vec<String>;
    /// Subresources, `status` first.
    fn subresources(&self) -> Vec<Subresource>;
    /// Group, version and kind of the body of a [`Subresource::Edit`] or [`Subresource::Served`], and verbs.
    fn served(
        &self,
        subresource: &str,
    ) -> Option<((&'static str, &'static str, &'static str), &'static [&'static str])>;
    /// JSON paths that field selectors may name.
    fn selectable(&self) -> &'static [&'static str];
    /// Reads JSON that fits the schema.
    fn read(&self, value: &Value) -> Result<Object, Status>;
    /// See [`Kind::default`].
    fn default(&self, object: &mut Object);
    /// See [`Kind::prepare_create`].
    fn prepare_create(&self, object: &mut Object, context: &Context<'_>);
    /// See [`Kind::prepare_update`].
    fn prepare_update(&self, new: &mut Object, old: &Object, context: &Context<'_>);
    /// See [`Part::prepare`]; `status` is a part too.
    fn prepare_part(&self, part: &str, new: &mut Object, old: &Object, context: &Context<'_>);
    /// See [`Kind::validate`].
    fn validate(&self, object: &Object, errors: &mut FieldErrors);
    /// See [`Kind::validate_update`]; `part` names the subresource, `status` among them.
    fn validate_update(&self, part: Option<&str>, new: &Object, old: &Object, errors: &mut FieldErrors);
    /// See [`Kind::warnings`].
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String>;
    /// See [`Kind::grace`].
    fn grace(&self, object: &Object, asked: Option<i64>) -> Option<i64>;
    /// See [`Kind::orphans`].
    fn orphans(&self) -> bool;
    /// See [`Kind::answers_deleted`].
    fn answers_deleted(&self) -> bool;
    /// See [`Kind::prepare_delete`].
    fn prepare_delete(&self, object: &mut Object);
    /// See [`Kind::held`].
    fn held(&self, object: &Object) -> bool;
    /// The object's scale: `autoscaling/v1` Scale's spec.replicas, status.replicas, status.selector.
    fn scale(&self, object: &Object) -> Option<(i32, i32, String)>;
    /// Sets the scale.
    fn set_scale(&self, object: &mut Object, replicas: i32);
    /// See [`Edit`].
    fn edit(&self, name: &str, object: &mut Object, body: &Value) -> Result<(), Status>;
    /// The table's headings, without the name's.
    fn headings(&self) -> Vec<Heading>;
    /// The cells of an object's row, without the name's.
    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value>;
}

impl<T> AnyKind for Kind<T>
where
    T: AnyObject + k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone,
{
    fn names(&self) -> Names {
        self.names
    }
    fn namespaced(&self) -> bool {
        self.namespaced
    }
    fn versions(&self) -> &'static [Version] {
        self.versions
    }
    fn verbs(&self) -> Verbs {
        self.verbs
    }
    fn stored(&self) -> Stored {
        self.stored
    }
    fn stored_version(&self) -> &'static str {
        self.stored_version
    }
    fn has_status(&self) -> bool {
        self.has_status
    }
    fn has_generation(&self) -> bool {
        self.has_generation
    }
    fn create_on_update(&self) -> bool {
        self.create_on_update
    }
    fn unconditional_update(&self) -> bool {
        self.unconditional_update
    }
    fn orphans(&self) -> bool {
        self.orphans
    }
    fn answers_deleted(&self) -> bool {
        self.answers_deleted
    }
    fn name_faults(&self, name: &str, prefix: bool) -> Vec<String> {
        (self.name_rule)(name, prefix)
    }
    fn subresources(&self) -> Vec<Subresource> {
        let status = self.has_status.then_some(Subresource::Part("status"));
        let parts = self.parts.iter().map(|p| Subresource::Part(p.name));
        let scale = self.scale.as_ref().map(|_| Subresource::Scale);
        let edits = self.edits.iter().map(|e| Subresource::Edit(e.name));
        let served = self.served.iter().map(|s| Subresource::Served(s.name));
        status.into_iter().chain(parts).chain(scale).chain(edits).chain(served).collect()
    }
    fn served(
        &self,
        subresource: &str,
    ) -> Option<((&'static str, &'static str, &'static str), &'static [&'static str])> {
        let edit = self.edits.iter().find(|e| e.name == subresource).map(|e| (e.body, &["create"][..]));
        edit.or_else(|| self.served.iter().find(|s| s.name == subresource).map(|s| (s.body, s.verbs)))
    }
    fn selectable(&self) -> &'static [&'static str] {
        self.selectable
    }
    fn read(&self, value: &Value) -> Result<Object, Status> {
        let read = Object::from_value::<T>(value).or_else(|e| {
            let schema = api::schema::builtin().kind(&self.names.gvk());
            let mut mended = value.clone();
            match schema.is_some_and(|s| api::json::fill_times(&mut mended, s)) {
                true => Object::from_value::<T>(&mended),
                false => Err(e),
            }
        });
        read.map_err(|e| {
            Status::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {e}",
                self.names.kind, self.names.version, self.names.kind
            ))
        })
    }
    fn default(&self, object: &mut Object) {
        if let Some(object) = object.get_mut() {
            (self.default)(object);
        }
    }
    fn prepare_create(&self, object: &mut Object, context: &Context<'_>) {
        if let Some(object) = object.get_mut() {
            (self.prepare_create)(object, context);
        }
    }
    fn prepare_update(&self, new: &mut Object, old: &Object, context: &Context<'_>) {
        if let (Some(new), Some(old)) = (new.get_mut(), old.get()) {
            (self.prepare_update)(new, old, context);
        }
    }
    fn prepare_part(&self, part: &str, new: &mut Object, old: &Object, context: &Context<'_>) {
        let (Some(new), Some(old)) = (new.get_mut(), old.get()) else { return };
        if part == "status" {
            (self.prepare_status)(new, old, context);
        } else if let Some(part) = self.parts.iter().find(|p| p.name == part) {
            (part.prepare)(new, old, context);
        }
    }
    fn validate(&self, object: &Object, errors: &mut FieldErrors) {
        if let Some(object) = object.get::<T>() {
            crate::meta::builtin_finalizers(object.meta(), errors);
            (self.validate)(object, errors);
        }
    }
    fn validate_update(&self, part: Option<&str>, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let (Some(new), Some(old)) = (new.get::<T>(), old.get()) else { return };
        crate::meta::builtin_finalizers(new.meta(), errors);
        match part {
            None => (self.validate_update)(new, old, errors),
            Some("status") => (self.validate_status)(new, old, errors),
            Some(part) => {
                if let Some(part) = self.parts.iter().find(|p| p.name == part) {
                    (part.validate)(new, old, errors);
                }
            }
        }
    }
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        object.get().map(|o| (self.warnings)(o, old.and_then(Object::get))).unwrap_or_default()
    }
    fn grace(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        object.get().and_then(|o| (self.grace)(o, asked))
    }
    fn prepare_delete(&self, object: &mut Object) {
        if let Some(object) = object.get_mut() {
            (self.prepare_delete)(object);
        }
    }
    fn held(&self, object: &Object) -> bool {
        object.get().is_some_and(self.held)
    }
    fn scale(&self, object: &Object) -> Option<(i32, i32, String)> {
        let (scale, object) = (self.scale.as_ref()?, object.get()?);
        Some(((scale.replicas)(object), (scale.current)(object), (scale.selector)(object)))
    }
    fn set_scale(&self, object: &mut Object, replicas: i32) {
        if let (Some(scale), Some(object)) = (self.scale.as_ref(), object.get_mut()) {
            (scale.set_replicas)(object, replicas);
        }
    }
    fn edit(&self, name: &str, object: &mut Object, body: &Value) -> Result<(), Status> {
        match (self.edits.iter().find(|e| e.name == name), object.get_mut()) {
            (Some(edit), Some(object)) => (edit.apply)(object, body),
            _ => Err(Status::no_such_path()),
        }
    }
    fn headings(&self) -> Vec<Heading> {
        let heading = |c: &Column<T>| Heading {
            name: c.name.into(),
            kind: c.kind.into(),
            format: c.format.into(),
            description: c.description.into(),
            priority: c.priority,
        };
        self.columns.iter().map(heading).collect()
    }
    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        object.get().map(|o| self.columns.iter().map(|c| (c.cell)(o, now)).collect()).unwrap_or_default()
    }
}
