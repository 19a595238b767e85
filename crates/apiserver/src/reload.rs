//! Files that are read again when they change: certificates and who vouches for them.

use crate::connect::Kubelets;
use crate::options::Options;
use crate::peers::Peers;
use crate::serve::Serving;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

/// What tells that a file is another: when it was written, how long it is, which it is.
type Stamp = Option<(i64, i64, u64, u64)>;

/// Files, and how they were when they were last looked at.
pub struct Files(Vec<(PathBuf, Stamp)>);

impl Files {
    /// As they are now.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Option<PathBuf>>) -> Self {
        Files(paths.into_iter().flatten().map(|path| (path.clone(), stamp(path))).collect())
    }

    /// Whether one has changed since the last look.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, before) in &mut self.0 {
            let now = stamp(path);
            changed |= now != *before;
            *before = now;
        }
        changed
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
}

/// Looks after the files for as long as the server runs. What can't be read is told, and what was read before holds.
pub async fn run(options: Options, serving: Arc<Serving>, peers: Arc<Peers>, kubelets: Arc<Kubelets>) {
    let o = &options;
    let mut of_serving = Files::new([&o.tls_cert_file, &o.tls_private_key_file]);
    let mut of_peers = Files::new([&o.client_ca_file, &o.requestheader_client_ca_file]);
    let mut of_kubelets =
        Files::new([&o.kubelet_certificate_authority, &o.kubelet_client_certificate, &o.kubelet_client_key]);
    loop {
        tokio::time::sleep(LOOK).await;
        let told = |what: &str, read: Result<(), String>| match read {
            Ok(()) => tracing::info!("{what} was read again"),
            Err(e) => {
                tracing::error!(error = %e, "{what} has changed and can't be read; what was read before holds")
            }
        };
        if of_serving.changed() {
            told("the serving certificate", serving.read(o).map_err(|e| e.to_string()));
        }
        if of_peers.changed() {
            told("the authorities of clients", peers.read(o).map_err(|e| e.to_string()));
        }
        if of_kubelets.changed() {
            told("the certificate for kubelets", kubelets.read(o));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_put_in_the_place_of_another_is_seen() {
        let dir = std::env::temp_dir().join(format!("reload-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a");
        let mut files = Files::new([&Some(path.clone()), &None]);
        assert!(!files.changed());
        for text in ["one", "two"] {
            std::fs::write(dir.join("b"), text).unwrap();
            std::fs::rename(dir.join("b"), &path).unwrap();
            assert!(files.changed() && !files.changed());
        }
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(files.changed());
    }
}
