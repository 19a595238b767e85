//! An empty directory that lives as long as its pod, on disk or in memory.

use super::{SetUpError, at};
use crate::context::Context;
use crate::pod::{self, PodExt};
use crate::quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use std::path::Path;
use sys::dir::Dir;

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// On the node's disk.
    Disk,
    /// In memory, of at most so many bytes.
    Memory(Option<u64>),
}

/// What the pod asks for.
pub(crate) fn medium(cx: &Context, pod: &Pod, source: &EmptyDirVolumeSource) -> Result<Medium, SetUpError> {
    match source.medium.as_deref().unwrap_or("") {
        "Memory" => {
            let allocatable = cx.allocatable("memory").bytes();
            let bounds = [
                source.size_limit.as_ref().and_then(|q| quantity::parse(&q.0)).map(|a| a.bytes()),
                pod::limits(pod.spec(), "memory").map(|a| a.bytes()),
                (allocatable > 0).then_some(allocatable),
            ];
            let size = bounds.into_iter().flatten().filter(|b| *b > 0).min();
            Ok(Medium::Memory(size.map(i64::unsigned_abs)))
        }
        "" => Ok(Medium::Disk),
        other => Err(SetUpError::Unsupported(format!("emptyDir medium {other}"))),
    }
}

/// Makes the directory, open to all; one that is there already is kept.
pub(crate) fn make(dir: &Path, medium: Medium, group: Option<u32>) -> Result<(), SetUpError> {
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    match medium {
        Medium::Memory(size) => in_memory(dir, size, mode, group),
        Medium::Disk => on_disk(dir, mode, group).map_err(at(dir)),
    }
}

/// It has its name only when it is as it should be: one that was ended in between begins anew.
fn on_disk(dir: &Path, mode: u32, group: Option<u32>) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    sys::dir::make_all(parent, 0o750)?;
    let parent = Dir::open(parent)?;
    if parent.stat(name)?.is_some() {
        return Ok(());
    }
    let unfinished = format!(".new.{}", name.to_string_lossy());
    parent.remove(&unfinished)?;
    let new = parent.make(&unfinished, 0o700)?;
    if let Some(gid) = group {
        new.set_group(gid)?;
    }
    new.set_mode(mode)?;
    parent.rename(&unfinished, name)
}

/// Makes a directory whose files are never on disk; one that is there already is kept.
pub(crate) fn in_memory(
    dir: &Path,
    size: Option<u64>,
    mode: u32,
    group: Option<u32>,
) -> Result<(), SetUpError> {
    sys::dir::make_all(dir, 0o750).map_err(at(dir))?;
    if !sys::mount::is_mount_point(dir).map_err(at(dir))? {
        sys::mount::tmpfs(dir, size, mode, group).map_err(at(dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_that_was_never_finished_begins_anew() -> Result<(), Box<dyn std::error::Error>> {
        let t = tempfile::tempdir()?;
        let dir = t.path().join("volumes/v");
        std::fs::create_dir_all(t.path().join("volumes/.new.v/x"))?;
        make(&dir, Medium::Disk, None)?;
        let mode = || std::fs::metadata(&dir).map(|m| m.permissions().mode() & 0o7777);
        assert_eq!(mode()?, 0o777);
        std::fs::write(dir.join("kept"), "")?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
        make(&dir, Medium::Disk, None)?;
        assert!(dir.join("kept").exists() && mode()? == 0o700, "it is the pod's own");
        assert_eq!(std::fs::read_dir(t.path().join("volumes"))?.count(), 1);
        Ok(())
    }
}
