//! Objects of any kind, by group, version and resource; and finding out which there are.

use crate::error::Error;
use crate::object::Meta;
use crate::verbs::{Client, List, ListParams, Patch, collection, decode, encode, item, with_query};
use crate::watch::WatchStream;
use bytes::Bytes;
use futures::future::join_all;
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, ObjectMeta,
};
use serde::Deserialize;
use serde_json::Value;

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

/// An object of which only the metadata is wanted.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PartialObject {
    /// The metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
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
    /// Finds out what the server serves. Only failing to read the list of groups is an error.
    pub async fn discover(&self) -> Result<Discovery, Error> {
        let core: APIVersions = self.get_path("/api").await?;
        let groups: APIGroupList = self.get_path("/apis").await?;
        let mut versions: Vec<(String, String, bool)> =
            core.versions.into_iter().enumerate().map(|(i, v)| (String::new(), v, i == 0)).collect();
        for APIGroup { name, preferred_version, versions: served, .. } in groups.groups {
            let preferred = preferred_version.map(|p| p.version).unwrap_or_default();
            versions.extend(
                served.into_iter().map(|v| (name.clone(), v.version.clone(), v.version == preferred)),
            );
        }
        let lists = join_all(versions.iter().map(|(group, version, _)| {
            let path =
                if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            async move { self.get_path::<APIResourceList>(&path).await }
        }))
        .await;
        let mut found = Discovery::default();
        for ((group, version, preferred), list) in versions.into_iter().zip(lists) {
            match list {
                Err(e) => found.failed.push((format!("{group}/{version}"), e.to_string())),
                Ok(list) => {
                    for r in list.resources.into_iter().filter(|r| !r.name.contains('/')) {
                        let resource = ResourceId {
                            group: group.clone(),
                            version: version.clone(),
                            plural: r.name,
                            namespaced: r.namespaced,
                        };
                        found.resources.push(ResourceInfo {
                            resource,
                            kind: r.kind,
                            verbs: r.verbs,
                            preferred,
                        });
                    }
                }
            }
        }
        Ok(found)
    }

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
        self.list_path(r.collection(namespace), params, JSON).await
    }

    /// All of a collection, the metadata alone.
    pub async fn list_metadata(
        &self,
        r: &ResourceId,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<PartialObject>, Error> {
        self.list_all_path(r.collection(namespace), params, METADATA_LIST).await
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
        self.ask(Method::DELETE, r.item(namespace, name, "")?, JSON, JSON, encode(options)?).await.map(drop)
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
        self.ask(Method::DELETE, path, JSON, JSON, encode(options)?).await.map(drop)
    }

    pub(crate) fn collection_dyn(r: &ResourceId, namespace: &str) -> String {
        r.collection(namespace)
    }
}
