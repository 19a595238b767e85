//! How authorizers and admission plugins see other objects: the server hands them an [`ObjectReader`].

use crate::GroupResource;
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// An object as the server's cache holds it.
pub trait Held: Send + Sync {
    /// Its JSON.
    fn json(&self) -> &bytes::Bytes;

    /// Room for what [`kept`] reads out of it.
    fn typed(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>>;
}

/// Reads objects from the server's cache. It never waits and may be a moment behind the store.
pub trait ObjectReader: Send + Sync {
    /// An object. The namespace is empty for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<dyn Held>>;

    /// All objects of a resource, or of one namespace's.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<dyn Held>>;

    /// The objects whose selectable field `field` (such as `spec.nodeName`) is `value`.
    fn select(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Arc<dyn Held>>;

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
    serde_json::from_slice(reader.get(&resource_of::<T>(), namespace, name)?.json()).ok()
}

fn keep<T: DeserializeOwned + Send + Sync + 'static>(held: &dyn Held) -> Option<Arc<T>> {
    if let Some(there) = held.typed().get() {
        return there.clone().downcast().ok();
    }
    let object: Arc<T> = Arc::new(serde_json::from_slice(held.json()).ok()?);
    let _ = held.typed().set(object.clone()); // someone else was quicker
    Some(object)
}

/// As [`get`], for the few objects that many requests ask for: it is read once and stays in memory with its JSON.
pub fn kept<T: Resource + DeserializeOwned + Send + Sync + 'static>(
    reader: &dyn ObjectReader,
    namespace: &str,
    name: &str,
) -> Option<Arc<T>> {
    keep(&*reader.get(&resource_of::<T>(), namespace, name)?)
}

/// As [`list`], for objects that are [`kept`].
pub fn list_kept<T: Resource + DeserializeOwned + Send + Sync + 'static>(
    reader: &dyn ObjectReader,
    namespace: Option<&str>,
) -> Vec<Arc<T>> {
    reader.list(&resource_of::<T>(), namespace).iter().filter_map(|held| keep(&**held)).collect()
}

/// All objects of a built-in kind, or one namespace's.
pub fn list<T: Resource + DeserializeOwned>(reader: &dyn ObjectReader, namespace: Option<&str>) -> Vec<T> {
    reader
        .list(&resource_of::<T>(), namespace)
        .iter()
        .filter_map(|held| serde_json::from_slice(held.json()).ok())
        .collect()
}

/// The objects of a built-in kind with this value of a selectable field.
pub fn select<T: Resource + DeserializeOwned>(reader: &dyn ObjectReader, field: &str, value: &str) -> Vec<T> {
    reader
        .select(&resource_of::<T>(), field, value)
        .iter()
        .filter_map(|held| serde_json::from_slice(held.json()).ok())
        .collect()
}

/// [`ObjectReader::generation`] of a built-in kind.
pub fn generation<T: Resource>(reader: &dyn ObjectReader) -> u64 {
    reader.generation(&resource_of::<T>())
}
