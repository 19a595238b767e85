//! The paths of the kubelet's API, each with what a caller needs leave for.

use super::{Server, container_logs, files, metrics, stats, streams};
use crate::pod::PodExt;
use crate::streaming::{Body, text};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// The container a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Pods,
    RunningPods,
    Configz,
    Metrics,
    ResourceMetrics,
    ContainerMetrics,
    ProbeMetrics,
    StatsSummary,
    ContainerLogs(Target),
    NodeLogs(String),
    Exec(Target),
    Attach(Target),
    PortForward(Target),
    Run(Target),
}

/// Finds the route of a path.
pub(super) fn find(method: &Method, path: &str) -> Option<Route> {
    let read = matches!(*method, Method::GET | Method::HEAD);
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let target = |rest: &[&str], has_container: bool| -> Option<Target> {
        let (namespace, pod, rest) = match rest {
            [n, p, rest @ ..] => ((*n).to_owned(), (*p).to_owned(), rest),
            _ => return None,
        };
        let (uid, container) = match (rest, has_container) {
            ([c], true) => ("", *c),
            ([u, c], true) => (*u, *c),
            ([], false) => ("", ""),
            ([u], false) => (*u, ""),
            _ => return None,
        };
        Some(Target { namespace, pod, uid: uid.to_owned(), container: container.to_owned() })
    };
    Some(match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] | ["livez"] | ["readyz"] if read => {
            Route::Health
        }
        ["pods"] if read => Route::Pods,
        ["runningpods"] if read => Route::RunningPods,
        ["configz"] if read => Route::Configz,
        ["metrics"] if read => Route::Metrics,
        ["metrics", "resource"] if read => Route::ResourceMetrics,
        ["metrics", "cadvisor"] if read => Route::ContainerMetrics,
        ["metrics", "probes"] if read => Route::ProbeMetrics,
        ["stats", "summary"] if read || method == Method::POST => Route::StatsSummary,
        ["containerLogs", rest @ ..] if read => Route::ContainerLogs(target(rest, true)?),
        ["logs", rest @ ..] if read => Route::NodeLogs(rest.join("/")),
        ["exec", rest @ ..] => Route::Exec(target(rest, true)?),
        ["attach", rest @ ..] => Route::Attach(target(rest, true)?),
        ["portForward", rest @ ..] => Route::PortForward(target(rest, false)?),
        ["run", rest @ ..] if method == Method::POST => Route::Run(target(rest, true)?),
        _ => return None,
    })
}

impl Route {
    pub fn is_health(&self) -> bool {
        matches!(self, Route::Health)
    }

    /// What the read-only port offers.
    pub fn is_read_only(&self) -> bool {
        matches!(
            self,
            Route::Health
                | Route::Pods
                | Route::Metrics
                | Route::ResourceMetrics
                | Route::ContainerMetrics
                | Route::ProbeMetrics
                | Route::StatsSummary
        )
    }

    /// What enableDebuggingHandlers turns off.
    pub fn is_debugging(&self) -> bool {
        use Route::*;
        matches!(
            self,
            ContainerLogs(_) | NodeLogs(_) | Exec(_) | Attach(_) | PortForward(_) | Run(_) | RunningPods
        )
    }

    /// The subresources of the node of which one has to be allowed, finest first.
    pub fn subresources(&self) -> Vec<&'static str> {
        match self {
            Route::Health => vec!["healthz", "proxy"],
            Route::Pods | Route::RunningPods => vec!["pods", "proxy"],
            Route::Configz => vec!["configz", "proxy"],
            Route::Metrics | Route::ResourceMetrics | Route::ContainerMetrics | Route::ProbeMetrics => {
                vec!["metrics"]
            }
            Route::StatsSummary => vec!["stats"],
            Route::NodeLogs(_) => vec!["log"],
            Route::ContainerLogs(_)
            | Route::Exec(_)
            | Route::Attach(_)
            | Route::PortForward(_)
            | Route::Run(_) => vec!["proxy"],
        }
    }
}

/// JSON as an answer.
pub(super) fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut r = Response::new(Full::new(bytes.into()).map_err(|e| match e {}).boxed());
            r.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            r
        }
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}

/// One value of a request's query.
pub(super) fn query(req: &Request<Incoming>, name: &str) -> Option<String> {
    queries(req, name).into_iter().next()
}

/// All values of a request's query by a name.
pub(super) fn queries(req: &Request<Incoming>, name: &str) -> Vec<String> {
    let text = req.uri().query().unwrap_or("");
    form_urlencoded::parse(text.as_bytes()).filter(|(k, _)| k == name).map(|(_, v)| v.into_owned()).collect()
}

/// Whether a query says yes.
pub(super) fn flag(req: &Request<Incoming>, name: &str) -> bool {
    matches!(query(req, name).as_deref(), Some("1" | "true" | "True" | "TRUE" | "t" | "T"))
}

impl Server {
    pub(super) async fn handle(self: Arc<Self>, req: Request<Incoming>, route: Route) -> Response<Body> {
        match route {
            Route::Health => match self.cx.health.stuck() {
                None => text(StatusCode::OK, "ok"),
                Some(what) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("stuck: {what}\n")),
            },
            Route::Pods => json(&pod_list(self.pods_with_status())),
            Route::RunningPods => json(&pod_list(self.running_pods())),
            Route::Configz => json(&serde_json::json!({"kubeletconfig": self.configz()})),
            Route::Metrics => metrics::own(&self).await,
            Route::ResourceMetrics => metrics::resource(&self).await,
            Route::ContainerMetrics => metrics::containers_answer(&self).await,
            Route::ProbeMetrics => text(StatusCode::OK, ""),
            Route::StatsSummary => stats::summary(&self).await,
            Route::ContainerLogs(t) => container_logs::serve(&self, &req, &t).await,
            Route::NodeLogs(path) => files::serve(&self.cx.config, &path).await,
            Route::Exec(t) => streams::exec(&self, req, &t).await,
            Route::Attach(t) => streams::attach(&self, req, &t).await,
            Route::PortForward(t) => streams::port_forward(&self, req, &t).await,
            Route::Run(t) => streams::run(&self, &req, &t).await,
        }
    }

    fn pods_with_status(&self) -> Vec<Pod> {
        let with = |pod: Arc<Pod>| {
            let status = self.cx.status.get(pod.uid()).or_else(|| pod.status.clone());
            Pod { status, ..Pod::clone(&pod) }
        };
        self.pods.list().into_iter().map(|(pod, _)| with(pod)).collect()
    }

    fn running_pods(&self) -> Vec<Pod> {
        self.pods
            .list()
            .into_iter()
            .filter(|(_, seen)| seen.any_running())
            .map(|(pod, seen)| {
                let mut p = Pod {
                    metadata: Default::default(),
                    spec: Some(Default::default()),
                    status: Some(Default::default()),
                };
                (p.metadata.name, p.metadata.namespace, p.metadata.uid) =
                    (pod.metadata.name.clone(), pod.metadata.namespace.clone(), pod.metadata.uid.clone());
                let spec = p.spec.get_or_insert_default();
                for c in
                    seen.containers.iter().filter(|c| c.state == crate::runtime::observed::State::Running)
                {
                    spec.containers.push(k8s_openapi::api::core::v1::Container {
                        name: c.name.clone(),
                        image: Some(c.image_id.clone()),
                        ..Default::default()
                    });
                }
                p
            })
            .collect()
    }

    fn configz(&self) -> serde_json::Value {
        let c = &self.cx.config;
        serde_json::json!({
            "port": c.port,
            "readOnlyPort": c.read_only_port,
            "maxPods": c.max_pods,
            "clusterDomain": c.cluster_domain,
            "clusterDNS": c.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "containerRuntimeEndpoint": c.runtime_endpoint,
            "cgroupDriver": match c.cgroup_driver { crate::config::CgroupDriver::Cgroupfs => "cgroupfs", _ => "systemd" },
            "cgroupRoot": c.cgroup_root,
            "evictionHard": c.eviction_hard,
            "featureGates": c.feature_gates,
            "systemReserved": c.system_reserved,
            "kubeReserved": c.kube_reserved,
            "imageGCHighThresholdPercent": c.image_gc_high,
            "imageGCLowThresholdPercent": c.image_gc_low,
            "containerLogMaxSize": c.container_log_max_size.to_string(),
            "containerLogMaxFiles": c.container_log_max_files,
            "podPidsLimit": c.pod_pids_limit,
        })
    }

    /// The pod and the runtime's id of the container that a path names.
    pub(super) fn locate(
        &self,
        t: &Target,
    ) -> Result<(Arc<Pod>, crate::runtime::observed::Observed), Box<Response<Body>>> {
        match self.pods.find(&t.namespace, &t.pod) {
            Some((pod, seen)) if t.uid.is_empty() || pod.uid() == t.uid => Ok((pod, seen)),
            _ => Err(Box::new(text(StatusCode::NOT_FOUND, "pod does not exist"))),
        }
    }
}

fn pod_list(items: Vec<Pod>) -> serde_json::Value {
    serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let found = |m: Method, p: &str| {
            find(&m, p)
                .map(|r| format!("{r:?}").chars().take_while(|c| c.is_alphanumeric()).collect::<String>())
                .unwrap_or_default()
        };
        for (method, path, want) in [
            (Method::GET, "/healthz", "Health"),
            (Method::GET, "/pods", "Pods"),
            (Method::GET, "/runningpods/", "RunningPods"),
            (Method::POST, "/pods", ""),
            (Method::GET, "/containerLogs/ns/p/c", "ContainerLogs"),
            (Method::GET, "/containerLogs/ns/p", ""),
            (Method::POST, "/exec/ns/p/u/c", "Exec"),
            (Method::GET, "/portForward/ns/p", "PortForward"),
            (Method::GET, "/run/ns/p/c", ""),
            (Method::GET, "/nothing", ""),
            (Method::GET, "/", ""),
        ] {
            assert_eq!(found(method, path), want, "{path}");
        }
    }
}
