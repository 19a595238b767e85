//! What requests for resources do, a file for each verb.

pub mod connect;
pub mod create;
pub mod delete;
pub mod get;
pub mod host;
pub mod list;
pub mod modify;
pub mod options;
pub mod patch;
pub mod scale;
pub mod subresource;
pub mod update;
pub mod watch;

use crate::body::Body;
use crate::cache::Entry;
use crate::catalog::Resource;
use crate::negotiate::{Accepted, Format, body_format};
use crate::request::{Query, RequestInfo};
use crate::server::Server;
use admission::Operation;
use api::field::FieldErrors;
use api::object::Object;
use api::schema::{Schema, SchemaRef};
use api::{GroupVersionKind, Status};
use auth::User;
use bytes::Bytes;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use options::{FieldValidation, Options};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::StoreError;

/// A request for a resource, authenticated and authorized.
pub struct Request {
    /// The server.
    pub server: Arc<Server>,
    /// What is asked for.
    pub info: Arc<RequestInfo>,
    /// The query.
    pub query: Query,
    /// The query as it came, for those it is passed on to.
    pub raw_query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: User,
    /// The resource asked for, in the version in which its objects are kept.
    pub resource: Arc<Resource>,
    /// The resource in the version that was asked for: how bodies are read and answers written.
    pub face: Arc<Resource>,
    /// The `apiVersion` that was asked for.
    pub api_version: String,
    /// The form of the answer.
    pub accepted: Accepted,
    /// When it came.
    pub now: Timestamp,
    /// What a change asks for beside its object.
    pub options: Options,
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<BTreeMap<String, String>>,
    announced: Mutex<Option<store::Announced>>,
}

/// The answer to a request.
pub type Answer = Result<Response<Body>, Status>;

impl Request {
    /// Gathers what a verb needs.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        server: Arc<Server>,
        info: impl Into<Arc<RequestInfo>>,
        query: Query,
        headers: HeaderMap,
        user: User,
        face: Arc<Resource>,
        accepted: Accepted,
    ) -> Self {
        let api_version = face.gvk.api_version();
        let deprecated = face.facet.as_ref().map(|f| f.version.deprecated.to_string());
        Request {
            raw_query: None,
            api_version,
            server,
            info: info.into(),
            query,
            headers,
            user,
            resource: face.own().clone(),
            face,
            accepted,
            now: Timestamp::now(),
            options: Options::default(),
            warnings: Mutex::new(deprecated.into_iter().filter(|text| !text.is_empty()).collect()),
            annotations: Mutex::default(),
            announced: Mutex::default(),
        }
    }

    /// A request of the same user, with the same options, for something else.
    pub fn derived(&self, info: RequestInfo, face: Arc<Resource>) -> Request {
        let mut request = Request::new(
            self.server.clone(),
            info,
            self.query.clone(),
            self.headers.clone(),
            self.user.clone(),
            face,
            self.accepted.clone(),
        );
        request.options = Options { delete: None, ..self.options.clone() };
        request.now = self.now;
        request
    }

    /// Tells the store that this request will commit.
    pub fn announce(&self) {
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = self.server.store.announce();
    }

    /// Takes that back, as before a commit of something else that this one waits for.
    pub fn withdraw(&self) {
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes a change in the store.
    pub async fn store(&self, commit: store::Commit) -> Result<store::Revision, StoreError> {
        self.withdraw();
        self.server.store.commit(commit).await
    }

    /// A warning for the client.
    pub fn warn(&self, warning: impl Into<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let warning = warning.into();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The warnings so far.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the audit log is told of this request.
    pub fn annotate(&self, key: &str, value: String) {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), value);
    }

    /// What the audit log was told so far.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who manages the fields that this request sets.
    pub fn manager(&self) -> String {
        if let Some(manager) = &self.options.field_manager {
            return manager.clone();
        }
        // As upstream: the user agent up to its version.
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        let name = agent.split('/').next().unwrap_or_default();
        name.chars().filter(|c| !c.is_control()).take(128).collect()
    }

    /// Reads the body as the object asked for, and makes it one as it is kept.
    pub fn decode_own(&self, body: &Bytes) -> Result<Value, Status> {
        let mut value = self.decode(body, &self.face.schema, &self.face.gvk)?;
        if self.face.facet.is_some() {
            api::json::default(&mut value, &self.face.schema);
            self.face.to_own(&mut value);
        }
        Ok(value)
    }

    /// An object as kept, in the version that was asked for.
    pub fn shown<'a>(&self, entry: &'a Entry) -> Result<Cow<'a, Entry>, Status> {
        if self.face.facet.is_none() {
            return Ok(Cow::Borrowed(entry));
        }
        let mut value = entry.value().map_err(internal)?;
        self.face.from_own(&mut value);
        entry.with_object(&value).map(Cow::Owned).map_err(internal)
    }

    /// Checks what the version that was asked for wants beyond its kind.
    pub fn check_face(
        &self,
        new: &Object,
        old: Option<&Object>,
        errors: &mut FieldErrors,
    ) -> Result<(), Status> {
        if let Some(check) = self.face.facet.as_ref().and_then(|f| f.version.check) {
            let old = old.map(Object::to_value).transpose().map_err(internal)?;
            check(&new.to_value().map_err(internal)?, old.as_ref(), errors);
        }
        Ok(())
    }

    /// Writes down who owns the fields that differ between two objects as they are kept.
    pub fn track(&self, live: Option<&Value>, new: &mut Value, subresource: &str, manager: &str) {
        let author = create::author(self, manager, subresource);
        if self.face.facet.is_none() {
            return api::apply::update(live, new, &self.resource.schema, &author);
        }
        let shown = |value: &Value| {
            let mut value = value.clone();
            self.face.from_own(&mut value);
            value
        };
        let mut there = shown(new);
        api::apply::update(live.map(shown).as_ref(), &mut there, &self.face.schema, &author);
        let fields = there.pointer_mut("/metadata/managedFields").map(Value::take);
        if let Some(Value::Object(meta)) = new.get_mut("metadata") {
            match fields {
                Some(fields) => meta.insert("managedFields".into(), fields),
                None => meta.remove("managedFields"),
            };
        }
    }

    /// Reads an object out of a body, with its schema, and checks what kind it says it is.
    pub fn decode(
        &self,
        body: &Bytes,
        schema: &Schema,
        expected: &GroupVersionKind,
    ) -> Result<Value, Status> {
        let format = body_format(&self.headers)?;
        let failed = |e: &dyn std::fmt::Display| {
            Status::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {e}",
                expected.kind, expected.version, expected.kind
            ))
        };
        if body.is_empty() {
            return Err(Status::bad_request("the request has no body: an object was expected"));
        }
        let decoded = match format {
            Format::Json => api::json::decode(body, schema).map_err(|e| failed(&e))?,
            Format::Yaml => api::yaml::decode(body, schema).map_err(|e| failed(&e))?,
            Format::Protobuf => {
                let value = api::protobuf::from_wire(body, schema).map_err(|e| failed(&e))?;
                api::json::Decoded { value, faults: Vec::new() }
            }
        };
        self.faults_of(decoded.faults)?;
        let mut value = decoded.value;
        let said = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let (version, kind) = (said("apiVersion"), said("kind"));
        let given = api::GroupVersion::parse(&version);
        if !kind.is_empty() && kind != expected.kind
            || !version.is_empty() && (given.group != expected.group || given.version != expected.version)
        {
            let got = GroupVersionKind::new(given.group, given.version, kind);
            return Err(Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): its kind is {got}, and {expected} was expected",
                expected.kind
            )));
        }
        if let Value::Object(map) = &mut value {
            map.insert("apiVersion".into(), expected.api_version().into());
            map.insert("kind".into(), expected.kind.clone().into());
        }
        Ok(value)
    }

    /// Refuses or warns about unknown and duplicate fields.
    pub fn faults_of(&self, faults: Vec<String>) -> Result<(), Status> {
        if faults.is_empty() {
            return Ok(());
        }
        match self.options.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => faults.into_iter().for_each(|w| self.warn(w)),
            FieldValidation::Strict => {
                let GroupVersionKind { kind, version, .. } = &self.face.gvk;
                return Err(Status::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
                    faults.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// The admission request for an operation.
    pub fn admission<'a>(
        &'a self,
        operation: Operation,
        subresource: &'a str,
        name: &'a str,
        old: Option<&'a Object>,
    ) -> admission::Request<'a> {
        admission::Request {
            operation,
            kind: &self.resource.gvk,
            resource: &self.resource.group_resource,
            subresource,
            namespace: &self.info.namespace,
            name,
            user: &self.user.name,
            uid: &self.user.uid,
            groups: &self.user.groups,
            extra: &self.user.extra,
            dry_run: self.options.dry_run,
            old,
            reader: &*self.server,
            host: self,
        }
    }

    /// What rules may know of the request.
    pub fn context(&self) -> resources::Context<'_> {
        let auth::User { name, uid, groups, extra } = &self.user;
        resources::Context { now: self.now, user: name, uid, groups, extra }
    }

    /// The key of the object asked for, in its collection.
    pub fn key(&self) -> String {
        self.resource.key(&self.info.namespace, &self.info.name)
    }

    /// The answer that the object asked for is not there.
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.face.group_resource, &self.info.name)
    }

    /// Answers with an object.
    pub fn answer(&self, code: u16, entry: &Entry) -> Answer {
        crate::respond::object(self, code, entry)
    }
}

impl api::apply::Versions for Request {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, SchemaRef)> {
        let catalog = self.server.catalog();
        let of = |api_version: &str| {
            let gv = api::GroupVersion::parse(api_version);
            let gvk = GroupVersionKind::new(gv.group, gv.version, self.resource.gvk.kind.clone());
            catalog.kind(&gvk).filter(|r| Arc::ptr_eq(r.own(), &self.resource)).cloned()
        };
        let from = of(object.get("apiVersion").and_then(Value::as_str)?)?;
        let to = of(api_version)?;
        let mut object = object.clone();
        from.to_own(&mut object);
        to.from_own(&mut object);
        Some((object, to.schema.clone()))
    }
}

/// What a failure of the store is to a client.
pub fn store_failed(e: StoreError) -> Status {
    match e {
        StoreError::TooLarge(why) => Status::too_large(format!("the object is too large to be kept: {why}")),
        StoreError::Full(why) => Status::failure(
            507,
            "InsufficientStorage",
            format!("the store has no room left; nothing was written: {why}"),
        ),
        StoreError::Compacted(revision) => {
            Status::expired(format!("the resourceVersion {revision} is too old"))
        }
        StoreError::Conflict(_) => Status::internal("the object changed again and again"),
        StoreError::Unavailable(why) => Status::unavailable(why).retry_after(1),
    }
}

/// A failure that should not have been.
pub fn internal(e: impl std::fmt::Display) -> Status {
    Status::internal(e)
}

/// A typed object as the JSON that is kept: without what says nothing.
pub fn to_json(request: &Request, object: &Object) -> Result<Value, Status> {
    let mut value = object.to_value().map_err(internal)?;
    api::json::omit_zeros(&mut value, &request.resource.schema);
    Ok(value)
}
