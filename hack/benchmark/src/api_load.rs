//! The API rows of the table in ARCHITECTURE.md.

use crate::server::Server;
use bytes::Bytes;
use client::Client;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Requests under way at once.
pub const IN_FLIGHT: usize = 32;
/// Watchers of one collection.
const WATCHERS: usize = 1000;

/// Why a measurement stopped.
pub type Failed = Box<dyn std::error::Error>;

fn config_map(i: usize) -> serde_json::Value {
    let value = "x".repeat(400);
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("cm-{i}"), "namespace": "default", "labels": {"app": "bench"}}, "data": {"a": value, "b": "c"}})
}

/// A small pod.
pub fn pod(i: usize) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{i}"), "namespace": "default", "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "c", "image": "busybox:1", "command": ["sleep", "1d"], "env": [{"name": "A", "value": "b"}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}]}})
}

/// A request that wants JSON.
pub fn request(
    method: &str,
    path: &str,
    kind: &str,
    body: Option<&serde_json::Value>,
) -> Result<http::Request<Bytes>, http::Error> {
    let body = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .header("accept", "application/json")
        .body(body)
}

/// Runs `count` requests, [`IN_FLIGHT`] at a time, and prints a row.
async fn row(
    server: &Server,
    client: &Client,
    name: &str,
    count: usize,
    make: impl Fn(usize) -> Result<http::Request<Bytes>, http::Error> + Sync,
) -> Result<(), Failed> {
    let (cpu, started) = (server.cpu_us(), Instant::now());
    let made = &make;
    let mut latencies: Vec<Duration> = futures::stream::iter(0..count)
        .map(|i| async move {
            let from = Instant::now();
            let response = client.raw(made(i)?).await?;
            if response.status().as_u16() >= 300 {
                return Err(
                    format!("{}: {}", response.status(), String::from_utf8_lossy(response.body())).into()
                );
            }
            Ok::<_, Failed>(from.elapsed())
        })
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let (took, cpu) = (started.elapsed(), server.cpu_us() - cpu);
    latencies.sort_unstable();
    let at = |q: f64| {
        latencies.get(((latencies.len() - 1) as f64 * q) as usize).copied().unwrap_or_default().as_secs_f64()
            * 1e3
    };
    println!(
        "{name:<34} {:>9.0} /s   server cpu {:>7.1} us each   p50 {:>6.2} ms   p99 {:>6.2} ms   memory {:>4} MB",
        count as f64 / took.as_secs_f64(),
        cpu as f64 / count as f64,
        at(0.5),
        at(0.99),
        server.memory_mb()
    );
    Ok(())
}

/// All rows for one store.
pub async fn run(bin: &Path, store: &str, count: usize) -> Result<(), Failed> {
    let server = Server::start(bin, store).await?;
    println!(
        "\n{store}: cold start to /readyz {:.0} ms, idle memory {} MB",
        server.cold_start.as_secs_f64() * 1e3,
        server.memory_mb()
    );
    let client = server.client()?;
    crate::scale::service_account(&client).await?;
    let base = "/api/v1/namespaces/default/configmaps";
    row(&server, &client, "create ConfigMap", count, |i| {
        request("POST", base, "application/json", Some(&config_map(i)))
    })
    .await?;
    row(&server, &client, "get ConfigMap", count * 4, |i| {
        request("GET", &format!("{base}/cm-{}", i % count), "application/json", None)
    })
    .await?;
    row(&server, &client, "merge-patch labels", count, |i| {
        request(
            "PATCH",
            &format!("{base}/cm-{i}"),
            "application/merge-patch+json",
            Some(&json!({"metadata": {"labels": {"n": i.to_string()}}})),
        )
    })
    .await?;
    row(&server, &client, &format!("list {count} ConfigMaps"), 100, |_| {
        request("GET", &format!("{base}?resourceVersion=0"), "application/json", None)
    })
    .await?;
    row(&server, &client, "create Pod", count, |i| {
        request("POST", "/api/v1/namespaces/default/pods", "application/json", Some(&pod(i)))
    })
    .await?;
    watchers(&server, &client, count / 5).await
}

/// Events to many watchers: what one event to one of them costs.
async fn watchers(server: &Server, client: &Client, events: usize) -> Result<(), Failed> {
    let seen = Arc::new(AtomicUsize::new(0));
    let base = "/api/v1/namespaces/kube-public/configmaps";
    let mut tasks = Vec::new();
    // A connection carries at most 250 streams.
    for group in 0..WATCHERS / 200 {
        let own = server.client()?;
        for _ in 0..200 {
            let (own, seen) = (own.clone(), seen.clone());
            let response = own
                .stream(request(
                    "GET",
                    &format!("{base}?watch=true&timeoutSeconds=300"),
                    "application/json",
                    None,
                )?)
                .await?;
            tasks.push(tokio::spawn(async move {
                let mut body = response.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let lines = frame.data_ref().map_or(0, |d| d.iter().filter(|b| **b == b'\n').count());
                    seen.fetch_add(lines, Ordering::Relaxed);
                }
                drop(own);
            }));
        }
        let _ = group;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (cpu, started, before) = (server.cpu_us(), Instant::now(), seen.load(Ordering::Relaxed));
    let mut maps = futures::stream::iter(0..events)
        .map(|i| {
            let mut map = config_map(i);
            map["metadata"]["namespace"] = "kube-public".into();
            let client = client.clone();
            async move {
                client.raw(request("POST", base, "application/json", Some(&map))?).await.map_err(Failed::from)
            }
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(done) = maps.next().await {
        done?;
    }
    let wanted = before + events * WATCHERS;
    while seen.load(Ordering::Relaxed) < wanted && started.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let told = seen.load(Ordering::Relaxed) - before;
    println!(
        "{:<34} {:>9.0} /s   server cpu {:>7.2} us each   {told} of {} told   memory {:>4} MB",
        format!("event to one of {WATCHERS} watchers"),
        told as f64 / started.elapsed().as_secs_f64(),
        (server.cpu_us() - cpu) as f64 / told.max(1) as f64,
        events * WATCHERS,
        server.memory_mb()
    );
    tasks.iter().for_each(|t| t.abort());
    Ok(())
}
