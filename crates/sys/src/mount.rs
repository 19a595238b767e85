//! Mounts and the file systems behind them.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Mounts a tmpfs of at most `size` bytes (no bound when `None`) with permissions `mode`.
pub fn tmpfs(at: &Path, size: Option<u64>, mode: u32) -> io::Result<()> {
    let mut data = format!("mode={mode:o}");
    if let Some(size) = size {
        data += &format!(",size={size}");
    }
    let data = CString::new(data)?;
    Ok(rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))?)
}

/// Makes `from` appear at `to`.
pub fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind_recursive(from, to)?)
}

/// Makes a bind mount read-only.
pub fn remount_read_only(at: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(at, MountFlags::BIND | MountFlags::RDONLY, "")?)
}

/// Mounts a file system by its type, as mount(8) does without helpers.
pub fn mount(source: &str, at: &Path, fs_type: &str, options: &[String]) -> io::Result<()> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for o in options {
        match o.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" | "defaults" => {}
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            other => data.push(other),
        }
    }
    let data = CString::new(data.join(","))?;
    Ok(rustix::mount::mount(source, at, fs_type, flags, Some(data.as_c_str()))?)
}

/// Lets mounts made below `at` show in other namespaces and the other way round.
pub fn make_shared(at: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_change(at, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// Takes a mount away; what still uses it keeps it until done. Nothing mounted there is no error.
pub fn unmount(at: &Path) -> io::Result<()> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
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
                rustix::fs::mkdirat(&at, name, mode)?;
                rustix::fs::chmodat(&at, name, mode, rustix::fs::AtFlags::empty())?;
                rustix::fs::openat2(&at, name, flags, Mode::empty(), ResolveFlags::BENEATH)?
            }
            other => other?,
        };
    }
    Ok(File::from(at))
}

/// Makes an opened file or directory appear at `to`.
pub fn bind_file(from: &File, to: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    bind(Path::new(&format!("/proc/self/fd/{}", from.as_raw_fd())), to)
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

    #[test]
    fn the_root_has_a_size() {
        let u = usage(Path::new("/")).expect("statvfs of /");
        assert!(u.capacity >= u.used && u.capacity > 0);
    }
}
