//! A secret as files, in memory only.

use super::SetUpError;
use super::atomic_writer::Payload;
use super::config_map::{mode, select};
use crate::context::Context;
use crate::pod::PodExt;
use k8s_openapi::api::core::v1::{KeyToPath, Pod, Secret, SecretVolumeSource};

/// The volume's files.
pub(crate) async fn files(
    cx: &Context,
    pod: &Pod,
    source: &SecretVolumeSource,
) -> Result<Payload, SetUpError> {
    let optional = source.optional == Some(true);
    let name = source.secret_name.as_deref().unwrap_or("");
    let secret = match cx.objects.secret(pod.namespace(), name).await {
        Err(e) if optional && e.is_not_found() => Default::default(),
        other => other?,
    };
    payload(&secret, source.items.as_deref(), mode(source.default_mode), optional, name)
}

/// A secret's files.
pub(crate) fn payload(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
    name: &str,
) -> Result<Payload, SetUpError> {
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect();
    select(&data, items, mode, optional, "secret", name)
}
