//! A directory that an NFS server exports.

use super::empty_dir::is_mount;
use super::{SetUpError, at};
use std::path::Path;
use std::process::Command;

/// Mounts it with mount(8), whose NFS helper speaks to the server.
pub fn set_up(
    server: &str,
    path: &str,
    read_only: bool,
    options: &[String],
    dir: &Path,
) -> Result<(), SetUpError> {
    std::fs::create_dir_all(dir).map_err(at(dir))?;
    if is_mount(dir) {
        return Ok(());
    }
    let mut options = options.to_vec();
    if read_only {
        options.push("ro".into());
    }
    let mut command = Command::new("mount");
    command.args(["-t", "nfs"]);
    if !options.is_empty() {
        command.arg("-o").arg(options.join(","));
    }
    let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
    let out = command.arg(format!("{host}:{path}")).arg(dir).output().map_err(at(dir))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(at(dir)(std::io::Error::other(said)))
}
