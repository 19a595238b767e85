//! What holds for the spec of every pod and pod template: defaults and validation. Start at [`validate`];
//! each file has one part of a spec.

pub mod containers;
mod defaults;
mod env;
mod mounts;
mod network;
mod probes;
mod projected;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod sources;
mod volumes;
mod windows;

pub use defaults::{default, default_template};
pub use resources::{qos_class, validate as validate_resources};

use crate::check::{self, is_set, list, text};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Marks a pod that shows what runs on a node by the node's own word.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What a spec belongs to, and what is let through because an older object has it too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lenient {
    /// It is a pod's, not a template's.
    pub pod: bool,
    /// Amounts that are no multiple of the page's size.
    pub huge_pages: bool,
    /// Selectors with values that are no labels'.
    pub selector_values: bool,
    /// Node selectors with values that are no labels'.
    pub node_values: bool,
    /// Selectors of spread constraints that are not well formed.
    pub spread_selectors: bool,
    /// Tokens that are projected out of their volume.
    pub token_paths: bool,
    /// Sysctls of a namespace that is the node's.
    pub host_sysctls: bool,
    /// Costs of deletion that are no numbers.
    pub deletion_cost: bool,
}

impl Lenient {
    /// Of a new pod.
    pub const POD: Lenient = Lenient {
        pod: true,
        huge_pages: false,
        selector_values: false,
        node_values: false,
        spread_selectors: false,
        token_paths: false,
        host_sysctls: false,
        deletion_cost: false,
    };

    /// Lets through what an object already has: it was valid once.
    pub fn towards(self, old: &PodSpec, annotations: Option<&BTreeMap<String, String>>) -> Self {
        let mut errors = FieldErrors::default();
        let scope = Scope::new(old, None, self);
        validate_spec(&scope, FieldPath::root("spec"), &mut errors);
        if let Some(annotations) = annotations {
            deletion_cost(annotations, FieldPath::root("cost"), &mut errors);
        }
        let has = |what: &[&str]| errors.as_slice().iter().any(|e| what.iter().all(|w| e.field.contains(w)));
        Lenient {
            pod: self.pod,
            huge_pages: has(&["hugepages-"]),
            selector_values: has(&["pod", "ffinity", "values"]),
            node_values: has(&["nodeAffinity", "values"]),
            spread_selectors: has(&["topologySpreadConstraints", "labelSelector"]),
            token_paths: has(&["projected.path"]),
            host_sysctls: has(&["sysctls"]),
            deletion_cost: has(&["cost"]),
        }
    }
}

/// What checks of parts of a spec have to know of the whole.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The whole.
    pub spec: &'a PodSpec,
    /// The pod's name; none for templates.
    pod_name: Option<&'a str>,
    lenient: Lenient,
    /// Whether its users are the node's.
    host_users: bool,
}

impl<'a> Scope<'a> {
    fn new(spec: &'a PodSpec, meta: Option<&'a ObjectMeta>, lenient: Lenient) -> Self {
        let pod_name = meta.and_then(|m| m.name.as_deref());
        Scope { spec, pod_name, lenient, host_users: spec.host_users != Some(false) }
    }
}

/// Checks a pod template.
pub fn validate_template(template: &PodTemplateSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    validate_template_leniently(template, Lenient::default(), at, errors);
}

/// Checks a new pod template in the place of an old one.
pub fn validate_new_template(
    new: &PodTemplateSpec,
    old: Option<&PodTemplateSpec>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let before = errors.len();
    validate_template_leniently(new, Lenient::default(), at, errors);
    if errors.len() == before {
        return;
    }
    let Some(old) = old.and_then(|t| t.spec.as_ref().map(|s| (s, t.metadata.as_ref()))) else { return };
    errors.truncate(before);
    let lenient = Lenient::default().towards(old.0, old.1.and_then(|m| m.annotations.as_ref()));
    validate_template_leniently(new, lenient, at, errors);
}

fn validate_template_leniently(
    template: &PodTemplateSpec,
    lenient: Lenient,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let none = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&none);
    let spec_at = at.child("spec");
    if let Some(meta) = &template.metadata {
        crate::meta::labels(meta.labels.as_ref(), at.child("labels"), errors);
        crate::meta::annotations(meta.annotations.as_ref(), at.child("annotations"), errors);
        if let Some(annotations) = &meta.annotations {
            annotations_of_pod(annotations, spec, lenient, at.child("annotations"), errors);
        }
    }
    validate_spec(&Scope::new(spec, None, lenient), spec_at, errors);
    if let Some(annotations) = template.metadata.as_ref().and_then(|m| m.annotations.as_ref()) {
        security::annotations_match(annotations, spec, spec_at, errors);
    }
    if !list(&spec.ephemeral_containers).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.forbidden(spec_at.child("ephemeralContainers"), why);
    }
}

/// Checks a pod's spec and what its metadata says of it.
pub fn validate_pod(meta: &ObjectMeta, spec: &PodSpec, lenient: Lenient, errors: &mut FieldErrors) {
    let (metadata, at) = (FieldPath::root("metadata"), FieldPath::root("spec"));
    if let Some(annotations) = &meta.annotations {
        annotations_of_pod(annotations, spec, lenient, metadata.child("annotations"), errors);
        if annotations.contains_key(MIRROR) && !list(&spec.resource_claims).is_empty() {
            errors.forbidden(FieldPath::root(""), "static pods do not support resource claims");
        }
    }
    validate_spec(&Scope::new(spec, Some(meta), lenient), at, errors);
    security::tokens_need_account(spec, at, errors);
    for (name, containers) in
        [("containers", &spec.containers[..]), ("initContainers", list(&spec.init_containers))]
    {
        let at = at.child(name);
        for (i, c) in containers.iter().enumerate() {
            containers::trimmed_image(text(&c.image), at.index(i), errors);
        }
    }
}

/// Checks that annotations and fields of a new pod say the same.
pub fn validate_annotations_match(meta: &ObjectMeta, spec: &PodSpec, errors: &mut FieldErrors) {
    if let Some(annotations) = &meta.annotations {
        security::annotations_match(annotations, spec, FieldPath::root("spec"), errors);
    }
}

/// Checks annotations that mean something for a pod.
fn annotations_of_pod(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    lenient: Lenient,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    if let Some(value) = annotations.get(MIRROR).filter(|_| !is_set(&spec.node_name)) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(at.key(MIRROR), value, why);
    }
    if !lenient.deletion_cost {
        deletion_cost(annotations, at.key(DELETION_COST), errors);
    }
    security::annotations(annotations, spec, at, errors);
}

fn deletion_cost(annotations: &BTreeMap<String, String>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let Some(cost) = annotations.get(DELETION_COST) else { return };
    // No sign for what is positive and no zeros before it.
    let digits = cost.strip_prefix('-').unwrap_or(cost);
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    if !plain || cost.parse::<i32>().is_err() {
        errors.invalid(at, cost, "must be a 32bit integer");
    }
}

fn validate_spec(scope: &Scope<'_>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let spec = scope.spec;
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(at.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::validate(scope, list(&spec.volumes), at.child("volumes"), errors);
    network::resource_claims(spec, at.child("resourceClaims"), errors);
    containers::regular(scope, &volumes, at.child("containers"), errors);
    containers::init(scope, &volumes, at.child("initContainers"), errors);
    containers::ephemeral(scope, &volumes, at.child("ephemeralContainers"), errors);
    resources::validate_pod(scope, at, errors);
    network::host_ports(scope, at.child("containers"), errors);
    let policies = ["Always", "OnFailure", "Never"];
    check::required_one_of(text(&spec.restart_policy), &policies, at.child("restartPolicy"), errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    check::required_one_of(text(&spec.dns_policy), &policies, at.child("dnsPolicy"), errors);
    crate::meta::labels(spec.node_selector.as_ref(), at.child("nodeSelector"), errors);
    security::pod(scope, at, errors);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(scope, affinity, at.child("affinity"), errors);
    }
    network::dns(spec, at.child("dnsConfig"), errors);
    let gates = at.child("readinessGates");
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let at = gates.index(i);
        check::qualified(&gate.condition_type, at.child("conditionType"), errors);
    }
    scheduling::gates(list(&spec.scheduling_gates), at.child("schedulingGates"), errors);
    let constraints = list(&spec.topology_spread_constraints);
    scheduling::spread(scope, constraints, at.child("topologySpreadConstraints"), errors);
    windows::host_process(spec, at, errors);
    security::host_users(spec, at, errors);
    security::hostname_override(spec, at, errors);
    for (name, value) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
    ] {
        if is_set(value) {
            check::subdomain(text(value), at.child(name), errors);
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        check::in_range(seconds, 1, i32::MAX.into(), at.child("activeDeadlineSeconds"), errors);
    }
    for (name, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if is_set(value) {
            check::label(text(value), at.child(name), errors);
        }
    }
    scheduling::tolerations(list(&spec.tolerations), at.child("tolerations"), errors);
    network::host_aliases(spec, at.child("hostAliases"), errors);
    if let Some(class) = &spec.runtime_class_name {
        check::subdomain(class, at.child("runtimeClassName"), errors);
    }
    if spec.preemption_policy.is_some() {
        let policies = ["PreemptLowerPriority", "Never"];
        check::required_one_of(
            text(&spec.preemption_policy),
            &policies,
            at.child("preemptionPolicy"),
            errors,
        );
    }
    if let Some(overhead) = &spec.overhead {
        let limits = at.child("overhead");
        let limits = limits.child("limits");
        for (name, value) in overhead {
            resources::container_name(name, limits.key(name), errors);
            resources::quantity(name, value, limits.key(name), errors);
        }
    }
    security::os(spec, at, errors);
    env::validate_files(spec, at, errors);
}
