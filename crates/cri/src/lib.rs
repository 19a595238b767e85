//! How the kubelet talks to a container runtime: CRI (`runtime.v1`) over a unix socket.
//! Start at [`Runtime`], one method a call; [`events::watch`] tells what happens to containers.
//! Knows the wire and its time limits. Knows no pod spec and decides nothing.

pub mod events;
mod runtime;

pub use k8s_cri::v1 as types;
pub use runtime::{Error, Runtime, socket_path};
