//! Volumes that a claim stands for: those of the node itself (hostPath, local) and of NFS servers. A link leads to
//! the volume once it is ready, so that neither a container that starts again nor a restarted kubelet has to ask for
//! it again.

use super::ownership::{self, Group};
use super::{SetUpError, at, dir_of, host_path, nfs};
use crate::blocking;
use crate::config::Config;
use crate::context::Context;
use crate::objects::Claim;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, PersistentVolume, Pod};
use std::io;
use std::path::{Path, PathBuf};

/// Where a claim's volume is.
pub(crate) fn path(config: &Config, pod: &Pod, volume: &str) -> Option<PathBuf> {
    let link = dir_of(config, pod, "claim", volume);
    std::fs::read_link(&link).ok().or(Some(link))
}

/// Whether the volume is there still: what the kubelet mounted must be mounted.
fn is_there(link: &Path, mounts: &Path) -> bool {
    let Ok(target) = std::fs::read_link(link) else { return false };
    if target.starts_with(mounts) {
        sys::mount::is_mount_point(&target).unwrap_or(false)
    } else {
        target.exists()
    }
}

/// Finds the volume of a claim and makes it ready, once.
pub(crate) async fn set_up(
    cx: &Context,
    pod: &Pod,
    volume: &str,
    claim: Claim<'_>,
    read_only: bool,
) -> Result<(), SetUpError> {
    let link = dir_of(&cx.config, pod, "claim", volume);
    let key = link.to_string_lossy().into_owned();
    let (own, mounts) = (link.clone(), cx.config.pod_dir(crate::pod::PodExt::uid(pod)));
    let there = cx.blocking.run(&key, blocking::LIMIT, move || is_there(&own, &mounts)).await;
    if there.map_err(at(&link))? {
        return Ok(());
    }
    let pv = cx
        .objects
        .volume_of_claim(pod, &claim)
        .await?
        .ok_or_else(|| SetUpError::Unbound(claim.name().into()))?;
    let name = pv.metadata.name.clone().unwrap_or_default();
    let spec = pv.spec.as_ref();
    if spec.and_then(|s| s.volume_mode.as_deref()) == Some("Block") {
        return Err(SetUpError::Unsupported(format!("persistent volume {name} of volumeMode Block")));
    }
    let group = ownership::group(pod);
    if let Some(n) = spec.and_then(|s| s.nfs.as_ref()) {
        let dir = dir_of(&cx.config, pod, "nfs", &name);
        let options = spec.and_then(|s| s.mount_options.as_deref()).unwrap_or_default();
        nfs::set_up(&n.server, &n.path, read_only || n.read_only == Some(true), options, &dir).await?;
        return cx
            .blocking
            .run(&key, blocking::LIMIT, move || show(&link, &dir))
            .await
            .map_err(at(Path::new(&key)))?;
    }
    let done = cx.blocking.run(&key, blocking::LIMIT, move || of_node(&pv, &link, group, !read_only)).await;
    done.map_err(at(Path::new(&key)))?
}

/// A volume that is a directory of this node.
fn of_node(
    pv: &PersistentVolume,
    link: &Path,
    group: Option<Group>,
    writable: bool,
) -> Result<(), SetUpError> {
    let spec = pv.spec.as_ref();
    if let Some(h) = spec.and_then(|s| s.host_path.as_ref()) {
        host_path::set_up(h)?;
        return show(link, h.path.as_ref());
    }
    if let Some(l) = spec.and_then(|s| s.local.as_ref()) {
        host_path::set_up(&HostPathVolumeSource { path: l.path.clone(), type_: Some("Directory".into()) })?;
        if let Some(group) = group {
            ownership::apply(group, l.path.as_ref(), writable)?;
        }
        return show(link, l.path.as_ref());
    }
    let kind = spec.map_or("an unknown kind", kind);
    let name = pv.metadata.name.as_deref().unwrap_or("");
    Err(SetUpError::Unsupported(format!("persistent volume {name}: {kind} is not supported")))
}

fn kind(s: &k8s_openapi::api::core::v1::PersistentVolumeSpec) -> &'static str {
    if s.csi.is_some() {
        "csi"
    } else if s.iscsi.is_some() {
        "iscsi"
    } else if s.fc.is_some() {
        "fc"
    } else if s.flex_volume.is_some() {
        "flexVolume"
    } else {
        "its kind"
    }
}

fn show(link: &Path, target: &Path) -> Result<(), SetUpError> {
    let made = || -> io::Result<()> {
        if let Some(folder) = link.parent() {
            sys::dir::make_all(folder, 0o750)?;
        }
        sys::dir::remove(link)?;
        std::os::unix::fs::symlink(target, link)
    };
    made().map_err(at(link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_of_the_node_is_set_up_once() -> Result<(), Box<dyn std::error::Error>> {
        let t = tempfile::tempdir()?;
        let (link, local) = (t.path().join("pod/volumes/claim/v"), t.path().join("disk"));
        let pv = |spec: serde_json::Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": spec}))
                .unwrap_or_else(|e| panic!("{e}"))
        };
        let of = |spec| of_node(&pv(spec), &link, None, true);
        assert!(of(json!({"local": {"path": local}})).is_err(), "no such directory");
        assert!(!is_there(&link, &t.path().join("pod")));
        std::fs::create_dir(&local)?;
        of(json!({"local": {"path": local}}))?;
        assert!(is_there(&link, &t.path().join("pod")) && std::fs::read_link(&link)? == local);
        let said = of(json!({"csi": {"driver": "d", "volumeHandle": "h"}})).err().map(|e| e.to_string());
        assert!(said.is_some_and(|s| s.ends_with("persistent volume pv: csi is not supported")));
        // what the kubelet itself mounted is gone after the node was down
        let mounted = t.path().join("pod/nfs/pv");
        std::fs::create_dir_all(&mounted)?;
        show(&link, &mounted)?;
        assert!(!is_there(&link, &t.path().join("pod")));
        Ok(())
    }
}
