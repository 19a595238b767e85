//! How authorizers and admission plugins see other objects: the server hands them an [`ObjectReader`].

use crate::GroupResource;
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;

/// Reads objects from the server's cache. It never waits and may be a moment behind the store.
pub trait ObjectReader: Send + Sync {
    /// An object's JSON. The namespace is empty for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<bytes::Bytes>;

    /// The JSON of all objects of a resource, or of one namespace's.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<bytes::Bytes>;

    /// The JSON of the objects whose selectable field `field` (such as `spec.nodeName`) is `value`.
    fn select(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<bytes::Bytes>;

    /// A number that changes with every change of the resource's objects.
    fn generation(&self, resource: &GroupResource) -> u64;
}

fn resource_of<T: Resource>() -> GroupResource {
    GroupResource::new(T::GROUP, T::URL_PATH_SEGMENT)
}

/// An object of a built-in kind. `None` too if it can't be read, which the server has logged.
pub fn get<T: Resource + DeserializeOwned>(
    reader: &dyn ObjectReader,
    namespace: &str,
    name: &str,
) -> Option<T> {
    serde_json::from_slice(&reader.get(&resource_of::<T>(), namespace, name)?).ok()
}

/// All objects of a built-in kind, or one namespace's.
pub fn list<T: Resource + DeserializeOwned>(reader: &dyn ObjectReader, namespace: Option<&str>) -> Vec<T> {
    reader
        .list(&resource_of::<T>(), namespace)
        .iter()
        .filter_map(|json| serde_json::from_slice(json).ok())
        .collect()
}

/// The objects of a built-in kind with this value of a selectable field.
pub fn select<T: Resource + DeserializeOwned>(reader: &dyn ObjectReader, field: &str, value: &str) -> Vec<T> {
    reader
        .select(&resource_of::<T>(), field, value)
        .iter()
        .filter_map(|json| serde_json::from_slice(json).ok())
        .collect()
}

/// [`ObjectReader::generation`] of a built-in kind.
pub fn generation<T: Resource>(reader: &dyn ObjectReader) -> u64 {
    reader.generation(&resource_of::<T>())
}
