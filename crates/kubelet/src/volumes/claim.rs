//! Volumes that a claim stands for: those of the node itself (hostPath, local) and of NFS servers.

use super::{SetUpError, at, dir_of, host_path, nfs, ownership};
use crate::config::Config;
use crate::context::Context;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod};
use std::path::PathBuf;

/// Where a claim's volume is: a link leads there, so that a restarted kubelet finds it again.
pub fn path(config: &Config, pod: &Pod, volume: &str) -> Option<PathBuf> {
    let link = dir_of(config, pod, "claim", volume);
    std::fs::read_link(&link).ok().or(Some(link))
}

/// Finds the volume of a claim and makes it ready.
pub async fn set_up(
    cx: &Context,
    pod: &Pod,
    volume: &str,
    claim: &str,
    read_only: bool,
) -> Result<(), SetUpError> {
    let pv =
        cx.objects.volume_of_claim(pod, claim).await?.ok_or_else(|| SetUpError::Unbound(claim.into()))?;
    let spec = pv.spec.clone().unwrap_or_default();
    let link = dir_of(&cx.config, pod, "claim", volume);
    let folder = link.parent().map(PathBuf::from).unwrap_or_default();
    std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    let target = if let Some(h) = spec.host_path {
        host_path::set_up(&h)?;
        PathBuf::from(h.path)
    } else if let Some(l) = spec.local {
        host_path::set_up(&HostPathVolumeSource { path: l.path.clone(), type_: Some("Directory".into()) })?;
        ownership::apply(pod, l.path.as_ref(), !read_only)?;
        PathBuf::from(l.path)
    } else if let Some(n) = spec.nfs {
        let name = pv.metadata.name.clone().unwrap_or_default();
        let dir = dir_of(&cx.config, pod, "nfs", &name);
        let read_only = read_only || n.read_only == Some(true);
        nfs::set_up(&n.server, &n.path, read_only, spec.mount_options.as_deref().unwrap_or_default(), &dir)?;
        dir
    } else {
        return Err(SetUpError::Unsupported(format!(
            "persistent volume {}",
            pv.metadata.name.clone().unwrap_or_default()
        )));
    };
    if std::fs::read_link(&link).ok().as_ref() != Some(&target) {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&target, &link).map_err(at(&link))?;
    }
    Ok(())
}
