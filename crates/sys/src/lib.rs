//! System calls that the standard library has no words for: mounts, file-system sizes, file watches.
//! Each module is one subject. Blocking calls are quick; none of them knows what Kubernetes is.

pub mod dir;
pub mod inotify;
pub mod mount;
pub mod node;
