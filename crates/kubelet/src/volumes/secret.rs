//! A secret as files, in memory only.

use super::atomic_writer::{self, Payload};
use super::config_map::{mode, select};
use super::{SetUpError, empty_dir, ownership};
use crate::context::Context;
use crate::pod::PodExt;
use k8s_openapi::api::core::v1::{KeyToPath, Pod, Secret, SecretVolumeSource};
use std::path::Path;

/// Writes the volume.
pub async fn set_up(
    cx: &Context,
    pod: &Pod,
    source: &SecretVolumeSource,
    dir: &Path,
) -> Result<(), SetUpError> {
    let optional = source.optional == Some(true);
    let name = source.secret_name.as_deref().unwrap_or("");
    let secret = match cx.objects.secret(pod.namespace(), name).await {
        Err(e) if optional && e.is_not_found() => Default::default(),
        other => other?,
    };
    let files = payload(&secret, source.items.as_deref(), mode(source.default_mode), optional, name)?;
    empty_dir::in_memory(dir, None)?;
    atomic_writer::write(dir, &files, |new| ownership::apply(pod, new, false))?;
    ownership::apply_top(pod, dir)
}

/// A secret's files.
pub fn payload(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
    name: &str,
) -> Result<Payload, SetUpError> {
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice())).collect();
    select(&data, items, mode, optional, "secret", name)
}
