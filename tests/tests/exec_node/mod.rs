//! A node that needs no container runtime: the kubelet's WebSockets, and processes of this machine in place of
//! containers' behind them.

use ferrokube_tests::Cluster;
use futures::SinkExt;
use futures::stream::SplitSink;
use futures::{StreamExt, future};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming as Asked;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kubelet::streaming::websocket::{self, CHANNELS, Incoming, Protocol, Socket};
use kubelet::streaming::{Body, text};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::convert::Infallible;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// Starts the node, and puts the pod `shell` of namespace `default` on it.
pub fn start(c: &Cluster) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    runtime.spawn(serve(listener, tls()));
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}});
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shell", "namespace": "default"},
        "spec": {"nodeName": "here", "containers": [{"name": "c", "image": "i"}]},
    });
    c.kubectl(&["create", "serviceaccount", "default"]).unwrap();
    c.kubectl_with(&["create", "-f", "-"], &node.to_string()).unwrap();
    c.kubectl(&["patch", "node", "here", "--subresource=status", "-p", &status.to_string()]).unwrap();
    c.kubectl_with(&["create", "-f", "-"], &pod.to_string()).unwrap();
    runtime
}

fn tls() -> TlsAcceptor {
    let subject = pki::ca::Subject {
        common_name: "here".into(),
        dns_names: vec![],
        addresses: vec![[127, 0, 0, 1].into()],
        organizations: vec![],
    };
    let (cert, key) = pki::ca::self_signed(&subject, Duration::from_secs(3600)).expect("a certificate");
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key);
    TlsAcceptor::from(Arc::new(config.expect("a configuration")))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| future::ready(Ok::<_, Infallible>(exec(request))));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

fn exec(mut request: Request<Asked>) -> Response<Body> {
    let query: Vec<(String, String)> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let command: Vec<String> = query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
    let asked = (request.uri().path(), websocket::choose(&request, &CHANNELS), command.split_first());
    let ("/exec/default/shell/c", Some(protocol), Some((program, arguments))) = asked else {
        return text(StatusCode::NOT_FOUND, "there is only the container c of default/shell");
    };
    let Some(answer) = websocket::handshake(&request, protocol.name) else {
        return text(StatusCode::BAD_REQUEST, "no key");
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if query.iter().any(|(k, v)| k == "input" && v == "1" || k == "stdin" && v == "true") {
        command.stdin(Stdio::piped());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let socket = websocket::accept(upgrade.await.expect("an upgrade")).await;
        run(socket, protocol, command).await;
    });
    answer
}

/// Joins a process to the socket until it ends.
async fn run(socket: Socket, protocol: Protocol, mut command: Command) {
    let (mut sink, mut source) = socket.split();
    let mut child = command.kill_on_drop(true).spawn().expect("a command of this machine");
    let (send, mut outputs) = mpsc::channel(16);
    let outs: [(u8, Box<dyn tokio::io::AsyncRead + Send + Unpin>); 2] = [
        (STDOUT, Box::new(child.stdout.take().expect("its output"))),
        (STDERR, Box::new(child.stderr.take().expect("its errors"))),
    ];
    for (channel, mut from) in outs {
        let send = send.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                if send.send((channel, buffer[..n].to_vec())).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(send);
    let mut stdin = child.stdin.take();
    loop {
        tokio::select! {
            output = outputs.recv() => match output {
                Some((channel, data)) => say(&mut sink, protocol, channel, &data).await,
                None => break,
            },
            input = websocket::next(&mut source, protocol.framing) => match (input, &mut stdin) {
                (Incoming::Data(STDIN, data), Some(to)) => drop(to.write_all(&data).await),
                (Incoming::Close(STDIN), _) => stdin = None,
                (Incoming::Gone, _) => return,
                _ => {}
            },
        }
    }
    drop(stdin);
    let status = verdict(child.wait().await.expect("its end"));
    say(&mut sink, protocol, STATUS, status.to_string().as_bytes()).await;
    let _ = websocket::close(&mut sink).await;
}

type Sink = SplitSink<Socket, tokio_tungstenite::tungstenite::Message>;

async fn say(sink: &mut Sink, protocol: Protocol, channel: u8, data: &[u8]) {
    let _ = sink.send(websocket::message(protocol.framing, channel, data)).await;
}

fn verdict(status: ExitStatus) -> serde_json::Value {
    match status.code() {
        Some(0) => json!({"metadata": {}, "status": "Success"}),
        code => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: {status}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.unwrap_or(137).to_string()}]},
        }),
    }
}
