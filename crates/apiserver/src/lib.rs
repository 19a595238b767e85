//! The API server: connections, the road of a request, verbs, the watch cache, discovery.
//!
//! Start at [`run`]; then [`chain::handle`] for the road of a request, [`verbs`] for what each does, and
//! [`cache`] for where reads come from. Knows kinds by their rules ([`resources::AnyKind`]) and schemas; what is
//! particular to a few of them is in [`served`], [`services`] and [`verbs::connect`].

pub mod access;
pub mod body;
pub mod bootstrap;
pub mod cache;
pub mod capabilities;
pub mod catalog;
pub mod chain;
pub mod codec;
mod compress;
pub mod connect;
pub mod discovery;
pub mod health;
mod heavy;
pub mod limits;
pub mod list_body;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod options;
pub mod paths;
pub mod peers;
pub mod reload;
pub mod request;
pub mod respond;
pub mod rewrite;
pub mod serve;
pub mod served;
pub mod server;
pub mod services;
pub mod tables;
pub mod verbs;
pub mod websocket;

pub use options::Options;

use auth::authn::{Tokens, service_account::ServiceAccounts, token_file::TokenFile};
use auth::authz::Authorizers;
use cache::pluck::Selectable;
use cache::{Cache, Collection};
use catalog::{Catalog, KindRef, Resource};
use resources::Verbs;
use server::{Parts, Server};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why the server does not start, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

fn flag(name: &str) -> impl Fn(pki::PkiError) -> StartError {
    move |e| StartError(format!("--{name}: {e}"))
}

/// How long etcd is waited for at the start.
const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// Serves until `shutdown` ends.
pub fn run(
    options: Options,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), StartError>>>> {
    // Boxed, the daemon is compiled here, once, and not again in its program.
    Box::pin(work(options, shutdown.cancelled_owned()))
}

async fn work(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    let tokens = tokens(&options)?;
    let modes = options.modes().map_err(StartError)?;
    let admission = admission_chain(&options)?;
    let signer = match &options.service_account_signing_key_file {
        Some(path) => {
            let pem = pki::files::read(path).map_err(flag("service-account-signing-key-file"))?;
            Some(
                pki::jwt::Signer::from_pem(&pem, &path.display().to_string())
                    .map_err(flag("service-account-signing-key-file"))?,
            )
        }
        None => None,
    };
    let kubelets = Arc::new(connect::Kubelets::new(&options).map_err(StartError)?);
    let (tls, serving) = serve::tls_config(&options)?;
    let peers = Arc::new(peers::Peers::new(&options)?);
    let listener = serve::listen(&options).await?;
    let store = open_store(&options).await?;
    let cache = Cache::new(store.clone(), options.etcd_root());
    let catalog = catalog(&cache, &options.runtime_config).await?;
    // None of these ends by itself: without one of them the server would answer, and be wrong.
    let mut tasks = JoinSet::new();
    let following = cache.clone();
    tasks.spawn(async move {
        following.run().await;
        "the watch on the store"
    });
    let forgetting = cache.clone();
    tasks.spawn(async move {
        forgetting.forget_old().await;
        "the forgetting of what is old"
    });
    if !options.etcd_compaction_interval.is_zero() {
        let (cache, interval) = (cache.clone(), options.etcd_compaction_interval);
        tasks.spawn(async move {
            cache.compact(interval).await;
            "the compaction"
        });
    }
    let reloaded = reload::run(options.clone(), serving, peers.clone(), kubelets.clone());
    tasks.spawn(async move {
        reloaded.await;
        "the look after certificates"
    });
    let authorizers = Authorizers::new(modes);
    let parts = Parts { options, store, cache, catalog, tokens, authorizers, admission, signer, kubelets };
    let server = Server::new(parts);
    let started = server.clone();
    tasks.spawn(async move {
        bootstrap::run(started).await;
        "the look after the cluster's own objects"
    });
    tokio::select! {
        () = serve::serve(server, listener, tls, peers, shutdown) => Ok(()),
        Some(ended) = tasks.join_next() => Err(StartError(match ended {
            Ok(what) => format!("{what} ended"),
            Err(e) => format!("a part of the server failed: {e}"),
        })),
    }
}

fn admission_chain(options: &Options) -> Result<admission::Chain, StartError> {
    use admission::config::{Config, ConfigError};
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| ConfigError(format!("cannot read {}: {e}", path.display())))
    };
    let failed = |e: ConfigError| StartError(format!("admission: {e}"));
    let config = match &options.admission_control_config_file {
        None => Config::default(),
        Some(file) => {
            let dir = file.parent().unwrap_or(Path::new("."));
            Config::parse(&read(file).map_err(failed)?, &|path| read(&dir.join(path))).map_err(failed)?
        }
    };
    let mut config = config;
    config.not_ready_seconds = Some(options.default_not_ready_toleration_seconds);
    config.unreachable_seconds = Some(options.default_unreachable_toleration_seconds);
    let (on, off) = (&options.enable_admission_plugins, &options.disable_admission_plugins);
    admission::Chain::new(on, off, &config, Vec::new()).map_err(failed)
}

fn tokens(options: &Options) -> Result<Tokens, StartError> {
    let mut tokens = Tokens::default();
    tokens.bootstrap = options.enable_bootstrap_token_auth;
    tokens.audiences = options.api_audiences();
    if let Some(path) = &options.token_auth_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| StartError(format!("--token-auth-file: cannot read {}: {e}", path.display())))?;
        tokens.file = TokenFile::parse(&text)
            .map_err(|e| StartError(format!("--token-auth-file: {}: {e}", path.display())))?;
    }
    let mut verifier = pki::jwt::Verifier::default();
    let signing = options
        .service_account_key_file
        .is_empty()
        .then_some(&options.service_account_signing_key_file)
        .and_then(Option::as_ref);
    let mut any = false;
    for path in options.service_account_key_file.iter().chain(signing) {
        let pem = pki::files::read(path).map_err(flag("service-account-key-file"))?;
        verifier.add_pem(&pem, &path.display().to_string()).map_err(flag("service-account-key-file"))?;
        any = true;
    }
    if any {
        tokens.service_accounts =
            Some(ServiceAccounts { verifier, issuers: options.service_account_issuer.clone() });
    }
    Ok(tokens)
}

async fn open_store(options: &Options) -> Result<Arc<dyn Store>, StartError> {
    if options.etcd_servers.is_empty() {
        let store = store::embedded::Embedded::open(&options.data_dir)
            .map_err(|e| StartError(format!("--data-dir: {e}")))?;
        return Ok(Arc::new(store));
    }
    let etcd = store::etcd::Options {
        servers: options.etcd_servers.clone(),
        ca_file: options.etcd_cafile.clone(),
        cert_file: options.etcd_certfile.clone(),
        key_file: options.etcd_keyfile.clone(),
    };
    let store =
        store::etcd::Etcd::connect(&etcd, STORE_PATIENCE).await.map_err(|e| StartError(e.to_string()))?;
    Ok(Arc::new(store))
}

fn schema_of(gvk: &api::GroupVersionKind) -> Result<api::schema::SchemaRef, StartError> {
    let schema = api::schema::builtin().kind(gvk).cloned();
    schema.ok_or_else(|| StartError(format!("the schema of {gvk} is missing")))
}

/// The built-in kinds as resources, each with its collection in the cache.
async fn catalog(cache: &Arc<Cache>, config: &[(String, bool)]) -> Result<Catalog, StartError> {
    let mut all = Vec::new();
    for kind in resources::registry::kinds() {
        let names = kind.names();
        let gvk = names.gvk();
        let schema = schema_of(&gvk)?;
        let collection = match kind.verbs() {
            Verbs::CreateOnly | Verbs::Computed => None,
            Verbs::All | Verbs::NotDeleteCollection => {
                let path = kind.stored().prefix;
                let stored_as = schema.clone();
                let decode = Arc::new(move |bytes: &bytes::Bytes| codec::decode(bytes, &stored_as, *kind));
                let selectable = kind.selectable().iter().map(|s| Selectable::new(s, &schema)).collect();
                let collection =
                    Arc::new(Collection::new(format!("{}{path}/", cache.root()), selectable, decode));
                cache.add(path, collection.clone()).await.map_err(|e| StartError(e.to_string()))?;
                Some(collection)
            }
        };
        let own = Arc::new(Resource {
            kind: KindRef::Builtin(*kind),
            names,
            namespaced: kind.namespaced(),
            group_resource: names.resource(),
            gvk,
            schema,
            collection,
            facet: None,
        });
        all.push(own.clone());
        for version in kind.versions() {
            let gvk = version.names.gvk();
            all.push(Arc::new(Resource {
                kind: own.kind.clone(),
                names: version.names,
                namespaced: own.namespaced,
                group_resource: version.names.resource(),
                schema: schema_of(&gvk)?,
                gvk,
                collection: own.collection.clone(),
                facet: Some(catalog::Facet { version, own: own.clone() }),
            }));
        }
    }
    let served =
        catalog::Served::new(config, &all).map_err(|e| StartError(format!("--runtime-config: {e}")))?;
    Ok(Catalog::new(all, |resource| served.has(resource)))
}
