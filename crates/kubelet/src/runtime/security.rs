//! Security contexts: what a pod says, a container says otherwise, and the runtime is told.

use crate::config::Config;
use crate::pod::PodExt;
use cri::types::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};
use std::sync::LazyLock;

/// Kernel files a container does not see unless it asks for an unmasked /proc.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// How each processor is slowed down by its heat, where the kernel tells: by that others are spied on.
static THROTTLES: LazyLock<Vec<String>> = LazyLock::new(|| {
    (0..sys::node::processors())
        .map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"))
        .filter(|p| std::path::Path::new(p).exists())
        .collect()
});
/// Kernel files it cannot write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container may not start as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAllowed {
    /// It must not be root and asks for it.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsRoot {
        /// name_namespace(uid), as upstream prints it.
        pod: String,
        /// Its name.
        container: String,
    },
    /// It must not be root and the image says root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageIsRoot {
        /// The pod.
        pod: String,
        /// Its name.
        container: String,
    },
    /// It must not be root and the image names a user by name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    ImageUserByName {
        /// The image's user.
        user: String,
        /// The pod.
        pod: String,
        /// Its name.
        container: String,
    },
}

/// The user an image starts as, when nobody says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// As a number.
    pub uid: Option<i64>,
    /// As a name.
    pub name: String,
}

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec().security_context.as_ref()
}

/// The container's word, else the pod's.
fn either<T: Clone>(
    pod: &Pod,
    c: Option<&SecurityContext>,
    own: impl Fn(&SecurityContext) -> Option<T>,
    pods: impl Fn(&PodSecurityContext) -> Option<T>,
) -> Option<T> {
    c.and_then(own).or_else(|| of_pod(pod).and_then(pods))
}

/// Namespaces that containers of the pod share with each other or the node.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec();
    let mode =
        |host: Option<bool>, otherwise| if host == Some(true) { NamespaceMode::Node } else { otherwise };
    let pid = if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: mode(spec.host_network, NamespaceMode::Pod).into(),
        pid: mode(spec.host_pid, pid).into(),
        ipc: mode(spec.host_ipc, NamespaceMode::Pod).into(),
        ..Default::default()
    }
}

fn seccomp(p: Option<&SeccompProfile>, config: &Config) -> SecurityProfile {
    let default = if config.seccomp_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
    let (kind, path) = match p.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Unconfined") => (ProfileType::Unconfined, String::new()),
        Some("Localhost") => {
            let file = p.and_then(|p| p.localhost_profile.as_deref()).unwrap_or("");
            (
                ProfileType::Localhost,
                config.root_dir.join("seccomp").join(file).to_string_lossy().into_owned(),
            )
        }
        _ => (default, String::new()),
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref: path }
}

fn apparmor(p: &AppArmorProfile) -> SecurityProfile {
    let kind = match p.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: p.localhost_profile.clone().unwrap_or_default(),
    }
}

fn selinux(o: SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: o.user.unwrap_or_default(),
        role: o.role.unwrap_or_default(),
        r#type: o.type_.unwrap_or_default(),
        level: o.level.unwrap_or_default(),
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(p) = of_pod(pod) else { return Vec::new() };
    p.supplemental_groups.iter().flatten().copied().chain(p.fs_group).collect()
}

fn groups_policy(pod: &Pod) -> i32 {
    match of_pod(pod).and_then(|p| p.supplemental_groups_policy.as_deref()) {
        Some("Strict") => SupplementalGroupsPolicy::Strict.into(),
        _ => SupplementalGroupsPolicy::Merge.into(),
    }
}

/// Whether any container of the pod is privileged; its sandbox has to be then.
fn any_privileged(pod: &Pod) -> bool {
    pod.containers().any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true))
}

/// The sandbox's security context.
pub fn sandbox(pod: &Pod, config: &Config) -> LinuxSandboxSecurityContext {
    let p = of_pod(pod);
    let user = p.and_then(|p| p.run_as_user);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: p.and_then(|p| p.se_linux_options.clone()).map(selinux),
        run_as_user: user.map(|value| Int64Value { value }),
        // CRI does not allow a group without a user
        run_as_group: p
            .and_then(|p| p.run_as_group)
            .filter(|_| user.is_some())
            .map(|value| Int64Value { value }),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: any_privileged(pod),
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        })
        .map(|default| match p.and_then(|p| p.seccomp_profile.as_ref()) {
            Some(own) => seccomp(Some(own), config),
            None => default,
        }),
        apparmor: p.and_then(|p| p.app_armor_profile.as_ref()).map(apparmor),
        ..Default::default()
    }
}

/// A container's security context. `target` is the container whose processes an ephemeral one sees.
pub fn container(
    pod: &Pod,
    c: &Container,
    config: &Config,
    user: &ImageUser,
    target: Option<&str>,
) -> LinuxContainerSecurityContext {
    let own = c.security_context.as_ref();
    let privileged = own.and_then(|s| s.privileged) == Some(true);
    let run_as = either(pod, own, |s| s.run_as_user, |p| p.run_as_user);
    let group = either(pod, own, |s| s.run_as_group, |p| p.run_as_group);
    let unmasked = privileged || own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked");
    let mut options = namespaces(pod);
    if let Some(id) = target {
        options.pid = NamespaceMode::Target.into();
        options.target_id = id.to_owned();
    }
    let capabilities = own.and_then(|s| s.capabilities.as_ref()).map(|caps| Capability {
        add_capabilities: caps.add.clone().unwrap_or_default(),
        drop_capabilities: caps.drop.clone().unwrap_or_default(),
        ..Default::default()
    });
    let to_strings = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    let masked = || to_strings(&MASKED).into_iter().chain(THROTTLES.clone()).collect();
    let profile = either(pod, own, |s| s.seccomp_profile.clone(), |p| p.seccomp_profile.clone());
    LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(options),
        selinux_options: either(pod, own, |s| s.se_linux_options.clone(), |p| p.se_linux_options.clone())
            .map(selinux),
        // a group may only be given with a user: then it is the image's
        run_as_user: run_as
            .or(user.uid.filter(|_| group.is_some() || user.name.is_empty()))
            .map(|value| Int64Value { value }),
        run_as_username: if run_as.is_none() && user.uid.is_none() {
            user.name.clone()
        } else {
            String::new()
        },
        run_as_group: group.map(|value| Int64Value { value }),
        readonly_rootfs: own.and_then(|s| s.read_only_root_filesystem) == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
        masked_paths: if unmasked { Vec::new() } else { masked() },
        readonly_paths: if unmasked { Vec::new() } else { to_strings(&READ_ONLY) },
        seccomp: if privileged { None } else { Some(seccomp(profile.as_ref(), config)) },
        apparmor: either(pod, own, |s| s.app_armor_profile.clone(), |p| p.app_armor_profile.clone())
            .as_ref()
            .map(apparmor),
        ..Default::default()
    }
}

/// Holds a container to `runAsNonRoot`.
pub fn check_non_root(pod: &Pod, c: &Container, user: &ImageUser) -> Result<(), NotAllowed> {
    let own = c.security_context.as_ref();
    if either(pod, own, |s| s.run_as_non_root, |p| p.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let named = || (format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid()), c.name.clone());
    match either(pod, own, |s| s.run_as_user, |p| p.run_as_user) {
        Some(0) => {
            let (pod, container) = named();
            Err(NotAllowed::RunAsRoot { pod, container })
        }
        Some(_) => Ok(()),
        None if user.uid == Some(0) || (user.uid.is_none() && user.name.is_empty()) => {
            let (pod, container) = named();
            Err(NotAllowed::ImageIsRoot { pod, container })
        }
        None if user.uid.is_none() => {
            let (pod, container) = named();
            Err(NotAllowed::ImageUserByName { user: user.name.clone(), pod, container })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn non_root() {
        let image = |uid, name: &str| ImageUser { uid, name: name.into() };
        for (pod_sc, own, user, ok) in [
            (json!({}), json!({}), image(Some(0), ""), true),
            (json!({"runAsNonRoot": true}), json!({}), image(Some(0), ""), false),
            (json!({"runAsNonRoot": true}), json!({}), image(Some(5), ""), true),
            (json!({"runAsNonRoot": true}), json!({}), image(None, "www"), false),
            (json!({"runAsNonRoot": true}), json!({"runAsUser": 0}), image(Some(5), ""), false),
            (json!({"runAsNonRoot": true, "runAsUser": 7}), json!({}), image(Some(0), ""), true),
            (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}), image(Some(0), ""), true),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"securityContext": pod_sc, "containers": [{"name": "a", "securityContext": own}]}})).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(
                check_non_root(&pod, &pod.spec().containers[0], &user).is_ok(),
                ok,
                "{pod_sc} {own} {user:?}"
            );
        }
    }
}
