//! Volumes: set up before a pod's containers start, kept up to date while it runs, taken away after it.
//! Each kind of volume is one file. Start at [`set_up`] and [`container_mounts`]. What comes from the API is fetched
//! first; what touches the disk then runs where it may block.

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

use crate::blocking;
use crate::config::Config;
use crate::context::Context;
use crate::objects::{Claim, ObjectError};
use crate::pod::PodExt;
use crate::runtime::env::EnvError;
use crate::runtime::expand::expand;
use atomic_writer::Payload;
use cri::types::{ImageSpec, Mount, MountPropagation};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a volume is not ready; the pod waits and the kubelet tries again.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
pub(crate) struct VolumeError {
    /// The volume's name in the pod.
    pub volume: String,
    /// Why.
    pub source: SetUpError,
}

/// What keeps a volume from being ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
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

impl SetUpError {
    /// Whether what is missing is an object of the API: what was mounted before is still good then.
    fn is_of_api(&self) -> bool {
        matches!(
            self,
            SetUpError::Object(_) | SetUpError::NoKey { .. } | SetUpError::Field(EnvError::Object(_))
        )
    }
}

/// Why a container's mounts cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
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
    /// A mount whose links and mounts below are to be read-only as well, on a runtime that cannot do that.
    #[error(
        "failed to resolve recursive read-only mode: volume {volume:?} requested recursive read-only mode, but it is not supported by the runtime"
    )]
    Recursive {
        /// The volume's name.
        volume: String,
    },
    /// Its image is not here yet.
    #[error("the image of volume {volume:?} is not ready")]
    Image {
        /// The volume's name.
        volume: String,
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
pub(crate) fn volume_path(config: &Config, pod: &Pod, name: &str) -> Option<PathBuf> {
    let v = pod.spec().volumes.iter().flatten().find(|v| v.name == name)?;
    if let Some(h) = &v.host_path {
        return Some(PathBuf::from(&h.path));
    }
    if v.persistent_volume_claim.is_some() || v.ephemeral.is_some() {
        return claim::path(config, pod, name);
    }
    Some(dir_of(config, pod, plugin(v), name))
}

/// Makes all volumes of a pod ready. Again is harmless: what has changed since is brought up to date, and where that
/// cannot be had what is mounted stays. Answers when something in them ends and has to be made anew.
pub(crate) async fn set_up(cx: &Context, pod: &Pod) -> Result<Option<Duration>, VolumeError> {
    all(cx, pod, |_| true).await
}

/// Brings up to date what may change while the pod runs.
pub(crate) async fn refresh(cx: &Context, pod: &Pod) -> Result<Option<Duration>, VolumeError> {
    all(cx, pod, is_of_objects).await
}

/// Volumes whose files the kubelet writes.
fn is_of_objects(v: &Volume) -> bool {
    v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
}

async fn all(cx: &Context, pod: &Pod, which: fn(&Volume) -> bool) -> Result<Option<Duration>, VolumeError> {
    let wanted = pod.spec().volumes.iter().flatten().filter(|v| which(v));
    let made = join_all(wanted.map(|v| async move {
        set_up_one(cx, pod, v).await.map_err(|source| VolumeError { volume: v.name.clone(), source })
    }));
    let mut renew: Option<Duration> = None;
    for next in made.await {
        renew = renew.into_iter().chain(next?).min();
    }
    Ok(renew)
}

/// How soon it is tried again to bring a volume up to date whose objects cannot be had.
const STALE: Duration = Duration::from_secs(10);

async fn set_up_one(cx: &Context, pod: &Pod, v: &Volume) -> Result<Option<Duration>, SetUpError> {
    let dir = dir_of(&cx.config, pod, plugin(v), &v.name);
    if let Some(h) = v.host_path.clone() {
        let path = Path::new(&h.path).to_owned();
        run(cx, &path, move |_| host_path::set_up(&h)).await?;
    } else if is_of_objects(v) {
        return files(cx, pod, v, &dir).await;
    } else if let Some(c) = &v.persistent_volume_claim {
        claim::set_up(cx, pod, &v.name, Claim::Named(&c.claim_name), c.read_only == Some(true)).await?;
    } else if v.ephemeral.is_some() {
        claim::set_up(cx, pod, &v.name, Claim::OfPod(format!("{}-{}", pod.name(), v.name)), false).await?;
    } else if let Some(n) = &v.nfs {
        nfs::set_up(&n.server, &n.path, n.read_only == Some(true), &[], &dir).await?;
    } else if v.image.is_some() {
        // pulled beside the volumes, mounted by the runtime
    } else if let Some(e) = &v.empty_dir {
        let (medium, group) = (empty_dir::medium(cx, pod, e)?, ownership::group(pod).map(|g| g.gid));
        run(cx, &dir, move |dir| empty_dir::make(dir, medium, group)).await?;
    } else {
        return Err(SetUpError::Unsupported(v.name.clone()));
    }
    Ok(None)
}

/// Runs what may block, alone on this path.
async fn run<T: Send + 'static>(
    cx: &Context,
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, SetUpError> + Send + 'static,
) -> Result<T, SetUpError> {
    let own = path.to_owned();
    cx.blocking.run(&path.to_string_lossy(), blocking::LIMIT, move || work(&own)).await.map_err(at(path))?
}

/// A volume of files made from objects.
async fn files(cx: &Context, pod: &Pod, v: &Volume, dir: &Path) -> Result<Option<Duration>, SetUpError> {
    let wanted: Result<(Payload, Option<Duration>), SetUpError> = async {
        if let Some(c) = &v.config_map {
            Ok((config_map::files(cx, pod, c).await?, None))
        } else if let Some(s) = &v.secret {
            Ok((secret::files(cx, pod, s).await?, None))
        } else if let Some(d) = &v.downward_api {
            Ok((downward::files(cx, pod, d)?, None))
        } else if let Some(p) = &v.projected {
            projected::files(cx, pod, p).await
        } else {
            Err(SetUpError::Unsupported(v.name.clone()))
        }
    }
    .await;
    let (payload, renew) = match wanted {
        // what is gone from the API is still mounted here: the pod may go on, and start again
        Err(e) if e.is_of_api() && run(cx, dir, |dir| Ok(atomic_writer::is_written(dir))).await? => {
            let e = VolumeError { volume: v.name.clone(), source: e };
            cx.events.pod(pod, "Warning", "FailedMount", &e.to_string());
            return Ok(Some(STALE));
        }
        other => other?,
    };
    // a config map may lie on the disk; secrets, tokens and what is told of the pod may not
    let in_memory = v.config_map.is_none();
    let group = ownership::group(pod).map(|g| g.gid);
    run(cx, dir, move |dir| {
        match in_memory {
            true => empty_dir::in_memory(dir, None, 0o755, group)?,
            false => sys::dir::make_all(dir, 0o750).map_err(at(dir))?,
        }
        atomic_writer::write(dir, &payload, group)
    })
    .await?;
    Ok(renew)
}

/// Takes away all volumes of a pod and then its directory: what is mounted is unmounted, and nothing is removed that
/// lies on another file system or behind a link. It may block.
pub(crate) fn tear_down(pods: &Path, uid: &str) -> io::Result<()> {
    // the kernel's table of mounts knows no links
    let pods = match pods.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let dir = pods.join(uid);
    if dir.parent() != Some(&pods) || dir.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{uid:?} is no pod's directory")));
    }
    sys::mount::unmount_below(&dir)?;
    sys::dir::remove(&dir)
}

/// What runtime and kernel do about mounts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ways {
    /// The runtime's handler can make what lies below a read-only mount read-only too.
    pub recursive: bool,
    /// SELinux holds containers to files with their label: those of volumes have to be given it.
    pub selinux: bool,
}

/// The mounts a container asks for. `images` has the runtime's ids of image volumes, `value` the container's
/// variables, for `subPathExpr`. It may block.
pub(crate) fn container_mounts(
    config: &Config,
    pod: &Pod,
    c: &Container,
    images: &HashMap<String, String>,
    ways: Ways,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, MountError> {
    let mut out = Vec::new();
    for (index, m) in c.volume_mounts.iter().flatten().enumerate() {
        let volume = pod.spec().volumes.iter().flatten().find(|v| v.name == m.name);
        let (Some(volume), Some(mut path)) = (volume, volume_path(config, pod, &m.name)) else {
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
            // what the kubelet writes nobody else does
            readonly: m.read_only == Some(true)
                || is_of_objects(volume)
                || volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only == Some(true)),
            propagation: propagation.into(),
            recursive_read_only: match m.recursive_read_only.as_deref() {
                Some("Enabled") if !ways.recursive => {
                    return Err(MountError::Recursive { volume: m.name.clone() });
                }
                Some("Enabled" | "IfPossible") => ways.recursive && m.read_only == Some(true),
                _ => false,
            },
            // what is the node's own keeps the label that it has
            selinux_relabel: ways.selinux && (is_of_objects(volume) || volume.empty_dir.is_some()),
            ..Default::default()
        };
        if volume.image.is_some() {
            let Some(image) = images.get(&m.name) else {
                return Err(MountError::Image { volume: m.name.clone() });
            };
            mount.image = Some(ImageSpec { image: image.clone(), ..Default::default() });
            mount.readonly = true;
            out.push(mount);
            continue;
        }
        if !sub.is_empty() {
            let target = config
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec}))
            .unwrap_or_else(|e| panic!("{e}"))
    }

    fn config() -> Config {
        let flags = <crate::Flags as clap::Parser>::parse_from(["kubelet", "--root-dir=/k"]);
        Config::resolve(&flags, Default::default(), "".as_ref()).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn what_the_kubelet_writes_is_mounted_read_only() {
        for (volume, read_only) in [
            (json!({"configMap": {"name": "c"}}), true),
            (json!({"secret": {"secretName": "c"}}), true),
            (json!({"projected": {"sources": []}}), true),
            (json!({"downwardAPI": {"items": []}}), true),
            (json!({"emptyDir": {}}), false),
            (json!({"hostPath": {"path": "/x"}}), false),
            (json!({"persistentVolumeClaim": {"claimName": "c", "readOnly": true}}), true),
        ] {
            let mut v = volume.clone();
            v["name"] = json!("v");
            let p = pod(
                json!({"volumes": [v], "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "m"}]}]}),
            );
            let got = container_mounts(
                &config(),
                &p,
                &p.spec().containers[0],
                &HashMap::new(),
                Ways::default(),
                &|_| None,
            );
            let got: Vec<bool> = got.unwrap_or_else(|e| panic!("{e}")).iter().map(|m| m.readonly).collect();
            assert_eq!(got, [read_only], "{volume}");
        }
    }

    #[test]
    fn what_the_runtime_cannot_do_is_refused() {
        let mount = |how: &str| {
            let m = json!({"name": "v", "mountPath": "/m", "readOnly": true, "recursiveReadOnly": how});
            let p = pod(
                json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "a", "volumeMounts": [m]}]}),
            );
            move |can: bool| {
                container_mounts(
                    &config(),
                    &p,
                    &p.spec().containers[0],
                    &HashMap::new(),
                    Ways { recursive: can, selinux: true },
                    &|_| None,
                )
                .map(|m| m[0].recursive_read_only)
                .map_err(|e| e.to_string())
            }
        };
        assert!(mount("Enabled")(false).is_err_and(|e| e.contains("recursive read-only")));
        assert_eq!((mount("Enabled")(true), mount("IfPossible")(false)), (Ok(true), Ok(false)));
        assert_eq!(mount("Disabled")(true), Ok(false));
    }

    #[test]
    fn image_volumes_wait_for_their_image() {
        let p = pod(json!({"volumes": [{"name": "v", "image": {"reference": "q/x:1"}}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/m"}]}]}));
        let c = &p.spec().containers[0];
        assert!(container_mounts(&config(), &p, c, &HashMap::new(), Ways::default(), &|_| None).is_err());
        let images = HashMap::from([("v".to_owned(), "sha256:1".to_owned())]);
        let got = container_mounts(&config(), &p, c, &images, Ways::default(), &|_| None).unwrap_or_default();
        let got: Vec<_> = got.into_iter().map(|m| (m.image.map(|i| i.image), m.readonly)).collect();
        assert_eq!(got, [(Some("sha256:1".to_owned()), true)]);
    }

    #[test]
    fn a_pods_directory_is_taken_away_and_nothing_else() -> Result<(), Box<dyn std::error::Error>> {
        let t = tempfile::tempdir()?;
        let (real, link) = (t.path().join("data"), t.path().join("kubelet"));
        std::fs::create_dir_all(real.join("u/volumes"))?;
        std::fs::write(t.path().join("kept"), "")?;
        std::os::unix::fs::symlink(t.path(), real.join("u/volumes/l"))?;
        std::os::unix::fs::symlink(&real, &link)?;
        for bad in ["..", ".", "", "u/volumes", "../kept", "/"] {
            assert!(tear_down(&link, bad).is_err(), "{bad:?}");
        }
        tear_down(&link, "u")?;
        assert!(!real.join("u").exists() && t.path().join("kept").exists());
        tear_down(&link, "u")?;
        tear_down(&t.path().join("none"), "u")?;
        Ok(())
    }
}
