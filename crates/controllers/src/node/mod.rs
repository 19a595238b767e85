//! Nodes that fall silent or say they are not well: their conditions, their taints, and their pods.

mod eviction;
mod lifecycle;
mod zones;

pub use eviction::{disrupt, run as run_eviction};
pub use lifecycle::run as run_lifecycle;
