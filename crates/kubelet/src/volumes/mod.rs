//! Volumes: set up before a pod's containers start, kept up to date while it runs, taken away after it.
//! Each kind of volume is one file. Start at [`set_up`] and [`container_mounts`].

mod atomic_writer;
mod claim;
mod config_map;
mod downward;
mod empty_dir;
mod host_path;
mod nfs;
mod ownership;
mod projected;
mod secret;
mod subpath;

use crate::config::Config;
use crate::context::Context;
use crate::objects::ObjectError;
use crate::pod::PodExt;
use crate::runtime::env::EnvError;
use crate::runtime::expand::expand;
use cri::types::{ImageSpec, Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a volume is not ready; the pod waits and the kubelet tries again.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
pub struct VolumeError {
    /// The volume's name in the pod.
    pub volume: String,
    /// Why.
    pub source: SetUpError,
}

/// What keeps a volume from being ready.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// An object it is made from.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A key that is not there.
    #[error("{kind} {name:?} references non-existent {what} key: {key}", kind = if *.what == "secret" { "secret" } else { "configmap" })]
    NoKey {
        /// secret or config.
        what: &'static str,
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// A field it shows.
    #[error(transparent)]
    Field(#[from] EnvError),
    /// What is on the node is not what the pod says.
    #[error("hostPath type check failed: {path} is not a {kind}")]
    HostPathType {
        /// The path.
        path: String,
        /// What it should be.
        kind: &'static str,
    },
    /// The claim has no volume yet.
    #[error("PVC {0:?} is not bound")]
    Unbound(String),
    /// A kind this kubelet does not have.
    #[error("no volume plugin matched {0}")]
    Unsupported(String),
    /// A path that leaves the volume, or is no path.
    #[error("invalid path {0:?}")]
    Path(String),
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// Which file or directory.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Names the path an I/O error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> SetUpError {
    let path = path.to_string_lossy().into_owned();
    move |source| SetUpError::Io { path, source }
}

/// Why a container's mounts cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The pod has no such volume.
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    NoVolume {
        /// The volume's name.
        volume: String,
        /// The container's name.
        container: String,
    },
    /// Its sub-path.
    #[error("failed to prepare subPath for volumeMount {volume:?} of container {container:?}")]
    SubPath {
        /// The volume's name.
        volume: String,
        /// The container's name.
        container: String,
        /// Why.
        source: Box<SetUpError>,
    },
}

/// What a volume of a pod is, for the kubelet.
fn plugin(v: &Volume) -> &'static str {
    if v.config_map.is_some() {
        "configmap"
    } else if v.secret.is_some() {
        "secret"
    } else if v.downward_api.is_some() {
        "downward-api"
    } else if v.projected.is_some() {
        "projected"
    } else if v.nfs.is_some() {
        "nfs"
    } else if v.csi.is_some() {
        "csi"
    } else {
        "empty-dir"
    }
}

fn dir_of(config: &Config, pod: &Pod, plugin: &str, name: &str) -> PathBuf {
    config.pod_dir(pod.uid()).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

/// Where a volume of a pod is on the node; `None` when the pod has no such volume.
pub fn volume_path(config: &Config, pod: &Pod, name: &str) -> Option<PathBuf> {
    let v = pod.spec().volumes.iter().flatten().find(|v| v.name == name)?;
    if let Some(h) = &v.host_path {
        return Some(PathBuf::from(&h.path));
    }
    if v.persistent_volume_claim.is_some() || v.ephemeral.is_some() {
        return claim::path(config, pod, name);
    }
    Some(dir_of(config, pod, plugin(v), name))
}

/// Makes all volumes of a pod ready. Again is harmless: what has changed since is brought up to date.
/// Answers when something in them ends and has to be made anew.
pub async fn set_up(cx: &Context, pod: &Pod) -> Result<Option<Duration>, VolumeError> {
    let mut renew: Option<Duration> = None;
    for v in pod.spec().volumes.iter().flatten() {
        let done = set_up_one(cx, pod, v).await;
        let next = done.map_err(|source| VolumeError { volume: v.name.clone(), source })?;
        renew = renew.into_iter().chain(next).min();
    }
    Ok(renew)
}

/// Brings up to date what may change while the pod runs.
pub async fn refresh(cx: &Context, pod: &Pod) -> Result<Option<Duration>, VolumeError> {
    let mut renew: Option<Duration> = None;
    let live = |v: &&Volume| {
        v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
    };
    for v in pod.spec().volumes.iter().flatten().filter(live) {
        let done = set_up_one(cx, pod, v).await;
        let next = done.map_err(|source| VolumeError { volume: v.name.clone(), source })?;
        renew = renew.into_iter().chain(next).min();
    }
    Ok(renew)
}

async fn set_up_one(cx: &Context, pod: &Pod, v: &Volume) -> Result<Option<Duration>, SetUpError> {
    let dir = dir_of(&cx.config, pod, plugin(v), &v.name);
    if let Some(h) = &v.host_path {
        host_path::set_up(h)?;
    } else if let Some(c) = &v.config_map {
        config_map::set_up(cx, pod, c, &dir).await?;
    } else if let Some(s) = &v.secret {
        secret::set_up(cx, pod, s, &dir).await?;
    } else if let Some(d) = &v.downward_api {
        downward::set_up(cx, pod, d, &dir)?;
    } else if let Some(p) = &v.projected {
        return projected::set_up(cx, pod, p, &dir).await;
    } else if let Some(c) = &v.persistent_volume_claim {
        claim::set_up(cx, pod, &v.name, &c.claim_name, c.read_only == Some(true)).await?;
    } else if v.ephemeral.is_some() {
        claim::set_up(cx, pod, &v.name, &format!("{}-{}", pod.name(), v.name), false).await?;
    } else if let Some(n) = &v.nfs {
        nfs::set_up(&n.server, &n.path, n.read_only == Some(true), &[], &dir)?;
    } else if v.image.is_some() {
        // the runtime mounts it
    } else if let Some(e) = &v.empty_dir {
        empty_dir::set_up(cx, pod, e, &dir)?;
    } else {
        return Err(SetUpError::Unsupported(v.name.clone()));
    }
    Ok(None)
}

/// Takes away all volumes of a pod and then its directory.
pub fn tear_down(config: &Config, uid: &str) -> io::Result<()> {
    let dir = config.pod_dir(uid);
    for m in sys::mount::mounts_below(&dir)? {
        sys::mount::unmount(&m)?;
    }
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The mounts a container asks for. `value` has the container's variables, for `subPathExpr`.
pub fn container_mounts(
    cx: &Context,
    pod: &Pod,
    c: &Container,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, MountError> {
    let mut out = Vec::new();
    for (index, m) in c.volume_mounts.iter().flatten().enumerate() {
        let volume = pod.spec().volumes.iter().flatten().find(|v| v.name == m.name);
        let (Some(volume), Some(mut path)) = (volume, volume_path(&cx.config, pod, &m.name)) else {
            return Err(MountError::NoVolume { volume: m.name.clone(), container: c.name.clone() });
        };
        let mut inside = m.mount_path.clone();
        if !inside.starts_with('/') {
            inside = format!("/{inside}");
        }
        let propagation = match m.mount_propagation.as_deref() {
            Some("Bidirectional") => MountPropagation::PropagationBidirectional,
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
            _ => MountPropagation::PropagationPrivate,
        };
        let sub = match (m.sub_path_expr.as_deref(), m.sub_path.as_deref()) {
            (Some(e), _) if !e.is_empty() => expand(e, value),
            (_, Some(s)) => s.to_owned(),
            _ => String::new(),
        };
        let mut mount = Mount {
            container_path: inside,
            readonly: m.read_only == Some(true)
                || volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only == Some(true)),
            propagation: propagation.into(),
            ..Default::default()
        };
        if let Some(i) = &volume.image {
            let image = crate::images::full_name(i.reference.as_deref().unwrap_or("")).unwrap_or_default();
            mount.image = Some(ImageSpec { image, ..Default::default() });
            mount.readonly = true;
            out.push(mount);
            continue;
        }
        if !sub.is_empty() {
            let target = cx
                .config
                .pod_dir(pod.uid())
                .join("volume-subpaths")
                .join(&m.name)
                .join(&c.name)
                .join(index.to_string());
            path = subpath::bind(&path, &sub, &target).map_err(Box::new).map_err(|source| {
                MountError::SubPath { volume: m.name.clone(), container: c.name.clone(), source }
            })?;
        }
        mount.host_path = path.to_string_lossy().into_owned();
        out.push(mount);
    }
    Ok(out)
}
