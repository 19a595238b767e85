//! Answers names of Services and pods, and sends the others on.
//! Start at [`run`]; [`zone`] decides what a name means, [`server`] speaks DNS, [`forward`] asks resolvers.
//! Knows Services and EndpointSlices as the specification of Kubernetes' DNS has them. Writes nothing.

pub mod forward;
mod health;
mod run;
pub mod server;
pub mod zone;

pub use run::{Error, Options, run};
