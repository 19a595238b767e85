//! A directory that an NFS server exports.

use super::{SetUpError, at};
use crate::blocking;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long mount(8) may take; it tries again by itself.
const LIMIT: Duration = Duration::from_secs(100);

/// Mounts it with mount(8), whose NFS helper speaks to the server.
pub(crate) async fn set_up(
    server: &str,
    path: &str,
    read_only: bool,
    options: &[String],
    dir: &Path,
) -> Result<(), SetUpError> {
    let own = dir.to_owned();
    let there = blocking::quick(move || {
        sys::dir::make_all(&own, 0o750)?;
        sys::mount::is_mount_point(&own)
    });
    if there.await.and_then(|r| r).map_err(at(dir))? {
        return Ok(());
    }
    let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
    let (source, target) = (format!("{host}:{path}"), dir.to_string_lossy());
    let options: Vec<&str> = options.iter().map(String::as_str).chain(read_only.then_some("ro")).collect();
    let options = options.join(",");
    let mut args = vec!["-t", "nfs"];
    if !options.is_empty() {
        args.extend(["-o", &options]);
    }
    args.extend(["--", &source, &target]);
    let out = blocking::command("mount", &args, LIMIT).await.map_err(at(dir))?;
    if out.status.success() { Ok(()) } else { Err(at(dir)(io::Error::other(blocking::said(&out)))) }
}
