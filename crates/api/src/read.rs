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

fn keep<T: DeserializeOwned, V: Send + Sync + 'static>(held: &dyn Held, view: fn(T) -> V) -> Option<Arc<V>> {
    if let Some(there) = held.typed().get() {
        return there.clone().downcast().ok();
    }
    let made = Arc::new(view(serde_json::from_slice(held.json()).ok()?));
    let _ = held.typed().set(made.clone()); // someone else was quicker
    Some(made)
}

/// As [`get`], for the few objects that many requests ask for: it is read once and stays in memory with its JSON.
pub fn kept<T: Resource + DeserializeOwned + Send + Sync + 'static>(
    reader: &dyn ObjectReader,
    namespace: &str,
    name: &str,
) -> Option<Arc<T>> {
    keep(&*reader.get(&resource_of::<T>(), namespace, name)?, |object: T| object)
}

/// As [`list`], for objects that are [`kept`].
pub fn list_kept<T: Resource + DeserializeOwned + Send + Sync + 'static>(
    reader: &dyn ObjectReader,
    namespace: Option<&str>,
) -> Vec<Arc<T>> {
    reader
        .list(&resource_of::<T>(), namespace)
        .iter()
        .filter_map(|held| keep(&**held, |object: T| object))
        .collect()
}

/// All objects of a built-in kind, or one namespace's.
pub fn list<T: Resource + DeserializeOwned>(reader: &dyn ObjectReader, namespace: Option<&str>) -> Vec<T> {
    reader
        .list(&resource_of::<T>(), namespace)
        .iter()
        .filter_map(|held| serde_json::from_slice(held.json()).ok())
        .collect()
}

/// Of the objects of a built-in kind with this value of a selectable field what `view` makes of them, which is made
/// once and stays in memory with each. A kind that has such a view is not [`kept`].
pub fn select<T: Resource + DeserializeOwned, V: Send + Sync + 'static>(
    reader: &dyn ObjectReader,
    field: &str,
    value: &str,
    view: fn(T) -> V,
) -> Vec<Arc<V>> {
    let all = reader.select(&resource_of::<T>(), field, value);
    all.iter().filter_map(|held| keep(&**held, view)).collect()
}

/// [`ObjectReader::generation`] of a built-in kind.
pub fn generation<T: Resource>(reader: &dyn ObjectReader) -> u64 {
    reader.generation(&resource_of::<T>())
}
