//! Connections onward: to kubelets, pods and services. A request is passed on as it came; if the other side
//! switches protocols (exec, attach, port-forward), the two connections become one pipe.

use crate::body::{Body, BodyError, Stream};
use crate::rewrite::{Rewrite, Rewritten};
use crate::verbs::Answer;
use api::Status;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT: Duration = Duration::from_secs(10);

/// How this server speaks with kubelets.
pub struct Kubelets {
    tls: RwLock<Arc<ClientConfig>>,
    /// For pods and services that are spoken to with `https:`: nothing is known of their certificates.
    anyone: Arc<ClientConfig>,
}

/// Where a request goes on.
pub struct Target {
    /// A host's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// With TLS, and whose.
    pub tls: Tls,
    /// Path and query.
    pub path: String,
    /// Only addresses that pods and nodes may have will do: neither this machine's own nor what is next to it.
    pub inside: bool,
}

impl Target {
    /// `host:port`.
    pub fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

/// Whether a target speaks TLS.
#[derive(Clone, Copy, PartialEq)]
pub enum Tls {
    /// It does not.
    None,
    /// It is a kubelet: we show our certificate.
    Kubelet,
    /// It is anyone.
    Anyone,
}

impl Kubelets {
    /// Reads the certificate, key and authority of the `--kubelet-*` flags.
    pub fn new(options: &crate::options::Options) -> Result<Self, String> {
        let (tls, anyone) = Self::configs(options)?;
        Ok(Kubelets { tls: RwLock::new(tls), anyone })
    }

    /// Reads them again.
    pub fn read(&self, options: &crate::options::Options) -> Result<(), String> {
        let (tls, _) = Self::configs(options)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// For kubelets, and for anyone.
    fn configs(options: &crate::options::Options) -> Result<(Arc<ClientConfig>, Arc<ClientConfig>), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())
        };
        let accept_any = pki::any_server();
        let verified = match &options.kubelet_certificate_authority {
            Some(path) => {
                let pem =
                    pki::files::read(path).map_err(|e| format!("--kubelet-certificate-authority: {e}"))?;
                let mut roots = rustls::RootCertStore::empty();
                for certificate in pki::files::certificates(&pem, "--kubelet-certificate-authority")
                    .map_err(|e| e.to_string())?
                {
                    roots.add(certificate).map_err(|e| format!("--kubelet-certificate-authority: {e}"))?;
                }
                builder()?.with_root_certificates(roots)
            }
            None => builder()?.dangerous().with_custom_certificate_verifier(accept_any.clone()),
        };
        let tls = match (&options.kubelet_client_certificate, &options.kubelet_client_key) {
            (Some(certificate), Some(key)) => {
                let pem = |path, flag: &str| pki::files::read(path).map_err(|e| format!("{flag}: {e}"));
                let chain = pki::files::certificates(
                    &pem(certificate, "--kubelet-client-certificate")?,
                    "--kubelet-client-certificate",
                )
                .map_err(|e| e.to_string())?;
                let key = pki::files::private_key(&pem(key, "--kubelet-client-key")?, "--kubelet-client-key")
                    .map_err(|e| e.to_string())?;
                let certified = pki::tls::client_certificate(chain, key, "--kubelet-client-certificate");
                verified.with_client_cert_resolver(certified.map_err(|e| e.to_string())?)
            }
            _ => verified.with_no_client_auth(),
        };
        let anyone =
            builder()?.dangerous().with_custom_certificate_verifier(accept_any).with_no_client_auth();
        Ok((Arc::new(tls), Arc::new(anyone)))
    }

    async fn open(&self, target: &Target) -> Result<http1::SendRequest<Full<Bytes>>, Failed> {
        let address = target.authority();
        let late = |_| Failed::Backend(format!("dial tcp {address}: i/o timeout"));
        let failed = |e: std::io::Error| Failed::Backend(format!("dial tcp {address}: {e}"));
        let found = tokio::net::lookup_host((target.host.as_str(), target.port));
        let found = tokio::time::timeout(CONNECT, found).await.map_err(late)?.map_err(failed)?;
        // What was looked at is what is connected with.
        let found: Vec<SocketAddr> = found.collect();
        if target.inside && found.iter().any(|a| !is_global_unicast(a.ip())) {
            return Err(Failed::NotAllowed);
        }
        let tcp = tokio::time::timeout(CONNECT, TcpStream::connect(&*found)).await.map_err(late)?;
        let tcp = tcp.map_err(failed)?;
        prepare(&tcp);
        let backend = |e: &dyn std::fmt::Display| Failed::Backend(e.to_string());
        let config = match target.tls {
            Tls::None => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(tcp)).await.map_err(|e| backend(&e))?;
                tokio::spawn(connection.with_upgrades());
                return Ok(sender);
            }
            Tls::Kubelet => self.tls.read().unwrap_or_else(PoisonError::into_inner).clone(),
            Tls::Anyone => self.anyone.clone(),
        };
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| Failed::Backend(format!("{:?} is no host name", target.host)))?;
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp);
        let tls = tokio::time::timeout(CONNECT, tls).await.map_err(late)?.map_err(failed)?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|e| backend(&e))?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// Passes a request on and its answer back. `body` has been read already, if there was one.
    pub async fn forward(
        &self,
        target: Target,
        method: Method,
        headers: &HeaderMap,
        body: Bytes,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
        rewrite: Option<Rewrite>,
    ) -> Answer {
        let failed = |e: String| Status::failure(500, "InternalError", format!("error dialing backend: {e}"));
        let mut sender = self.open(&target).await.map_err(|e| match e {
            Failed::NotAllowed => Status::bad_request("address not allowed"),
            Failed::Backend(e) => failed(e),
        })?;
        let uri: Uri = target.path.parse().map_err(|_| Status::bad_request("the path can't be passed on"))?;
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        copy_headers(headers, request.headers_mut(), upgrade.is_some());
        if rewrite.is_some() && upgrade.is_none() {
            // What is packed can't be rewritten.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        if let Ok(host) = target.authority().parse() {
            request.headers_mut().insert(HOST, host);
        }
        let mut response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else {
                return Err(Status::failure(
                    502,
                    "BadGateway",
                    "the other side switched protocols, which was not asked for",
                ));
            };
            let backend = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                // It ends when either side does; how is not ours to judge.
                let _ =
                    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, 32 << 10, 32 << 10)
                        .await;
            });
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            for (name, value) in response.headers() {
                answer.headers_mut().append(name, value.clone());
            }
            return Ok(answer);
        }
        let (parts, body) = response.into_parts();
        let is_html = |v: &HeaderValue| v.to_str().is_ok_and(|v| v.starts_with("text/html"));
        let html = parts.headers.get(CONTENT_TYPE).is_some_and(is_html)
            && !parts.headers.contains_key(CONTENT_ENCODING);
        let stream: Stream = match &rewrite {
            Some(rewrite) if html => Box::pin(Rewritten::new(body, rewrite.clone())),
            _ => Box::pin(passed_on(body)),
        };
        let mut answer = Response::new(Body::Stream(stream));
        *answer.status_mut() = parts.status;
        copy_headers(&parts.headers, answer.headers_mut(), false);
        let link = |v: &HeaderValue| rewrite.as_ref()?.link(v.to_str().ok()?)?.parse().ok();
        if let Some(to) = parts.headers.get(LOCATION).and_then(link) {
            answer.headers_mut().insert(LOCATION, to);
        }
        Ok(answer)
    }
}

/// Why there is no connection.
enum Failed {
    /// The other side is nothing that requests are passed on to.
    NotAllowed,
    /// It is not there, or does not answer.
    Backend(String),
}

/// Whether an address is one of a network, as Go says it: not this machine's own, not of the link, not everyone's.
fn is_global_unicast(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || a.is_link_local()
                || a.is_broadcast())
        }
        IpAddr::V6(a) => {
            !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_unicast_link_local())
        }
    }
}

/// After so long without a word the other side is asked whether it is there, and after so many that are not answered it
/// is taken to be gone.
const QUIET: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(15);
const UNANSWERED: u32 = 6;

/// Small packets go at once, and who went away without a word is noticed.
pub fn prepare(stream: &TcpStream) {
    use rustix::net::sockopt;
    let asked = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, QUIET))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, AGAIN))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, UNANSWERED));
    if let Err(e) = asked {
        tracing::debug!(error = %e, "a connection is not kept alive");
    }
    let _ = stream.set_nodelay(true);
}

fn passed_on(body: Incoming) -> impl http_body::Body<Data = Bytes, Error = BodyError> {
    body.map_err(|e| Box::new(e) as BodyError)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.into() }
}

/// Headers of one hop (RFC 9110, 7.6.1), and our own credentials, which are not the other side's to see.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, upgrade: bool) {
    const OWN: [HeaderName; 5] = [
        http::header::AUTHORIZATION,
        http::header::TE,
        http::header::TRAILER,
        http::header::TRANSFER_ENCODING,
        http::header::CONTENT_LENGTH,
    ];
    for (name, value) in from {
        let hop = *name == CONNECTION
            || *name == UPGRADE
            || name == "keep-alive"
            || name.as_str().starts_with("impersonate-");
        if OWN.contains(name)
            || hop && !(upgrade && (*name == CONNECTION || *name == UPGRADE))
            || *name == HOST
        {
            continue;
        }
        to.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_are_passed_on_to() {
        for (address, want) in [
            ("10.1.2.3", true),
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("fd00::1", true),
        ] {
            assert_eq!(is_global_unicast(address.parse().unwrap()), want, "{address}");
        }
    }
}
