//! Bearer tokens: fixed, from a file that is read again, or asked from the server for a service account.

use crate::{Client, ConfigError, Error, ObjectExt};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How often a token file is read again, as upstream does.
const REREAD: Duration = Duration::from_secs(60);
/// The lifetime asked for a service account's token, as upstream's controller manager does.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Where the bearer token comes from.
#[derive(Clone, Debug, Default)]
pub enum TokenSource {
    /// There is none.
    #[default]
    None,
    /// It never changes.
    Fixed(Arc<str>),
    /// A file, read again every minute.
    File(Arc<TokenFile>),
    /// The server makes it for a service account.
    ServiceAccount(Arc<Minter>),
}

/// A token in a file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    state: std::sync::Mutex<(Arc<str>, Instant)>,
}

/// Asks for a service account's token, and for another before it ends.
pub struct Minter {
    client: Client,
    namespace: String,
    name: String,
    state: Mutex<Option<(Arc<str>, Instant)>>,
}

impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Minter({}/{})", self.namespace, self.name)
    }
}

fn read(path: &PathBuf) -> Result<Arc<str>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
    Ok(text.trim().into())
}

impl TokenSource {
    /// A token in a file; it must be there.
    pub fn file(path: PathBuf) -> Result<TokenSource, ConfigError> {
        let state = std::sync::Mutex::new((read(&path)?, Instant::now()));
        Ok(TokenSource::File(Arc::new(TokenFile { path, state })))
    }

    /// The token of a service account, which is made if it is not there. `client` asks for it.
    pub fn service_account(client: &Client, namespace: &str, name: &str) -> TokenSource {
        TokenSource::ServiceAccount(Arc::new(Minter {
            client: client.clone(),
            namespace: namespace.into(),
            name: name.into(),
            state: Mutex::new(None),
        }))
    }

    /// The token to send now.
    pub(crate) async fn get(&self) -> Result<Option<Arc<str>>, Error> {
        match self {
            TokenSource::None => Ok(None),
            TokenSource::Fixed(token) => Ok(Some(token.clone())),
            TokenSource::File(file) => Ok(Some(file.get())),
            // Boxed, since minting sends a request, which asks for a token.
            TokenSource::ServiceAccount(minter) => Box::pin(minter.get()).await.map(Some),
        }
    }

    /// The server did not accept the token: don't use it again.
    pub(crate) async fn refused(&self) {
        match self {
            TokenSource::ServiceAccount(minter) => *minter.state.lock().await = None,
            TokenSource::File(file) => file.reread(),
            _ => {}
        }
    }
}

impl TokenFile {
    fn get(&self) -> Arc<str> {
        let stale = {
            let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
            state.1.elapsed() > REREAD
        };
        if stale {
            self.reread();
        }
        self.state.lock().unwrap_or_else(|e| e.into_inner()).0.clone()
    }

    fn reread(&self) {
        let fresh = read(&self.path);
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        match fresh {
            Ok(token) => *state = (token, Instant::now()),
            Err(e) => tracing::warn!("keeping the old token: {e}"),
        }
    }
}

impl Minter {
    async fn get(&self) -> Result<Arc<str>, Error> {
        let mut state = self.state.lock().await;
        if let Some((token, renew)) = &*state
            && Instant::now() < *renew
        {
            return Ok(token.clone());
        }
        let asked = match self.ask().await {
            Err(e) if e.is_not_found() => {
                let mut account = ServiceAccount::default();
                account.metadata.namespace = Some(self.namespace.clone());
                account.metadata.name = Some(self.name.clone());
                match self.client.create(&account).await {
                    Ok(a) => tracing::info!("made service account {}", a.key()),
                    Err(e) if e.is_already_exists() => {}
                    Err(e) => return Err(e),
                }
                self.ask().await?
            }
            other => other?,
        };
        let status = asked.status.unwrap_or_default();
        let token: Arc<str> = status.token.unwrap_or_default().into();
        let now = jiff::Timestamp::now();
        let left = status.expiration_timestamp.map_or(LIFETIME, |end| api::time::between(now, end.0));
        *state = Some((token.clone(), Instant::now() + left.mul_f64(0.8)));
        Ok(token)
    }

    async fn ask(&self) -> Result<TokenRequest, Error> {
        let spec =
            TokenRequestSpec { expiration_seconds: Some(LIFETIME.as_secs() as i64), ..Default::default() };
        let request = TokenRequest { spec: Some(spec), ..Default::default() };
        self.client
            .create_subresource::<ServiceAccount, _, _>(&self.namespace, &self.name, "token", &request)
            .await
    }
}
