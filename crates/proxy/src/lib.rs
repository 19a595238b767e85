//! Makes this node's kernel send what is sent to a Service to one of its endpoints.
//! Start at [`run`]; what is to be programmed is decided by [`rules`], a pure function of a service's port,
//! its endpoints and the settings; [`tables`] turns what differs into one `iptables-restore`.
//! Knows Services, EndpointSlices and its own Node. Knows no pods, and writes nothing to the API.

mod command;
pub mod config;
pub mod conntrack;
mod health;
mod metrics;
pub mod model;
pub mod rules;
mod sync;
pub mod tables;

pub use config::{ConfigError, Options};
pub use sync::{Error, run};
