//! The object model of the Kubernetes API, free of I/O: what a kind looks like ([`schema`]), how its
//! bytes are read and written, patched and applied, and how the API says no ([`status`]).
//! Knows no server, no client, no runtime.

pub mod apply;
pub mod cron;
pub mod duration;
pub mod field;
pub mod json;
pub mod key;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pod_references;
pub mod pod_resources;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod read;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;
pub mod yaml;

pub use k8s_openapi;
pub use key::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, ObjectKey};
pub use status::Status;

#[cfg(test)]
mod testing;
