//! What size costs: a long list, many watchers that wait, and the informers of many nodes.

use crate::api_load::{Failed, IN_FLIGHT, pod, request};
use crate::server::{NODES, PROXY_TOKEN, Server, node_token};
use bytes::Bytes;
use client::Client;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Lists read for one row.
const LISTS: usize = 5;
/// Watchers that wait.
const WATCHERS: usize = 10_000;
/// Pods on each node.
const PODS_PER_NODE: usize = 10;
/// Each kubelet renews its lease this often, as upstream's.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// For how long the nodes are watched at rest.
const AT_REST: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// All rows for one store; `count` pods in the long list.
pub async fn run(bin: &Path, store: &str, count: usize) -> Result<(), Failed> {
    println!("\n{store}:");
    idle_watchers(bin, store).await?;
    informers(bin, store).await?;
    long_list(bin, store, count).await
}

fn accepting(path: &str, accept: &'static str) -> Result<http::Request<Bytes>, Failed> {
    let mut request = request("GET", path, JSON, None)?;
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(accept));
    Ok(request)
}

/// Sends all of these, [`IN_FLIGHT`] at a time.
async fn send(
    client: &Client,
    count: usize,
    make: impl Fn(usize) -> Result<http::Request<Bytes>, http::Error>,
) -> Result<(), Failed> {
    let mut sent = futures::stream::iter((0..count).map(make))
        .map(|request| async move { Ok::<_, Failed>(client.raw(request?).await?) })
        .buffer_unordered(IN_FLIGHT);
    while let Some(response) = sent.next().await {
        let response = response?;
        if response.status().as_u16() >= 300 {
            return Err(format!("{}: {}", response.status(), String::from_utf8_lossy(response.body())).into());
        }
    }
    Ok(())
}

/// The service account that pods need.
pub async fn service_account(client: &Client) -> Result<(), Failed> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
    send(client, 1, |_| request("POST", "/api/v1/namespaces/default/serviceaccounts", JSON, Some(&account)))
        .await
}

async fn pods(
    client: &Client,
    count: usize,
    of_node: impl Fn(usize) -> Option<String>,
) -> Result<(), Failed> {
    service_account(client).await?;
    send(client, count, |i| {
        let mut pod = pod(i);
        if let Some(node) = of_node(i) {
            pod["spec"]["nodeName"] = node.into();
        }
        request("POST", "/api/v1/namespaces/default/pods", JSON, Some(&pod))
    })
    .await
}

/// A list of many pods: how long to its first byte and its last, what it costs, how much memory it takes meanwhile.
async fn long_list(bin: &Path, store: &str, count: usize) -> Result<(), Failed> {
    let server = Server::start(bin, store).await?;
    let client = server.client()?;
    pods(&client, count, |_| None).await?;
    let path = "/api/v1/pods";
    for (name, path, accept) in [
        ("JSON, from the cache", format!("{path}?resourceVersion=0"), JSON),
        ("JSON, consistent", path.to_string(), JSON),
        ("protobuf, from the cache", format!("{path}?resourceVersion=0"), PROTOBUF),
    ] {
        let (before, cpu) = (server.memory_mb(), server.cpu_us());
        server.forget_peak();
        let (mut first, mut whole, mut bytes) = (Vec::new(), Duration::ZERO, 0);
        for _ in 0..LISTS {
            let started = Instant::now();
            let mut body = client.stream(accepting(&path, accept)?).await?.into_body();
            let mut begun = false;
            while let Some(frame) = body.frame().await {
                bytes += frame?.data_ref().map_or(0, Bytes::len);
                if !std::mem::replace(&mut begun, true) {
                    first.push(started.elapsed());
                }
            }
            whole += started.elapsed();
        }
        first.sort_unstable();
        let worst = first.last().copied().unwrap_or_default().as_secs_f64() * 1e3;
        println!(
            "{:<48} first byte {worst:>6.1} ms at worst   all {:>6.0} MB in {:>6.0} ms   server cpu {:>6.0} ms each   memory {before} MB, at its peak {:+} MB",
            format!("list {count} Pods, {name}"),
            bytes as f64 / 1e6 / LISTS as f64,
            whole.as_secs_f64() * 1e3 / LISTS as f64,
            (server.cpu_us() - cpu) as f64 / 1e3 / LISTS as f64,
            server.peak_mb() as i64 - before as i64,
        );
    }
    Ok(())
}

/// A watch whose answer has begun, read until it ends or is aborted.
async fn watch(
    client: &Client,
    path: &str,
    accept: &'static str,
) -> Result<tokio::task::JoinHandle<()>, Failed> {
    let response = client.stream(accepting(path, accept)?).await?;
    if response.status() != 200 {
        return Err(format!("{path}: {}", response.status()).into());
    }
    let mut body = response.into_body();
    let client = client.clone();
    Ok(tokio::spawn(async move {
        while let Some(Ok(_)) = body.frame().await {}
        drop(client);
    }))
}

/// Watchers to whom nothing happens.
async fn idle_watchers(bin: &Path, store: &str) -> Result<(), Failed> {
    let server = Server::start(bin, store).await?;
    let (before, cpu) = (server.memory_mb(), server.cpu_us());
    let mut tasks = Vec::new();
    for _ in 0..WATCHERS / 100 {
        let client = server.client()?;
        for _ in 0..100 {
            let path = format!(
                "/api/v1/pods?watch=true&timeoutSeconds=600&fieldSelector=spec.nodeName%3Dnode-{}",
                tasks.len()
            );
            tasks.push(watch(&client, &path, PROTOBUF).await?);
        }
    }
    println!(
        "{:<48} server cpu {:>6.1} us to begin each   memory {before} MB, with them {} MB",
        format!("{WATCHERS} idle watchers"),
        (server.cpu_us() - cpu) as f64 / WATCHERS as f64,
        server.memory_mb()
    );
    tasks.iter().for_each(|t| t.abort());
    Ok(())
}

fn lease(i: usize, now: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("node-{i}"), "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": format!("node-{i}"), "leaseDurationSeconds": 40, "renewTime": now}})
}

/// What the kubelets and proxies of many nodes ask for: two connections and eight watches each, and a lease to renew.
async fn informers(bin: &Path, store: &str) -> Result<(), Failed> {
    let server = Server::start(bin, store).await?;
    let admin = server.client()?;
    send(&admin, NODES, |i| {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{i}"), "labels": {"kubernetes.io/hostname": format!("node-{i}")}},
            "status": {"capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        request("POST", "/api/v1/nodes", JSON, Some(&node))
    })
    .await?;
    pods(&admin, NODES * PODS_PER_NODE, |i| Some(format!("node-{}", i % NODES))).await?;
    let before = server.memory_mb();
    let cpu = server.cpu_us();
    let (mut tasks, mut kubelets) = (Vec::new(), Vec::new());
    for i in 0..NODES {
        let own = format!("fieldSelector=metadata.name%3Dnode-{i}");
        let kubelet = server.client_of(&node_token(i))?;
        let proxy = server.client_of(PROXY_TOKEN)?;
        for (client, path, selector) in [
            (&kubelet, "/api/v1/pods", &*format!("fieldSelector=spec.nodeName%3Dnode-{i}")),
            (&kubelet, "/api/v1/nodes", &*own),
            (&kubelet, "/api/v1/services", ""),
            (&kubelet, "/apis/storage.k8s.io/v1/csidrivers", ""),
            (&kubelet, "/apis/node.k8s.io/v1/runtimeclasses", ""),
            (&proxy, "/api/v1/services", "labelSelector=%21service.kubernetes.io%2Fheadless"),
            (
                &proxy,
                "/apis/discovery.k8s.io/v1/endpointslices",
                "labelSelector=%21service.kubernetes.io%2Fheadless",
            ),
            (&proxy, "/api/v1/nodes", &*own),
        ] {
            let path = format!(
                "{path}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=600&{selector}"
            );
            tasks.push(watch(client, &path, PROTOBUF).await?);
        }
        kubelets.push(kubelet);
    }
    println!(
        "{:<48} server cpu {:>6.2} ms a node   memory {before} MB, with them {} MB",
        format!("{NODES} nodes' informers begin"),
        (server.cpu_us() - cpu) as f64 / 1e3 / NODES as f64,
        server.memory_mb()
    );
    let base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    for (i, kubelet) in kubelets.iter().enumerate() {
        send(kubelet, 1, |_| request("POST", base, JSON, Some(&lease(i, "2030-01-01T00:00:00.000000Z"))))
            .await?;
    }
    let (cpu, started) = (server.cpu_us(), Instant::now());
    let mut tick = tokio::time::interval(RENEW_INTERVAL / NODES as u32);
    let mut renewed = 0;
    while started.elapsed() < AT_REST {
        tick.tick().await;
        let i = renewed % NODES;
        let now = format!("2030-01-01T00:00:00.{renewed:06}Z");
        send(&kubelets[i], 1, |_| {
            request("PATCH", &format!("{base}/node-{i}"), MERGE, Some(&lease(i, &now)))
        })
        .await?;
        renewed += 1;
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{:<48} server cpu {:>6.1} % of a core, {:.0} leases renewed a second   memory {} MB",
        format!("{NODES} nodes at rest"),
        (server.cpu_us() - cpu) as f64 / 1e4 / took,
        f64::from(u32::try_from(renewed).unwrap_or_default()) / took,
        server.memory_mb()
    );
    tasks.iter().for_each(|t| t.abort());
    Ok(())
}
