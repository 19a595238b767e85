//! What the levels baseline and restricted forbid, each since the version that began to.

use super::policy::Level;
use k8s_openapi::api::core::v1::{Lifecycle, LifecycleHandler, PodSpec, Probe, SecurityContext, Volume};
use std::collections::{BTreeMap, BTreeSet};

/// A pod, as checks see it.
pub struct Seen<'a> {
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its spec.
    pub spec: &'a PodSpec,
    /// The minor version whose rules hold.
    pub version: u32,
}

/// What is forbidden: the reason in few words, and where.
pub struct Violation {
    /// Such as `privileged`.
    pub reason: String,
    /// Which containers or volumes, and how.
    pub detail: String,
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail })
}

struct Check {
    level: Level,
    since: u32,
    run: fn(&Seen<'_>) -> Option<Violation>,
    /// The baseline check that this one says more than.
    instead_of: Option<fn(&Seen<'_>) -> Option<Violation>>,
}

const fn baseline(since: u32, run: fn(&Seen<'_>) -> Option<Violation>) -> Check {
    Check { level: Level::Baseline, since, run, instead_of: None }
}

const fn restricted(
    since: u32,
    run: fn(&Seen<'_>) -> Option<Violation>,
    instead_of: Option<fn(&Seen<'_>) -> Option<Violation>>,
) -> Check {
    Check { level: Level::Restricted, since, run, instead_of }
}

/// In upstream's order, which is the order of its messages.
static CHECKS: [Check; 19] = [
    baseline(0, app_armor),
    baseline(0, added_capabilities),
    baseline(0, host_namespaces),
    baseline(0, host_paths),
    baseline(0, host_ports),
    baseline(34, probe_hosts),
    baseline(0, privileged),
    baseline(0, proc_mount),
    baseline(0, se_linux),
    baseline(0, seccomp),
    baseline(0, sysctls),
    baseline(0, windows_host_process),
    restricted(8, privilege_escalation, None),
    restricted(22, capabilities, Some(added_capabilities)),
    restricted(35, proc_mount_always, Some(proc_mount)),
    restricted(0, volume_types, Some(host_paths)),
    restricted(0, run_as_non_root, None),
    restricted(23, run_as_user, None),
    restricted(19, seccomp_set, Some(seccomp)),
];

/// Everything a level forbids in a pod.
pub fn violations(level: Level, seen: &Seen<'_>) -> Vec<Violation> {
    let holds = |c: &&Check| c.level <= level && c.since <= seen.version;
    let replaced = |c: &&Check| {
        let by = |other: &&Check| other.instead_of.is_some_and(|f| std::ptr::fn_addr_eq(f, c.run));
        CHECKS.iter().filter(holds).any(|other| by(&other))
    };
    CHECKS.iter().filter(holds).filter(|c| !replaced(c)).filter_map(|c| (c.run)(seen)).collect()
}

struct Part<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    host_ports: Vec<i32>,
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

impl Seen<'_> {
    fn containers(&self) -> Vec<Part<'_>> {
        let ports = |list: &Option<Vec<k8s_openapi::api::core::v1::ContainerPort>>| {
            list.iter().flatten().filter_map(|p| p.host_port.filter(|n| *n != 0)).collect()
        };
        let regular = self.spec.init_containers.iter().flatten().chain(&self.spec.containers).map(|c| Part {
            name: &c.name,
            security: c.security_context.as_ref(),
            host_ports: ports(&c.ports),
            probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
            lifecycle: c.lifecycle.as_ref(),
        });
        let ephemeral = self.spec.ephemeral_containers.iter().flatten().map(|c| Part {
            name: &c.name,
            security: c.security_context.as_ref(),
            host_ports: ports(&c.ports),
            probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
            lifecycle: c.lifecycle.as_ref(),
        });
        regular.chain(ephemeral).collect()
    }

    /// The names of the containers of which something holds.
    fn which(&self, holds: impl Fn(&Part<'_>) -> bool) -> Vec<String> {
        self.containers().iter().filter(|c| holds(c)).map(|c| c.name.to_string()).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    /// What is said for the pod as a whole.
    fn of_pod<T>(
        &self,
        of: impl Fn(&k8s_openapi::api::core::v1::PodSecurityContext) -> Option<T>,
    ) -> Option<T> {
        self.spec.security_context.as_ref().and_then(of)
    }
}

fn plural<'a>(one: &'a str, many: &'a str, n: usize) -> &'a str {
    if n == 1 { one } else { many }
}

fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `containers "a", "b"`.
fn named(containers: &[String]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// `pod and container "a"`, of those that set something.
fn setters(pod: bool, containers: &[String]) -> Option<String> {
    match (pod, containers.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".into()),
        (false, false) => Some(named(containers)),
        (true, false) => Some(format!("pod and {}", named(containers))),
    }
}

fn app_armor(seen: &Seen<'_>) -> Option<Violation> {
    let allowed = |t: &str| matches!(t, "RuntimeDefault" | "Localhost");
    let bad =
        |s: &SecurityContext| s.app_armor_profile.as_ref().map(|p| p.type_.clone()).filter(|t| !allowed(t));
    let of_pod =
        seen.of_pod(|s| s.app_armor_profile.as_ref().map(|p| p.type_.clone())).filter(|t| !allowed(t));
    let containers = seen.which(|c| c.security.and_then(bad).is_some());
    let mut values: BTreeSet<String> =
        seen.containers().iter().filter_map(|c| c.security.and_then(bad)).collect();
    values.extend(of_pod.clone());
    let fine = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations: Vec<String> = seen
        .annotations
        .iter()
        .filter(|(k, v)| k.starts_with("container.apparmor.security.beta.kubernetes.io/") && !fine(v))
        .map(|(k, v)| format!("{k}={v:?}"))
        .collect();
    let mut who: Vec<String> = setters(of_pod.is_some(), &containers).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    let all: Vec<String> = values.into_iter().chain(annotations).collect();
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(all)))
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn added(c: &Part<'_>, allowed: &[&str]) -> Vec<String> {
    let capabilities = c.security.and_then(|s| s.capabilities.as_ref());
    let add = capabilities.and_then(|c| c.add.clone()).unwrap_or_default();
    add.into_iter().filter(|c| !allowed.contains(&c.as_str())).collect()
}

fn added_by(seen: &Seen<'_>, allowed: &[&str]) -> Option<String> {
    let containers = seen.which(|c| !added(c, allowed).is_empty());
    let all: BTreeSet<String> = seen.containers().iter().flat_map(|c| added(c, allowed)).collect();
    (!containers.is_empty()).then(|| {
        format!("{} must not include {} in securityContext.capabilities.add", named(&containers), quoted(all))
    })
}

fn added_capabilities(seen: &Seen<'_>) -> Option<Violation> {
    violation("non-default capabilities", added_by(seen, &CAPABILITIES)?)
}

fn host_namespaces(seen: &Seen<'_>) -> Option<Violation> {
    let spec = seen.spec;
    let of = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let set: Vec<String> =
        of.into_iter().filter(|(_, v)| *v == Some(true)).map(|(n, _)| format!("{n}=true")).collect();
    (!set.is_empty()).then(|| violation("host namespaces", set.join(", ")))?
}

fn host_paths(seen: &Seen<'_>) -> Option<Violation> {
    let volumes = seen.spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
    let names: Vec<&String> = volumes.map(|v| &v.name).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(names)))
}

fn host_ports(seen: &Seen<'_>) -> Option<Violation> {
    let containers = seen.which(|c| !c.host_ports.is_empty());
    let ports: BTreeSet<String> =
        seen.containers().iter().flat_map(|c| c.host_ports.iter().map(ToString::to_string)).collect();
    if containers.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        named(&containers),
        plural("uses", "use", containers.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    violation("hostPort", detail)
}

fn hosts(c: &Part<'_>) -> Vec<String> {
    let of_probe = |p: &&Probe| {
        [p.http_get.as_ref().and_then(|h| h.host.clone()), p.tcp_socket.as_ref().and_then(|t| t.host.clone())]
    };
    let of_handler = |h: &LifecycleHandler| {
        [h.http_get.as_ref().and_then(|h| h.host.clone()), h.tcp_socket.as_ref().and_then(|t| t.host.clone())]
    };
    let handlers =
        c.lifecycle.into_iter().flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]).flatten();
    let probes = c.probes.into_iter().flatten();
    let all = probes.flat_map(|p| of_probe(&p)).chain(handlers.flat_map(of_handler));
    all.flatten().filter(|h| !h.is_empty()).collect()
}

fn probe_hosts(seen: &Seen<'_>) -> Option<Violation> {
    let containers: BTreeSet<String> = seen.which(|c| !hosts(c).is_empty()).into_iter().collect();
    let containers: Vec<String> = containers.into_iter().collect();
    let all: BTreeSet<String> = seen.containers().iter().flat_map(hosts).collect();
    if containers.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        named(&containers),
        plural("uses", "use", containers.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
        quoted(all)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(seen: &Seen<'_>) -> Option<Violation> {
    let containers = seen.which(|c| c.security.and_then(|s| s.privileged) == Some(true));
    if containers.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", named(&containers)))
}

fn proc_mount(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 35 && seen.has_own_users() {
        return None;
    }
    proc_mount_always(seen)
}

fn proc_mount_always(seen: &Seen<'_>) -> Option<Violation> {
    let other = |c: &Part<'_>| c.security.and_then(|s| s.proc_mount.clone()).filter(|m| m != "Default");
    let containers = seen.which(|c| other(c).is_some());
    let all: BTreeSet<String> = seen.containers().iter().filter_map(other).collect();
    if containers.is_empty() {
        return None;
    }
    violation(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", named(&containers), quoted(all)),
    )
}

fn se_linux(seen: &Seen<'_>) -> Option<Violation> {
    use k8s_openapi::api::core::v1::SELinuxOptions;
    let types: &[&str] = match seen.version {
        0..31 => &["", "container_t", "container_init_t", "container_kvm_t"],
        _ => &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"],
    };
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let bad_type = |o: &SELinuxOptions| Some(text(&o.type_)).filter(|t| !types.contains(&t.as_str()));
    let bad =
        |o: &SELinuxOptions| bad_type(o).is_some() || !text(&o.user).is_empty() || !text(&o.role).is_empty();
    let of_pod = seen.of_pod(|s| s.se_linux_options.clone()).filter(bad);
    let of = |c: &Part<'_>| c.security.and_then(|s| s.se_linux_options.clone()).filter(bad);
    let who = setters(of_pod.is_some(), &seen.which(|c| of(c).is_some()))?;
    let all: Vec<SELinuxOptions> =
        of_pod.into_iter().chain(seen.containers().iter().filter_map(of)).collect();
    let bad_types: BTreeSet<String> = all.iter().filter_map(bad_type).collect();
    let mut data = Vec::new();
    if !bad_types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", bad_types.len()), quoted(&bad_types)));
    }
    for (what, set) in [
        ("user may not be set", all.iter().any(|o| !text(&o.user).is_empty())),
        ("role may not be set", all.iter().any(|o| !text(&o.role).is_empty())),
    ] {
        if set {
            data.push(what.into());
        }
    }
    violation(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
    )
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// What a pod and its containers say of seccomp: whether the pod does it well, who does it badly, who not at all.
fn seccomp_profiles(seen: &Seen<'_>) -> (Option<String>, Option<Violation>, Vec<String>) {
    let fine = |t: &str| matches!(t, "Localhost" | "RuntimeDefault");
    let of_pod = seen.of_pod(|s| s.seccomp_profile.as_ref().map(|p| p.type_.clone()));
    let of = |c: &Part<'_>| c.security.and_then(|s| s.seccomp_profile.as_ref().map(|p| p.type_.clone()));
    let bad = |t: &String| !fine(t);
    let bad_pod = of_pod.clone().filter(bad);
    let bad_containers = seen.which(|c| of(c).as_ref().is_some_and(bad));
    let mut values: BTreeSet<String> = seen.containers().iter().filter_map(of).filter(bad).collect();
    values.extend(bad_pod.clone());
    let refused = setters(bad_pod.is_some(), &bad_containers).and_then(|who| {
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
        violation("seccompProfile", detail)
    });
    let unset = seen.which(|c| of(c).is_none());
    (of_pod.filter(|t| fine(t)), refused, unset)
}

fn seccomp(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 19 {
        return seccomp_profiles(seen).1;
    }
    let fine = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let keys = std::iter::once(SECCOMP_POD.to_string()).chain(
        seen.containers().iter().map(|c| format!("{SECCOMP_CONTAINER}{}", c.name)).collect::<Vec<_>>(),
    );
    let forbidden: BTreeSet<String> = keys
        .filter_map(|k| seen.annotations.get(&k).filter(|v| !fine(v)).map(|v| format!("{k}={v:?}")))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", forbidden.len());
    violation(
        "seccompProfile",
        format!("forbidden {word} {}", forbidden.into_iter().collect::<Vec<_>>().join(", ")),
    )
}

fn seccomp_set(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 25 && seen.is_windows() {
        return None;
    }
    let (set, refused, unset) = seccomp_profiles(seen);
    if refused.is_some() || set.is_some() || unset.is_empty() {
        return refused;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&unset)
        ),
    )
}

/// Sysctls that are safe, each since a version.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(seen: &Seen<'_>) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(n, since)| *n == name && *since <= seen.version);
    let set = seen.of_pod(|s| s.sysctls.clone()).unwrap_or_default();
    let forbidden: Vec<String> = set.into_iter().map(|s| s.name).filter(|n| !safe(n)).collect();
    (!forbidden.is_empty()).then(|| violation("forbidden sysctls", forbidden.join(", ")))?
}

fn windows_host_process(seen: &Seen<'_>) -> Option<Violation> {
    let of_pod = seen.of_pod(|s| s.windows_options.as_ref()?.host_process) == Some(true);
    let containers = seen.which(|c| {
        c.security.and_then(|s| s.windows_options.as_ref()).and_then(|w| w.host_process) == Some(true)
    });
    let who = setters(of_pod, &containers)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 25 && seen.is_windows() {
        return None;
    }
    let containers = seen.which(|c| c.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
    if containers.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&containers)),
    )
}

fn capabilities(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 25 && seen.is_windows() {
        return None;
    }
    let drops_all = |c: &Part<'_>| {
        let dropped = c.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.drop.as_ref());
        dropped.is_some_and(|d| d.iter().any(|c| c == "ALL"))
    };
    let keeping = seen.which(|c| !drops_all(c));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    details.extend(added_by(seen, &["NET_BIND_SERVICE"]));
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; ")))?
}

fn forbidden_type(v: &Volume) -> Option<&'static str> {
    let allowed = v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.image.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        ("hostPath", v.host_path.is_some()),
        ("gcePersistentDisk", v.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", v.aws_elastic_block_store.is_some()),
        ("gitRepo", v.git_repo.is_some()),
        ("nfs", v.nfs.is_some()),
        ("iscsi", v.iscsi.is_some()),
        ("glusterfs", v.glusterfs.is_some()),
        ("rbd", v.rbd.is_some()),
        ("flexVolume", v.flex_volume.is_some()),
        ("cinder", v.cinder.is_some()),
        ("cephfs", v.cephfs.is_some()),
        ("flocker", v.flocker.is_some()),
        ("fc", v.fc.is_some()),
        ("azureFile", v.azure_file.is_some()),
        ("vsphereVolume", v.vsphere_volume.is_some()),
        ("quobyte", v.quobyte.is_some()),
        ("azureDisk", v.azure_disk.is_some()),
        ("photonPersistentDisk", v.photon_persistent_disk.is_some()),
        ("portworxVolume", v.portworx_volume.is_some()),
        ("scaleIO", v.scale_io.is_some()),
        ("storageos", v.storageos.is_some()),
    ];
    Some(types.into_iter().find(|(_, is)| *is).map_or("unknown", |(name, _)| name))
}

fn volume_types(seen: &Seen<'_>) -> Option<Violation> {
    let bad = seen.spec.volumes.iter().flatten().filter_map(|v| Some((&v.name, forbidden_type(v)?)));
    let (names, types): (Vec<&String>, BTreeSet<&str>) = bad.unzip();
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(types)
    );
    violation("restricted volume types", detail)
}

fn run_as_non_root(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 35 && seen.has_own_users() {
        return None;
    }
    let of_pod = seen.of_pod(|s| s.run_as_non_root);
    let of = |c: &Part<'_>| c.security.and_then(|s| s.run_as_non_root);
    let reason = "runAsNonRoot != true";
    if let Some(who) = setters(of_pod == Some(false), &seen.which(|c| of(c) == Some(false))) {
        return violation(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let unset = seen.which(|c| of(c).is_none() && of_pod != Some(true));
    if unset.is_empty() {
        return None;
    }
    violation(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&unset)))
}

fn run_as_user(seen: &Seen<'_>) -> Option<Violation> {
    if seen.version >= 35 && seen.has_own_users() {
        return None;
    }
    let containers = seen.which(|c| c.security.and_then(|s| s.run_as_user) == Some(0));
    let who = setters(seen.of_pod(|s| s.run_as_user) == Some(0), &containers)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
