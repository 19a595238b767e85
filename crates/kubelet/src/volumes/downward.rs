//! Fields of the pod itself as files.

use super::SetUpError;
use super::atomic_writer::{self, File, Payload};
use super::config_map::mode;
use crate::context::Context;
use crate::pod::PodExt;
use crate::quantity;
use crate::runtime::env::{self, Addresses, EnvError};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, DownwardAPIVolumeSource, Pod};

/// The volume's files.
pub(crate) fn files(
    cx: &Context,
    pod: &Pod,
    source: &DownwardAPIVolumeSource,
) -> Result<Payload, SetUpError> {
    payload(cx, pod, source.items.as_deref().unwrap_or_default(), mode(source.default_mode))
}

/// The files asked for.
pub(crate) fn payload(
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
