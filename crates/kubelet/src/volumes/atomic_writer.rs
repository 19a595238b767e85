//! Writes a set of files so that a reader sees all old ones or all new ones: they lie in a directory of
//! their own, a symbolic link `..data` leads to it, and the visible names lead through that link.
//! The directory may have been open to a pod once: nothing found in it is trusted, and no link in it followed.

use super::{SetUpError, at};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};
use sys::dir::{Dir, Kind};

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// What is in it.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Who owns it, if not root.
    pub owner: Option<u32>,
}

/// Files by their paths in the volume.
pub(crate) type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const STAGED: &str = "..data_tmp";

/// Refuses paths that leave the volume or could be taken for the writer's own.
pub(crate) fn check_path(path: &str) -> Result<(), SetUpError> {
    let plain = |p: &Path| p.components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || path.starts_with("..") || !plain(Path::new(path)) {
        return Err(SetUpError::Path(path.into()));
    }
    Ok(())
}

/// The permissions of the volume itself: who is not root only reads.
fn top_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o2750 } else { 0o755 }
}

/// Makes the volume at `dir`, which is there, hold exactly `payload` for the pod's group; answers whether anything
/// changed.
pub(crate) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, SetUpError> {
    for path in payload.keys() {
        check_path(path)?;
    }
    let top = Dir::open(dir).map_err(at(dir))?;
    let written = (|| {
        if let Some(gid) = group {
            top.set_group(gid)?;
        }
        top.set_mode(top_mode(group))?;
        let old = current(&top)?;
        if let Some((name, old)) = &old
            && same(old, payload, group)?
        {
            // one that was ended before it came so far left this undone
            show(&top, payload)?;
            sweep(&top, name)?;
            return Ok(false);
        }
        let stamp = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
        let name = OsString::from(format!("..{stamp}.{}", rand::random::<u32>()));
        let new = top.make(&name, 0o700)?;
        if let Err(e) = fill(&new, payload, group) {
            let _ = top.remove(&name);
            return Err(e);
        }
        top.remove(STAGED)?;
        top.symlink(Path::new(&name), STAGED)?;
        if top.stat(DATA)?.is_some_and(|s| s.kind != Kind::Link) {
            top.remove(DATA)?;
        }
        top.rename(STAGED, DATA)?;
        show(&top, payload)?;
        sweep(&top, &name)?;
        Ok(true)
    })();
    written.map_err(at(dir))
}

/// Whether a volume has been written once.
pub(crate) fn is_written(dir: &Path) -> bool {
    Dir::open(dir).and_then(|top| current(&top)).is_ok_and(|found| found.is_some())
}

/// The directory that `..data` leads to, if it is one of those the writer makes.
fn current(top: &Dir) -> io::Result<Option<(OsString, Dir)>> {
    let target = match top.read_link(DATA) {
        Ok(t) => t,
        // nothing there, or no link
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut parts = target.components();
    let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else { return Ok(None) };
    let text = name.to_string_lossy();
    if name != target.as_os_str() || !text.starts_with("..") || text == DATA || text == STAGED {
        return Ok(None);
    }
    match top.sub_unmounted(name) {
        Ok(dir) => Ok(Some((name.to_owned(), dir))),
        Err(_) => Ok(None),
    }
}

fn fill(new: &Dir, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    let folder_mode = if group.is_some() { 0o2755 } else { 0o755 };
    let give = |dir: &Dir| -> io::Result<()> {
        if let Some(gid) = group {
            dir.set_group(gid)?;
        }
        dir.set_mode(folder_mode)
    };
    for (path, file) in payload {
        let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let Some(name) = parts.pop() else { continue };
        let mut folder: Option<Dir> = None;
        for part in parts {
            let next = folder.as_ref().unwrap_or(new).sub_or_make(part, 0o700)?;
            give(&next)?;
            folder = Some(next);
        }
        let to = folder.as_ref().unwrap_or(new);
        to.create(name, &file.data, mode_of(file, group), file.owner, group)?;
    }
    give(new)
}

/// What the group may read it reads.
fn mode_of(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

/// Makes the visible names lead through `..data`, and takes away what else is there.
fn show(top: &Dir, payload: &Payload) -> io::Result<()> {
    let first = |p: &str| OsString::from(p.split('/').find(|p| !p.is_empty()).unwrap_or(p));
    let names: BTreeSet<OsString> = payload.keys().map(|p| first(p)).collect();
    for name in &names {
        let target = Path::new(DATA).join(name);
        let there = top.stat(name)?;
        if there.is_some_and(|s| s.kind == Kind::Link) && top.read_link(name)? == target {
            continue;
        }
        if there.is_some() {
            top.remove(name)?;
        }
        top.symlink(&target, name)?;
    }
    for name in top.names()? {
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            top.remove(&name)?;
        }
    }
    Ok(())
}

/// Takes away earlier sets of files, also those that were never finished.
fn sweep(top: &Dir, current: &OsString) -> io::Result<()> {
    for name in top.names()? {
        if name.to_string_lossy().starts_with("..") && name != DATA && name != *current {
            top.remove(&name)?;
        }
    }
    Ok(())
}

/// Whether a directory holds exactly these files.
fn same(dir: &Dir, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let mut found = 0;
    // at most as many folders as the payload has
    let mut left = payload.keys().map(|p| p.split('/').count()).sum::<usize>() + 1;
    let mut folders: Vec<(String, Option<Dir>)> = vec![(String::new(), None)];
    while let Some((prefix, folder)) = folders.pop() {
        let here = folder.as_ref().unwrap_or(dir);
        for name in here.names()? {
            let Some(text) = name.to_str() else { return Ok(false) };
            let path = if prefix.is_empty() { text.to_owned() } else { format!("{prefix}/{text}") };
            let Some(stat) = here.stat(&name)? else { return Ok(false) };
            if stat.kind == Kind::Dir {
                if left == 0 {
                    return Ok(false);
                }
                left -= 1;
                folders.push((path, Some(here.sub_unmounted(&name)?)));
                continue;
            }
            let Some(want) = payload.get(&path) else { return Ok(false) };
            let fits = stat.mode == mode_of(want, group)
                && want.owner.is_none_or(|uid| uid == stat.uid)
                && group.is_none_or(|gid| gid == stat.gid);
            // a link, device or pipe in its place is none of ours
            if !fits || !here.read(&name, want.data.len() as u64).is_ok_and(|data| data == want.data) {
                return Ok(false);
            }
            found += 1;
        }
    }
    Ok(found == payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o644, owner: None }))
            .collect()
    }

    #[test]
    fn files_come_change_and_go() -> Result {
        let tmp = tempfile::tempdir()?;
        let d = tmp.path();
        let put = |files: &[(&str, &str)]| write(d, &payload(files), None);
        assert!(put(&[("a", "1"), ("b/c", "2")])?);
        assert_eq!(
            (fs::read_to_string(d.join("a"))?, fs::read_to_string(d.join("b/c"))?),
            ("1".into(), "2".into())
        );
        assert_eq!(fs::metadata(d)?.permissions().mode() & 0o7777, 0o755);
        let before = fs::read_link(d.join(DATA))?;
        assert!(!put(&[("a", "1"), ("b/c", "2")])?, "nothing changed");
        assert!(put(&[("a", "3")])?);
        assert_ne!(fs::read_link(d.join(DATA))?, before);
        assert_eq!(fs::read_to_string(d.join("a"))?, "3");
        assert!(
            !d.join("b").exists() && fs::symlink_metadata(d.join("b")).is_err() && !d.join(before).exists()
        );
        Ok(())
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for p in ["", "..", "../a", "/a", "a/../b", "..data"] {
            assert!(check_path(p).is_err(), "{p}");
        }
        assert!(check_path("a/b.c").is_ok());
    }

    #[test]
    fn what_a_pod_plants_is_never_followed() -> Result {
        let tmp = tempfile::tempdir()?;
        let (d, victim) = (tmp.path().join("volume"), tmp.path().join("victim"));
        fs::create_dir_all(victim.join("deep"))?;
        fs::write(victim.join("x"), "x")?;
        let (up, absolute) = (Path::new("../victim").to_owned(), victim.clone());
        for target in
            [absolute, up, "..".into(), ".".into(), "..data".into(), "..x/../../victim".into(), "".into()]
        {
            let _ = fs::remove_dir_all(&d);
            fs::create_dir(&d)?;
            write(&d, &payload(&[("k", "1"), ("f/g", "1")]), None)?;
            fs::remove_file(d.join(DATA))?;
            if !target.as_os_str().is_empty() {
                symlink(&target, d.join(DATA))?;
            }
            // and in place of what the kubelet would read, rename or replace
            for (name, what) in
                [("k", "dir"), ("planted", "dir"), ("..data_tmp", "dir"), ("..old", "link"), ("f", "fifo")]
            {
                let _ = fs::remove_file(d.join(name));
                match what {
                    "dir" => fs::create_dir_all(d.join(name).join("in/it"))?,
                    "link" => symlink(&victim, d.join(name))?,
                    _ => {
                        let made = std::process::Command::new("mkfifo").arg(d.join(name)).status()?;
                        assert!(made.success());
                    }
                }
            }
            assert!(write(&d, &payload(&[("k", "2"), ("f/g", "2")]), None)?, "{target:?}");
            assert_eq!(fs::read_to_string(d.join("k"))?, "2");
            assert_eq!(fs::read_to_string(d.join("f/g"))?, "2");
            assert!(victim.join("x").exists() && victim.join("deep").exists(), "{target:?}");
            let mut left: Vec<_> = fs::read_dir(&d)?.flatten().map(|e| e.file_name()).collect();
            left.sort();
            assert_eq!(left.len(), 4, "{left:?}: ..data, its directory and the two names");
        }
        Ok(())
    }

    #[test]
    fn a_file_swapped_for_a_device_is_not_read() -> Result {
        let tmp = tempfile::tempdir()?;
        let d = tmp.path();
        write(d, &payload(&[("k", "1")]), None)?;
        fs::remove_file(d.join(DATA).join("k"))?;
        symlink("/dev/zero", d.join(DATA).join("k"))?;
        assert!(write(d, &payload(&[("k", "1")]), None)?);
        assert_eq!(fs::read_to_string(d.join("k"))?, "1");
        Ok(())
    }

    #[test]
    fn one_that_was_ended_in_between_is_finished() -> Result {
        let tmp = tempfile::tempdir()?;
        let d = tmp.path();
        write(d, &payload(&[("a", "1"), ("b", "1")]), None)?;
        fs::remove_file(d.join("b"))?;
        fs::create_dir(d.join("..2026_01_01_00_00_00.1"))?;
        assert!(!write(d, &payload(&[("a", "1"), ("b", "1")]), None)?);
        assert_eq!(fs::read_to_string(d.join("b"))?, "1");
        assert!(!d.join("..2026_01_01_00_00_00.1").exists());
        Ok(())
    }

    #[test]
    fn the_group_reads() -> Result {
        let tmp = tempfile::tempdir()?;
        let d = tmp.path();
        let gid = std::os::unix::fs::MetadataExt::gid(&fs::metadata(d)?);
        let mut files = payload(&[("s/k", "1")]);
        files.entry("s/k".into()).and_modify(|f| f.mode = 0o400);
        write(d, &files, Some(gid))?;
        let mode = |p: &str| fs::metadata(d.join(p)).map(|m| m.permissions().mode() & 0o7777);
        assert_eq!((mode("")?, mode("s")?, mode("s/k")?), (0o2750, 0o2755, 0o440));
        assert!(!write(d, &files, Some(gid))?);
        Ok(())
    }
}
