//! Node.

use crate::kind::{Served, age_column};
use crate::{Column, Kind};
use k8s_openapi::api::core::v1::{Node, NodeSystemInfo};

/// The rules of Node.
pub static KIND: Kind<Node> = Kind {
    has_status: true,
    create_on_update: true,
    validate_update: |new, old, errors| {
        let id = |n: &Node| n.spec.as_ref().and_then(|s| s.provider_id.clone()).unwrap_or_default();
        if !id(old).is_empty() && id(new) != id(old) {
            errors.forbidden(
                api::field::FieldPath::root("spec").child("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            );
        }
    },
    served: &[Served {
        name: "proxy",
        body: ("", "v1", "NodeProxyOptions"),
        verbs: &["create", "delete", "get", "patch", "update"],
    }],
    selectable: &["spec.unschedulable"],
    columns: &[
        Column::text("Status", "The status of the node", |n: &Node, _| status(n).into()),
        Column::text("Roles", "The roles of the node", |n: &Node, _| roles(n).into()),
        age_column(),
        Column::text("Version", "Kubelet Version reported by the node.", |n: &Node, _| {
            info(n).kubelet_version.into()
        }),
        Column::text("Internal-IP", "Its address within the cluster.", |n: &Node, _| {
            address(n, "InternalIP").into()
        })
        .wide(),
        Column::text("External-IP", "Its address from outside.", |n: &Node, _| {
            address(n, "ExternalIP").into()
        })
        .wide(),
        Column::text("OS-Image", "OS Image reported by the node", |n: &Node, _| info(n).os_image.into())
            .wide(),
        Column::text("Kernel-Version", "Kernel Version reported by the node", |n: &Node, _| {
            info(n).kernel_version.into()
        })
        .wide(),
        Column::text("Container-Runtime", "ContainerRuntime Version reported by the node", |n: &Node, _| {
            info(n).container_runtime_version.into()
        })
        .wide(),
    ],
    ..Kind::cluster("node", "minions").called(&["no"], &[])
};

fn info(n: &Node) -> NodeSystemInfo {
    n.status.as_ref().and_then(|s| s.node_info.clone()).unwrap_or_default()
}

fn status(n: &Node) -> String {
    let ready = n.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
    let mut words = vec![match ready.map(|c| c.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(n: &Node) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in n.metadata.labels.iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.push(role);
        } else if key == "kubernetes.io/role" && !value.is_empty() {
            roles.push(value);
        }
    }
    roles.sort_unstable();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address(n: &Node, kind: &str) -> String {
    let found = n.status.iter().flat_map(|s| s.addresses.iter().flatten()).find(|a| a.type_ == kind);
    found.map_or("<none>".into(), |a| a.address.clone())
}
