//! Writes a set of files so that a reader sees all old ones or all new ones: they lie in a directory of
//! their own, a symbolic link `..data` leads to it, and the visible names lead through that link.

use super::{SetUpError, at};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Who owns it, if not root.
    pub owner: Option<u32>,
}

/// Files by their paths in the volume.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";

/// Refuses paths that leave the volume or could be taken for the writer's own.
pub fn check_path(path: &str) -> Result<(), SetUpError> {
    let plain = |p: &Path| p.components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || path.starts_with("..") || !plain(Path::new(path)) {
        return Err(SetUpError::Path(path.into()));
    }
    Ok(())
}

/// Makes the volume at `dir` hold exactly `payload`; answers whether anything changed.
/// `finish` is called on the new directory before it is shown.
pub fn write(
    dir: &Path,
    payload: &Payload,
    finish: impl FnOnce(&Path) -> Result<(), SetUpError>,
) -> Result<bool, SetUpError> {
    for path in payload.keys() {
        check_path(path)?;
    }
    let link = dir.join(DATA);
    let old = fs::read_link(&link).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let name =
        format!("..{}.{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
    let new = dir.join(&name);
    fs::create_dir(&new).map_err(at(&new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).map_err(at(&new))?;
    for (path, file) in payload {
        let to = new.join(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        fs::write(&to, &file.data).map_err(at(&to))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(file.mode)).map_err(at(&to))?;
        if let Some(uid) = file.owner {
            std::os::unix::fs::chown(&to, Some(uid), None).map_err(at(&to))?;
        }
    }
    finish(&new)?;
    let staged = dir.join("..data_tmp");
    let _ = fs::remove_file(&staged);
    symlink(&name, &staged).map_err(at(&staged))?;
    fs::rename(&staged, &link).map_err(at(&link))?;
    show(dir, payload)?;
    if let Some(old) = old {
        let old = dir.join(old);
        fs::remove_dir_all(&old).map_err(at(&old))?;
    }
    Ok(true)
}

/// Makes the visible names lead through `..data`, and takes away those of files that are gone.
fn show(dir: &Path, payload: &Payload) -> Result<(), SetUpError> {
    let first = |p: &str| p.split('/').next().unwrap_or(p).to_owned();
    let names: std::collections::BTreeSet<String> = payload.keys().map(|p| first(p)).collect();
    for name in &names {
        let visible = dir.join(name);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(name), &visible).map_err(at(&visible))?;
        }
    }
    for e in fs::read_dir(dir).map_err(at(dir))?.flatten() {
        let name = e.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            fs::remove_file(e.path()).map_err(at(&e.path()))?;
        }
    }
    Ok(())
}

/// Whether a directory holds exactly these files.
fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { return false };
        for e in entries.flatten() {
            if e.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(e.path());
                continue;
            }
            let path = e.path();
            let Ok(relative) = path.strip_prefix(dir) else { return false };
            let Some(want) = payload.get(relative.to_string_lossy().as_ref()) else { return false };
            if !fs::read(&path).is_ok_and(|data| data == want.data) {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o644, owner: None }))
            .collect()
    }

    #[test]
    fn files_come_change_and_go() -> Result<(), Box<dyn std::error::Error>> {
        let tmp = tempfile::tempdir()?;
        let d = tmp.path();
        let put = |files: &[(&str, &str)]| write(d, &payload(files), |_| Ok(()));
        assert!(put(&[("a", "1"), ("b/c", "2")])?);
        assert_eq!(
            (fs::read_to_string(d.join("a"))?, fs::read_to_string(d.join("b/c"))?),
            ("1".into(), "2".into())
        );
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
}
