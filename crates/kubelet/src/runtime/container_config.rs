//! From a container in a pod to what the runtime is asked to create.

use super::env::{self, Addresses, EnvError};
use super::expand::expand;
use super::{labels, resources, security};
use crate::config::Config;
use crate::context::Context;
use crate::pod::{Kind, PodExt};
use crate::volumes::{self, MountError};
use cri::types::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount, MountPropagation,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// Why a container cannot be configured; it waits with CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// Its environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// Its mounts.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Its security context.
    #[error(transparent)]
    Security(#[from] security::NotAllowed),
    /// A directory or file the kubelet could not make for it.
    #[error("cannot make {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What is known by the time a container is made.
pub struct Inputs<'a> {
    /// What kind of container.
    pub kind: Kind,
    /// How often it was restarted.
    pub restarts: u32,
    /// The image by the id that the pull gave.
    pub image_ref: &'a str,
    /// The user the image names.
    pub user: &'a security::ImageUser,
    /// The pod's and node's addresses.
    pub addresses: &'a Addresses,
    /// The container whose processes an ephemeral one joins.
    pub target: Option<&'a str>,
    /// The runtime's handler for the pod.
    pub handler: &'a str,
    /// The runtime's ids of images that are mounted as volumes, by the volume.
    pub images: &'a HashMap<String, String>,
}

/// The configuration, and the names of variables that were left out.
pub(crate) async fn build(
    cx: &Arc<Context>,
    pod: &Arc<Pod>,
    c: &Container,
    inputs: &Inputs<'_>,
) -> Result<(ContainerConfig, Vec<String>), ConfigProblem> {
    security::check_non_root(pod, c, inputs.user)?;
    let (env, skipped) = env::resolve(cx, pod, c, inputs.addresses).await?;
    let variables = env.clone();
    let lookup = move |n: &str| variables.iter().find(|(k, _)| k == n).map(|(_, v)| v.clone());
    let expanded =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|s| expand(s, &lookup)).collect::<Vec<_>>();
    let (command, args) = (expanded(&c.command), expanded(&c.args));
    let log_dir = super::sandbox_config::log_directory(cx, pod).join(&c.name);
    let ways = volumes::Ways {
        recursive: cx.abilities().recursive_read_only.contains(inputs.handler),
        selinux: cx.selinux,
    };
    let (own_cx, own_pod, own_c) = (cx.clone(), pod.clone(), c.clone());
    let (images, ips) = (inputs.images.clone(), inputs.addresses.pod.clone());
    let work = move || -> Result<Vec<Mount>, ConfigProblem> {
        let (cx, pod, c) = (own_cx, own_pod, own_c);
        make_dir(&log_dir, 0o755)?;
        let mut mounts = volumes::container_mounts(&cx.config, &pod, &c, &images, ways, &lookup)?;
        mounts.extend(own_mounts(&cx.config, &pod, &c, &ips, &mounts, cx.selinux)?);
        Ok(mounts)
    };
    let key = format!("{} {}", pod.uid(), c.name);
    let mounts = cx.blocking.run(&key, crate::blocking::LIMIT, work).await;
    let mounts = mounts.map_err(|source| ConfigProblem::File { path: "its mounts".into(), source })??;
    let mut linux = resources::container(pod, c, inputs.kind, &cx.config, cx.memory_capacity);
    resources::of_kernel(&mut linux, &cx.config, cx.cgroups.version(), cx.bounds_swap);
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: c.name.clone(), attempt: inputs.restarts }),
        image: Some(ImageSpec {
            image: inputs.image_ref.to_owned(),
            user_specified_image: c.image.clone().unwrap_or_default(),
            runtime_handler: String::new(),
            annotations: HashMap::new(),
        }),
        command,
        args,
        working_dir: c.working_dir.clone().unwrap_or_default(),
        mounts,
        labels: labels::container_labels(pod, c),
        annotations: labels::container_annotations(pod, c, inputs.restarts),
        log_path: format!("{}/{}.log", c.name, inputs.restarts),
        stdin: c.stdin == Some(true),
        stdin_once: c.stdin_once == Some(true),
        tty: c.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(linux),
            security_context: Some(security::container(pod, c, &cx.config, inputs.user, inputs.target)),
        }),
        envs: env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect(),
        ..Default::default()
    };
    Ok((config, skipped))
}

fn make_dir(path: &std::path::Path, mode: u32) -> Result<(), ConfigProblem> {
    sys::dir::make_all(path, mode)
        .map_err(|source| ConfigProblem::File { path: path.to_string_lossy().into_owned(), source })
}

/// The hosts file and the termination message file, unless the pod mounts its own there.
fn own_mounts(
    config: &Config,
    pod: &Pod,
    c: &Container,
    ips: &[String],
    have: &[Mount],
    selinux: bool,
) -> Result<Vec<Mount>, ConfigProblem> {
    let dir = config.pod_dir(pod.uid());
    let file_problem = |path: &std::path::Path| {
        let path = path.to_string_lossy().into_owned();
        move |source| ConfigProblem::File { path, source }
    };
    let mount = |inside: &str, outside: &std::path::Path| Mount {
        container_path: inside.to_owned(),
        host_path: outside.to_string_lossy().into_owned(),
        propagation: MountPropagation::PropagationPrivate.into(),
        selinux_relabel: selinux,
        ..Default::default()
    };
    let taken = |path: &str| have.iter().any(|m| m.container_path == path);
    let mut out = Vec::new();
    if !taken("/etc/hosts") && (pod.host_network() || !ips.is_empty()) {
        let path = dir.join("etc-hosts");
        let (host, domain) = super::hosts::names(pod, &config.node_name, &config.cluster_domain);
        let node_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let text = super::hosts::file(pod, ips, &host, &domain, &node_file);
        std::fs::write(&path, text).map_err(file_problem(&path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .map_err(file_problem(&path))?;
        let mut m = mount("/etc/hosts", &path);
        m.readonly = c.security_context.as_ref().and_then(|s| s.read_only_root_filesystem) == Some(true);
        out.push(m);
    }
    let message = labels::message_path(c);
    if !taken(message) {
        let folder = dir.join("containers").join(&c.name);
        make_dir(&folder, 0o750)?;
        // each start gets a file of its own, so that words of the last run stay with it
        let path = folder.join(format!("{:08x}", rand::random::<u32>()));
        std::fs::write(&path, "").map_err(file_problem(&path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))
            .map_err(file_problem(&path))?;
        out.push(mount(message, &path));
    }
    Ok(out)
}
