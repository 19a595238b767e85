//! Objects of any kind, by group, version and resource; and finding out which there are.

use crate::error::Error;
use crate::object::Meta;
use crate::verbs::{
    Client, List, ListParams, Patch, Unreadable, collection, decode, encode, item, with_query,
};
use crate::watch::WatchStream;
use bytes::Bytes;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, OwnerReference, Time};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const JSON: &str = "application/json";
pub(crate) const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
pub(crate) const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// A resource of the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// Empty for the core group.
    pub group: String,
    /// For example `v1`.
    pub version: String,
    /// For example `deployments`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl std::fmt::Display for ResourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, version, plural, .. } = self;
        if group.is_empty() {
            write!(f, "{version}/{plural}")
        } else {
            write!(f, "{group}/{version}/{plural}")
        }
    }
}

impl ResourceId {
    fn collection(&self, namespace: &str) -> String {
        collection(&self.group, &self.version, &self.plural, if self.namespaced { namespace } else { "" })
    }

    fn item(&self, namespace: &str, name: &str, subresource: &str) -> Result<String, Error> {
        if self.namespaced && namespace.is_empty() {
            return Err(Error::Request(format!("{self} {name:?}: the namespace is empty")));
        }
        item(self.collection(namespace), name, subresource)
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// A resource and what can be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    /// The resource.
    pub resource: ResourceId,
    /// The kind of its objects.
    pub kind: String,
    /// `get`, `list`, ...
    pub verbs: Vec<String>,
    /// Whether its version is the one that its group prefers.
    pub preferred: bool,
}

impl ResourceInfo {
    /// Whether all of these verbs can be used.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|v| self.verbs.iter().any(|w| w == v))
    }
}

/// What the server serves.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The resources, without subresources.
    pub resources: Vec<ResourceInfo>,
    /// Group versions that could not be read, and why: those of aggregated servers that are down.
    pub failed: Vec<(String, String)>,
}

impl Discovery {
    /// Each resource once: in the version its group prefers, or else the first that has it.
    pub fn preferred(&self) -> Vec<&ResourceInfo> {
        let mut found: Vec<&ResourceInfo> = Vec::new();
        for r in self
            .resources
            .iter()
            .filter(|r| r.preferred)
            .chain(self.resources.iter().filter(|r| !r.preferred))
        {
            let same = |o: &&&ResourceInfo| {
                o.resource.group == r.resource.group && o.resource.plural == r.resource.plural
            };
            if !found.iter().any(|o| same(&o)) {
                found.push(r);
            }
        }
        found
    }

    /// The resource of a kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&ResourceInfo> {
        self.resources.iter().find(|r| r.kind == kind && r.resource.api_version() == api_version)
    }
}

/// An object of which only the metadata is wanted, without `managedFields`: they are most of it, as values take
/// many times the memory of their text, and nobody reads them.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PartialObject {
    /// The metadata.
    #[serde(default, deserialize_with = "lean")]
    pub metadata: ObjectMeta,
}

/// [`ObjectMeta`] without what is not kept.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeanMeta {
    name: Option<String>,
    generate_name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

fn lean<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let m = LeanMeta::deserialize(from)?;
    Ok(ObjectMeta {
        name: m.name,
        generate_name: m.generate_name,
        namespace: m.namespace,
        uid: m.uid,
        resource_version: m.resource_version,
        generation: m.generation,
        creation_timestamp: m.creation_timestamp,
        deletion_timestamp: m.deletion_timestamp,
        deletion_grace_period_seconds: m.deletion_grace_period_seconds,
        labels: m.labels,
        annotations: m.annotations,
        owner_references: m.owner_references,
        finalizers: m.finalizers,
        managed_fields: None,
        self_link: None,
    })
}

impl Meta for PartialObject {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Client {
    /// Reads what is at a path: lists and subresources of APIs that we have no types for.
    pub async fn get_path<R: serde::de::DeserializeOwned>(&self, path: &str) -> Result<R, Error> {
        decode(path, &self.ask(Method::GET, path.into(), JSON, JSON, Bytes::new()).await?)
    }

    /// One object of any kind.
    pub async fn get_dyn(&self, r: &ResourceId, namespace: &str, name: &str) -> Result<Value, Error> {
        self.get_path(&r.item(namespace, name, "")?).await
    }

    /// One object's metadata.
    pub async fn get_metadata(
        &self,
        r: &ResourceId,
        namespace: &str,
        name: &str,
    ) -> Result<PartialObject, Error> {
        let path = r.item(namespace, name, "")?;
        let what = path.clone();
        decode(&what, &self.ask(Method::GET, path, METADATA, JSON, Bytes::new()).await?)
    }

    /// A page of a collection of any kind.
    pub async fn list_dyn(
        &self,
        r: &ResourceId,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<Value>, Error> {
        self.list_path(r.collection(namespace), params, JSON, Unreadable::Fails).await
    }

    /// All of a collection, the metadata alone.
    pub async fn list_metadata(
        &self,
        r: &ResourceId,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<PartialObject>, Error> {
        let path = r.collection(namespace);
        self.list_all_path(path, params, METADATA_LIST, Unreadable::Fails, |_| {}).await
    }

    /// A page of a collection, the metadata alone.
    pub async fn page_metadata(
        &self,
        r: &ResourceId,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<PartialObject>, Error> {
        self.list_path(r.collection(namespace), params, METADATA_LIST, Unreadable::Fails).await
    }

    /// Watches a collection, the metadata alone.
    pub async fn watch_metadata(
        &self,
        r: &ResourceId,
        namespace: &str,
        params: &ListParams,
        resource_version: &str,
    ) -> Result<WatchStream<PartialObject>, Error> {
        self.watch_path(r.collection(namespace), params, resource_version, METADATA).await
    }

    /// Creates an object of any kind.
    pub async fn create_dyn(&self, r: &ResourceId, namespace: &str, object: &Value) -> Result<Value, Error> {
        let path = r.collection(namespace);
        let what = path.clone();
        decode(&what, &self.ask(Method::POST, path, JSON, JSON, encode(object)?).await?)
    }

    /// Replaces an object of any kind, or a subresource of it.
    pub async fn update_dyn(
        &self,
        r: &ResourceId,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        let path = r.item(namespace, name, subresource)?;
        let what = path.clone();
        decode(&what, &self.ask(Method::PUT, path, JSON, JSON, encode(object)?).await?)
    }

    /// Changes an object of any kind, or a subresource of it.
    pub async fn patch_dyn(
        &self,
        r: &ResourceId,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<Value, Error> {
        let (content_type, query, body) = patch.parts();
        let path = with_query(r.item(namespace, name, subresource)?, &query);
        let what = path.clone();
        decode(&what, &self.ask(Method::PATCH, path, JSON, content_type, encode(body)?).await?)
    }

    /// Deletes an object of any kind, or begins to.
    pub async fn delete_dyn(
        &self,
        r: &ResourceId,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        self.tell(Method::DELETE, r.item(namespace, name, "")?, encode(options)?).await
    }

    /// Deletes what the parameters select.
    pub async fn delete_collection_dyn(
        &self,
        r: &ResourceId,
        namespace: &str,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = with_query(r.collection(namespace), &params.query());
        self.tell(Method::DELETE, path, encode(options)?).await
    }

    pub(crate) fn collection_dyn(r: &ResourceId, namespace: &str) -> String {
        r.collection(namespace)
    }
}
