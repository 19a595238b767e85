//! Fields of the pod itself as files.

use super::atomic_writer::{self, File, Payload};
use super::config_map::mode;
use super::{SetUpError, empty_dir, ownership};
use crate::context::Context;
use crate::pod::PodExt;
use crate::quantity;
use crate::runtime::env::{self, Addresses, EnvError};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, DownwardAPIVolumeSource, Pod};
use std::path::Path;

/// Writes the volume.
pub fn set_up(
    cx: &Context,
    pod: &Pod,
    source: &DownwardAPIVolumeSource,
    dir: &Path,
) -> Result<(), SetUpError> {
    let files = payload(cx, pod, source.items.as_deref().unwrap_or_default(), mode(source.default_mode))?;
    empty_dir::in_memory(dir, None)?;
    atomic_writer::write(dir, &files, |new| ownership::apply(pod, new, false))?;
    ownership::apply_top(pod, dir)
}

/// The files asked for.
pub fn payload(
    cx: &Context,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default: u32,
) -> Result<Payload, SetUpError> {
    let mut out = Payload::new();
    for i in items {
        atomic_writer::check_path(&i.path)?;
        let text = if let Some(f) = &i.field_ref {
            env::field(cx, pod, &f.field_path, &Addresses::default())?
        } else if let Some(r) = &i.resource_field_ref {
            let name = r.container_name.as_deref().unwrap_or("");
            let (_, c) =
                pod.container(name).ok_or_else(|| EnvError::Resource(format!("{name}: {}", r.resource)))?;
            let divisor = r.divisor.as_ref().and_then(|d| quantity::parse(&d.0)).unwrap_or_default();
            env::resource(cx, &c, &r.resource, divisor)?
        } else {
            continue;
        };
        let mode = i.mode.map_or(default, |m| mode(Some(m)));
        out.insert(i.path.clone(), File { data: text.into_bytes(), mode, owner: None });
    }
    Ok(out)
}
