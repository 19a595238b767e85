//! exec, attach, port-forward, log and proxy: where a request below a pod, a node or a service goes on.

use super::{Answer, Request, internal, store_failed};
use crate::access;
use crate::body::Body;

use crate::connect::{Target, Tls};
use crate::request::Verb;
use crate::rewrite::Rewrite;
use crate::websocket::{self, Unit};
use admission::Operation;
use api::{Status, names, read};
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::Method;
use http::header::LOCATION;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use rand::seq::IndexedRandom;

/// Whether a subresource is answered by someone else.
pub fn is_connect(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward" | "log" | "proxy")
}

/// Passes the request on.
pub async fn connect(
    request: &Request,
    method: Method,
    body: Bytes,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Answer {
    let taken = match request.info.subresource.as_str() {
        "proxy" => true,
        "log" => matches!(method, Method::GET | Method::HEAD),
        _ => matches!(method, Method::GET | Method::POST),
    };
    if !taken {
        let verb = request.info.verb.name();
        return Err(Status::method_not_supported(&request.face.group_resource, verb));
    }
    // Who begins to talk does more than read, whatever method a WebSocket has to begin with.
    if matches!(request.info.subresource.as_str(), "exec" | "attach" | "portforward")
        && request.info.verb != Verb::Create
    {
        access::check(request, Verb::Create)?;
    }
    request.server.consistent().await.map_err(store_failed)?;
    if request.info.subresource != "log" {
        let subresource = request.info.subresource.as_str();
        let admission = request.admission(Operation::Connect, subresource, &request.info.name, None);
        request.server.admission.admit(&admission, None).await?;
        request.server.admission.validate(&admission, None).await?;
    }
    let target = match (request.resource.names.plural, request.info.subresource.as_str()) {
        ("pods", "proxy") => pod_proxy(request)?,
        ("pods", sub) => pod_on_kubelet(request, sub)?,
        ("nodes", "proxy") => node_proxy(request)?,
        ("services", "proxy") => service_proxy(request)?,
        _ => return Err(Status::no_such_path()),
    };
    let sub = request.info.subresource.as_str();
    let kubelets = &request.server.kubelets;
    if sub == "log" {
        let answer = kubelets.forward(target, method, &request.headers, body, None, None).await?;
        return match upgrade {
            Some(upgrade) if websocket::is_asked_for(&request.headers) && answer.status().is_success() => {
                websocket::send(&request.headers, upgrade, answer.into_body(), Unit::Chunk)
            }
            _ => Ok(answer),
        };
    }
    if sub != "proxy" {
        return kubelets.forward(target, method, &request.headers, body, upgrade, None).await;
    }
    let path = &request.info.path;
    // Links of a page that is asked for without a slash at its end would lead astray.
    if upgrade.is_none()
        && path.ends_with("/proxy")
        && request.info.rest.is_empty()
        && matches!(method, Method::GET | Method::HEAD)
    {
        let query = request.raw_query.as_deref().filter(|q| !q.is_empty());
        let to = query.map_or_else(|| format!("{path}/"), |q| format!("{path}/?{q}"));
        let mut answer = http::Response::new(Body::empty());
        *answer.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
        answer.headers_mut().insert(LOCATION, to.parse().map_err(internal)?);
        return Ok(answer);
    }
    let prefix = path.strip_suffix(&request.info.rest).unwrap_or(path).trim_end_matches('/');
    let rewrite = Rewrite { prefix: prefix.into(), host: target.authority() };
    kubelets.forward(target, method, &request.headers, body, upgrade, Some(rewrite)).await
}

/// What is asked of the other side: the path after `proxy`, and the query.
fn rest(request: &Request) -> String {
    match request.raw_query.as_deref().filter(|q| !q.is_empty()) {
        Some(query) => format!("/{}?{query}", request.info.rest),
        None => format!("/{}", request.info.rest),
    }
}

/// `scheme:name:port`, `name:port` or `name`, with a scheme and a port that there are.
fn split_name(text: &str) -> Result<(&str, &str, Option<&str>), Status> {
    let invalid = || Status::bad_request(format!("invalid request {text:?}"));
    let (scheme, name, port) = match text.split(':').collect::<Vec<_>>().as_slice() {
        [name] => ("", *name, None),
        [name, port] => ("", *name, Some(*port).filter(|p| !p.is_empty())),
        [scheme, name, port] => (*scheme, *name, Some(*port).filter(|p| !p.is_empty())),
        _ => return Err(invalid()),
    };
    let known = |p: &str| names::port_name(p).is_empty() || p.parse::<u16>().is_ok_and(|n| n > 0);
    if name.is_empty() || !matches!(scheme, "" | "http" | "https") || !port.is_none_or(known) {
        return Err(invalid());
    }
    Ok((scheme, name, port))
}

/// The kubelet's port is spoken to as a kubelet; any other in the scheme that was asked for.
fn node_proxy(request: &Request) -> Result<Target, Status> {
    let (scheme, name, port) = split_name(&request.info.name)?;
    let (host, kubelet_port) = node_address(request, name)?;
    let asked =
        port.map(|p| p.parse::<u16>().map_err(|_| Status::bad_request(format!("invalid port {p:?}"))));
    let port = asked.transpose()?.unwrap_or(kubelet_port);
    let tls = if port == kubelet_port { Tls::Kubelet } else { tls_of(scheme)? };
    Ok(Target { host, port, tls, path: rest(request), inside: true })
}

fn tls_of(scheme: &str) -> Result<Tls, Status> {
    match scheme {
        "" | "http" => Ok(Tls::None),
        "https" => Ok(Tls::Anyone),
        other => {
            Err(Status::bad_request(format!("invalid scheme {other:?}: only http and https are supported")))
        }
    }
}

fn node_address(request: &Request, name: &str) -> Result<(String, u16), Status> {
    let node: Node = read::get(&*request.server, "", name)
        .ok_or_else(|| Status::not_found(&api::GroupResource::new("", "nodes"), name))?;
    let status = node.status.unwrap_or_default();
    let port = status.daemon_endpoints.and_then(|d| d.kubelet_endpoint).map_or(10250, |e| e.port);
    let port = u16::try_from(port).ok().filter(|p| *p > 0).unwrap_or(10250);
    let addresses = status.addresses.unwrap_or_default();
    for kind in &request.server.options.kubelet_preferred_address_types {
        if let Some(address) = addresses.iter().find(|a| a.type_ == *kind && !a.address.is_empty()) {
            return Ok((address.address.clone(), port));
        }
    }
    Err(Status::internal(format!("no preferred addresses found; known addresses: {addresses:?}")))
}

fn pod_on_kubelet(request: &Request, subresource: &str) -> Result<Target, Status> {
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    let pod: Pod = read::get(&*request.server, namespace, name).ok_or_else(|| request.not_found())?;
    let spec = pod.spec.as_ref().ok_or_else(|| internal("a pod without spec"))?;
    let node = spec.node_name.as_deref().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let query = &request.query;
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if matches!(subresource, "exec" | "attach") && matches!(phase, "Succeeded" | "Failed") {
        return Err(Status::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let mut out = Serializer::new(String::new());
    let path = match subresource {
        "portforward" => {
            query.all("ports").for_each(|p| {
                out.append_pair("port", p);
            });
            format!("/portForward/{namespace}/{name}")
        }
        _ => {
            let container = container(request, &pod, query.text("container"))?;
            match subresource {
                "log" => {
                    for (flag, given) in [
                        ("follow", query.get("follow")),
                        ("previous", query.get("previous")),
                        ("timestamps", query.get("timestamps")),
                    ] {
                        if given.is_some() && query.flag(flag) {
                            out.append_pair(flag, "true");
                        }
                    }
                    if query.text("sinceSeconds").is_some() && query.text("sinceTime").is_some() {
                        return Err(Status::failure(
                            422,
                            "Invalid",
                            format!(
                                "PodLogOptions \"{name}\" is invalid: sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
                            ),
                        ));
                    }
                    for number in ["tailLines", "limitBytes", "sinceSeconds"] {
                        if let Some(n) = query.number(number)? {
                            if n < i64::from(number != "tailLines") {
                                return Err(Status::failure(
                                    422,
                                    "Invalid",
                                    format!(
                                        "PodLogOptions \"{name}\" is invalid: {number}: Invalid value: {n}: must be greater than {}",
                                        if number == "tailLines" { "or equal to 0" } else { "0" }
                                    ),
                                ));
                            }
                            out.append_pair(number, &n.to_string());
                        }
                    }
                    for text in ["sinceTime", "stream"] {
                        if let Some(v) = query.text(text) {
                            out.append_pair(text, v);
                        }
                    }
                    format!("/containerLogs/{namespace}/{name}/{container}")
                }
                verb => {
                    for (ours, theirs) in
                        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
                    {
                        if query.flag(ours) {
                            out.append_pair(theirs, "1");
                        }
                    }
                    query.all("command").for_each(|c| {
                        out.append_pair("command", c);
                    });
                    format!("/{verb}/{namespace}/{name}/{container}")
                }
            }
        }
    };
    let (host, port) = node_address(request, node)?;
    let query = out.finish();
    let path = if query.is_empty() { path } else { format!("{path}?{query}") };
    Ok(Target { host, port, tls: Tls::Kubelet, path, inside: false })
}

/// The container a request means: the one named, or the only one.
fn container(request: &Request, pod: &Pod, named: Option<&str>) -> Result<String, Status> {
    let name = &request.info.name;
    let spec = pod.spec.clone().unwrap_or_default();
    let regular: Vec<String> = spec.containers.iter().map(|c| c.name.clone()).collect();
    let init: Vec<String> = spec.init_containers.iter().flatten().map(|c| c.name.clone()).collect();
    let ephemeral: Vec<String> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.clone()).collect();
    match (named, regular.as_slice()) {
        (Some(wanted), _) if regular.iter().chain(&init).chain(&ephemeral).any(|c| c == wanted) => {
            Ok(wanted.into())
        }
        (Some(wanted), _) => {
            Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}")))
        }
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        (None, several) => {
            let default = pod
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get("kubectl.kubernetes.io/default-container"));
            if let Some(default) = default.filter(|d| several.contains(d)) {
                return Ok(default.clone());
            }
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

fn pod_proxy(request: &Request) -> Result<Target, Status> {
    let (scheme, name, port) = split_name(&request.info.name)?;
    let pods = api::GroupResource::new("", "pods");
    let pod: Pod = read::get(&*request.server, &request.info.namespace, name)
        .ok_or_else(|| Status::not_found(&pods, name))?;
    let containers = pod.spec.map(|s| s.containers).unwrap_or_default();
    let ports = || containers.iter().flat_map(|c| c.ports.iter().flatten());
    let number = match port {
        None => ports().next().map_or(80, |p| p.container_port),
        Some(port) => match port.parse() {
            Ok(number) => number,
            Err(_) => ports()
                .find(|p| p.name.as_deref() == Some(port))
                .map(|p| p.container_port)
                .ok_or_else(|| Status::bad_request(format!("pod {name} has no port {port}")))?,
        },
    };
    let host = pod
        .status
        .and_then(|s| s.pod_ip)
        .filter(|ip| !ip.is_empty())
        .ok_or_else(|| Status::bad_request("address not allowed: the pod has none yet"))?;
    Ok(Target {
        host,
        port: u16::try_from(number).map_err(|_| Status::bad_request("the port is out of range"))?,
        tls: tls_of(scheme)?,
        path: rest(request),
        inside: true,
    })
}

fn service_proxy(request: &Request) -> Result<Target, Status> {
    let (scheme, name, port) = split_name(&request.info.name)?;
    let services = api::GroupResource::new("", "services");
    let service: Service = read::get(&*request.server, &request.info.namespace, name)
        .ok_or_else(|| Status::not_found(&services, name))?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let wanted = match port {
        None if ports.len() == 1 => ports.first(),
        None => None,
        Some(p) => ports.iter().find(|sp| sp.name.as_deref() == Some(p) || p.parse() == Ok(sp.port)),
    };
    let wanted = wanted.ok_or_else(|| {
        Status::unavailable(format!("no endpoints available for service {:?}", request.info.name))
    })?;
    let slices: Vec<EndpointSlice> = read::list(&*request.server, Some(&request.info.namespace));
    let mut candidates: Vec<(String, i32)> = Vec::new();
    for slice in slices.iter().filter(|s| {
        s.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("kubernetes.io/service-name"))
            .is_some_and(|n| n == name)
    }) {
        let name_of = |n: &Option<String>| n.clone().unwrap_or_default();
        let Some(port) = slice
            .ports
            .iter()
            .flatten()
            .find(|p| name_of(&p.name) == name_of(&wanted.name))
            .and_then(|p| p.port)
        else {
            continue;
        };
        let ready = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let ready = ready.filter(|e| is_of_pod(request, e));
        candidates.extend(ready.filter_map(|e| e.addresses.first().map(|a| (a.clone(), port))));
    }
    let (host, port) = candidates.choose(&mut rand::rng()).cloned().ok_or_else(|| {
        Status::unavailable(format!("no endpoints available for service {:?}", request.info.name))
    })?;
    let port = u16::try_from(port).map_err(|_| Status::bad_request("the port is out of range"))?;
    Ok(Target { host, port, tls: tls_of(scheme)?, path: rest(request), inside: true })
}

/// Whether an endpoint is a pod of the service's namespace: whoever writes slices must not lead this server elsewhere.
fn is_of_pod(request: &Request, endpoint: &Endpoint) -> bool {
    let namespace = request.info.namespace.as_str();
    let Some(to) = &endpoint.target_ref else { return false };
    if to.namespace.as_deref() != Some(namespace) || to.kind.as_deref().is_some_and(|k| k != "Pod") {
        return false;
    }
    let pod: Option<Pod> = read::get(&*request.server, namespace, to.name.as_deref().unwrap_or_default());
    let ips = pod.and_then(|p| p.status).and_then(|s| s.pod_ips).unwrap_or_default();
    endpoint.addresses.first().is_some_and(|a| ips.iter().any(|ip| ip.ip == *a))
}
