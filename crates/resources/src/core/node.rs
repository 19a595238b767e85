//! Node.

use crate::check::{self, list, text};
use crate::core::pod::warnings::{address as warn_of_address, deprecated_node_label};
use crate::core::pod_spec::{resources, scheduling};
use crate::kind::{Served, age_column};
use crate::table::text_or;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldFault, FieldPath, quoted};
use api::names;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, NodeSystemInfo, Taint};

/// The rules of Node.
pub static KIND: Kind<Node> = Kind {
    has_status: true,
    default: |n| {
        if let Some(status) = &mut n.status
            && status.allocatable.is_none()
        {
            status.allocatable.clone_from(&status.capacity);
        }
    },
    prepare_create: |n, _| {
        if let Some(spec) = &mut n.spec {
            spec.config_source = None;
        }
    },
    prepare_update: |new, old, _| {
        if let Some(spec) = &mut new.spec
            && old.spec.as_ref().is_none_or(|s| s.config_source.is_none())
        {
            spec.config_source = None;
        }
    },
    validate: |n, errors| {
        validate(n, errors);
        resources_of(n, errors);
    },
    validate_update,
    validate_status: |new, old, errors| validate_update(new, old, errors),
    warnings: |n, _| warnings(n),
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
            info(n).map_or("", |i| &i.kubelet_version).into()
        }),
        Column::text("Internal-IP", "Its address within the cluster.", |n: &Node, _| {
            address(n, "InternalIP").into()
        })
        .wide(),
        Column::text("External-IP", "Its address from outside.", |n: &Node, _| {
            address(n, "ExternalIP").into()
        })
        .wide(),
        Column::text("OS-Image", "OS Image reported by the node", |n: &Node, _| {
            text_or(&info(n).map(|i| i.os_image.clone()), "<unknown>")
        })
        .wide(),
        Column::text("Kernel-Version", "Kernel Version reported by the node", |n: &Node, _| kernel(n).into())
            .wide(),
        Column::text("Container-Runtime", "ContainerRuntime Version reported by the node", |n: &Node, _| {
            text_or(&info(n).map(|i| i.container_runtime_version.clone()), "<unknown>")
        })
        .wide(),
    ],
    ..Kind::cluster("node", "minions").called(&["no"], &[])
};

fn info(n: &Node) -> Option<&NodeSystemInfo> {
    n.status.as_ref()?.node_info.as_ref()
}

fn kernel(n: &Node) -> String {
    let version = info(n).map(|i| i.kernel_version.as_str()).filter(|v| !v.is_empty()).unwrap_or("<unknown>");
    match info(n).map_or("", |i| &i.architecture) {
        "" => version.into(),
        architecture => format!("{version} ({architecture})"),
    }
}

fn status(n: &Node) -> String {
    let ready = n.status.iter().flat_map(|s| list(&s.conditions)).rfind(|c| c.type_ == "Ready");
    let word = match ready.map(|c| c.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    match n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        true => format!("{word},SchedulingDisabled"),
        false => word.into(),
    }
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
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address(n: &Node, kind: &str) -> String {
    let found = n.status.iter().flat_map(|s| list(&s.addresses)).find(|a| a.type_ == kind);
    found.map_or("<none>".into(), |a| a.address.clone())
}

fn validate(n: &Node, errors: &mut FieldErrors) {
    let none = NodeSpec::default();
    let spec = n.spec.as_ref().unwrap_or(&none);
    taints(list(&spec.taints), FieldPath::root("metadata").child("taints"), errors);
    let root = FieldPath::root("spec");
    let path = root.child("podCIDRs");
    let cidrs = list(&spec.pod_cidrs);
    for (i, cidr) in cidrs.iter().enumerate() {
        check::cidr(cidr, path.index(i), errors);
    }
    if cidrs.len() > 1 && !check::is_dual_stack(cidrs.iter().map(String::as_str)) {
        errors.invalid(path, &cidrs, "may specify no more than one CIDR for each IP family");
    }
}

fn taints(taints: &[Taint], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, t) in taints.iter().enumerate() {
        let at = at.index(i);
        check::qualified(&t.key, at.child("key"), errors);
        let faults = names::label_value(text(&t.value));
        if !faults.is_empty() {
            errors.invalid(at.child("value"), &t.value, faults.join(";"));
        }
        scheduling::required_effect(&t.effect, at.child("effect"), errors);
        if taints[..i].iter().any(|o| o.key == t.key && o.effect == t.effect) {
            let said = format!("{}: taints must be unique by key and effect pair", quoted(t));
            errors.push(at, FieldFault::Duplicate(said));
        }
    }
}

fn resources_of(n: &Node, errors: &mut FieldErrors) {
    let none = NodeStatus::default();
    let status = n.status.as_ref().unwrap_or(&none);
    let root = FieldPath::root("status");
    for (name, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        let at = root.child(name);
        for (resource, value) in amounts.iter().flatten() {
            resources::quantity(resource, value, at.child(resource), errors);
        }
    }
    let features = list(&status.declared_features);
    let path = root.child("declaredFeatures");
    for (i, feature) in features.iter().enumerate() {
        if let Some(why) = feature_fault(feature) {
            errors.invalid(path.index(i), feature, format!("invalid feature name {feature:?}: {why}"));
        }
        match features[..i].last() {
            Some(before) if before == feature => errors.duplicate(path.index(i), feature),
            Some(before) if before > feature => {
                errors.invalid(path.index(i), feature, "list must be sorted alphabetically");
            }
            _ => {}
        }
    }
}

fn feature_fault(name: &str) -> Option<&'static str> {
    let word = |s: &str| {
        s.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && s.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    if name.len() > 253 {
        return Some("must be no more than 253 characters");
    }
    let fits = name.bytes().next().is_some_and(|b| b.is_ascii_uppercase()) && name.split('/').all(word);
    (!fits).then_some("must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes")
}

fn validate_update(new: &Node, old: &Node, errors: &mut FieldErrors) {
    validate(new, errors);
    resources_of(new, errors);
    let root = FieldPath::root("status");
    let path = root.child("addresses");
    let addresses = new.status.as_ref().map_or(&[][..], |s| list(&s.addresses));
    for (i, address) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
        errors.duplicate(path.index(i), address);
    }
    let none = NodeSpec::default();
    let (now, had) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let root = FieldPath::root("spec");
    if !list(&had.pod_cidrs).is_empty() && now.pod_cidrs != had.pod_cidrs {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(root.child("podCIDRs"), why);
    }
    if !text(&had.provider_id).is_empty() && now.provider_id != had.provider_id {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(root.child("providerID"), why);
    }
    if text(&now.external_id) != text(&had.external_id) {
        errors.forbidden(root.child("externalID"), "may not be updated");
    }
}

fn warnings(n: &Node) -> Vec<String> {
    let mut out = Vec::new();
    let spec = n.spec.as_ref();
    if spec.is_some_and(|s| s.config_source.is_some()) {
        out.push("spec.configSource: the feature is no longer supported".into());
    }
    if spec.is_some_and(|s| !text(&s.external_id).is_empty()) {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    let root = FieldPath::root("spec");
    let path = root.child("podCIDRs");
    for (i, cidr) in spec.map_or(&[][..], |s| list(&s.pod_cidrs)).iter().enumerate() {
        let ip = cidr.split('/').next().unwrap_or_default();
        warn_of_address(ip, path.index(i), &mut out);
    }
    for key in n.metadata.labels.iter().flatten().map(|(key, _)| key) {
        if let Some(why) = deprecated_node_label(key).filter(|_| key.starts_with("scheduler.alpha")) {
            out.push(format!("metadata.labels[{key}]: {why}"));
        }
    }
    out
}
