//! What the API is told of pods: made from what is seen ([`generate`]), sent when it changes ([`manager`]).

pub mod conditions;
pub mod generate;
pub mod manager;
