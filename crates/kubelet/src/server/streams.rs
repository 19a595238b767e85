//! `/exec`, `/attach`, `/portForward` and `/run`: the runtime is asked for an address, and the caller's upgraded
//! connection is joined to it.

use super::Server;
use super::routes::{Target, flag, queries};
use crate::runtime::observed::State;
use crate::streaming::{self, Body, forward, proxy, remote, text, websocket};
use cri::types::{AttachRequest, ExecRequest, PortForwardRequest};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::time::Duration;
use tracing::debug;

fn options(req: &Request<Incoming>) -> remote::Options {
    let either = |a: &str, b: &str| flag(req, a) || flag(req, b);
    remote::Options {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        stderr: either("error", "stderr"),
        tty: flag(req, "tty"),
    }
}

/// The id of a running container.
fn running(server: &Server, t: &Target) -> Result<String, Box<Response<Body>>> {
    let (_, seen) = server.locate(t)?;
    match seen.containers.iter().find(|c| c.name == t.container && c.state == State::Running) {
        Some(c) => Ok(c.id.clone()),
        None => {
            Err(Box::new(text(StatusCode::NOT_FOUND, format!("container not found (\"{}\")", t.container))))
        }
    }
}

/// Runs a command with streams.
pub(super) async fn exec(server: &Server, req: Request<Incoming>, t: &Target) -> Response<Body> {
    let id = match running(server, t) {
        Ok(id) => id,
        Err(r) => return *r,
    };
    let o = options(&req);
    if !(o.stdin || o.stdout || o.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let m = ExecRequest {
        container_id: id,
        cmd: queries(&req, "command"),
        tty: o.tty,
        stdin: o.stdin,
        stdout: o.stdout,
        stderr: o.stderr && !o.tty,
    };
    match server.cx.runtime.exec(m).await {
        Ok(url) => join(req, &url, o).await,
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}

/// Joins the streams of a container's first process.
pub(super) async fn attach(server: &Server, req: Request<Incoming>, t: &Target) -> Response<Body> {
    let id = match running(server, t) {
        Ok(id) => id,
        Err(r) => return *r,
    };
    let mut o = options(&req);
    if !(o.stdin || o.stdout || o.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    // whether it is a terminal is the container's to say
    if let Some((pod, _)) = server.pods.find(&t.namespace, &t.pod)
        && let Some((_, c)) = crate::pod::PodExt::container(&*pod, &t.container)
    {
        o.tty = c.tty == Some(true);
    }
    let m = AttachRequest {
        container_id: id,
        stdin: o.stdin,
        tty: o.tty,
        stdout: o.stdout,
        stderr: o.stderr && !o.tty,
    };
    match server.cx.runtime.attach(m).await {
        Ok(url) => join(req, &url, o).await,
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}

async fn join(mut req: Request<Incoming>, url: &str, o: remote::Options) -> Response<Body> {
    if !streaming::wants_upgrade(&req, "websocket") {
        return proxy::pass(req, url).await;
    }
    let Some(protocol) = websocket::choose(&req, &websocket::CHANNELS) else {
        return text(StatusCode::FORBIDDEN, "none of the offered WebSocket protocols is spoken here");
    };
    let Some(answer) = websocket::handshake(&req, protocol.name) else {
        return text(StatusCode::BAD_REQUEST, "the WebSocket handshake has no key");
    };
    let (upgrade, url) = (hyper::upgrade::on(&mut req), url.to_owned());
    tokio::spawn(async move {
        let done = match upgrade.await {
            Ok(up) => remote::run(websocket::accept(up).await, protocol, &url, o).await,
            Err(e) => Err(e.into()),
        };
        if let Err(e) = done {
            debug!(error = %e, "a stream broke off");
        }
    });
    answer
}

/// Joins ports of a pod.
pub(super) async fn port_forward(server: &Server, mut req: Request<Incoming>, t: &Target) -> Response<Body> {
    let seen = match server.locate(t) {
        Ok((_, seen)) => seen,
        Err(r) => return *r,
    };
    let Some(sandbox) = seen.sandbox().filter(|s| s.ready) else {
        return text(StatusCode::NOT_FOUND, format!("pod not found (\"{}\")", t.pod));
    };
    let ports: Result<Vec<u16>, _> = queries(&req, "port")
        .iter()
        .chain(&queries(&req, "ports"))
        .flat_map(|p| p.split(','))
        .map(str::parse)
        .collect();
    let Ok(ports) = ports else {
        return text(StatusCode::BAD_REQUEST, "a port is not a number from 1 to 65535");
    };
    let m = PortForwardRequest {
        pod_sandbox_id: sandbox.id.clone(),
        port: ports.iter().map(|p| i32::from(*p)).collect(),
    };
    let url = match server.cx.runtime.port_forward(m).await {
        Ok(url) => url,
        Err(e) => return text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    };
    if !streaming::wants_upgrade(&req, "websocket") {
        return proxy::pass(req, &url).await;
    }
    let tunnel = websocket::offered(&req).contains(&forward::TUNNEL);
    let protocol = websocket::choose(&req, &forward::CHANNELS);
    let name = match (tunnel, protocol) {
        (true, _) => forward::TUNNEL,
        (false, Some(p)) if !ports.is_empty() => p.name,
        (false, Some(_)) => return text(StatusCode::BAD_REQUEST, "query parameter \"port\" is required"),
        (false, None) => {
            return text(StatusCode::FORBIDDEN, "none of the offered WebSocket protocols is spoken here");
        }
    };
    let Some(answer) = websocket::handshake(&req, name) else {
        return text(StatusCode::BAD_REQUEST, "the WebSocket handshake has no key");
    };
    let upgrade = hyper::upgrade::on(&mut req);
    tokio::spawn(async move {
        let done = match (upgrade.await, protocol) {
            (Ok(up), _) if tunnel => forward::tunnel(websocket::accept(up).await, &url).await,
            (Ok(up), Some(p)) => forward::channels(websocket::accept(up).await, p, &url, &ports).await,
            (Ok(_), None) => Ok(()),
            (Err(e), _) => Err(e.into()),
        };
        if let Err(e) = done {
            debug!(error = %e, "a port-forward broke off");
        }
    });
    answer
}

/// Runs a command and answers what it said.
pub(super) async fn run(server: &Server, req: &Request<Incoming>, t: &Target) -> Response<Body> {
    let id = match running(server, t) {
        Ok(id) => id,
        Err(r) => return *r,
    };
    let command: Vec<String> = queries(req, "cmd")
        .iter()
        .flat_map(|c| c.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    match server.cx.runtime.exec_sync(&id, command, Duration::ZERO).await {
        Ok(r) => text(StatusCode::OK, String::from_utf8_lossy(&[r.stdout, r.stderr].concat()).into_owned()),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}
