//! An empty directory that lives as long as its pod, on disk or in memory.

use super::{SetUpError, at, ownership};
use crate::context::Context;
use crate::pod::{self, PodExt};
use crate::quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use std::path::Path;

/// Makes the directory.
pub fn set_up(cx: &Context, pod: &Pod, source: &EmptyDirVolumeSource, dir: &Path) -> Result<(), SetUpError> {
    let new = !dir.exists();
    match source.medium.as_deref().unwrap_or("") {
        "Memory" => {
            let allocatable = cx.allocatable("memory").bytes();
            let bounds = [
                source.size_limit.as_ref().and_then(|q| quantity::parse(&q.0)).map(|a| a.bytes()),
                pod::limits(pod.spec(), "memory").map(|a| a.bytes()),
                (allocatable > 0).then_some(allocatable),
            ];
            let size = bounds.into_iter().flatten().filter(|b| *b > 0).min();
            in_memory(dir, size.map(i64::unsigned_abs))?;
        }
        "" => std::fs::create_dir_all(dir).map_err(at(dir))?,
        other => return Err(SetUpError::Unsupported(format!("emptyDir medium {other}"))),
    }
    if new {
        ownership::open_dir(dir)?;
        ownership::apply(pod, dir, true)?;
    }
    Ok(())
}

/// Makes a directory whose files are never on disk; one that is there already is kept.
pub fn in_memory(dir: &Path, size: Option<u64>) -> Result<(), SetUpError> {
    std::fs::create_dir_all(dir).map_err(at(dir))?;
    if !is_mount(dir) {
        sys::mount::tmpfs(dir, size, 0o777).map_err(at(dir))?;
    }
    Ok(())
}

/// Whether something is mounted exactly here: it is on another device than the directory above.
pub fn is_mount(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    match (device(dir), dir.parent().and_then(device)) {
        (Some(own), Some(above)) => own != above,
        _ => false,
    }
}
