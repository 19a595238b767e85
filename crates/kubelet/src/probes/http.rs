//! An HTTP GET: well when the answer is 2xx or 3xx. Also serves lifecycle hooks.

use super::{Outcome, port, tcp};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;

/// How much of an answer is read.
const MAX_BODY: usize = 10 << 10;
/// How many redirects within the same host are followed.
const MAX_REDIRECTS: usize = 10;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// No connection.
    #[error("dial tcp {0}: connect: {1}")]
    Connect(String, String),
    /// Something went wrong on it.
    #[error("{0}")]
    Transport(String),
    /// Who answers does not speak TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    NotTls,
    /// The address makes no sense.
    #[error("invalid request: {0}")]
    Invalid(String),
}

/// An answer.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
    /// Where it sends the caller on to.
    location: Option<String>,
}

/// The address a probe or hook asks, as events show it.
pub fn url(c: &Container, h: &HTTPGetAction, ip: &str) -> Option<String> {
    let scheme = h.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let host = h.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
    let path = h.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    // what a URI may not have in it, Go escapes
    const ODD: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    let path = percent_encoding::utf8_percent_encode(path, ODD);
    Some(format!("{scheme}://{}{slash}{path}", tcp::join(host, port(c, &h.port)?)))
}

/// Makes the request and judges the answer.
pub async fn probe(c: &Container, h: &HTTPGetAction, ip: &str) -> Outcome {
    let Some(first) = url(c, h, ip) else {
        return Outcome::Unknown(format!("couldn't find port: {:?}", h.port));
    };
    let mut target = first.clone();
    for _ in 0..=MAX_REDIRECTS {
        match get(&target, h).await {
            Err(e) => return Outcome::Failure(format!("Get {target:?}: {e}")),
            Ok(a) if (200..300).contains(&a.status) => return Outcome::Success,
            Ok(a) if (300..400).contains(&a.status) => {
                let Some(next) = a.location.as_deref().and_then(|l| follow(&target, l)) else {
                    return Outcome::Success;
                };
                if authority(&next) != authority(&first) {
                    return Outcome::Warning(format!(
                        "Probe terminated redirects, Response body: {}",
                        a.body
                    ));
                }
                target = next;
            }
            Ok(a) => return Outcome::Failure(format!("HTTP probe failed with statuscode: {}", a.status)),
        }
    }
    Outcome::Failure(format!("Get {target:?}: stopped after 10 redirects"))
}

fn authority(url: &str) -> &str {
    url.split_once("://").map_or("", |(_, r)| r.split('/').next().unwrap_or(""))
}

/// Where a redirect leads.
fn follow(from: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = from.split_once("://")?;
    let authority = rest.split('/').next()?;
    let slash = if location.starts_with('/') { "" } else { "/" };
    Some(format!("{scheme}://{authority}{slash}{location}"))
}

/// One GET.
pub async fn get(url: &str, h: &HTTPGetAction) -> Result<Answer, GetError> {
    let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| GetError::Invalid(e.to_string()))?;
    let host = uri.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| GetError::Connect(tcp::join(&host, port), tcp::reason(&e)))?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = http::Request::get(path).header("connection", "close");
    let headers = h.http_headers.as_deref().unwrap_or_default();
    let given = |name: &str| headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    if given("host").is_none() {
        request = request.header("host", uri.authority().map_or("", |a| a.as_str()));
    }
    if given("user-agent").is_none() {
        request = request.header("user-agent", "kube-probe/1.36");
    }
    if given("accept").is_none() {
        request = request.header("accept", "*/*");
    }
    for h in headers {
        // an empty value asks for the header to be left out
        if !h.value.is_empty() {
            request = request.header(h.name.as_str(), h.value.as_str());
        }
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| GetError::Invalid(e.to_string()))?;
    if tls {
        let name =
            rustls_pki_types::ServerName::try_from(host).map_err(|e| GetError::Invalid(e.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(TLS.clone());
        let stream = connector.connect(name, stream).await.map_err(|e| {
            let plain = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
            match plain {
                Some(rustls::Error::InvalidMessage(_)) => GetError::NotTls,
                _ => GetError::Transport(e.to_string()),
            }
        })?;
        send(stream, request).await
    } else {
        send(stream, request).await
    }
}

async fn send<S>(stream: S, request: http::Request<Empty<bytes::Bytes>>) -> Result<Answer, GetError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| GetError::Transport(e.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // the connection ends with the request: both are dropped together
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|l| l.to_str().ok()).map(str::to_owned);
        let body = match Limited::new(response.into_body(), MAX_BODY).collect().await {
            Ok(b) => String::from_utf8_lossy(&b.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        Ok(Answer { status, body, location })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// Probes speak to pods whose certificates nobody vouches for.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    // the provider offers both versions, so this choice of versions cannot fail
    let builder = match builder.with_safe_default_protocol_versions() {
        Ok(b) => b,
        Err(e) => unreachable!("ring supports the default TLS versions: {e}"),
    };
    Arc::new(builder.dangerous().with_custom_certificate_verifier(pki::any_server()).with_no_client_auth())
});

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use serde_json::json;

    #[test]
    fn urls() {
        let c: Container =
            serde_json::from_value(json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap_or_else(|e| panic!("{e}"));
        for (h, want) in [
            (json!({"port": 80}), "http://1.2.3.4:80/"),
            (json!({"port": "web", "path": "/x?y=1"}), "http://1.2.3.4:8080/x?y=1"),
            (json!({"port": 1, "path": "/a b"}), "http://1.2.3.4:1/a%20b"),
            (json!({"port": 1, "scheme": "HTTPS", "host": "h", "path": "p"}), "https://h:1/p"),
        ] {
            let h: HTTPGetAction = serde_json::from_value(h).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(url(&c, &h, "1.2.3.4").as_deref(), Some(want));
        }
        let missing = HTTPGetAction { port: IntOrString::String("nope".into()), ..Default::default() };
        assert_eq!(url(&c, &missing, "1.2.3.4"), None);
        assert_eq!(follow("http://a:1/x", "/y").as_deref(), Some("http://a:1/y"));
        assert_eq!(authority("http://a:1/x"), "a:1");
    }
}
