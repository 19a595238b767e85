//! Directories held by descriptor. What lies in them may belong to somebody who renames, links and swaps at will:
//! each step is taken from an open directory by one name, never follows a link, and opens nothing that could
//! wait or act by being opened.

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// How deep a tree is removed by recursion; what lies deeper is moved up first.
const DEPTH: usize = 32;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// What the file system says of a file, without following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Its permissions, setuid, setgid and sticky bits among them.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl From<rustix::fs::Stat> for Stat {
    fn from(s: rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(s.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        };
        Stat { kind, mode: s.st_mode & 0o7777, uid: s.st_uid, gid: s.st_gid }
    }
}

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// One plain name: a path with several parts would be resolved by the kernel, links and all.
fn one(name: &OsStr) -> io::Result<&OsStr> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(p)), None) if p.len() == name.len() => Ok(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not one name"))),
    }
}

fn read_only_dir() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Dir {
    /// Opens a directory by a path that nobody else can change, but for its last part, which must not be a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Dir(rustix::fs::open(path, read_only_dir(), Mode::empty())?))
    }

    /// Opens a directory in this one.
    pub fn sub(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        Ok(Dir(rustix::fs::openat(&self.0, one(name.as_ref())?, read_only_dir(), Mode::empty())?))
    }

    /// The same, unless something is mounted there.
    pub fn sub_unmounted(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let how = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let name = one(name.as_ref())?;
        match rustix::fs::openat2(&self.0, name, read_only_dir(), Mode::empty(), how) {
            Ok(fd) => Ok(Dir(fd)),
            Err(rustix::io::Errno::XDEV) => {
                Err(io::Error::new(io::ErrorKind::CrossesDevices, format!("{name:?} is a mount point")))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a directory that is not there yet, with exactly these permissions.
    pub fn make(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let name = one(name.as_ref())?;
        rustix::fs::mkdirat(&self.0, name, Mode::RWXU)?;
        let made = self.sub(name)?;
        made.set_mode(mode)?;
        Ok(made)
    }

    /// Opens a directory in this one, and makes it if it is not there.
    pub fn sub_or_make(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        match self.sub(name.as_ref()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => match self.make(name.as_ref(), mode) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.sub(name.as_ref()),
                made => made,
            },
            found => found,
        }
    }

    /// Makes a file that is not there yet. It has its owner and permissions before its contents.
    pub fn create(
        &self,
        name: impl AsRef<OsStr>,
        data: &[u8],
        mode: u32,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.0, one(name.as_ref())?, flags, Mode::RUSR | Mode::WUSR)?;
        if owner.is_some() || group.is_some() {
            rustix::fs::fchown(&fd, owner.map(Uid::from_raw), group.map(Gid::from_raw))?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode as RawMode))?;
        File::from(fd).write_all(data)
    }

    /// Opens a regular file for reading; anything else is an error, and opening it neither waits nor acts.
    pub fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        regular(rustix::fs::openat(&self.0, one(name.as_ref())?, calm(), Mode::empty())?)
    }

    /// What is in a regular file of at most `limit` bytes.
    pub fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> io::Result<Vec<u8>> {
        read_all(self.file(name)?, limit)
    }

    /// Where a link leads.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, one(name.as_ref())?, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Makes a link.
    pub fn symlink(&self, target: &Path, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, one(name.as_ref())?)?)
    }

    /// Gives something in this directory another name in it; what has that name is replaced.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, one(from.as_ref())?, &self.0, one(to.as_ref())?)?)
    }

    /// What a name stands for; `None` if there is nothing.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, one(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(s) => Ok(Some(s.into())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What the file system says of this directory.
    pub fn own_stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.0)?.into())
    }

    /// Sets the permissions of this directory.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode as RawMode))?)
    }

    /// Sets the group of this directory.
    pub fn set_group(&self, gid: u32) -> io::Result<()> {
        Ok(rustix::fs::fchown(&self.0, None, Some(Gid::from_raw(gid)))?)
    }

    /// The names in this directory.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut out = Vec::new();
        for e in rustix::fs::Dir::read_from(&self.0)? {
            let e = e?;
            let name = e.file_name().to_bytes();
            if name != b"." && name != b".." {
                out.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(out)
    }

    /// Removes a file, link or device; nothing there is no error.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, one(name.as_ref())?, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes whatever has this name, directories with all that is in them. It follows no link and stops with
    /// an error where something is mounted. Nothing there is no error.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = one(name.as_ref())?;
        match self.stat(name)?.map(|s| s.kind) {
            None => return Ok(()),
            Some(Kind::Dir) => {}
            Some(_) => return self.remove_file(name),
        }
        let top = match self.sub_unmounted(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut moved = 0;
        loop {
            let before = moved;
            top.empty(&top, 0, &mut moved)?;
            if moved == before {
                break;
            }
        }
        match rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    fn empty(&self, top: &Dir, depth: usize, moved: &mut u64) -> io::Result<()> {
        for name in self.names()? {
            if self.stat(&name)?.is_none_or(|s| s.kind != Kind::Dir) {
                self.remove_file(&name)?;
                continue;
            }
            let sub = match self.sub_unmounted(&name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if depth >= DEPTH {
                // neither the stack nor the number of open files may depend on how deep somebody nests
                *moved += 1;
                rustix::fs::renameat(&self.0, &name, &top.0, format!(".removed.{moved}"))?;
                continue;
            }
            sub.empty(top, depth + 1, moved)?;
            match rustix::fs::unlinkat(&self.0, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Calls `f` for each thing in this directory and below, this directory itself included, after what is in it.
    /// Links are told of and not followed.
    pub fn walk(&self, f: &mut dyn FnMut(&Node<'_>) -> io::Result<()>) -> io::Result<()> {
        // open directories, each with the names that are left in it
        let mut stack = vec![(Dir(self.0.try_clone()?), self.names()?)];
        while let Some((dir, names)) = stack.last_mut() {
            let Some(name) = names.pop() else {
                f(&Node { fd: dir.0.as_fd(), stat: dir.own_stat()? })?;
                stack.pop();
                continue;
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&dir.0, &name, flags, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => continue,
                other => other?,
            };
            let stat = Stat::from(rustix::fs::fstat(&fd)?);
            if stat.kind != Kind::Dir {
                f(&Node { fd: fd.as_fd(), stat })?;
                continue;
            }
            if stack.len() > 2000 {
                return Err(io::Error::other("directories are nested too deep"));
            }
            let sub = Dir(rustix::fs::openat(&fd, ".", read_only_dir(), Mode::empty())?);
            let inside = sub.names()?;
            stack.push((sub, inside));
        }
        Ok(())
    }
}

/// One thing that [`Dir::walk`] came to, held open.
#[derive(Debug)]
pub struct Node<'a> {
    fd: std::os::fd::BorrowedFd<'a>,
    /// What it is.
    pub stat: Stat,
}

impl Node<'_> {
    /// Gives it to a group.
    pub fn set_group(&self, gid: u32) -> io::Result<()> {
        Ok(rustix::fs::chownat(self.fd, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?)
    }

    /// Sets its permissions; a link has none of its own.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        if self.stat.kind == Kind::Link {
            return Ok(());
        }
        // the descriptor says which file it is, whatever its name stands for by now
        let through = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(rustix::fs::chmod(through, Mode::from_raw_mode(mode as RawMode))?)
    }
}

fn calm() -> OFlags {
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

fn regular(fd: OwnedFd) -> io::Result<File> {
    match Stat::from(rustix::fs::fstat(&fd)?).kind {
        Kind::File => Ok(File::from(fd)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut data)?;
    if data.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(data)
}

/// Opens a regular file whose last part is no link; opening it neither waits nor acts.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(rustix::fs::open(path, calm(), Mode::empty())?)
}

/// What is in a regular file below `root`, of at most `limit` bytes. Links count as if `root` were the root of
/// all: none leads out of it.
pub fn read_beneath(root: &Path, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = Dir::open(root)?;
    let flags = calm().difference(OFlags::NOFOLLOW);
    let fd = rustix::fs::openat2(&root.0, path, flags, Mode::empty(), how)?;
    read_all(regular(fd)?, limit)
}

/// Makes a directory and those above it that are missing; those it makes get exactly these permissions.
pub fn make_all(path: &Path, mode: u32) -> io::Result<()> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode as RawMode))?),
        Err(rustix::io::Errno::EXIST) if path.is_dir() => Ok(()),
        Err(rustix::io::Errno::NOENT) => match path.parent() {
            Some(parent) if parent != path => {
                make_all(parent, mode)?;
                make_all(path, mode)
            }
            _ => Err(rustix::io::Errno::NOENT.into()),
        },
        Err(e) => Err(e.into()),
    }
}

/// Removes what is at a path as [`Dir::remove`] does; the directory above it must be nobody else's.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path to remove"));
    };
    match Dir::open(parent) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other?.remove(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    struct Tmp(PathBuf);

    impl Tmp {
        fn new(name: &str) -> io::Result<Self> {
            let dir = std::env::temp_dir().join(format!("sys-dir-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir)?;
            Ok(Tmp(dir))
        }
    }

    impl Drop for Tmp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn names_are_single() -> Result {
        let t = Tmp::new("names")?;
        let d = Dir::open(&t.0)?;
        for bad in ["", ".", "..", "/", "/etc", "a/b", "../x", "a/"] {
            assert!(d.stat(bad).is_err() && d.remove(bad).is_err(), "{bad:?}");
        }
        Ok(())
    }

    #[test]
    fn removal_follows_no_link_and_takes_any_depth() -> Result {
        let t = Tmp::new("remove")?;
        let (victim, tree) = (t.0.join("victim"), t.0.join("tree"));
        std::fs::create_dir_all(victim.join("sub"))?;
        std::fs::write(victim.join("x"), "x")?;
        std::fs::create_dir(&tree)?;
        symlink(&victim, tree.join("link"))?;
        symlink(victim.join("sub"), tree.join("again"))?;
        let mut at = Dir::open(&tree)?;
        for _ in 0..300 {
            at.create("f", b"1", 0o600, None, None)?;
            at = at.make("d", 0o755)?;
        }
        remove(&tree)?;
        assert!(!tree.exists() && victim.join("x").exists() && victim.join("sub").exists());
        symlink(&victim, &tree)?;
        remove(&tree)?;
        assert!(std::fs::symlink_metadata(&tree).is_err() && victim.join("x").exists());
        remove(&tree)?;
        remove(&tree.join("no/such"))?;
        Ok(())
    }

    #[test]
    fn only_regular_files_are_read() -> Result {
        let t = Tmp::new("read")?;
        std::fs::create_dir(t.0.join("v"))?;
        std::fs::write(t.0.join("v/ok"), "A=1")?;
        std::fs::write(t.0.join("secret"), "A=2")?;
        symlink("../secret", t.0.join("v/link"))?;
        symlink("/dev/zero", t.0.join("v/zero"))?;
        symlink("ok", t.0.join("v/inside"))?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            t.0.join("v/fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o666),
            0,
        )?;
        let root = t.0.join("v");
        assert_eq!(read_beneath(&root, "ok".as_ref(), 3)?, b"A=1");
        assert_eq!(read_beneath(&root, "inside".as_ref(), 3)?, b"A=1");
        assert!(read_beneath(&root, "ok".as_ref(), 2).is_err(), "larger than the limit");
        for bad in ["link", "zero", "fifo", "../secret", "/etc/passwd", ".", "none"] {
            assert!(read_beneath(&root, bad.as_ref(), 1000).is_err(), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn files_are_made_once_and_with_their_mode() -> Result {
        let t = Tmp::new("create")?;
        let d = Dir::open(&t.0)?;
        d.create("a", b"x", 0o664, None, None)?;
        assert_eq!(std::fs::metadata(t.0.join("a"))?.permissions().mode() & 0o7777, 0o664);
        assert!(d.create("a", b"y", 0o664, None, None).is_err());
        symlink(t.0.join("elsewhere"), t.0.join("l"))?;
        assert!(d.create("l", b"y", 0o664, None, None).is_err() && !t.0.join("elsewhere").exists());
        make_all(&t.0.join("p/q"), 0o750)?;
        assert_eq!(std::fs::metadata(t.0.join("p"))?.permissions().mode() & 0o7777, 0o750);
        Ok(())
    }

    #[test]
    fn a_walk_meets_everything_and_no_link_target() -> Result {
        let t = Tmp::new("walk")?;
        std::fs::create_dir_all(t.0.join("v/d"))?;
        std::fs::write(t.0.join("outside"), "")?;
        std::fs::set_permissions(t.0.join("outside"), std::fs::Permissions::from_mode(0o600))?;
        std::fs::write(t.0.join("v/d/f"), "")?;
        symlink("../outside", t.0.join("v/l"))?;
        let mut met = 0;
        Dir::open(&t.0.join("v"))?.walk(&mut |n| {
            met += 1;
            n.set_mode(0o777)
        })?;
        assert_eq!(met, 4);
        assert_eq!(std::fs::metadata(t.0.join("outside"))?.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(t.0.join("v/d/f"))?.permissions().mode() & 0o777, 0o777);
        Ok(())
    }
}
