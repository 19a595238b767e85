//! ComponentStatus: asks the cluster's parts how they are.

use crate::cache::Entry;
use crate::connect::{Target, Tls};
use crate::request::Verb;
use crate::respond::{self, ListMeta};
use crate::verbs::{Answer, Request, internal};
use api::Status;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Where the parts that upstream asks are, on this host.
const PARTS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];
const STORE: &str = "etcd-0";
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers a request for one component or all.
pub async fn answer(request: &Arc<Request>) -> Answer {
    request.warn("v1 ComponentStatus is deprecated in v1.19+");
    let name = request.info.name.as_str();
    match request.info.verb {
        Verb::Get => {
            let port = PARTS.iter().find(|(part, _)| *part == name).map(|(_, port)| *port);
            if port.is_none() && name != STORE {
                return Err(request.not_found());
            }
            respond::object(request, 200, &*status(request, name, port).await?)
        }
        Verb::List => {
            let parts = PARTS.iter().map(|(name, port)| (*name, Some(*port))).chain([(STORE, None)]);
            let asked = parts.map(|(name, port)| status(request, name, port));
            let mut all = futures::future::try_join_all(asked).await?;
            // They have no labels, so that a selector takes all of them or none.
            let selectors =
                request.info.selectors.as_ref().map_err(|e| Status::bad_request(e.to_string()))?;
            all.retain(|_| selectors.labels.matches(|_| None));
            respond::list(request, all.into_iter(), ListMeta { revision: 0, next: None, remaining: None })
                .await
        }
        verb => Err(Status::method_not_supported(&request.face.group_resource, verb.name())),
    }
}

async fn status(request: &Request, name: &str, port: Option<u16>) -> Result<Arc<Entry>, Status> {
    let asked = async {
        match port {
            Some(port) => health(request, port).await,
            None => request.server.store.revision().await.map(|_| "ok".into()).map_err(|e| e.to_string()),
        }
    };
    let condition = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(text)) => json!({"type": "Healthy", "status": "True", "message": text}),
        Ok(Err(why)) => json!({"type": "Healthy", "status": "False", "message": why}),
        Err(_) => json!({"type": "Healthy", "status": "False", "message": "it does not answer"}),
    };
    let value = json!({
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition],
    });
    let json = crate::cache::entry::canonical(&value).map_err(internal)?;
    Entry::new(name.into(), 0, &json, &[]).map(Arc::new).map_err(internal)
}

async fn health(request: &Request, port: u16) -> Result<String, String> {
    let url = format!("https://127.0.0.1:{port}/healthz");
    let target =
        Target { host: "127.0.0.1".into(), port, tls: Tls::Anyone, path: "/healthz".into(), inside: false };
    let kubelets = &request.server.kubelets;
    let answer =
        kubelets.forward(target, Method::GET, &HeaderMap::new(), Default::default(), None, None).await;
    let answer = answer.map_err(|e| format!("Get {url:?}: {}", e.message))?;
    let code = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if code.is_success() { Ok(text) } else { Err(format!("{text} ({})", code.as_u16())) }
}
