//! What holds for the spec of every pod and pod template: defaults and validation.

use api::field::{FieldErrors, FieldPath};
use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, LifecycleHandler, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;

/// Sets a template's defaults.
pub fn default_template(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        default(spec, false);
    }
}

fn set(field: &mut Option<String>, value: &str) {
    if field.as_ref().is_none_or(String::is_empty) {
        *field = Some(value.into());
    }
}

/// Sets a spec's defaults: core/v1's `SetDefaults_PodSpec` and those below it. `pod` is false for templates.
pub fn default(spec: &mut PodSpec, pod: bool) {
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    if pod {
        spec.enable_service_links.get_or_insert(true);
    }
    // The two names of one field.
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    let host_network = spec.host_network == Some(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        default_container(container, host_network);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        set(&mut container.termination_message_path, "/dev/termination-log");
        set(&mut container.termination_message_policy, "File");
        set(&mut container.image_pull_policy, pull_policy(container.image.as_deref()));
        container.resources.get_or_insert_default();
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let _ = constraint; // its policies are read as Honor and Ignore where they are not set
    }
}

/// `Always` for a tag that moves, `IfNotPresent` for others.
fn pull_policy(image: Option<&str>) -> &'static str {
    let image = image.unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let moves = match (name.contains('@'), name.split_once(':')) {
        (true, _) => false,
        (false, Some((_, tag))) => tag == "latest",
        (false, None) => true,
    };
    if moves { "Always" } else { "IfNotPresent" }
}

fn default_container(c: &mut Container, host_network: bool) {
    set(&mut c.termination_message_path, "/dev/termination-log");
    set(&mut c.termination_message_policy, "File");
    set(&mut c.image_pull_policy, pull_policy(c.image.as_deref()));
    for port in c.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    for env in c.env.iter_mut().flatten() {
        if let Some(field) = env.value_from.as_mut().and_then(|v| v.field_ref.as_mut()) {
            set(&mut field.api_version, "v1");
        }
    }
    for probe in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
        default_probe(probe);
    }
    if let Some(lifecycle) = &mut c.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            if let Some(get) = &mut handler.http_get {
                default_get(get);
            }
        }
    }
    // What is limited and not requested is requested as limited.
    let resources = c.resources.get_or_insert_default();
    if let Some(limits) = &resources.limits {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}

fn default_get(get: &mut HTTPGetAction) {
    set(&mut get.path, "/");
    set(&mut get.scheme, "HTTP");
}

fn default_probe(probe: &mut Probe) {
    for (field, value) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    }
    if let Some(get) = &mut probe.http_get {
        default_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_volume(v: &mut Volume) {
    const MODE: i32 = 0o644;
    if let Some(s) = &mut v.secret {
        s.default_mode.get_or_insert(MODE);
    }
    if let Some(c) = &mut v.config_map {
        c.default_mode.get_or_insert(MODE);
    }
    if let Some(d) = &mut v.downward_api {
        d.default_mode.get_or_insert(MODE);
        for field in d.items.iter_mut().flatten().filter_map(|i| i.field_ref.as_mut()) {
            set(&mut field.api_version, "v1");
        }
    }
    if let Some(p) = &mut v.projected {
        p.default_mode.get_or_insert(MODE);
        for source in p.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            for field in source
                .downward_api
                .iter_mut()
                .flat_map(|d| d.items.iter_mut().flatten())
                .filter_map(|i| i.field_ref.as_mut())
            {
                set(&mut field.api_version, "v1");
            }
        }
    }
    if let Some(h) = &mut v.host_path {
        h.type_.get_or_insert_default();
    }
    let sources = serde_json::to_value(&*v).ok().and_then(|v| v.as_object().map(|o| o.len())).unwrap_or(2);
    if sources == 1 {
        v.empty_dir = Some(Default::default());
    }
}

/// The quality of service class: Guaranteed, Burstable or BestEffort.
pub fn qos_class(spec: Option<&PodSpec>) -> &'static str {
    let Some(spec) = spec else { return "BestEffort" };
    let mut any = false;
    let mut guaranteed = true;
    for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = c.resources.clone().unwrap_or_default();
        let value = |list: &Option<
            std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        >,
                     name: &str| {
            let q = list.as_ref()?.get(name)?;
            q.0.parse::<Quantity>().ok().filter(|q| !q.is_zero())
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (value(&resources.requests, name), value(&resources.limits, name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Checks a pod template.
pub fn validate_template(template: &PodTemplateSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(meta) = &template.metadata {
        let metadata = at.child("metadata");
        crate::meta::labels(meta.labels.as_ref(), metadata.child("labels"), errors);
        crate::meta::annotations(meta.annotations.as_ref(), metadata.child("annotations"), errors);
    }
    match &template.spec {
        Some(spec) => validate(spec, at.child("spec"), errors),
        None => errors.required(at.child("spec").child("containers"), ""),
    }
}

/// Checks a spec.
pub fn validate(spec: &PodSpec, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let volumes = at.child("volumes");
    let mut volume_names = BTreeSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = volumes.index(i);
        name_is_label(&volume.name, at.child("name"), errors);
        if !volume_names.insert(volume.name.as_str()) {
            errors.duplicate(at.child("name"), &volume.name);
        }
        validate_volume(volume, at, errors);
    }
    let containers = at.child("containers");
    if spec.containers.is_empty() {
        errors.required(containers, "");
    }
    let mut container_names = BTreeSet::new();
    let inits = at.child("initContainers");
    let init = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| (inits.index(i), c, true));
    let regular = spec.containers.iter().enumerate().map(|(i, c)| (containers.index(i), c, false));
    for (at, c, is_init) in init.chain(regular) {
        if !container_names.insert(c.name.as_str()) {
            errors.duplicate(at.child("name"), &c.name);
        }
        validate_container(c, at, is_init, &volume_names, errors);
    }
    choice(
        spec.restart_policy.as_deref(),
        at.child("restartPolicy"),
        &["Always", "OnFailure", "Never"],
        errors,
    );
    choice(
        spec.dns_policy.as_deref(),
        at.child("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        errors,
    );
    if spec.dns_policy.as_deref() == Some("None")
        && spec.dns_config.as_ref().and_then(|d| d.nameservers.as_ref()).is_none_or(Vec::is_empty)
    {
        errors.required(
            at.child("dnsConfig").child("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if let Some(grace) = spec.termination_grace_period_seconds.filter(|g| *g < 0) {
        errors.invalid(
            at.child("terminationGracePeriodSeconds"),
            &grace,
            "must be greater than or equal to 0",
        );
    }
    if let Some(deadline) = spec.active_deadline_seconds.filter(|d| *d < 1) {
        errors.invalid(
            at.child("activeDeadlineSeconds"),
            &deadline,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for (name, value) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
    ] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            for fault in names::dns1123_subdomain(value) {
                errors.invalid(at.child(name), &value, fault);
            }
        }
    }
    for (name, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            for fault in names::dns1123_label(value) {
                errors.invalid(at.child(name), &value, fault);
            }
        }
    }
    crate::meta::labels(spec.node_selector.as_ref(), at.child("nodeSelector"), errors);
    let tolerations = at.child("tolerations");
    for (i, t) in spec.tolerations.iter().flatten().enumerate() {
        let at = tolerations.index(i);
        let operator = t.operator.as_deref().unwrap_or_default();
        if let Some(key) = t.key.as_deref().filter(|k| !k.is_empty()) {
            for fault in names::qualified_name(key) {
                errors.invalid(at.child("key"), &key, fault);
            }
        } else if operator != "Exists" {
            errors.invalid(
                at.child("operator"),
                &operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if t.toleration_seconds.is_some() && t.effect.as_deref() != Some("NoExecute") {
            errors.invalid(
                at.child("effect"),
                &t.effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        if operator == "Exists" && t.value.as_ref().is_some_and(|v| !v.is_empty()) {
            errors.invalid(at.child("operator"), &t.value, "value must be empty when `operator` is 'Exists'");
        }
        choice(t.operator.as_deref(), at.child("operator"), &["", "Equal", "Exists", "Gt", "Lt"], errors);
        choice(
            t.effect.as_deref(),
            at.child("effect"),
            &["", "NoSchedule", "PreferNoSchedule", "NoExecute"],
            errors,
        );
    }
}

fn choice(value: Option<&str>, at: FieldPath<'_>, supported: &[&str], errors: &mut FieldErrors) {
    match value {
        None => {}
        Some("") if !supported.contains(&"") => errors.required(at, ""),
        Some(value) if !supported.contains(&value) => errors.not_supported(at, value, supported),
        Some(_) => {}
    }
}

fn name_is_label(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(at, "");
        return;
    }
    for fault in names::dns1123_label(name) {
        errors.invalid(at, &name, fault);
    }
}

fn validate_volume(v: &Volume, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let sources = serde_json::to_value(v)
        .ok()
        .and_then(|v| v.as_object().map(|o| o.keys().filter(|k| *k != "name").cloned().collect::<Vec<_>>()))
        .unwrap_or_default();
    if let [_, second, ..] = sources.as_slice() {
        errors.forbidden(at.child(second), "may not specify more than 1 volume type");
    }
    if let Some(h) = &v.host_path {
        let path = at.child("hostPath");
        if h.path.is_empty() {
            errors.required(path.child("path"), "");
        } else if h.path.split('/').any(|p| p == "..") {
            errors.invalid(path.child("path"), &h.path, "must not contain '..'");
        }
        choice(
            h.type_.as_deref(),
            path.child("type"),
            &[
                "",
                "DirectoryOrCreate",
                "Directory",
                "FileOrCreate",
                "File",
                "Socket",
                "CharDevice",
                "BlockDevice",
            ],
            errors,
        );
    }
    if let Some(c) = &v.config_map
        && c.name.is_empty()
    {
        errors.required(at.child("configMap").child("name"), "");
    }
    if let Some(s) = &v.secret
        && s.secret_name.as_ref().is_none_or(String::is_empty)
    {
        errors.required(at.child("secret").child("secretName"), "");
    }
    if let Some(c) = &v.persistent_volume_claim
        && c.claim_name.is_empty()
    {
        errors.required(at.child("persistentVolumeClaim").child("claimName"), "");
    }
}

fn validate_container(
    c: &Container,
    at: FieldPath<'_>,
    init: bool,
    volumes: &BTreeSet<&str>,
    errors: &mut FieldErrors,
) {
    name_is_label(&c.name, at.child("name"), errors);
    match c.image.as_deref().unwrap_or_default() {
        "" => errors.required(at.child("image"), ""),
        image if image.trim() != image => {
            errors.invalid(at.child("image"), &image, "must not have leading or trailing whitespace")
        }
        _ => {}
    }
    choice(
        c.image_pull_policy.as_deref(),
        at.child("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    choice(
        c.termination_message_policy.as_deref(),
        at.child("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
        errors,
    );
    let ports = at.child("ports");
    let mut seen = BTreeSet::new();
    for (i, p) in c.ports.iter().flatten().enumerate() {
        let at = ports.index(i);
        if let Some(name) = p.name.as_deref().filter(|n| !n.is_empty()) {
            for fault in names::port_name(name) {
                errors.invalid(at.child("name"), &name, fault);
            }
            if !seen.insert(name) {
                errors.duplicate(at.child("name"), &name);
            }
        }
        match p.container_port {
            0 => errors.required(at.child("containerPort"), ""),
            n => {
                for fault in names::port_number(n) {
                    errors.invalid(at.child("containerPort"), &n, fault);
                }
            }
        }
        if let Some(n) = p.host_port.filter(|n| *n != 0) {
            for fault in names::port_number(n) {
                errors.invalid(at.child("hostPort"), &n, fault);
            }
        }
        choice(p.protocol.as_deref(), at.child("protocol"), &["SCTP", "TCP", "UDP"], errors);
    }
    let env = at.child("env");
    for (i, e) in c.env.iter().flatten().enumerate() {
        let at = env.index(i);
        if e.name.is_empty() {
            errors.required(at.child("name"), "");
        } else {
            for fault in names::env_var_name(&e.name) {
                errors.invalid(at.child("name"), &e.name, fault);
            }
        }
        if e.value.as_ref().is_some_and(|v| !v.is_empty()) && e.value_from.is_some() {
            errors.invalid(at.child("valueFrom"), &"", "may not be specified when `value` is not empty");
        }
    }
    let mounts = at.child("volumeMounts");
    let mut paths = BTreeSet::new();
    for (i, m) in c.volume_mounts.iter().flatten().enumerate() {
        let at = mounts.index(i);
        if m.name.is_empty() {
            errors.required(at.child("name"), "");
        } else if !volumes.contains(m.name.as_str()) {
            errors.push(at.child("name"), api::field::FieldFault::NotFound(api::field::quoted(&m.name)));
        }
        if m.mount_path.is_empty() {
            errors.required(at.child("mountPath"), "");
        } else if !paths.insert(m.mount_path.as_str()) {
            errors.invalid(at.child("mountPath"), &m.mount_path, "must be unique");
        }
        if let Some(path) =
            m.sub_path.as_deref().filter(|p| p.starts_with('/') || p.split('/').any(|s| s == ".."))
        {
            errors.invalid(
                at.child("subPath"),
                &path,
                if path.starts_with('/') { "must be a relative path" } else { "must not contain '..'" },
            );
        }
    }
    if let Some(resources) = &c.resources {
        validate_resources(resources, at.child("resources"), errors);
    }
    let sidecar = init && c.restart_policy.as_deref() == Some("Always");
    for (name, probe) in [
        ("livenessProbe", &c.liveness_probe),
        ("readinessProbe", &c.readiness_probe),
        ("startupProbe", &c.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let at = at.child(name);
        if init && !sidecar {
            errors.forbidden(at, "may not be set for init containers without restartPolicy=Always");
        }
        let handlers = [
            probe.exec.is_some(),
            probe.http_get.is_some(),
            probe.tcp_socket.is_some(),
            probe.grpc.is_some(),
        ];
        match handlers.iter().filter(|h| **h).count() {
            0 => errors.required(at, "must specify a handler type"),
            1 => {}
            _ => errors.forbidden(at, "may not specify more than 1 handler type"),
        }
        if name != "readinessProbe" && probe.success_threshold.is_some_and(|t| t != 1) {
            errors.invalid(at.child("successThreshold"), &probe.success_threshold, "must be 1");
        }
        for (field, value) in [
            ("initialDelaySeconds", probe.initial_delay_seconds),
            ("timeoutSeconds", probe.timeout_seconds),
            ("periodSeconds", probe.period_seconds),
            ("failureThreshold", probe.failure_threshold),
        ] {
            if let Some(value) = value.filter(|v| *v < 0) {
                errors.invalid(at.child(field), &value, "must be greater than or equal to 0");
            }
        }
        if let Some(get) = &probe.http_get {
            validate_port(&get.port, at.child("httpGet").child("port"), errors);
        }
        if let Some(tcp) = &probe.tcp_socket {
            validate_port(&tcp.port, at.child("tcpSocket").child("port"), errors);
        }
    }
    if let Some(lifecycle) = &c.lifecycle {
        let at = at.child("lifecycle");
        for (name, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(handler) = handler {
                validate_handler(handler, at.child(name), errors);
            }
        }
    }
}

fn validate_handler(h: &LifecycleHandler, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let handlers = [h.exec.is_some(), h.http_get.is_some(), h.tcp_socket.is_some(), h.sleep.is_some()];
    match handlers.iter().filter(|h| **h).count() {
        0 => errors.required(at, "must specify a handler type"),
        1 => {}
        _ => errors.forbidden(at, "may not specify more than 1 handler type"),
    }
}

fn validate_port(port: &IntOrString, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let faults = match port {
        IntOrString::Int(n) => names::port_number(*n),
        IntOrString::String(name) => names::port_name(name),
    };
    for fault in faults {
        errors.invalid(at, port, fault);
    }
}

/// Checks requests and limits.
pub fn validate_resources(r: &ResourceRequirements, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for (name, list) in [("limits", &r.limits), ("requests", &r.requests)] {
        let at = at.child(name);
        for (resource, quantity) in list.iter().flatten() {
            let at = at.key(resource);
            for fault in names::qualified_name(resource) {
                errors.invalid(at, resource, fault);
            }
            match quantity.0.parse::<Quantity>() {
                Ok(q) if q.sign() < 0 => {
                    errors.invalid(at, &quantity.0, "must be greater than or equal to 0")
                }
                Ok(_) => {}
                Err(e) => errors.invalid(at, &quantity.0, e.to_string()),
            }
        }
    }
    let requests = at.child("requests");
    for (name, request) in r.requests.iter().flatten() {
        if let Some(limit) = r.limits.as_ref().and_then(|l| l.get(name))
            && let (Ok(want), Ok(most)) = (request.0.parse::<Quantity>(), limit.0.parse::<Quantity>())
            && want > most
        {
            errors.invalid(
                requests,
                &request.0,
                format!("must be less than or equal to {name} limit of {}", limit.0),
            );
        }
    }
}
