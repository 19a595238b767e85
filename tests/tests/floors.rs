//! The floors of ARCHITECTURE.md: a crate uses only what lies below it.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Every crate of ours with what of ours it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("kinds", &["api"]),
    ("telemetry", &["api"]),
    ("sys", &["api"]),
    ("pki", &["api"]),
    ("cri", &["api"]),
    ("store", &["api"]),
    ("client", &["api", "kinds", "pki", "telemetry"]),
    ("resources", &["api", "kinds"]),
    ("auth", &["api", "pki"]),
    ("admission", &["api", "pki"]),
    ("controllers", &["api", "client", "pki", "telemetry"]),
    ("scheduler", &["api", "client", "pki", "telemetry"]),
    ("kubelet", &["api", "client", "cri", "pki", "sys", "telemetry"]),
    ("proxy", &["api", "client", "pki", "sys", "telemetry"]),
    ("dns", &["api", "client", "telemetry"]),
    ("apiserver", &["admission", "api", "auth", "pki", "resources", "store", "telemetry"]),
    ("kube-apiserver", &["apiserver", "telemetry"]),
    ("kube-controller-manager", &["client", "controllers", "telemetry"]),
    ("kube-scheduler", &["client", "scheduler", "telemetry"]),
    ("kubelet-bin", &["client", "kubelet", "telemetry"]),
    ("kube-proxy", &["client", "proxy", "telemetry"]),
    ("ferrokube-dns", &["client", "dns", "telemetry"]),
];

#[test]
fn crates_use_what_lies_below_them() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let ours: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let normal: Vec<&str> = package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal)
            .map(|d| d.name.as_str())
            .collect();
        if name != "store" {
            assert!(!normal.contains(&"etcd-client"), "{name} reaches etcd; only store may");
        }
        let Some(allowed) = allowed.get(name) else {
            let path = package.manifest_path.as_str();
            assert!(
                path.contains("/hack/") || path.contains("/tests/"),
                "{name} has no floor: give it one here and in ARCHITECTURE.md"
            );
            continue;
        };
        for dependency in normal.iter().filter(|d| ours.contains(**d)) {
            assert!(allowed.contains(dependency), "{name} may not use {dependency}");
        }
    }
}
