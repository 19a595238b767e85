//! The kubelet: runs the pods that belong to this node, and tells the API how they fare.
//! Start at [`run`]. Desired pods come from [`sources`], what is observed comes from the container runtime's
//! events; [`pods`] has one [`pod_worker`] for each pod, which compares both ([`plan`]) and acts.
//! Knows CRI and the kernel's cgroups and mounts. Knows no other node, no store, and makes no scheduling decisions.

mod admit;
mod blocking;
mod bootstrap;
mod cgroups;
pub mod config;
mod context;
mod events;
mod exits;
#[cfg(test)]
mod fake;
mod health;
mod images;
mod kubelet;
mod lifecycle;
mod node;
mod objects;
mod plan;
mod pod;
mod pod_worker;
mod pods;
mod probes;
mod quantity;
mod resize;
mod runtime;
mod server;
mod sources;
mod status;
pub mod streaming;
mod systemd;
mod volumes;

pub use config::{Config, Flags};
pub use kubelet::{RunError, run};
