//! /healthz, /livez and /readyz, with their checks.

use crate::body::Body;
use crate::request::Query;
use crate::respond;
use crate::server::Server;
use http::Response;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What has to be done before the server is ready.
pub struct Health {
    /// When the server started.
    pub since: Instant,
    /// The default namespaces, roles and the like are there.
    pub bootstrapped: AtomicBool,
    /// It is about to end: no new requests should come.
    pub ending: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Health { since: Instant::now(), bootstrapped: AtomicBool::new(false), ending: AtomicBool::new(false) }
    }
}

/// Whether a path asks how the server is.
pub fn is_health(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|e| matches!(e, "healthz" | "livez" | "readyz"))
}

/// Answers a health path; `None` if it is none.
pub async fn answer(server: &Server, path: &str, query: &Query) -> Option<Response<Body>> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|e| matches!(*e, "healthz" | "livez" | "readyz"))?;
    let one = parts.next();
    let excluded: Vec<&str> = query.all("exclude").collect();
    let ready = endpoint == "readyz";
    let mut checks: Vec<(&str, bool)> = vec![("ping", true), ("log", true)];
    if !excluded.contains(&"etcd") {
        let store = tokio::time::timeout(Duration::from_secs(2), server.store.check()).await;
        checks.push(("etcd", matches!(store, Ok(Ok(_)))));
    }
    checks.push(("informer-sync", server.cache.is_loaded()));
    // A server that has just started is alive before it has made what has to be there.
    let patient = endpoint == "livez" && server.health.since.elapsed() < server.options.livez_grace_period;
    let made = patient || server.health.bootstrapped.load(Ordering::Acquire);
    checks.push(("poststarthook/rbac/bootstrap-roles", made));
    checks.push(("poststarthook/start-system-namespaces-controller", made));
    if ready {
        checks.push(("shutdown", !server.health.ending.load(Ordering::Acquire)));
    }
    checks.retain(|(name, _)| !excluded.contains(name) && (ready || *name != "informer-sync"));
    if let Some(one) = one {
        let check = checks.iter().find(|(name, _)| *name == one)?;
        return Some(text(
            if check.1 { 200 } else { 500 },
            if check.1 { "ok".into() } else { format!("internal server error: {one} failed\n") },
        ));
    }
    let good = checks.iter().all(|(_, good)| *good);
    if good && query.get("verbose").is_none() {
        return Some(text(200, "ok".into()));
    }
    let mut lines: String =
        checks
            .iter()
            .map(|(name, good)| {
                if *good { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") }
            })
            .collect();
    lines.push_str(&format!("{endpoint} check {}\n", if good { "passed" } else { "failed" }));
    Some(text(if good { 200 } else { 500 }, lines))
}

fn text(code: u16, body: String) -> Response<Body> {
    respond::bytes(code, "text/plain; charset=utf-8", body.into_bytes())
}
