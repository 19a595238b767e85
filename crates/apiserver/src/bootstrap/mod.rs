//! What every cluster has from the first moment: namespaces, default roles and bindings, priority classes,
//! the `kubernetes` service and its endpoints. Made by ordinary requests of the server to itself.

pub mod endpoints;
mod roles;

use crate::catalog::priority;
use crate::negotiate::{Accepted, Format, View};
use crate::request::{Query, RequestInfo};
use crate::server::Server;
use crate::services;
use crate::verbs::modify::{How, Made, modify};
use crate::verbs::options::Options;
use crate::verbs::{self, create};
use api::{GroupResource, Status};
use auth::User;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use resources::flowcontrol::bootstrap as flow;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The endpoints of the `kubernetes` service are looked after this often: upstream's reconciler.
const ENDPOINTS_INTERVAL: Duration = Duration::from_secs(10);

/// Claims on service addresses are looked through this often: upstream's repair loop.
const REPAIR_INTERVAL: Duration = Duration::from_secs(180);

/// Makes what is missing, then keeps this server's address among the endpoints.
pub async fn run(server: Arc<Server>) {
    while server.cache.applied() == 0 {
        let _ = server.cache.progress().changed().await;
    }
    let mut wait = Duration::from_millis(100);
    while let Err(e) = make_all(&server).await {
        tracing::warn!(error = %e, "the cluster's first objects could not be made; it is tried again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
    repair(&server).await;
    server.health.bootstrapped.store(true, Ordering::Release);
    tracing::info!("the cluster's first objects are there");
    let mut repaired = Instant::now();
    loop {
        if let Err(e) = ready_service_cidr(&server).await {
            tracing::warn!(error = %e, "the cluster's range of service addresses could not be said to be ready");
        }
        if repaired.elapsed() > REPAIR_INTERVAL {
            repaired = Instant::now();
            repair(&server).await;
        }
        // What a cluster can't be without comes back if someone deletes it.
        let mut needed = namespaces();
        needed.extend(kubernetes_service(&server));
        if let Err(e) = make(&server, needed).await {
            tracing::warn!(error = %e, "the cluster's own namespaces and service could not be made");
        }
        let mandatory = flow_control().into_iter().filter(|(_, v)| {
            matches!(v.pointer("/metadata/name").and_then(Value::as_str), Some("exempt" | "catch-all"))
        });
        if let Err(e) = make(&server, mandatory.collect()).await {
            tracing::warn!(error = %e, "mandatory objects of flow control could not be made");
        }
        if let Err(e) = extension_apiserver_authentication(&server).await {
            tracing::warn!(error = %e, "whom aggregated API servers may trust could not be written down");
        }
        if let Err(e) = flow_schema_status(&server).await {
            tracing::warn!(error = %e, "the states of flow schemas could not be told");
        }
        if let Err(e) = endpoints::reconcile(&server).await {
            tracing::warn!(error = %e, "the endpoints of the kubernetes service could not be brought up to date");
        }
        tokio::time::sleep(ENDPOINTS_INTERVAL).await;
    }
}

async fn repair(server: &Server) {
    if let Err(e) = services::repair_addresses(server).await {
        tracing::warn!(error = %e, "the claims on service addresses could not be looked through");
    }
    if let Err(e) = services::repair_ports(server).await {
        tracing::warn!(error = %e, "the claims on node ports could not be looked through");
    }
}

async fn make_all(server: &Arc<Server>) -> Result<(), Status> {
    make(server, namespaces()).await?;
    if server.authorizers.uses_rbac() {
        roles::reconcile(server).await?;
    }
    let mut work: Vec<(GroupResource, Value)> = Vec::new();
    work.extend(flow_control());
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "description": description});
        work.push((GroupResource::new("scheduling.k8s.io", "priorityclasses"), class));
    }
    if !server.options.service_cluster_ip_range.is_empty() {
        let cidrs: Vec<String> =
            server.options.service_cluster_ip_range.iter().map(ToString::to_string).collect();
        let value = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        work.push((GroupResource::new("networking.k8s.io", "servicecidrs"), value));
    }
    work.extend(kubernetes_service(server));
    work.extend(api_services(server));
    make(server, work).await
}

fn namespaces() -> Vec<(GroupResource, Value)> {
    let of = |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    NAMESPACES.into_iter().map(|name| (GroupResource::new("", "namespaces"), of(name))).collect()
}

/// The service under which pods find the API servers.
fn kubernetes_service(server: &Server) -> Option<(GroupResource, Value)> {
    let range = server.options.service_cluster_ip_range.first()?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": range.nth(1).to_string(), "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "targetPort": server.options.secure_port, "protocol": "TCP"}],
        },
    });
    Some((GroupResource::new("", "services"), service))
}

/// Upstream's flow schemas and priority levels; and what it keeps mandatory comes back if it is deleted.
fn flow_control() -> Vec<(GroupResource, Value)> {
    let of = |plural: &str, values: Vec<Value>| {
        let resource = GroupResource::new("flowcontrol.apiserver.k8s.io", plural);
        values.into_iter().map(move |v| (resource.clone(), v)).collect::<Vec<_>>()
    };
    let mut all = of("prioritylevelconfigurations", flow::priority_levels());
    all.extend(of("flowschemas", flow::flow_schemas()));
    all
}

/// Every group and version that this server serves itself, as an APIService, which aggregators list.
fn api_services(server: &Server) -> Vec<(GroupResource, Value)> {
    let resource = GroupResource::new("apiregistration.k8s.io", "apiservices");
    let mut all = Vec::new();
    for group in &server.catalog().groups {
        for (version, _) in group.versions.iter().filter(|_| group.name != resource.group) {
            let (group_priority, version_priority) = priority(&group.name, version);
            let mut spec = json!({
                "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
            });
            if !group.name.is_empty() {
                spec["group"] = group.name.clone().into();
            }
            let metadata = json!({
                "name": format!("{version}.{}", group.name), "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            });
            let value = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata, "spec": spec,
            });
            all.push((resource.clone(), value));
        }
    }
    all
}

/// A request of the server to itself.
fn request(
    server: &Arc<Server>,
    resource: &GroupResource,
    namespace: &str,
    name: &str,
) -> Option<verbs::Request> {
    let catalog = server.catalog();
    let resource = catalog.resource(resource)?.clone();
    let info = RequestInfo {
        is_resource: true,
        group: resource.gvk.group.clone(),
        version: resource.gvk.version.clone(),
        namespace: namespace.into(),
        resource: resource.names.plural.into(),
        name: name.into(),
        ..RequestInfo::default()
    };
    let user = User::new("system:apiserver", &[auth::MASTERS, auth::AUTHENTICATED]);
    let accepted = Accepted { format: Format::Json, view: View::Whole, pretty: false };
    let mut request = verbs::Request::new(
        server.clone(),
        info,
        Query::default(),
        Default::default(),
        user,
        resource,
        accepted,
    );
    request.options = Options::of_manager("kube-apiserver");
    Some(request)
}

/// Makes objects that are not there; all at once, so that they share the store's commits.
async fn make(server: &Arc<Server>, objects: Vec<(GroupResource, Value)>) -> Result<(), Status> {
    let made = objects.into_iter().filter_map(|(resource, value)| {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string();
        // A kind that is not served is one that nobody will ask for.
        let request = request(server, &resource, &text("/metadata/namespace"), &text("/metadata/name"))?;
        let there = request.resource.collection.as_ref().is_some_and(|c| c.get(&request.key()).is_some());
        (!there).then_some(async move {
            match create::create_value(&request, value, false).await {
                Err(e) if !e.is_already_exists() => Err(e),
                _ => Ok(()),
            }
        })
    });
    futures::future::try_join_all(made).await?;
    server.consistent().await.map_err(verbs::store_failed)
}

/// How aggregated API servers learn whom to trust: what all servers of the cluster do, as one adds to what it finds.
async fn extension_apiserver_authentication(server: &Arc<Server>) -> Result<(), Status> {
    let (o, proxy) = (&server.options, &server.front_proxy);
    let mut bundles = vec![("client-ca-file", &o.client_ca_file)];
    let mut lists = Vec::new();
    if o.requestheader_client_ca_file.is_some() {
        bundles.push(("requestheader-client-ca-file", &o.requestheader_client_ca_file));
        lists.extend([
            ("requestheader-allowed-names", &proxy.allowed_names),
            ("requestheader-username-headers", &proxy.user),
            ("requestheader-group-headers", &proxy.groups),
            ("requestheader-extra-headers-prefix", &proxy.extra),
        ]);
        if !proxy.uid.is_empty() {
            lists.push(("requestheader-uid-headers", &proxy.uid));
        }
    }
    let mut files = Vec::new();
    for (key, path) in bundles {
        if let Some(path) = path {
            files.push((key, pki::files::read(path).map_err(verbs::internal)?));
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let combined = |old: &Value| {
        let mut new = old.clone();
        let had =
            |key: &str| old.pointer(&format!("/data/{key}")).and_then(Value::as_str).unwrap_or_default();
        for (key, pem) in &files {
            new["data"][key] = pki::files::combined(&[had(key).as_bytes(), pem]).into();
        }
        for (key, own) in &lists {
            let mut list: Vec<String> = serde_json::from_str(had(key)).unwrap_or_default();
            list.extend(own.iter().cloned());
            let mut seen = std::collections::BTreeSet::new();
            list.retain(|item| seen.insert(item.clone()));
            new["data"][key] = json!(list).to_string().into();
        }
        new
    };
    let name = "extension-apiserver-authentication";
    let resource = GroupResource::new("", "configmaps");
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"}});
    make(server, vec![(resource.clone(), combined(&empty))]).await?;
    let Some(request) = request(server, &resource, "kube-system", name) else { return Ok(()) };
    let change = |old: &Value| Ok(Made { value: combined(old), applied: false });
    modify(&request, How { part: None, checked: true, manager: "kube-apiserver" }, &change).await.map(drop)
}

/// Says of every flow schema whether its priority level is there.
async fn flow_schema_status(server: &Arc<Server>) -> Result<(), Status> {
    let resource = GroupResource::new("flowcontrol.apiserver.k8s.io", "flowschemas");
    for schema in api::read::list::<FlowSchema>(&**server, None) {
        let level = schema.spec.map(|s| s.priority_level_configuration.name).unwrap_or_default();
        let there = api::read::get::<PriorityLevelConfiguration>(&**server, "", &level).is_some();
        let status = if there { "False" } else { "True" };
        let conditions = schema.status.and_then(|s| s.conditions).unwrap_or_default();
        let said = conditions.iter().find(|c| c.type_.as_deref() == Some("Dangling"));
        if said.is_some_and(|c| c.status.as_deref() == Some(status)) {
            continue;
        }
        let name = schema.metadata.name.unwrap_or_default();
        let Some(request) = request(server, &resource, "", &name) else { return Ok(()) };
        let (reason, end) =
            if there { ("Found", "and it exists") } else { ("NotFound", "but there is no such object") };
        let message =
            format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
        let condition = json!({
            "type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": Time(request.now),
        });
        let make = |old: &Value| {
            let mut new = old.clone();
            let kept = old.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let others = kept.filter(|c| c.get("type").is_none_or(|t| t != "Dangling")).cloned();
            new["status"]["conditions"] = others.chain([condition.clone()]).collect();
            Ok(Made { value: new, applied: false })
        };
        let manager = "api-priority-and-fairness-config-consumer-v1";
        modify(&request, How { part: Some("status"), checked: true, manager }, &make).await?;
    }
    Ok(())
}

/// Says of the cluster's own ServiceCIDR that it is ready, unless it says so or otherwise already.
async fn ready_service_cidr(server: &Arc<Server>) -> Result<(), Status> {
    let resource = GroupResource::new("networking.k8s.io", "servicecidrs");
    let Some(request) = request(server, &resource, "", "kubernetes") else { return Ok(()) };
    let Some(cidr) = api::read::get::<ServiceCIDR>(&**server, "", "kubernetes") else { return Ok(()) };
    let cidrs: Vec<String> =
        server.options.service_cluster_ip_range.iter().map(ToString::to_string).collect();
    let conditions = cidr.status.and_then(|s| s.conditions).unwrap_or_default();
    let said = conditions.iter().any(|c| c.type_ == "Ready" && c.status != "Unknown");
    let same = cidr.spec.and_then(|s| s.cidrs).is_some_and(|c| c == cidrs);
    if said || !same || cidr.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "", "lastTransitionTime": Time(request.now),
        "message": "Kubernetes default Service CIDR is ready",
    });
    let make = |old: &Value| {
        let mut new = old.clone();
        new["status"]["conditions"] = json!([condition]);
        Ok(Made { value: new, applied: false })
    };
    let how = How { part: Some("status"), checked: true, manager: "kube-apiserver" };
    modify(&request, how, &make).await.map(drop)
}
