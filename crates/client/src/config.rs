//! Where the server is and who we are: kubeconfig files and the in-cluster service account.

use crate::TokenSource;
use base64::Engine;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no kubeconfig.
    #[error("{what}: not a kubeconfig: {reason}")]
    Parse {
        /// The file.
        what: String,
        /// Why.
        reason: String,
    },
    /// A field's value can't be used.
    #[error("{what}: {field}: {reason}")]
    Field {
        /// The file.
        what: String,
        /// The field's path.
        field: String,
        /// Why.
        reason: String,
    },
    /// A certificate or key can't be used.
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    /// TLS does not accept it.
    #[error("{what}: {reason}")]
    Tls {
        /// What was given.
        what: String,
        /// Why.
        reason: String,
    },
    /// We don't run in a cluster.
    #[error("not running in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be set")]
    NotInCluster,
}

/// A client certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCertificate {
    /// In files, which are read again when they change.
    Files {
        /// The certificate, and its intermediates.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// In memory.
    Data {
        /// The certificate, and its intermediates.
        certificate: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
}

/// Where the server is and who we are.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port`, maybe with a path.
    pub server: String,
    /// The namespace of the context; `default` if it names none.
    pub namespace: String,
    /// Authorities, PEM, that the server's certificate must come from; the system's if there are none.
    pub ca: Option<Vec<u8>>,
    /// Accept any certificate of the server.
    pub insecure: bool,
    /// The name to look for in the server's certificate, if it is not the host of `server`.
    pub server_name: Option<String>,
    /// Our certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Our bearer token.
    pub token: TokenSource,
    /// The `User-Agent` header.
    pub agent: String,
    /// How long one request may take; watches and other streams have this long to begin.
    pub timeout: Duration,
}

impl Config {
    /// A server, no credentials.
    pub fn new(server: &str) -> Config {
        Config {
            server: server.into(),
            namespace: "default".into(),
            ca: None,
            insecure: false,
            server_name: None,
            client_certificate: None,
            token: TokenSource::None,
            agent: agent("ferrokube"),
            timeout: Duration::from_secs(70), // the server itself gives up after 60
        }
    }

    /// The current context of a kubeconfig file.
    pub fn from_kubeconfig_file(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read(path).map_err(|source| ConfigError::File { path: path.into(), source })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        Config::from_kubeconfig_bytes(&text, dir, &path.display().to_string())
    }

    /// The current context of a kubeconfig; relative paths in it start at `dir`, errors name it `what`.
    pub fn from_kubeconfig_bytes(yaml: &[u8], dir: &Path, what: &str) -> Result<Config, ConfigError> {
        let file: File = serde_norway::from_slice(yaml)
            .map_err(|e| ConfigError::Parse { what: what.into(), reason: e.to_string() })?;
        file.resolve(&Reader { what, dir })
    }

    /// The service account of the pod we run in.
    pub fn in_cluster() -> Result<Config, ConfigError> {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty()).ok_or(ConfigError::NotInCluster);
        let (host, port) = (var("KUBERNETES_SERVICE_HOST")?, var("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let dir = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        let ca = dir.join("ca.crt");
        let namespace = std::fs::read_to_string(dir.join("namespace")).unwrap_or_else(|_| "default".into());
        Ok(Config {
            ca: Some(std::fs::read(&ca).map_err(|source| ConfigError::File { path: ca, source })?),
            token: TokenSource::file(dir.join("token"))?,
            namespace: namespace.trim().into(),
            ..Config::new(&format!("https://{host}:{port}"))
        })
    }

    /// Names the program in the `User-Agent` header.
    pub fn user_agent(mut self, program: &str) -> Config {
        self.agent = agent(program);
        self
    }

    /// Sets a bearer token.
    pub fn token(mut self, token: &str) -> Config {
        self.token = TokenSource::Fixed(token.into());
        self
    }

    /// Sets the authorities, PEM, that the server's certificate must come from.
    pub fn ca_pem(mut self, pem: Vec<u8>) -> Config {
        self.ca = Some(pem);
        self
    }

    /// The same server, without credentials.
    pub fn anonymous(&self) -> Config {
        Config { client_certificate: None, token: TokenSource::None, ..self.clone() }
    }
}

fn agent(program: &str) -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{program}/v{} ({}/{arch}) ferrokube", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct File {
    current_context: String,
    clusters: Vec<Named>,
    users: Vec<Named>,
    contexts: Vec<Named>,
}

/// An entry of one of the three lists; each has its body under a name of its own.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    cluster: Option<Cluster>,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    context: Option<Context>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    tls_server_name: String,
    insecure_skip_tls_verify: bool,
    certificate_authority: String,
    certificate_authority_data: String,
    proxy_url: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    exec: Option<serde_norway::Value>,
    auth_provider: Option<serde_norway::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: String,
}

struct Reader<'a> {
    what: &'a str,
    dir: &'a Path,
}

impl Reader<'_> {
    fn fault(&self, field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
        ConfigError::Field { what: self.what.into(), field: field.into(), reason: reason.into() }
    }

    fn path(&self, p: &str) -> PathBuf {
        self.dir.join(p)
    }

    /// The content of a field that is inline, in base64, or in a file; inline wins.
    fn bytes(&self, at: &str, data: &str, file: &str) -> Result<Option<Vec<u8>>, ConfigError> {
        if !data.is_empty() {
            let plain = data.split_whitespace().collect::<String>();
            let decoded = base64::engine::general_purpose::STANDARD.decode(plain);
            return decoded
                .map(Some)
                .map_err(|e| self.fault(format!("{at}-data"), format!("not base64: {e}")));
        }
        if file.is_empty() {
            return Ok(None);
        }
        let path = self.path(file);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) => Err(self.fault(at, format!("cannot read {}: {e}", path.display()))),
        }
    }
}

impl File {
    fn resolve(self, r: &Reader<'_>) -> Result<Config, ConfigError> {
        let find = |list: &[Named], kind: &str, name: &str| {
            list.iter()
                .position(|n| n.name == name)
                .ok_or_else(|| r.fault(kind, format!("no entry is named {name:?}")))
        };
        if self.current_context.is_empty() {
            return Err(r.fault("current-context", "not set"));
        }
        let i = find(&self.contexts, "contexts", &self.current_context)?;
        let context = self.contexts.into_iter().nth(i).and_then(|n| n.context).unwrap_or_default();
        let i = find(&self.clusters, "clusters", &context.cluster)?;
        let cluster = self.clusters.into_iter().nth(i).and_then(|n| n.cluster).unwrap_or_default();
        let user = if context.user.is_empty() {
            User::default()
        } else {
            let i = find(&self.users, "users", &context.user)?;
            self.users.into_iter().nth(i).and_then(|n| n.user).unwrap_or_default()
        };
        let (c, u) =
            (format!("clusters[{}].cluster", context.cluster), format!("users[{}].user", context.user));
        if cluster.server.is_empty() {
            return Err(r.fault(format!("{c}.server"), "not set"));
        }
        for (used, field) in [
            (!cluster.proxy_url.is_empty(), format!("{c}.proxy-url")),
            (!user.username.is_empty(), format!("{u}.username")),
            (user.exec.is_some(), format!("{u}.exec")),
            (user.auth_provider.is_some(), format!("{u}.auth-provider")),
        ] {
            if used {
                return Err(r.fault(field, "not supported; use a certificate, token or tokenFile"));
            }
        }
        let ca = r.bytes(
            &format!("{c}.certificate-authority"),
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )?;
        let token = match (user.token, user.token_file) {
            (token, _) if !token.is_empty() => TokenSource::Fixed(token.into()),
            (_, file) if !file.is_empty() => TokenSource::file(r.path(&file))?,
            _ => TokenSource::None,
        };
        let namespace = if context.namespace.is_empty() { "default".into() } else { context.namespace };
        Ok(Config {
            namespace,
            ca,
            insecure: cluster.insecure_skip_tls_verify,
            server_name: Some(cluster.tls_server_name).filter(|n| !n.is_empty()),
            client_certificate: certificate(
                r,
                &u,
                &user.client_certificate,
                &user.client_certificate_data,
                &user.client_key,
                &user.client_key_data,
            )?,
            token,
            ..Config::new(&cluster.server)
        })
    }
}

fn certificate(
    r: &Reader<'_>,
    at: &str,
    file: &str,
    data: &str,
    key_file: &str,
    key_data: &str,
) -> Result<Option<ClientCertificate>, ConfigError> {
    let (has_certificate, has_key) =
        (!file.is_empty() || !data.is_empty(), !key_file.is_empty() || !key_data.is_empty());
    match (has_certificate, has_key) {
        (false, false) => return Ok(None),
        (true, false) => {
            return Err(r.fault(format!("{at}.client-key"), "not set, but client-certificate is"));
        }
        (false, true) => {
            return Err(r.fault(format!("{at}.client-certificate"), "not set, but client-key is"));
        }
        (true, true) => {}
    }
    // Only when both are in files can they be replaced while we run.
    if data.is_empty() && key_data.is_empty() {
        return Ok(Some(ClientCertificate::Files { certificate: r.path(file), key: r.path(key_file) }));
    }
    let certificate = r.bytes(&format!("{at}.client-certificate"), data, file)?.unwrap_or_default();
    let key = r.bytes(&format!("{at}.client-key"), key_data, key_file)?.unwrap_or_default();
    Ok(Some(ClientCertificate::Data { certificate, key }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Config, ConfigError> {
        Config::from_kubeconfig_bytes(yaml.as_bytes(), Path::new("/conf"), "kc")
    }

    #[test]
    fn the_current_context_is_resolved() {
        let c = read(
            "apiVersion: v1\nkind: Config\ncurrent-context: b\n\
             clusters: [{name: x, cluster: {server: 'https://a:1'}}, {name: y, cluster: {server: 'https://b:2/p', tls-server-name: n, certificate-authority-data: YWJj}}]\n\
             users: [{name: u, user: {client-certificate: c.pem, client-key: /k.pem}}, {name: t, user: {token: tok}}]\n\
             contexts: [{name: a, context: {cluster: x, user: t}}, {name: b, context: {cluster: y, user: u, namespace: ns}}]\n",
        )
        .unwrap();
        assert_eq!(
            (c.server.as_str(), c.namespace.as_str(), c.server_name.as_deref()),
            ("https://b:2/p", "ns", Some("n"))
        );
        assert_eq!(c.ca.as_deref(), Some(&b"abc"[..]));
        assert_eq!(
            c.client_certificate,
            Some(ClientCertificate::Files { certificate: "/conf/c.pem".into(), key: "/k.pem".into() })
        );
    }

    #[test]
    fn faults_name_file_and_field() {
        let head = "current-context: a\ncontexts: [{name: a, context: {cluster: x, user: u}}]\n";
        for (tail, want) in [
            ("", "kc: clusters: no entry is named \"x\""),
            ("clusters: [{name: x}]\nusers: [{name: u}]", "kc: clusters[x].cluster.server: not set"),
            ("clusters: [{name: x, cluster: {server: s}}]", "kc: users: no entry is named \"u\""),
            (
                "clusters: [{name: x, cluster: {server: s, certificate-authority-data: '*'}}]\nusers: [{name: u}]",
                "kc: clusters[x].cluster.certificate-authority-data: not base64",
            ),
            (
                "clusters: [{name: x, cluster: {server: s, certificate-authority: nowhere}}]\nusers: [{name: u}]",
                "kc: clusters[x].cluster.certificate-authority: cannot read /conf/nowhere",
            ),
            (
                "clusters: [{name: x, cluster: {server: s}}]\nusers: [{name: u, user: {client-key: k}}]",
                "kc: users[u].user.client-certificate: not set",
            ),
            (
                "clusters: [{name: x, cluster: {server: s}}]\nusers: [{name: u, user: {exec: {command: c}}}]",
                "kc: users[u].user.exec: not supported",
            ),
        ] {
            let got = read(&format!("{head}{tail}")).unwrap_err().to_string();
            assert!(got.starts_with(want), "{got}");
        }
        assert!(read("a: [").unwrap_err().to_string().starts_with("kc: not a kubeconfig"));
        assert_eq!(read("kind: Config").unwrap_err().to_string(), "kc: current-context: not set");
    }
}
