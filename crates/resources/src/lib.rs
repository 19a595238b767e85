//! What the API says about each built-in kind: its names, defaults, validation, printed columns.
//!
//! A kind is one file below its group's folder and one line in [`registry`]. Start at [`Kind`], or open
//! the file of the kind you came for, such as `apps/deployment.rs`. Rules are plain functions over the
//! `k8s-openapi` struct. Knows no server, no store and no request.

use kinds as _;

pub mod addresses;
pub mod check;
pub mod diff;
pub mod kind;
pub mod meta;
pub mod registry;
pub mod table;

pub mod admissionregistration;
pub mod apiregistration;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod events;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;

pub use kind::{AnyKind, Context, Kind, Names, Part, Scale, Stored, Subresource, Verbs, Version};
pub use table::Column;
