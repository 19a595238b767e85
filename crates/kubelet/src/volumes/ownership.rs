//! `fsGroup`: the group that owns a volume's files.

use super::{SetUpError, at};
use crate::pod::PodExt;
use k8s_openapi::api::core::v1::Pod;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;

/// Lets everyone into a fresh directory, whatever this process's mask.
pub fn open_dir(dir: &Path) -> Result<(), SetUpError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).map_err(at(dir))
}

fn group(pod: &Pod) -> Option<u32> {
    pod.spec().security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
}

/// Gives a tree to the pod's group, if it has one: readable, and writable if `writable`.
pub fn apply(pod: &Pod, root: &Path, writable: bool) -> Result<(), SetUpError> {
    let Some(gid) = group(pod) else { return Ok(()) };
    let policy = pod.spec().security_context.as_ref().and_then(|c| c.fs_group_change_policy.as_deref());
    if policy == Some("OnRootMismatch")
        && fs::metadata(root).is_ok_and(|m| m.gid() == gid && m.mode() & 0o2000 != 0)
    {
        return Ok(());
    }
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let meta = fs::symlink_metadata(&path).map_err(at(&path))?;
        if meta.is_symlink() {
            lchown(&path, None, Some(gid)).map_err(at(&path))?;
            continue;
        }
        chown(&path, None, Some(gid)).map_err(at(&path))?;
        let mut mode = meta.mode() & 0o7777 | if writable { 0o660 } else { 0o440 };
        if meta.is_dir() {
            mode |= 0o2110; // new files inherit the group
            for e in fs::read_dir(&path).map_err(at(&path))?.flatten() {
                paths.push(e.path());
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at(&path))?;
    }
    Ok(())
}

/// Gives only the directory itself to the pod's group: what is in it has been given already.
pub fn apply_top(pod: &Pod, dir: &Path) -> Result<(), SetUpError> {
    let Some(gid) = group(pod) else { return Ok(()) };
    chown(dir, None, Some(gid)).map_err(at(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o2777)).map_err(at(dir))
}
