//! A file or directory of the node.

use super::{SetUpError, at};
use k8s_openapi::api::core::v1::HostPathVolumeSource;
use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks, or makes, what the pod says is there.
pub(crate) fn set_up(source: &HostPathVolumeSource) -> Result<(), SetUpError> {
    let path = Path::new(&source.path);
    let must = |kind: &'static str, is: fn(&FileType) -> bool| match fs::metadata(path) {
        Ok(m) if is(&m.file_type()) => Ok(()),
        _ => Err(SetUpError::HostPathType { path: source.path.clone(), kind }),
    };
    match source.type_.as_deref().unwrap_or("") {
        "DirectoryOrCreate" => {
            if !path.exists() {
                sys::dir::make_all(path, 0o755).map_err(at(path))?;
            }
            must("directory", FileType::is_dir)
        }
        "FileOrCreate" => {
            if !path.exists() {
                fs::write(path, "").map_err(at(path))?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(at(path))?;
            }
            must("file", FileType::is_file)
        }
        "Directory" => must("directory", FileType::is_dir),
        "File" => must("file", FileType::is_file),
        "Socket" => must("socket file", FileTypeExt::is_socket),
        "CharDevice" => must("character device", FileTypeExt::is_char_device),
        "BlockDevice" => must("block device", FileTypeExt::is_block_device),
        _ => {
            // as ever since Docker: a path that is not there becomes a directory
            if !path.exists() {
                sys::dir::make_all(path, 0o755).map_err(at(path))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() -> Result<(), Box<dyn std::error::Error>> {
        let d = tempfile::tempdir()?;
        fs::write(d.path().join("f"), "")?;
        for (name, kind, ok) in [
            ("", "Directory", true),
            ("f", "Directory", false),
            ("f", "File", true),
            ("x", "File", false),
            ("n/m", "DirectoryOrCreate", true),
            ("g", "FileOrCreate", true),
            ("f", "Socket", false),
            ("h", "", true),
        ] {
            let path = d.path().join(name).to_string_lossy().into_owned();
            let got = set_up(&HostPathVolumeSource { path, type_: Some(kind.into()) });
            assert_eq!(got.is_ok(), ok, "{name} {kind}");
        }
        Ok(())
    }
}
