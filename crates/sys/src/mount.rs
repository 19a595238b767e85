//! Mounts and the file systems behind them.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Mounts a tmpfs of at most `size` bytes (no bound when `None`) with permissions `mode`, of `group` if one is
/// given. Where the kernel can, what is in it never goes to swap.
pub fn tmpfs(at: &Path, size: Option<u64>, mode: u32, group: Option<u32>) -> io::Result<()> {
    let mut data = format!("mode={mode:o}");
    if let Some(gid) = group {
        data += &format!(",gid={gid}");
    }
    if let Some(size) = size {
        data += &format!(",size={size}");
    }
    let mount = |data: &str| -> io::Result<()> {
        let data = CString::new(data)?;
        Ok(rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))?)
    };
    match mount(&format!("{data},noswap")) {
        // kernels before 6.4 do not know the word
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => mount(&data),
        other => other,
    }
}

/// Lets mounts made below `at` show in other namespaces and the other way round. Mounts elsewhere on the machine
/// stay as they are.
pub fn make_shared(at: &Path) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let Some((holds, shared)) = holder(&table, at) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no mount holds it"));
    };
    if shared {
        return Ok(());
    }
    let own = if holds == at || !mounts_below(at)?.is_empty() {
        holds
    } else {
        rustix::mount::mount_bind(at, at)?;
        at.to_owned()
    };
    Ok(rustix::mount::mount_change(&own, MountPropagationFlags::SHARED)?)
}

/// The mount that holds a path, and whether it is shared.
fn holder(table: &str, path: &Path) -> Option<(PathBuf, bool)> {
    let mut found: Option<(PathBuf, bool)> = None;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(at) = fields.get(4).map(|f| unescape(f)).filter(|at| path.starts_with(at)) else { continue };
        let shared = fields.iter().skip(6).take_while(|f| **f != "-").any(|f| f.starts_with("shared:"));
        // of several at one place the last lies on top
        if found.as_ref().is_none_or(|(best, _)| at.components().count() >= best.components().count()) {
            found = Some((at, shared));
        }
    }
    found
}

/// Whether something is mounted exactly here. The file system that is mounted is not asked, so one whose server is
/// away does not hold the caller up.
pub fn is_mount_point(at: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let how = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let s = match statx(CWD, at, how, StatxFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        other => other?,
    };
    if s.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    Ok(mounts_below(at)?.iter().any(|m| m == at))
}

/// Takes a mount away; what still uses it keeps it until done. Nothing mounted there is no error.
pub fn unmount(at: &Path) -> io::Result<()> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Takes away all that is mounted at or below `root`, deepest first. Mounts that came there by propagation are cut
/// off before, so that those they came from stay.
pub fn unmount_below(root: &Path) -> io::Result<()> {
    let all = mounts_below(root)?;
    // what is taken from a mount is taken from all that share with it: so none may share any more
    for at in &all {
        match rustix::mount::mount_change(at, MountPropagationFlags::PRIVATE) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    all.iter().try_for_each(|at| unmount(at))?;
    match mounts_below(root)?.first() {
        None => Ok(()),
        Some(at) => Err(io::Error::other(format!("{} is still mounted", at.display()))),
    }
}

/// The places where something is mounted at or below `root`, deepest first.
pub fn mounts_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(unescape)
        .filter(|p| p.starts_with(root))
        .collect();
    found.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    Ok(found)
}

/// Undoes the octal escapes of spaces and the like in the kernel's mount table.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let octal =
            bytes.get(i + 1..i + 4).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(code) if b == b'\\' => {
                out.push(code);
                i += 4;
            }
            _ => {
                out.push(b);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// Opens what is at `path` below `root`, following no link that leads out of it. With `create`, what is
/// missing becomes directories.
pub fn open_beneath(root: &Path, path: &Path, create: bool) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    use std::os::fd::AsRawFd;
    let mut at = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let root = at.try_clone()?;
    let whole = rustix::fs::openat2(
        &root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    );
    match whole {
        Ok(fd) => return Ok(File::from(fd)),
        Err(rustix::io::Errno::NOENT) if create => {}
        Err(e) => return Err(e.into()),
    }
    // new directories are as open as the volume itself
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode & 0o7777);
    // each step is taken from the directory that the last one opened, so nothing can be swapped in between
    for part in path.components() {
        let name = part.as_os_str();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        at = match rustix::fs::openat2(&at, name, flags, Mode::empty(), ResolveFlags::BENEATH) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, name, Mode::RWXU)?;
                let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let made = rustix::fs::openat2(&at, name, flags, Mode::empty(), how)?;
                // the descriptor says which directory it is, whatever its name stands for by now
                rustix::fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), mode)?;
                made
            }
            other => other?,
        };
    }
    Ok(File::from(at))
}

/// Makes an opened file or directory appear at `to`.
pub fn bind_file(from: &File, to: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // alone: what is mounted below it stays where it is, and is not taken away with this mount
    Ok(rustix::mount::mount_bind(format!("/proc/self/fd/{}", from.as_raw_fd()), to)?)
}

/// How full the file system is that holds a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Its size in bytes.
    pub capacity: u64,
    /// Bytes a user without privileges can still write.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// All inodes.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// Asks the file system that holds `path`.
pub fn usage(path: &Path) -> io::Result<FsUsage> {
    let s = rustix::fs::statvfs(path)?;
    Ok(FsUsage {
        capacity: s.f_blocks * s.f_frsize,
        available: s.f_bavail * s.f_frsize,
        used: s.f_blocks.saturating_sub(s.f_bfree) * s.f_frsize,
        inodes: s.f_files,
        inodes_free: s.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_fields() {
        for (field, path) in [("/a", "/a"), (r"/a\040b", "/a b"), (r"/a\134", r"/a\"), (r"/a\9", r"/a\9")] {
            assert_eq!(unescape(field), PathBuf::from(path), "{field}");
        }
    }

    /// Runs the test of this name again in a mount namespace of its own; `false` says that the caller is in it.
    /// Where namespaces cannot be made there is nothing to test.
    fn in_own_namespace(name: &str) -> bool {
        if std::env::var_os("OWN_MOUNTS").is_some() {
            return false;
        }
        let Ok(exe) = std::env::current_exe() else { return true };
        let can = std::process::Command::new("unshare").args(["-m", "true"]).status();
        if !can.is_ok_and(|s| s.success()) {
            return true;
        }
        let run = std::process::Command::new("unshare")
            .args(["-m", "--propagation", "private"])
            .arg(exe)
            .args(["--exact", name])
            .env("OWN_MOUNTS", "1")
            .status();
        assert!(run.is_ok_and(|s| s.success()), "{name} in a namespace of its own");
        true
    }

    #[test]
    fn taking_down_spares_what_was_mounted_elsewhere() -> io::Result<()> {
        if in_own_namespace("mount::tests::taking_down_spares_what_was_mounted_elsewhere") {
            return Ok(());
        }
        let t = std::env::temp_dir().join(format!("sys-mount-{}", std::process::id()));
        let (real, pod) = (t.join("real"), t.join("pod"));
        std::fs::create_dir_all(&real)?;
        std::fs::create_dir_all(pod.join("sub/path"))?;
        tmpfs(&real, None, 0o755, Some(7))?;
        make_shared(&real)?;
        std::fs::create_dir_all(real.join("data"))?;
        bind_file(&open_beneath(&real, ".".as_ref(), false)?, &pod.join("sub/path"))?;
        // it shows in the pod's directory as well, as both are of one group
        tmpfs(&real.join("data"), None, 0o755, None)?;
        std::fs::write(real.join("data/x"), "x")?;
        assert!(is_mount_point(&pod.join("sub/path"))? && !is_mount_point(&pod.join("sub"))?);
        assert!(pod.join("sub/path/data/x").exists());
        let refused = crate::dir::remove(&pod).map_err(|e| e.kind());
        assert_eq!(refused, Err(io::ErrorKind::CrossesDevices), "removal never crosses a mount");
        unmount_below(&pod)?;
        crate::dir::remove(&pod)?;
        assert!(real.join("data/x").exists(), "the user's own mount and files stay");
        unmount_below(&real)?;
        std::fs::remove_dir_all(&t)
    }

    #[test]
    fn the_mount_that_holds_a_path() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 a rw\n2 1 8:2 / /var rw - ext4 b rw\n3 1 8:2 / /var/lib rw,x shared:2 master:1 - ext4 b rw\n";
        for (path, want) in [
            ("/etc", ("/", true)),
            ("/var/log", ("/var", false)),
            ("/var/lib/k", ("/var/lib", true)),
            ("/variant", ("/", true)),
        ] {
            assert_eq!(holder(table, path.as_ref()), Some((PathBuf::from(want.0), want.1)), "{path}");
        }
    }

    #[test]
    fn the_root_has_a_size() {
        let u = usage(Path::new("/")).expect("statvfs of /");
        assert!(u.capacity >= u.used && u.capacity > 0);
    }
}
