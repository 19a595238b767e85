//! What all requests share.

use crate::cache::{Cache, Entry, Field, FieldTest, Filter};
use crate::catalog::{Catalog, Resource};
use crate::openapi::Documents;
use crate::options::Options;
use api::GroupResource;
use api::read::{Held, ObjectReader};
use auth::authn::Tokens;
use auth::authn::front_proxy::FrontProxy;
use auth::authz::Authorizers;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::{Store, StoreError};

/// The server.
pub struct Server {
    /// The flags it was started with.
    pub options: Options,
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Where they are read.
    pub cache: Arc<Cache>,
    catalog: RwLock<Arc<Catalog>>,
    /// Who is asking.
    pub tokens: Tokens,
    /// Who may say who is asking.
    pub front_proxy: FrontProxy,
    /// Whether they may.
    pub authorizers: Authorizers,
    /// What may change or refuse an object.
    pub admission: admission::Chain,
    /// Signs service account tokens.
    pub signer: Option<pki::jwt::Signer>,
    /// Speaks with kubelets.
    pub kubelets: Arc<crate::connect::Kubelets>,
    /// Service addresses and ports.
    pub services: crate::services::Allocator,
    /// OpenAPI documents, made when asked for.
    pub documents: Documents,
    /// How many requests may be under way.
    pub seats: crate::limits::Seats,
    /// What answers say of TLS, if anything: `--strict-transport-security-directives`.
    pub hsts: Option<http::HeaderValue>,
    /// What it has done.
    pub metrics: crate::metrics::Metrics,
    /// What has to be done before it is ready.
    pub health: crate::health::Health,
}

/// What a [`Server`] is made of.
pub struct Parts {
    /// See [`Server::options`].
    pub options: Options,
    /// See [`Server::store`].
    pub store: Arc<dyn Store>,
    /// See [`Server::cache`].
    pub cache: Arc<Cache>,
    /// What is served at the start.
    pub catalog: Catalog,
    /// See [`Server::tokens`].
    pub tokens: Tokens,
    /// See [`Server::authorizers`].
    pub authorizers: Authorizers,
    /// See [`Server::admission`].
    pub admission: admission::Chain,
    /// See [`Server::signer`].
    pub signer: Option<pki::jwt::Signer>,
    /// See [`Server::kubelets`].
    pub kubelets: Arc<crate::connect::Kubelets>,
}

impl Server {
    /// Makes a server.
    pub fn new(parts: Parts) -> Arc<Self> {
        let services = crate::services::Allocator::new(&parts.options);
        let seats = crate::limits::Seats::new(
            parts.options.max_requests_inflight,
            parts.options.max_mutating_requests_inflight,
            // As long as upstream's priority and fairness lets requests wait.
            parts.options.request_timeout() / 4,
        );
        let hsts = parts.options.strict_transport_security_directives.join("; ");
        let hsts = Some(hsts).filter(|h| !h.is_empty()).and_then(|h| h.parse().ok());
        Arc::new(Server {
            seats,
            hsts,
            admission: parts.admission,
            services,
            front_proxy: parts.options.front_proxy(),
            options: parts.options,
            store: parts.store,
            cache: parts.cache,
            catalog: RwLock::new(Arc::new(parts.catalog)),
            tokens: parts.tokens,
            authorizers: parts.authorizers,
            signer: parts.signer,
            kubelets: parts.kubelets,
            documents: Documents::default(),
            metrics: crate::metrics::Metrics::default(),
            health: crate::health::Health::default(),
        })
    }

    /// What is served now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An object from the cache, which may be a moment behind.
    pub fn entry(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        resource.collection.as_ref()?.get(&resource.key(namespace, name))
    }

    /// Waits until the cache shows everything answered before now.
    pub async fn consistent(&self) -> Result<(), StoreError> {
        self.cache.consistent().await.map(drop)
    }

    /// Waits until the cache shows `revision`, as a server does that answers its own write.
    pub async fn applied(&self, revision: store::Revision) -> bool {
        self.cache.reach(revision, Duration::from_secs(10)).await
    }
}

fn held(entry: &Arc<Entry>) -> Arc<dyn Held> {
    entry.clone()
}

/// What authorizers and admission plugins see of the cluster.
impl ObjectReader for Server {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<dyn Held>> {
        let catalog = self.catalog();
        let resource = catalog.resource(resource)?;
        self.entry(resource, namespace, name).map(|e| e as Arc<dyn Held>)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<dyn Held>> {
        let catalog = self.catalog();
        let Some(collection) = catalog.resource(resource).and_then(|r| r.collection.as_ref()) else {
            return Vec::new();
        };
        let (items, _) = collection.snapshot(0);
        match namespace {
            Some(namespace) => crate::cache::within(&items, namespace).map(held).collect(),
            None => items.values().map(held).collect(),
        }
    }

    fn select(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Arc<dyn Held>> {
        let catalog = self.catalog();
        let Some(collection) = catalog.resource(resource).and_then(|r| r.collection.as_ref()) else {
            return Vec::new();
        };
        let Some(i) = collection.selectable.iter().position(|s| s.name == field) else { return Vec::new() };
        let test = FieldTest { field: Field::Selectable(i), value: value.into(), equal: true };
        let filter = Filter { fields: vec![test], ..Filter::default() };
        let (items, _) = collection.narrowed(&filter, 0);
        items.values().filter(|e| filter.matches(e)).map(held).collect()
    }

    fn generation(&self, resource: &GroupResource) -> u64 {
        let catalog = self.catalog();
        catalog.resource(resource).and_then(|r| r.collection.as_ref()).map_or(0, |c| c.last())
    }
}
