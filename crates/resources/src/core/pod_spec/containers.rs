//! Containers of a pod: what all have in common, and what regular, init and ephemeral ones alone have.

use super::volumes::Volumes;
use super::{Scope, env, mounts, probes, resources, security};
use crate::check::{self, list, required, text};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EnvFromSource, EnvVar,
    EphemeralContainer, PodSpec, ResourceRequirements, SecurityContext, VolumeDevice, VolumeMount,
};

/// What containers of every sort have.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image.
    pub image: &'a str,
    pull_policy: &'a Option<String>,
    message_policy: &'a Option<String>,
    ports: &'a [ContainerPort],
    /// Its variables.
    pub env: &'a [EnvVar],
    env_from: &'a [EnvFromSource],
    /// Its mounts.
    pub mounts: &'a [VolumeMount],
    /// Its block devices.
    pub devices: &'a [VolumeDevice],
    /// What it asks for.
    pub resources: Option<&'a ResourceRequirements>,
    resize: &'a [ContainerResizePolicy],
    /// What it may do.
    pub security: Option<&'a SecurityContext>,
}

macro_rules! common {
    ($kind:ty) => {
        impl<'a> From<&'a $kind> for Common<'a> {
            fn from(c: &'a $kind) -> Self {
                Common {
                    name: &c.name,
                    image: text(&c.image),
                    pull_policy: &c.image_pull_policy,
                    message_policy: &c.termination_message_policy,
                    ports: list(&c.ports),
                    env: list(&c.env),
                    env_from: list(&c.env_from),
                    mounts: list(&c.volume_mounts),
                    devices: list(&c.volume_devices),
                    resources: c.resources.as_ref(),
                    resize: list(&c.resize_policy),
                    security: c.security_context.as_ref(),
                }
            }
        }
    };
}

common!(Container);
common!(EphemeralContainer);

/// Shows every container with its path: init containers, regular ones, ephemeral ones.
pub fn each<'a>(spec: &'a PodSpec, at: FieldPath<'_>, mut visit: impl FnMut(Common<'a>, FieldPath<'_>)) {
    let path = at.child("initContainers");
    for (i, c) in list(&spec.init_containers).iter().enumerate() {
        visit(c.into(), path.index(i));
    }
    let path = at.child("containers");
    for (i, c) in spec.containers.iter().enumerate() {
        visit(c.into(), path.index(i));
    }
    let path = at.child("ephemeralContainers");
    for (i, c) in list(&spec.ephemeral_containers).iter().enumerate() {
        visit(c.into(), path.index(i));
    }
}

/// Whether an init container goes on beside the regular ones.
pub fn is_sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

pub(super) fn regular(scope: &Scope<'_>, volumes: &Volumes<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let spec = scope.spec;
    if spec.containers.is_empty() {
        return errors.required(at, "");
    }
    for (i, c) in spec.containers.iter().enumerate() {
        let at = at.index(i);
        common(scope, volumes, c.into(), at, errors);
        if spec.containers[..i].iter().any(|other| other.name == c.name) {
            errors.duplicate(at.child("name"), &c.name);
        }
        probes::validate(scope, c, at, errors);
        restart_policy(c.restart_policy.as_deref(), list(&c.restart_policy_rules), at, errors);
    }
    host_ports(&spec.containers, at, errors);
}

pub(super) fn init(scope: &Scope<'_>, volumes: &Volumes<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let containers = list(&scope.spec.init_containers);
    for (i, c) in containers.iter().enumerate() {
        let here = at.index(i);
        common(scope, volumes, c.into(), here, errors);
        restart_policy(c.restart_policy.as_deref(), list(&c.restart_policy_rules), here, errors);
        let same = |other: &Container| other.name == c.name;
        if scope.spec.containers.iter().any(same) || !c.name.is_empty() && containers[..i].iter().any(same) {
            errors.duplicate(here.child("name"), &c.name);
        }
        // They run one after the other, so each has the ports for itself.
        host_ports(std::slice::from_ref(c), at, errors);
        if is_sidecar(c) {
            probes::validate(scope, c, here, errors);
            continue;
        }
        for (name, set) in [
            ("lifecycle", c.lifecycle.is_some()),
            ("livenessProbe", c.liveness_probe.is_some()),
            ("readinessProbe", c.readiness_probe.is_some()),
            ("startupProbe", c.startup_probe.is_some()),
        ] {
            if set {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(here.child(name), why);
            }
        }
        let policies = here.child("resizePolicy");
        for (i, policy) in list(&c.resize_policy).iter().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                let policy_at = policies.index(i);
                errors.invalid(policy_at.child("restartPolicy"), &policy.restart_policy, why);
            }
        }
    }
}

pub(super) fn ephemeral(
    scope: &Scope<'_>,
    volumes: &Volumes<'_>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let containers = list(&scope.spec.ephemeral_containers);
    let others = || scope.spec.containers.iter().chain(list(&scope.spec.init_containers));
    let not_ours = "cannot be set for an Ephemeral Container";
    for (i, c) in containers.iter().enumerate() {
        let at = at.index(i);
        common(scope, volumes, c.into(), at, errors);
        trimmed_image(text(&c.image), at, errors);
        if others().any(|o| o.name == c.name) || containers[..i].iter().any(|o| o.name == c.name) {
            errors.duplicate(at.child("name"), &c.name);
        }
        let target = text(&c.target_container_name);
        if !target.is_empty() && !others().any(|o| o.name == target) {
            errors.not_found(at.child("targetContainerName"), &target);
        }
        let resources = c.resources.as_ref().is_some_and(|r| *r != ResourceRequirements::default());
        for (name, set) in [
            ("ports", !list(&c.ports).is_empty()),
            ("resources", resources),
            ("resizePolicy", !list(&c.resize_policy).is_empty()),
            ("restartPolicy", c.restart_policy.is_some()),
            ("restartPolicyRules", !list(&c.restart_policy_rules).is_empty()),
            ("livenessProbe", c.liveness_probe.is_some()),
            ("readinessProbe", c.readiness_probe.is_some()),
            ("startupProbe", c.startup_probe.is_some()),
            ("lifecycle", c.lifecycle.is_some()),
        ] {
            if set {
                errors.forbidden(at.child(name), not_ours);
            }
        }
        let mounts = at.child("volumeMounts");
        for (i, mount) in list(&c.volume_mounts).iter().enumerate() {
            let at = mounts.index(i);
            for (name, path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if check::is_set(path) {
                    errors.forbidden(at.child(name), not_ours);
                }
            }
        }
    }
}

/// A pod's images, unlike a template's, have no blanks around them.
pub(super) fn trimmed_image(image: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if image.trim() != image {
        errors.invalid(at.child("image"), &image, "must not have leading or trailing whitespace");
    }
}

fn common(
    scope: &Scope<'_>,
    volumes: &Volumes<'_>,
    c: Common<'_>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    check::required_label(c.name, at.child("name"), errors);
    required(c.image, at.child("image"), errors);
    let policies = ["File", "FallbackToLogsOnError"];
    check::required_one_of(text(c.message_policy), &policies, at.child("terminationMessagePolicy"), errors);
    ports(c.ports, at.child("ports"), errors);
    env::validate(c.env, at.child("env"), errors);
    env::validate_from(c.env_from, at.child("envFrom"), errors);
    mounts::validate(&c, volumes, at.child("volumeMounts"), errors);
    mounts::validate_devices(&c, volumes, at.child("volumeDevices"), errors);
    pull_policy(c.pull_policy, at.child("imagePullPolicy"), errors);
    if let Some(r) = c.resources {
        resources::validate(r, resources::container_name, Some(scope), at.child("resources"), errors);
    }
    resize_policy(c.resize, text(&scope.spec.restart_policy), at.child("resizePolicy"), errors);
    if let Some(s) = c.security {
        security::container(s, scope.host_users, at.child("securityContext"), errors);
    }
}

/// When an image is pulled.
pub(super) fn pull_policy(policy: &Option<String>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    check::required_one_of(text(policy), &["Always", "IfNotPresent", "Never"], at, errors);
}

fn ports(ports: &[ContainerPort], at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (i, p) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&p.name);
        if !name.is_empty() {
            let faults = names::port_name(name);
            if faults.is_empty() && ports[..i].iter().any(|other| text(&other.name) == name) {
                errors.duplicate(at.child("name"), &name);
            }
            errors.all_invalid(at.child("name"), name, faults);
        }
        match p.container_port {
            0 => errors.required(at.child("containerPort"), ""),
            n => check::port_number(n, at.child("containerPort"), errors),
        }
        if let Some(n) = p.host_port.filter(|n| *n != 0) {
            check::port_number(n, at.child("hostPort"), errors);
        }
        check::protocol(&p.protocol, at.child("protocol"), errors);
    }
}

/// One port of the node is for one container alone.
fn host_ports(containers: &[Container], at: FieldPath<'_>, errors: &mut FieldErrors) {
    let key = |p: &ContainerPort| (p.host_port, text(&p.protocol).len(), text(&p.host_ip).len());
    let mut seen: Vec<&ContainerPort> = Vec::new();
    for (i, c) in containers.iter().enumerate() {
        let here = at.index(i);
        let ports = here.child("ports");
        for (i, p) in list(&c.ports).iter().enumerate().filter(|(_, p)| p.host_port.is_some_and(|n| n != 0)) {
            let same = |o: &&&ContainerPort| {
                key(o) == key(p)
                    && text(&o.protocol) == text(&p.protocol)
                    && text(&o.host_ip) == text(&p.host_ip)
            };
            if seen.iter().any(|o| same(&o)) {
                let port = p.host_port.unwrap_or(0);
                let said = format!("{}/{}/{port}", text(&p.protocol), text(&p.host_ip));
                let port_at = ports.index(i);
                errors.duplicate(port_at.child("hostPort"), &said);
            } else {
                seen.push(p);
            }
        }
    }
}

fn resize_policy(
    policies: &[ContainerResizePolicy],
    restart: &str,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    for (i, p) in policies.iter().enumerate() {
        if policies[..i].iter().any(|o| o.resource_name == p.resource_name) {
            errors.duplicate(at.index(i), &p.resource_name);
        }
        if !required(&p.resource_name, at, errors) {
            check::one_of(&p.resource_name, &["cpu", "memory"], at, errors);
        }
        if !required(&p.restart_policy, at, errors) {
            check::one_of(&p.restart_policy, &["NotRequired", "RestartContainer"], at, errors);
        }
        if restart == "Never" && p.restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(at, &p.restart_policy, why);
        }
    }
}

fn restart_policy(
    policy: Option<&str>,
    rules: &[ContainerRestartRule],
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    match policy {
        None if rules.is_empty() => return,
        None => {
            let why = "must specify restartPolicy when restart rules are used";
            errors.required(at.child("restartPolicy"), why);
        }
        Some(policy) => {
            check::one_of(policy, &["Always", "Never", "OnFailure"], at.child("restartPolicy"), errors);
        }
    }
    let rules_at = at.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_many(rules_at, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = rules_at.index(i);
        check::one_of(&rule.action, &["Restart", "RestartAllContainers"], at.child("action"), errors);
        let codes_at = at.child("exitCodes");
        let Some(codes) = &rule.exit_codes else {
            errors.required(codes_at, "must be specified");
            continue;
        };
        check::one_of(&codes.operator, &["In", "NotIn"], codes_at.child("operator"), errors);
        if list(&codes.values).len() > 255 {
            errors.too_many(codes_at.child("values"), list(&codes.values).len(), 255);
        }
    }
}
