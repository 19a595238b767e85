//! Defaults of a spec that depend on more than the schema: core/v1's `SetDefaults_PodSpec` and those below it.

use super::resources::{self, Amounts};
use crate::check::{amount, is_set};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, HTTPGetAction, ObjectFieldSelector, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, Volume,
};

/// Sets a template's defaults.
pub fn default_template(template: &mut PodTemplateSpec) {
    default(template.spec.get_or_insert_default(), false);
}

fn set(field: &mut Option<String>, value: &str) {
    if !is_set(field) {
        *field = Some(value.into());
    }
}

/// Sets a spec's defaults. `pod` is false for templates.
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
    let host_network = pod && spec.host_network == Some(true);
    for c in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        container(c, host_network);
        if pod {
            requests(&mut c.resources);
        }
    }
    for c in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral_container(c);
    }
    for v in spec.volumes.iter_mut().flatten() {
        volume(v);
    }
    if let Some(overhead) = &mut spec.overhead {
        round_up(overhead);
    }
    if let Some(r) = &mut spec.resources {
        round_requirements(r);
    }
    if pod && spec.resources.is_some() {
        resources::default_pod(spec);
    }
}

/// What is limited and not requested is requested as limited.
fn requests(resources: &mut Option<ResourceRequirements>) {
    let Some(r) = resources else { return };
    if let Some(limits) = &r.limits {
        let requests = r.requests.get_or_insert_default();
        for (name, limit) in limits {
            if !requests.contains_key(name) {
                requests.insert(name.clone(), limit.clone());
            }
        }
    }
}

/// No amount is finer than a thousandth.
pub(crate) fn round_up(amounts: &mut Amounts) {
    for text in amounts.values_mut().filter(|q| q.0.ends_with(['n', 'u'])) {
        let exact = amount(text);
        *text = Quantity::from_milli(exact.milli_value(), exact.format()).to_text();
    }
}

fn round_requirements(r: &mut ResourceRequirements) {
    for amounts in [&mut r.limits, &mut r.requests].into_iter().flatten() {
        round_up(amounts);
    }
}

/// `Always` for a tag that moves, `IfNotPresent` for others.
fn pull_policy(image: Option<&str>) -> &'static str {
    let image = image.unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let moves = match name.split_once('@') {
        Some((tagged, _)) => tagged.ends_with(":latest"),
        None => name.split_once(':').is_none_or(|(_, tag)| tag == "latest"),
    };
    if moves { "Always" } else { "IfNotPresent" }
}

fn container(c: &mut Container, host_network: bool) {
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
        field(env.value_from.as_mut().and_then(|v| v.field_ref.as_mut()));
    }
    for p in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
        probe(p);
    }
    if let Some(lifecycle) = &mut c.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            if let Some(get) = &mut handler.http_get {
                http_get(get);
            }
        }
    }
    round_requirements(c.resources.get_or_insert_default());
}

fn ephemeral_container(c: &mut EphemeralContainer) {
    set(&mut c.termination_message_path, "/dev/termination-log");
    set(&mut c.termination_message_policy, "File");
    set(&mut c.image_pull_policy, pull_policy(c.image.as_deref()));
    for env in c.env.iter_mut().flatten() {
        field(env.value_from.as_mut().and_then(|v| v.field_ref.as_mut()));
    }
    for port in c.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
    }
    for p in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
        probe(p);
    }
    c.resources.get_or_insert_default();
}

fn field(selector: Option<&mut ObjectFieldSelector>) {
    if let Some(selector) = selector {
        set(&mut selector.api_version, "v1");
    }
}

fn http_get(get: &mut HTTPGetAction) {
    set(&mut get.path, "/");
    set(&mut get.scheme, "HTTP");
}

fn probe(probe: &mut Probe) {
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
        http_get(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn volume(v: &mut Volume) {
    const MODE: i32 = 0o644;
    if let Some(s) = &mut v.secret {
        s.default_mode.get_or_insert(MODE);
    }
    if let Some(c) = &mut v.config_map {
        c.default_mode.get_or_insert(MODE);
    }
    if let Some(d) = &mut v.downward_api {
        d.default_mode.get_or_insert(MODE);
        d.items.iter_mut().flatten().for_each(|i| field(i.field_ref.as_mut()));
    }
    if let Some(p) = &mut v.projected {
        p.default_mode.get_or_insert(MODE);
        for source in p.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            if let Some(d) = &mut source.downward_api {
                d.items.iter_mut().flatten().for_each(|i| field(i.field_ref.as_mut()));
            }
        }
    }
    if let Some(h) = &mut v.host_path {
        h.type_.get_or_insert_default();
    }
    if let Some(template) = v.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        template.spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    }
    if let Some(i) = &mut v.image {
        set(&mut i.pull_policy, pull_policy(i.reference.as_deref()));
    }
    if !has_source(v) {
        v.empty_dir = Some(Default::default());
    }
}

fn has_source(v: &Volume) -> bool {
    let Volume {
        name: _,
        aws_elastic_block_store,
        azure_disk,
        azure_file,
        cephfs,
        cinder,
        config_map,
        csi,
        downward_api,
        empty_dir,
        ephemeral,
        fc,
        flex_volume,
        flocker,
        gce_persistent_disk,
        git_repo,
        glusterfs,
        host_path,
        image,
        iscsi,
        nfs,
        persistent_volume_claim,
        photon_persistent_disk,
        portworx_volume,
        projected,
        quobyte,
        rbd,
        scale_io,
        secret,
        storageos,
        vsphere_volume,
    } = v;
    projected.is_some()
        || config_map.is_some()
        || secret.is_some()
        || empty_dir.is_some()
        || persistent_volume_claim.is_some()
        || host_path.is_some()
        || csi.is_some()
        || downward_api.is_some()
        || ephemeral.is_some()
        || image.is_some()
        || nfs.is_some()
        || aws_elastic_block_store.is_some()
        || azure_disk.is_some()
        || azure_file.is_some()
        || cephfs.is_some()
        || cinder.is_some()
        || fc.is_some()
        || flex_volume.is_some()
        || flocker.is_some()
        || gce_persistent_disk.is_some()
        || git_repo.is_some()
        || glusterfs.is_some()
        || iscsi.is_some()
        || photon_persistent_disk.is_some()
        || portworx_volume.is_some()
        || quobyte.is_some()
        || rbd.is_some()
        || scale_io.is_some()
        || storageos.is_some()
        || vsphere_volume.is_some()
}
