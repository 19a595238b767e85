//! Talks to a Kubernetes API server and keeps local pictures of what it holds.
//! Start at [`Config`] and [`Client`] for requests, at [`Informers`] for cached, watched collections, and
//! at [`Controller`] for a reconcile loop over them.
//! Knows HTTP, resource versions, bookmarks and 410. Knows no kind's meaning.

use kinds as _;

mod body;
mod config;
mod connection;
mod controller;
mod discovery;
mod dynamic;
mod error;
pub mod events;
mod informer;
mod informers;
pub mod leader;
mod limits;
pub mod metrics;
mod object;
mod reflector;
mod subscription;
mod tasks;
mod tls;
mod token;
mod verbs;
mod watch;
mod workqueue;

pub use body::ResponseBody;
pub use config::{ClientCertificate, Config, ConfigError};
pub use controller::Controller;
pub use discovery::SharedDiscovery;
pub use dynamic::{Discovery, PartialObject, ResourceId, ResourceInfo};
pub use error::Error;
pub use events::{EventRecorder, EventType};
pub use informer::{Event, Informer, Lister};
pub use informers::{Informers, Scope};
pub use metrics::Metrics;
pub use object::{Meta, Object, ObjectExt, object_ref};
pub use subscription::Subscription;
pub use token::TokenSource;
pub use verbs::{Client, List, ListParams, Patch};
pub use watch::{WatchEvent, WatchStream};
pub use workqueue::WorkQueue;
