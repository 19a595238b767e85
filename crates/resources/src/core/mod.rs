//! The core group, `v1`.

pub mod config_map;
pub mod namespace;
pub mod pod;
