//! A config map as files.

use super::SetUpError;
use super::atomic_writer::{self, File, Payload};
use crate::context::Context;
use crate::pod::PodExt;
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, KeyToPath, Pod};
use std::collections::BTreeMap;

/// The volume's files.
pub(crate) async fn files(
    cx: &Context,
    pod: &Pod,
    source: &ConfigMapVolumeSource,
) -> Result<Payload, SetUpError> {
    let optional = source.optional == Some(true);
    let map = match cx.objects.config_map(pod.namespace(), &source.name).await {
        Err(e) if optional && e.is_not_found() => Default::default(),
        other => other?,
    };
    payload(&map, source.items.as_deref(), mode(source.default_mode), optional, &source.name)
}

/// A mode as the API has it, or the usual one.
pub(crate) fn mode(m: Option<i32>) -> u32 {
    m.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644)
}

/// A config map's files.
pub(crate) fn payload(
    map: &ConfigMap,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
    name: &str,
) -> Result<Payload, SetUpError> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    select(&text.chain(binary).collect(), items, mode, optional, "config", name)
}

/// All keys as files, or those that `items` picks under the paths it gives.
pub(crate) fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
    what: &'static str,
    name: &str,
) -> Result<Payload, SetUpError> {
    let file = |data: &[u8], mode| File { data: data.to_vec(), mode, owner: None };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.iter().map(|(k, v)| ((*k).to_owned(), file(v, mode))).collect());
    };
    let mut out = Payload::new();
    for i in items {
        match data.get(i.key.as_str()) {
            Some(v) => {
                atomic_writer::check_path(&i.path)?;
                out.insert(i.path.clone(), file(v, i.mode.map_or(mode, |m| self::mode(Some(m)))));
            }
            None if optional => {}
            None => return Err(SetUpError::NoKey { what, name: name.into(), key: i.key.clone() }),
        }
    }
    Ok(out)
}
