//! What pods and containers may do, and what their system allows them to say.

use super::containers::{self, Common};
use super::{Scope, windows};
use crate::check::{self, is_set, list, required, text};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};
use std::collections::BTreeMap;

/// The longest path of a profile: the system's limit.
const MAX_PATH: usize = 4095;
/// The longest name of a sysctl.
const MAX_SYSCTL: usize = 253;

pub(super) fn container(s: &SecurityContext, host_users: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::unix_id(s.run_as_user, at.child("runAsUser"), errors);
    check::unix_id(s.run_as_group, at.child("runAsGroup"), errors);
    if let Some(mount) = &s.proc_mount {
        check::one_of(mount, &["Default", "Unmasked"], at.child("procMount"), errors);
        if host_users && mount == "Unmasked" {
            errors.invalid(at.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(s.seccomp_profile.as_ref(), at.child("seccompProfile"), errors);
    if s.allow_privilege_escalation == Some(false) {
        if s.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(at, s, why);
        }
        let added = s.capabilities.iter().flat_map(|c| list(&c.add));
        for _ in added.filter(|c| *c == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(at, s, why);
        }
    }
    windows::options(s.windows_options.as_ref(), at.child("windowsOptions"), errors);
    app_armor(s.app_armor_profile.as_ref(), at.child("appArmorProfile"), errors);
}

pub(super) fn pod(scope: &Scope<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let spec = scope.spec;
    let at = at.child("securityContext");
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(at.child("shareProcessNamespace"), &true, why);
    }
    let Some(s) = &spec.security_context else { return };
    check::unix_id(s.fs_group, at.child("fsGroup"), errors);
    check::unix_id(s.run_as_user, at.child("runAsUser"), errors);
    check::unix_id(s.run_as_group, at.child("runAsGroup"), errors);
    let groups = at.child("supplementalGroups");
    for (i, group) in list(&s.supplemental_groups).iter().enumerate() {
        check::unix_id(Some(*group), groups.index(i), errors);
    }
    sysctls(scope, list(&s.sysctls), at.child("sysctls"), errors);
    let changes = ["Always", "OnRootMismatch"];
    check::maybe_one_of(&s.fs_group_change_policy, &changes, at.child("fsGroupChangePolicy"), errors);
    seccomp(s.seccomp_profile.as_ref(), at.child("seccompProfile"), errors);
    windows::options(s.windows_options.as_ref(), at.child("windowsOptions"), errors);
    app_armor(s.app_armor_profile.as_ref(), at.child("appArmorProfile"), errors);
    let policies = ["Merge", "Strict"];
    check::maybe_one_of(
        &s.supplemental_groups_policy,
        &policies,
        at.child("supplementalGroupsPolicy"),
        errors,
    );
    let policies = ["MountOption", "Recursive"];
    check::maybe_one_of(&s.se_linux_change_policy, &policies, at.child("seLinuxChangePolicy"), errors);
}

fn sysctls(scope: &Scope<'_>, sysctls: &[Sysctl], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, s) in sysctls.iter().enumerate() {
        let here = at.index(i);
        let at = here.child("name");
        if required(&s.name, at, errors) {
        } else if s.name.len() > MAX_SYSCTL || !s.name.split(['.', '/']).all(is_sysctl_segment) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(at, &s.name, why);
        } else if sysctls[..i].iter().any(|other| other.name == s.name) {
            errors.duplicate(at, &s.name);
        }
        if scope.lenient.host_sysctls {
            continue;
        }
        match sysctl_namespace(&s.name) {
            Some("net") if scope.spec.host_network == Some(true) => {
                errors.invalid(at, &s.name, "may not be specified when 'hostNetwork' is true");
            }
            Some("ipc") if scope.spec.host_ipc == Some(true) => {
                errors.invalid(at, &s.name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
    }
}

fn is_sysctl_segment(s: &str) -> bool {
    let plain = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let b = s.as_bytes();
    plain(b.first())
        && plain(b.last())
        && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_'))
}

/// The namespace that a sysctl belongs to, by the first separator's form: `net.ipv4.x` or `net/ipv4/x`.
fn sysctl_namespace(name: &str) -> Option<&'static str> {
    let slashes = name.find(['.', '/']).is_some_and(|i| name[i..].starts_with('/'));
    let name = match slashes {
        true => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        false => std::borrow::Cow::Borrowed(name),
    };
    let name = name.split('*').next().unwrap_or_default();
    match name {
        "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced"
        | "kernel.shm"
        | "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.msg" => Some("ipc"),
        n if n.starts_with("fs.mqueue.") => Some("ipc"),
        n if n.starts_with("net.") => Some("net"),
        _ => None,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(p) = profile else { return };
    match p.type_.as_str() {
        "" => errors.required(at.child("type"), "type is required when seccompProfile is set"),
        kind => {
            let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
            check::one_of(kind, &kinds, at.child("type"), errors);
        }
    }
    match (p.type_ == "Localhost", &p.localhost_profile) {
        (true, None) => {
            errors.required(at.child("localhostProfile"), "must be set when seccomp type is Localhost")
        }
        (true, Some(path)) => check::descending_path(path, at.child("localhostProfile"), errors),
        (false, Some(_)) => {
            let why = "can only be set when seccomp type is Localhost";
            errors.invalid(at.child("localhostProfile"), p, why);
        }
        (false, None) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(p) = profile else { return };
    let path_at = at.child("localhostProfile");
    match (p.type_.as_str(), &p.localhost_profile) {
        ("Localhost", None) => errors.required(path_at, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(path)) => {
            if path.trim() != path {
                errors.invalid(path_at, path, "must not be padded with whitespace");
            } else if path.is_empty() {
                errors.required(path_at, "must be set when AppArmor type is Localhost");
            }
            if path.len() > MAX_PATH {
                errors.too_long(path_at, MAX_PATH);
            }
        }
        ("RuntimeDefault" | "Unconfined", path) => {
            if path.is_some() {
                errors.invalid(path_at, path, "can only be set when AppArmor type is Localhost");
            }
        }
        ("", _) => errors.required(at.child("type"), "type is required when appArmorProfile is set"),
        (kind, _) => {
            errors.not_supported(at.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

/// Checks annotations that speak of profiles: the form that they had before there were fields.
pub(super) fn annotations(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (key, value) in annotations {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            let at = at.child(key);
            match value.strip_prefix(LOCALHOST) {
                Some(path) => check::descending_path(path, at, errors),
                None if matches!(value.as_str(), "runtime/default" | "docker/default" | "unconfined") => {}
                None => errors.invalid(at, value, "must be a valid seccomp profile"),
            }
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            let mut found = false;
            containers::each(spec, FieldPath::root(""), |c, _| found |= c.name == name);
            if !found {
                errors.invalid(at.key(key), &name, "container not found");
            }
            let known = matches!(value.as_str(), "" | "runtime/default" | "unconfined");
            if !known && !value.starts_with(LOCALHOST) {
                let why = format!("invalid AppArmor profile name: {value:?}");
                errors.invalid(at.key(key), value, why);
            }
        }
    }
}

/// Whether an annotation is one that a pod keeps for life.
pub fn is_app_armor_annotation(key: &str) -> bool {
    key.starts_with(APP_ARMOR)
}

/// Checks that annotations say the same of profiles as fields do.
pub(super) fn annotations_match(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    if annotations.is_empty() {
        return;
    }
    let pod = spec.security_context.as_ref();
    if let (Some(profile), Some(value)) =
        (pod.and_then(|s| s.seccomp_profile.as_ref()), annotations.get(SECCOMP_POD))
    {
        let at = at.child("securityContext");
        says_same(
            "seccomp",
            value,
            &profile.type_,
            &profile.localhost_profile,
            at.child("seccompProfile"),
            errors,
        );
    }
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    containers::each(spec, at, |c: Common<'_>, at| {
        let at = at.child("securityContext");
        let find = |prefix: &str| annotations.get(&format!("{prefix}{}", c.name));
        if let Some(profile) = c.security.and_then(|s| s.seccomp_profile.as_ref())
            && let Some(value) = find(SECCOMP_CONTAINER)
        {
            let at = at.child("seccompProfile");
            says_same("seccomp", value, &profile.type_, &profile.localhost_profile, at, errors);
        }
        let profile = c.security.and_then(|s| s.app_armor_profile.as_ref());
        let profile = profile.or(pod.and_then(|s| s.app_armor_profile.as_ref()));
        if let Some(profile) = profile.filter(|_| !windows)
            && let Some(value) = find(APP_ARMOR)
        {
            let at = at.child("appArmorProfile");
            says_same("apparmor", value, &profile.type_, &profile.localhost_profile, at, errors);
        }
    });
}

fn says_same(
    what: &str,
    value: &str,
    kind: &str,
    path: &Option<String>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let same = match kind {
        "Unconfined" => value == "unconfined",
        "RuntimeDefault" => value == "runtime/default" || what == "seccomp" && value == "docker/default",
        "Localhost" => match value.strip_prefix(LOCALHOST) {
            Some(own) if path.is_none() || text(path) != own => {
                let why = format!("{what} profile in annotation and field must match");
                return errors.forbidden(at.child("localhostProfile"), &why);
            }
            own => own.is_some(),
        },
        _ => true,
    };
    if !same {
        errors.forbidden(at.child("type"), &format!("{what} type in annotation and field must match"));
    }
}

/// A pod with users of its own shares no other namespaces with the node.
pub(super) fn host_users(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if spec.host_users != Some(false) {
        return;
    }
    let why = "when `hostUsers` is false";
    for (name, set) in
        [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
    {
        if set == Some(true) {
            errors.forbidden(at.child(name), why);
        }
    }
    containers::each(spec, at, |c, at| {
        if !c.devices.is_empty() {
            errors.forbidden(at.child("volumeDevices"), why);
        }
    });
}

/// The system a pod is for, and what it does not know.
pub(super) fn os(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(os) = &spec.os else { return };
    let os_at = at.child("os");
    match os.name.as_str() {
        "" => errors.required(os_at.child("name"), ""),
        "linux" => not_windows(spec, at, errors),
        "windows" => not_linux(spec, at, errors),
        other => errors.not_supported(os_at, other, &["linux", "windows"]),
    }
}

fn not_windows(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let why = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|s| s.windows_options.is_some()) {
        errors.forbidden(at.child("securityContext").child("windowsOptions"), why);
    }
    containers::each(spec, at, |c, at| {
        if c.security.is_some_and(|s| s.windows_options.is_some()) {
            errors.forbidden(at.child("securityContext").child("windowsOptions"), why);
        }
    });
}

fn not_linux(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let why = "cannot be set for a windows pod";
    let context = at.child("securityContext");
    let none = PodSecurityContext::default();
    let s = spec.security_context.as_ref().unwrap_or(&none);
    for (name, set) in [
        ("appArmorProfile", s.app_armor_profile.is_some()),
        ("seLinuxOptions", s.se_linux_options.is_some()),
        ("seccompProfile", s.seccomp_profile.is_some()),
        ("fsGroup", s.fs_group.is_some()),
        ("fsGroupChangePolicy", s.fs_group_change_policy.is_some()),
        ("sysctls", !list(&s.sysctls).is_empty()),
        ("runAsUser", s.run_as_user.is_some()),
        ("runAsGroup", s.run_as_group.is_some()),
        ("supplementalGroups", s.supplemental_groups.is_some()),
        ("supplementalGroupsPolicy", s.supplemental_groups_policy.is_some()),
        ("seLinuxChangePolicy", s.se_linux_change_policy.is_some()),
    ] {
        if set {
            errors.forbidden(context.child(name), why);
        }
    }
    for (name, set) in [
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ] {
        if set {
            errors.forbidden(at.child(name), why);
        }
    }
    containers::each(spec, at, |c, at| {
        let Some(s) = c.security else { return };
        let at = at.child("securityContext");
        for (name, set) in [
            ("appArmorProfile", s.app_armor_profile.is_some()),
            ("seLinuxOptions", s.se_linux_options.is_some()),
            ("seccompProfile", s.seccomp_profile.is_some()),
            ("capabilities", s.capabilities.is_some()),
            ("readOnlyRootFilesystem", s.read_only_root_filesystem.is_some()),
            ("privileged", s.privileged.is_some()),
            ("allowPrivilegeEscalation", s.allow_privilege_escalation.is_some()),
            ("procMount", s.proc_mount.is_some()),
            ("runAsUser", s.run_as_user.is_some()),
            ("runAsGroup", s.run_as_group.is_some()),
        ] {
            if set {
                errors.forbidden(at.child(name), why);
            }
        }
    });
}

/// A pod's own host name does not go with the node's.
pub(super) fn hostname_override(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(name) = &spec.hostname_override else { return };
    let at = at.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(at, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(at, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        errors.too_long(at, 64);
    }
    check::subdomain(name, at, errors);
}

/// Whether a token of a service account is projected, which takes a name of one.
pub(super) fn tokens_need_account(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if is_set(&spec.service_account_name) {
        return;
    }
    let volumes = at.child("volumes");
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        let volume_at = volumes.index(i);
        let projected = volume_at.child("projected");
        let sources = projected.child("sources");
        let all = volume.projected.iter().flat_map(|p| list(&p.sources)).enumerate();
        for (i, _) in all.filter(|(_, s)| s.service_account_token.is_some()) {
            let source = sources.index(i);
            let why = "must not be specified when serviceAccountName is not set";
            errors.forbidden(source.child("serviceAccountToken"), why);
        }
    }
}
