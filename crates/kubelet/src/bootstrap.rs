//! Certificates from the cluster: the first client certificate when a node joins, new ones before the old end,
//! and serving certificates where the operator wants the cluster to sign them. Start at [`client_config`] and
//! [`rotate`]. File names are upstream's: `kubelet-client-current.pem`, `kubelet-server-current.pem`.

use crate::config::Config;
use crate::server::tls::{TlsError, write_secret};
use base64::Engine;
use client::{Client, ConfigError, Informers, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a request may wait to be approved before another is made.
const APPROVAL: Duration = Duration::from_secs(900);

/// Why no certificate was had.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] ConfigError),
    /// The API.
    #[error("certificate signing request")]
    Api(#[from] client::Error),
    /// Making the key or the request.
    #[error("a certificate request could not be made")]
    Make(#[from] rcgen::Error),
    /// Somebody said no.
    #[error("certificate signing request {0} was denied")]
    Denied(String),
    /// Nobody said anything.
    #[error("certificate signing request {0} was not approved in time")]
    NotApproved(String),
    /// Writing it down.
    #[error(transparent)]
    Write(#[from] TlsError),
    /// Writing it down.
    #[error("cannot write {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BootstrapError {
    let path = path.to_owned();
    move |source| BootstrapError::File { path, source }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Client,
    Server,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Purpose::Client => "client",
            Purpose::Server => "server",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Purpose::Server => "kubernetes.io/kubelet-serving",
        }
    }

    fn current(self, dir: &Path) -> PathBuf {
        dir.join(format!("kubelet-{}-current.pem", self.word()))
    }
}

/// The API client's configuration; makes the kubeconfig first, with a certificate of the node's own, when only
/// the bootstrap one is there.
pub async fn client_config(config: &Config) -> Result<client::Config, BootstrapError> {
    let path = Path::new(&config.kubeconfig);
    // a certificate that has ended does not renew itself: nobody would know who asks
    let current = Purpose::Client.current(&config.cert_dir);
    let useless = !path.exists() || has_ended(&current, jiff::Timestamp::now()) && names(path, &current);
    if useless && !config.bootstrap_kubeconfig.is_empty() {
        let boot = client::Config::from_kubeconfig_file(&config.bootstrap_kubeconfig)?.user_agent("kubelet");
        let api = Client::new(boot.clone())?;
        info!(server = boot.server, "asking for the node's client certificate");
        let mut pause = Duration::from_secs(1);
        loop {
            match obtain(&api, config, Purpose::Client, &[]).await {
                Ok(()) => break,
                Err(e) => {
                    let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
                    warn!(error = %e, cause, "no client certificate yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
        write_kubeconfig(path, &boot, &Purpose::Client.current(&config.cert_dir))?;
    }
    Ok(client::Config::from_kubeconfig_file(path)?.user_agent("kubelet"))
}

/// Asks for a certificate, waits for it and writes it with its key.
async fn obtain(
    api: &Client,
    config: &Config,
    purpose: Purpose,
    addresses: &[IpAddr],
) -> Result<(), BootstrapError> {
    let key = KeyPair::generate()?;
    let request = request(config, purpose, addresses, &key)?;
    let made = api.create(&request).await?;
    let name = made.metadata.name.unwrap_or_default();
    let waiting = issued(api, &name);
    let certificate = tokio::time::timeout(APPROVAL, waiting)
        .await
        .map_err(|_| BootstrapError::NotApproved(name.clone()))??;
    store(&config.cert_dir, purpose, &certificate, &key.serialize_pem())?;
    info!(request = name, purpose = purpose.word(), "certificate issued");
    Ok(())
}

fn request(
    config: &Config,
    purpose: Purpose,
    addresses: &[IpAddr],
    key: &KeyPair,
) -> Result<CertificateSigningRequest, BootstrapError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", config.node_name));
    let mut usages = vec!["digital signature".to_owned()];
    match purpose {
        Purpose::Client => usages.push("client auth".into()),
        Purpose::Server => {
            usages.push("server auth".into());
            params.subject_alt_names.push(SanType::DnsName(config.node_name.as_str().try_into()?));
            params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        }
    }
    let pem = params.serialize_request(key)?.pem()?;
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some(if purpose == Purpose::Client { "node-csr-" } else { "csr-" }.into()),
            ..Default::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: purpose.signer().into(),
            usages: Some(usages),
            ..Default::default()
        },
        status: None,
    })
}

/// Waits until a request has its certificate.
async fn issued(api: &Client, name: &str) -> Result<Vec<u8>, BootstrapError> {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let scope = Scope { field_selector: format!("metadata.name={name}"), ..Scope::default() };
    let informer = Informers::new(api.clone(), stop).informer_with::<CertificateSigningRequest>(scope);
    let mut changes = informer.subscribe();
    loop {
        let event = changes.next().await;
        let status = event.object().status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        if event.is_deleted() || conditions.iter().any(|c| c.type_ == "Denied" || c.type_ == "Failed") {
            return Err(BootstrapError::Denied(name.to_owned()));
        }
        if let Some(c) = status.certificate.filter(|c| !c.0.is_empty()) {
            return Ok(c.0);
        }
    }
}

/// Writes certificate and key to a file of their own, and then has `current` lead to it: a reader finds the old
/// pair or the new one.
fn store(dir: &Path, purpose: Purpose, certificate: &[u8], key: &str) -> Result<(), BootstrapError> {
    std::fs::create_dir_all(dir).map_err(at(dir))?;
    let stamp = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
    let file = format!("kubelet-{}-{stamp}.pem", purpose.word());
    write_secret(&dir.join(&file), &[certificate, b"\n", key.as_bytes()].concat())?;
    let (current, staged) = (purpose.current(dir), dir.join(format!(".kubelet-{}-next", purpose.word())));
    let _ = std::fs::remove_file(&staged);
    std::os::unix::fs::symlink(&file, &staged).map_err(at(&staged))?;
    std::fs::rename(&staged, &current).map_err(at(&current))
}

fn write_kubeconfig(path: &Path, boot: &client::Config, pem: &Path) -> Result<(), BootstrapError> {
    let mut cluster = serde_json::json!({"server": boot.server});
    if let Some(ca) = &boot.ca {
        cluster["certificate-authority-data"] = base64::engine::general_purpose::STANDARD.encode(ca).into();
    }
    if boot.insecure {
        cluster["insecure-skip-tls-verify"] = true.into();
    }
    if let Some(name) = &boot.server_name {
        cluster["tls-server-name"] = name.clone().into();
    }
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "users": [{"name": "default-auth", "user": {"client-certificate": pem, "client-key": pem}}],
        "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "user": "default-auth", "namespace": "default"}}],
        "current-context": "default-context",
    });
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(at(dir))?;
    }
    // whole or not at all: a torn file would keep the kubelet from starting for good
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    write_secret(&new, text.to_string().as_bytes())?;
    std::fs::File::open(&new).and_then(|f| f.sync_all()).map_err(at(&new))?;
    std::fs::rename(&new, path).map_err(at(path))
}

/// When a certificate begins and ends, in seconds.
fn life(path: &Path) -> Option<(i64, i64)> {
    let der = CertificateDer::from_pem_file(path).ok()?;
    let (_, cert) = X509Certificate::from_der(&der).ok()?;
    let v = cert.validity();
    Some((v.not_before.timestamp(), v.not_after.timestamp()))
}

fn has_ended(pem: &Path, now: jiff::Timestamp) -> bool {
    life(pem).is_some_and(|(_, to)| to <= now.as_second())
}

/// Whether a kubeconfig goes by this certificate.
fn names(kubeconfig: &Path, pem: &Path) -> bool {
    crate::blocking::text_of(kubeconfig).contains(&*pem.to_string_lossy())
}

/// Renews certificates before they end, for as long as it is polled: the client's where it came from the cluster
/// and rotation is on, the server's where the operator wants it signed there.
pub async fn rotate(api: Client, config: Config, addresses: Vec<IpAddr>) {
    let client = async {
        let current = Purpose::Client.current(&config.cert_dir);
        if config.rotate_certificates && current.exists() {
            keep(&api, &config, Purpose::Client, &[]).await;
        }
    };
    let server = async {
        if config.server_tls_bootstrap {
            keep(&api, &config, Purpose::Server, &addresses).await;
        }
    };
    tokio::join!(client, server);
}

async fn keep(api: &Client, config: &Config, purpose: Purpose, addresses: &[IpAddr]) {
    let mut pause = Duration::from_secs(1);
    loop {
        let wait = until_renewal(&purpose.current(&config.cert_dir), jiff::Timestamp::now());
        tokio::time::sleep(wait).await;
        match obtain(api, config, purpose, addresses).await {
            Ok(()) => pause = Duration::from_secs(1),
            Err(e) => {
                warn!(error = %e, purpose = purpose.word(), "certificate could not be renewed yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(120));
            }
        }
    }
}

/// In what time a certificate has to be renewed: when between 70 and 90 percent of its life are over, as upstream
/// does, so that many nodes do not come at once.
fn until_renewal(path: &Path, now: jiff::Timestamp) -> Duration {
    let Some((from, to)) = life(path) else { return Duration::ZERO };
    let share: f64 = rand::random_range(0.7..0.9);
    let at = from + ((to - from) as f64 * share) as i64;
    Duration::from_secs(u64::try_from(at - now.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_swapped_in_whole_and_renewed_in_time() -> Result<(), Box<dyn std::error::Error>> {
        let d = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let mut p = CertificateParams::new(vec!["n".to_owned()])?;
        p.not_before = rcgen::date_time_ymd(2026, 1, 1);
        p.not_after = rcgen::date_time_ymd(2026, 1, 11);
        let cert = p.self_signed(&key)?;
        store(d.path(), Purpose::Client, cert.pem().as_bytes(), &key.serialize_pem())?;
        let (current, kubeconfig) = (Purpose::Client.current(d.path()), d.path().join("kubeconfig"));
        let day = |d: &str| format!("2026-01-{d}T00:00:00Z").parse::<jiff::Timestamp>();
        assert!(!has_ended(&current, day("10")?) && has_ended(&current, day("11")?));
        std::fs::write(&kubeconfig, format!("client-certificate: {}", current.display()))?;
        assert!(names(&kubeconfig, &current) && !names(&kubeconfig, "/other.pem".as_ref()));
        let current = Purpose::Client.current(d.path());
        assert!(std::fs::read_to_string(&current)?.contains("PRIVATE KEY"));
        let days = until_renewal(&current, "2026-01-01T00:00:00Z".parse()?).as_secs() / 86400;
        assert!((7..9).contains(&days), "{days}");
        assert_eq!(until_renewal(&current, "2027-01-01T00:00:00Z".parse()?), Duration::ZERO);
        assert_eq!(until_renewal(Path::new("/nope"), jiff::Timestamp::now()), Duration::ZERO);
        Ok(())
    }
}
