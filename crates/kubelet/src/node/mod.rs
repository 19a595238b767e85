//! The node itself: what it has ([`capacity`]).

pub mod capacity;
