//! The group `flowcontrol.apiserver.k8s.io`: whose requests are served first.

pub mod bootstrap;
pub mod flow_schema;
pub mod priority_level_configuration;
