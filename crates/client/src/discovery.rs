//! What the server serves: aggregated discovery, two requests for everything; and a copy that many share.

use crate::dynamic::{Discovery, ResourceId, ResourceInfo};
use crate::error::Error;
use crate::verbs::{Client, decode};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// After a definition changed it takes a moment until its resource is served: what is found meanwhile is not kept.
const SETTLE: Duration = Duration::from_secs(2);
/// What is kept meanwhile, so that many who ask at once make one request.
const AT_LEAST: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Groups {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupName,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct GroupName {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

impl Client {
    /// Finds out what the server serves. Group versions that an aggregated server does not answer for are told apart.
    pub async fn discover(&self) -> Result<Discovery, Error> {
        let mut found = Discovery::default();
        for path in ["/api", "/apis"] {
            let body =
                self.ask(Method::GET, path.into(), AGGREGATED, "application/json", Bytes::new()).await?;
            add(&mut found, decode(path, &body)?);
        }
        Ok(found)
    }
}

fn add(found: &mut Discovery, groups: Groups) {
    for group in groups.items {
        let name = group.metadata.name;
        for (i, v) in group.versions.into_iter().enumerate() {
            if v.freshness == "Stale" {
                let reason = "stale GroupVersion discovery: its server does not answer".to_string();
                found.failed.push((format!("{name}/{}", v.version), reason));
            }
            found.resources.extend(v.resources.into_iter().map(|r| ResourceInfo {
                resource: ResourceId {
                    group: name.clone(),
                    version: v.version.clone(),
                    plural: r.resource,
                    namespaced: r.scope == "Namespaced",
                },
                kind: r.response_kind.map(|k| k.kind).unwrap_or_default(),
                verbs: r.verbs,
                // They stand in the order of preference.
                preferred: i == 0,
            }));
        }
    }
}

struct State {
    kept: Option<(Instant, Arc<Discovery>)>,
    changed: Option<Instant>,
}

/// What the server serves, asked for once for all who want to know. Clones share it.
#[derive(Clone)]
pub struct SharedDiscovery {
    client: Client,
    state: Arc<Mutex<State>>,
    changed: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl SharedDiscovery {
    /// Asks with this client.
    pub fn new(client: Client) -> Self {
        let state = State { kept: None, changed: None };
        SharedDiscovery { client, state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    /// Something about what is served has changed: it is asked for anew.
    pub fn invalidate(&self) {
        *self.changed.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
    }

    /// What is served, as it was at most so long ago. Who asks while someone does shares the answer.
    pub async fn within(&self, age: Duration) -> Result<Arc<Discovery>, Error> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        state.changed = *self.changed.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kept) = state.fresh(asked, age) {
            return Ok(kept);
        }
        let at = Instant::now();
        let found = Arc::new(self.client.discover().await?);
        state.kept = Some((at, found.clone()));
        Ok(found)
    }
}

impl State {
    fn fresh(&self, asked: Instant, age: Duration) -> Option<Arc<Discovery>> {
        let (at, found) = self.kept.as_ref()?;
        // One that was asked for while we waited.
        if *at >= asked {
            return Some(found.clone());
        }
        let old = asked - *at;
        let settled = self.changed.is_none_or(|c| *at >= c + SETTLE);
        let limit = if settled { age } else { age.min(AT_LEAST) };
        let seen = self.changed.is_none_or(|c| *at >= c);
        (seen && old < limit).then(|| found.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn aggregated_discovery_is_read() {
        let mut found = Discovery::default();
        let groups = json!({"items": [
            {"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "freshness": "Current", "resources": [
                {"resource": "pods", "responseKind": {"group": "", "version": "v1", "kind": "Pod"}, "scope": "Namespaced", "verbs": ["get", "list"],
                 "subresources": [{"subresource": "status"}]}]}]},
            {"metadata": {"name": "x.io"}, "versions": [
                {"version": "v2", "freshness": "Stale"},
                {"version": "v1", "freshness": "Current", "resources": [{"resource": "ys", "responseKind": {"kind": "Y"}, "scope": "Cluster", "verbs": []}]}]},
        ]});
        add(&mut found, serde_json::from_value(groups).unwrap());
        let shown: Vec<String> = found
            .resources
            .iter()
            .map(|r| format!("{} {} {} {}", r.resource, r.kind, r.resource.namespaced, r.preferred))
            .collect();
        assert_eq!(shown, ["v1/pods Pod true true", "x.io/v1/ys Y false false"]);
        assert_eq!(found.failed[0].0, "x.io/v2");
        assert!(found.of_kind("x.io/v1", "Y").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_ages_and_is_dropped_when_a_definition_changes() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let age = Duration::from_secs(60);
        let state = |kept: u64, changed: Option<u64>| State {
            kept: Some((at(kept), Arc::default())),
            changed: changed.map(at),
        };
        for (kept, changed, asked, want) in [
            (1000, None, 30_000, true),
            (1000, None, 70_000, false),
            (1000, Some(2000), 2001, false),
            (2001, Some(2000), 2100, true),  // for those who ask at once
            (2001, Some(2000), 3000, false), // it may have been too early
            (4100, Some(2000), 30_000, true),
            (5000, Some(2000), 4000, true), // it was asked for while we waited
        ] {
            let fresh = state(kept, changed).fresh(at(asked), age).is_some();
            assert_eq!(fresh, want, "{kept} {changed:?} {asked}");
        }
    }
}
