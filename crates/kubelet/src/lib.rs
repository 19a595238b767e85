//! The kubelet: runs the pods that belong to this node, and tells the API how they fare.
//! Start at [`run`]. Desired pods come from [`sources`], what is observed comes from the container runtime's
//! events; [`pods`] has one [`pod_worker`] for each pod, which compares both ([`plan`]) and acts.
//! Knows CRI and the kernel's cgroups and mounts. Knows no other node, no store, and makes no scheduling decisions.

pub mod admit;
pub mod bootstrap;
pub mod cgroups;
pub mod config;
pub mod context;
pub mod events;
pub mod exits;
pub mod images;
mod kubelet;
pub mod lifecycle;
pub mod node;
pub mod objects;
pub mod plan;
pub mod pod;
pub mod pod_worker;
pub mod pods;
pub mod probes;
pub mod quantity;
pub mod resize;
pub mod runtime;
pub mod server;
pub mod sources;
pub mod status;
pub mod streaming;
pub mod volumes;

pub use config::{Config, Flags};
pub use kubelet::{RunError, run};
