//! What the targets share: the kinds they read bytes as, and how an input is taken apart.

use api::schema::{SchemaRef, any, builtin};
use std::sync::LazyLock;

/// Kinds with much in them: lists by key, quantities, times, ports, maps, embedded objects, schemas.
const KINDS: [(&str, &str, &str); 12] = [
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Secret"),
    ("", "v1", "Node"),
    ("apps", "v1", "Deployment"),
    ("batch", "v1", "CronJob"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ("resource.k8s.io", "v1", "ResourceClaim"),
];

/// A kind to read an input as.
pub struct Kind {
    /// What its objects say they are.
    pub api_version: String,
    /// Its schema.
    pub schema: SchemaRef,
}

static SCHEMAS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let of = |(group, version, kind): &(&str, &str, &str)| Kind {
        api_version: api::GroupVersionKind::new(*group, *version, *kind).api_version(),
        schema: builtin().kind_of(group, version, kind).cloned().unwrap_or_else(any),
    };
    KINDS.iter().map(of).chain([Kind { api_version: "v1".into(), schema: any() }]).collect()
});

/// The first byte chooses a kind; the rest is the input.
pub fn kind(data: &[u8]) -> Option<(&'static Kind, &[u8])> {
    let (first, rest) = data.split_first()?;
    // Printable, so that seeds are text.
    SCHEMAS.get(usize::from(first.wrapping_sub(b'a')) % SCHEMAS.len()).map(|kind| (kind, rest))
}

/// Two inputs, with a zero byte between.
pub fn two(data: &[u8]) -> (&[u8], &[u8]) {
    let middle = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    (&data[..middle], data.get(middle + 1..).unwrap_or_default())
}
