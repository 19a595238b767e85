//! The controllers: each watches some collections and brings one thing closer to what is wanted.
//! Start at [`run`]; every controller is one file with one shape: what it watches, how events map to keys,
//! reconcile. What is decided is a pure function, the plan; what is done is a thin shell around it.
//! Knows the API server through `client` alone. Knows no storage and no node.

mod common;
mod context;
mod daemon;
mod definitions;
mod health;
mod metrics;
mod options;
mod registry;
mod serving;

mod binder;
mod bootstrap;
mod clusterrole;
mod cronjob;
mod csr;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod ephemeral;
mod gc;
mod horizontal;
mod ipam;
mod job;
mod namespace;
mod node;
mod podgc;
mod protection;
mod replica;
mod resourcequota;
mod rootca;
mod serviceaccount;
mod servicecidr;
mod statefulset;
mod token;
mod ttl;
mod ttl_nodes;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use context::{Config, Context};
pub use daemon::run;
pub use horizontal::Settings as HorizontalSettings;
pub use options::Options;

/// Why a key could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// An object's selector can't be read.
    #[error(transparent)]
    Selector(#[from] api::selector::SelectorError),
    /// A certificate or key can't be used.
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    /// What is to be read was not listed yet, or can't be.
    #[error("{0} can't be listed yet")]
    NotListed(String),
    /// The cache shows an earlier state of an object than the server.
    #[error("{0} has changed meanwhile")]
    Behind(String),
    /// The name of a revision is taken by another template: another name is tried.
    #[error("the name {0} is taken by a revision of another template, trying another name")]
    NameTaken(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// What reconciling a key answers: whether to come back to it, and when.
pub type Outcome = Result<Option<std::time::Duration>, Error>;
