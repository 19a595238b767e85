//! One directory or file of a volume, mounted so that no symbolic link in the volume leads out of it,
//! not even one swapped in while the kubelet looks.

use super::{SetUpError, at};
use std::path::{Path, PathBuf};

/// Binds `sub` of `volume` to `target`, making it a directory if it is not there; answers `target`.
pub(crate) fn bind(volume: &Path, sub: &str, target: &Path) -> Result<PathBuf, SetUpError> {
    let relative = Path::new(sub);
    let fine = relative
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !fine {
        return Err(SetUpError::Path(sub.into()));
    }
    let found = sys::mount::open_beneath(volume, relative, true).map_err(at(&volume.join(sub)))?;
    sys::mount::unmount(target).map_err(at(target))?;
    if let Some(parent) = target.parent() {
        sys::dir::make_all(parent, 0o750).map_err(at(parent))?;
    }
    let is_dir = found.metadata().map_err(at(target))?.is_dir();
    if is_dir != target.is_dir() || !target.exists() {
        sys::dir::remove(target).map_err(at(target))?;
        match is_dir {
            true => std::fs::create_dir(target).map_err(at(target))?,
            false => std::fs::write(target, "").map_err(at(target))?,
        }
    }
    sys::mount::bind_file(&found, target).map_err(at(target))?;
    Ok(target.to_owned())
}
