//! The API server: connections, the road of a request, verbs, the watch cache, discovery.
//!
//! Start at [`run`]; then [`chain::handle`] for the road of a request, [`verbs`] for what each does, and
//! [`cache`] for where reads come from. Knows kinds by their rules ([`resources::AnyKind`]) and schemas; what is
//! particular to a few of them is in [`served`], [`services`] and [`verbs::connect`].

pub mod access;
pub mod body;
pub mod bootstrap;
pub mod cache;
pub mod catalog;
pub mod chain;
pub mod codec;
mod compress;
pub mod connect;
pub mod discovery;
pub mod health;
pub mod limits;
pub mod list_body;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod options;
pub mod paths;
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
    let kubelets = connect::Kubelets::new(&options).map_err(StartError)?;
    let tls = serve::tls_config(&options)?;
    let authorities = serve::Authorities::new(&options)?;
    let listener = serve::listen(&options).await?;
    let store = open_store(&options).await?;
    let cache = Cache::new(store.clone());
    let catalog = catalog(&cache).await?;
    tokio::spawn(cache.clone().run());
    if options.etcd_compaction_interval > 0 {
        let interval = Duration::from_secs(options.etcd_compaction_interval);
        tokio::spawn(cache.clone().compact(interval));
    }
    let authorizers = Authorizers::new(modes);
    let parts = Parts { options, store, cache, catalog, tokens, authorizers, admission, signer, kubelets };
    let server = Server::new(parts);
    tokio::spawn(bootstrap::run(server.clone()));
    serve::serve(server, listener, tls, authorities, shutdown).await;
    Ok(())
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
    let (on, off) = (&options.enable_admission_plugins, &options.disable_admission_plugins);
    admission::Chain::new(on, off, &config, Vec::new()).map_err(failed)
}

fn tokens(options: &Options) -> Result<Tokens, StartError> {
    let mut tokens = Tokens::default();
    tokens.bootstrap = options.enable_bootstrap_token_auth;
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
        tokens.service_accounts = Some(ServiceAccounts {
            verifier,
            issuers: options.service_account_issuer.clone(),
            audiences: options.api_audiences(),
        });
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
async fn catalog(cache: &Arc<Cache>) -> Result<Catalog, StartError> {
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
                    Arc::new(Collection::new(format!("{}{path}/", cache::ROOT), selectable, decode));
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
    Ok(Catalog::new(all))
}
