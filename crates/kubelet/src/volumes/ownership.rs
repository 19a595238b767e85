//! `fsGroup`: the group that owns a volume's files.

use super::{SetUpError, at};
use crate::pod::PodExt;
use k8s_openapi::api::core::v1::Pod;
use std::path::Path;
use sys::dir::{Dir, Kind};

/// A pod's group, and how it comes to own a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The group.
    pub gid: u32,
    /// A volume whose top is the group's already is left alone.
    pub on_root_mismatch: bool,
}

/// The pod's group, if it has one.
pub(crate) fn group(pod: &Pod) -> Option<Group> {
    let context = pod.spec().security_context.as_ref()?;
    let gid = context.fs_group.and_then(|g| u32::try_from(g).ok())?;
    let on_root_mismatch = context.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
    Some(Group { gid, on_root_mismatch })
}

/// Gives a tree to the group: readable, and writable if `writable`. Others may rename and link in it meanwhile.
pub(crate) fn apply(group: Group, root: &Path, writable: bool) -> Result<(), SetUpError> {
    let gid = group.gid;
    let top = Dir::open(root).map_err(at(root))?;
    let given = top.own_stat().map_err(at(root))?;
    if group.on_root_mismatch && given.gid == gid && given.mode & 0o2000 != 0 {
        return Ok(());
    }
    // the top is last, so that one that is broken off is taken up again
    let done = top.walk(&mut |node| {
        let stat = node.stat;
        if stat.gid != gid {
            node.set_group(gid)?;
        }
        let mut mode = stat.mode | if writable { 0o660 } else { 0o440 };
        if stat.kind == Kind::Dir {
            mode |= 0o2110; // new files inherit the group
        }
        // a change of group takes setuid and setgid away
        if mode != stat.mode || stat.gid != gid { node.set_mode(mode) } else { Ok(()) }
    });
    done.map_err(at(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn links_and_what_they_lead_to_stay_as_they_are() -> Result<(), Box<dyn std::error::Error>> {
        let t = tempfile::tempdir()?;
        let (v, outside) = (t.path().join("v"), t.path().join("shadow"));
        fs::create_dir_all(v.join("d"))?;
        fs::write(&outside, "")?;
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600))?;
        fs::write(v.join("d/f"), "")?;
        fs::set_permissions(v.join("d/f"), fs::Permissions::from_mode(0o600))?;
        symlink(&outside, v.join("link"))?;
        let gid = fs::metadata(&v)?.gid();
        apply(Group { gid, on_root_mismatch: true }, &v, true)?;
        let mode = |p: &Path| fs::metadata(p).map(|m| m.permissions().mode() & 0o7777);
        assert_eq!(mode(&outside)?, 0o600);
        assert_eq!((mode(&v.join("d/f"))?, mode(&v.join("d"))? & 0o2770), (0o660, 0o2770));
        fs::set_permissions(v.join("d/f"), fs::Permissions::from_mode(0o600))?;
        apply(Group { gid, on_root_mismatch: true }, &v, true)?;
        assert_eq!(mode(&v.join("d/f"))?, 0o600, "the top is the group's already");
        apply(Group { gid, on_root_mismatch: false }, &v, false)?;
        assert_eq!(mode(&v.join("d/f"))?, 0o640);
        fs::remove_dir_all(&v)?;
        symlink(t.path(), &v)?;
        assert!(apply(Group { gid, on_root_mismatch: false }, &v, false).is_err(), "a link is no volume");
        Ok(())
    }
}
