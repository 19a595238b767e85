//! Between pods and the runtime: what to ask it for, and what it says.

pub mod container_config;
pub mod dns;
pub mod env;
pub mod expand;
pub mod hosts;
pub mod labels;
pub mod observed;
pub mod resources;
pub mod sandbox_config;
pub mod security;
