//! Decides on which node each pod runs.
//! Start at [`run`]; a decision is [`framework::place`], a function of a pod and the [`cluster::Cluster`].
//! Plugins are a file each, under upstream's names. Knows nodes as columns of numbers and pods by what
//! they ask for. Starts nothing: it writes bindings, and the kubelets do the rest.

pub mod cluster;
pub mod config;
pub mod framework;
mod metrics;
pub mod plugins;
pub mod pod;
mod preemption;
mod queue;
mod run;
mod serve;
pub mod volumes;

#[cfg(test)]
mod tests;

pub use config::{ConfigError, Options};
pub use run::{Error, run};
