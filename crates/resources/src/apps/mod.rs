//! The group `apps`.

pub mod deployment;
