//! The scale subresource: how many replicas anything that can be scaled has.

use crate::Error;
use client::{Client, SharedDiscovery};
use k8s_openapi::api::autoscaling::v1::Scale;
use std::time::Duration;

/// What is served is looked up so seldom, unless a definition changes.
pub const KNOWN_FOR: Duration = Duration::from_secs(60);
/// A kind that is not known is looked for again so soon.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// What a kind's resource is called: group, version and plural.
pub async fn resource_of(
    discovery: &SharedDiscovery,
    api_version: &str,
    kind: &str,
) -> Result<(String, String, String), Error> {
    for age in [KNOWN_FOR, UNKNOWN_FOR] {
        if let Some(info) = discovery.within(age).await?.of_kind(api_version, kind) {
            let r = &info.resource;
            return Ok((r.group.clone(), r.version.clone(), r.plural.clone()));
        }
    }
    Err(Error::Other(format!("no matches for kind {kind:?} in version {api_version:?}")))
}

/// An object's scale, and the path at which it can be changed.
pub async fn get(
    client: &Client,
    discovery: &SharedDiscovery,
    (api_version, kind): (&str, &str),
    namespace: &str,
    name: &str,
) -> Result<(String, Scale), Error> {
    let (group, version, plural) = resource_of(discovery, api_version, kind).await?;
    let root = if group.is_empty() { "/api".into() } else { format!("/apis/{group}") };
    let path = format!("{root}/{version}/namespaces/{namespace}/{plural}/{name}/scale");
    let scale = client.get_path(&path).await?;
    Ok((path, scale))
}
