//! Which objects pods and volumes name: what a node may read for them, and a mirror pod must not have.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PersistentVolume, Pod, PodSpec, Volume};

/// Marks a pod that stands for one which its node runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod is a mirror.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

fn environment(spec: &PodSpec) -> impl Iterator<Item = (&[EnvVar], &[EnvFromSource])> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let containers = containers.map(|c| (c.env.as_deref(), c.env_from.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let all = containers.chain(ephemeral.map(|c| (c.env.as_deref(), c.env_from.as_deref())));
    all.map(|(env, from)| (env.unwrap_or_default(), from.unwrap_or_default()))
}

fn named(names: Vec<Option<&String>>) -> Vec<&str> {
    names.into_iter().flatten().map(String::as_str).filter(|n| !n.is_empty()).collect()
}

/// Names of secrets in a pod's namespace; some may stand twice.
pub fn secrets(spec: &PodSpec) -> Vec<&str> {
    let mut names: Vec<Option<&String>> = Vec::new();
    names.extend(spec.image_pull_secrets.iter().flatten().map(|s| Some(&s.name)));
    for (env, from) in environment(spec) {
        let of = env.iter().filter_map(|e| e.value_from.as_ref()?.secret_key_ref.as_ref());
        names.extend(of.map(|r| Some(&r.name)));
        names.extend(from.iter().map(|f| f.secret_ref.as_ref().map(|r| &r.name)));
    }
    for v in spec.volumes.iter().flatten() {
        names.extend([
            v.secret.as_ref().and_then(|s| s.secret_name.as_ref()),
            v.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref()).map(|r| &r.name),
            v.azure_file.as_ref().map(|f| &f.secret_name),
            v.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name),
            v.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name),
            v.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name),
            v.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name),
            v.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name),
            v.scale_io.as_ref().map(|s| &s.secret_ref.name),
            v.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name),
        ]);
        names.extend(projected(v).map(|s| s.secret.as_ref().map(|s| &s.name)));
    }
    named(names)
}

/// Names of config maps in a pod's namespace; some may stand twice.
pub fn config_maps(spec: &PodSpec) -> Vec<&str> {
    let mut names: Vec<Option<&String>> = Vec::new();
    for (env, from) in environment(spec) {
        let of = env.iter().filter_map(|e| e.value_from.as_ref()?.config_map_key_ref.as_ref());
        names.extend(of.map(|r| Some(&r.name)));
        names.extend(from.iter().map(|f| f.config_map_ref.as_ref().map(|r| &r.name)));
    }
    for v in spec.volumes.iter().flatten() {
        names.push(v.config_map.as_ref().map(|c| &c.name));
        names.extend(projected(v).map(|s| s.config_map.as_ref().map(|c| &c.name)));
    }
    named(names)
}

fn projected(volume: &Volume) -> impl Iterator<Item = &k8s_openapi::api::core::v1::VolumeProjection> {
    volume.projected.iter().flat_map(|p| p.sources.iter().flatten())
}

/// The claim that a volume is of, if it is of one: named, or the pod's own.
pub fn claim(pod: &str, volume: &Volume) -> Option<String> {
    let own = volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name));
    let named = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    named.or(own).filter(|n| !n.is_empty())
}

/// Names of the resource claims of a pod, those that were made for it among them.
pub fn resource_claims(pod: &Pod) -> Vec<&str> {
    let status = pod.status.as_ref();
    let made = |name: &str| {
        let all = status.and_then(|s| s.resource_claim_statuses.as_ref()).into_iter().flatten();
        all.into_iter().find(|s| s.name == name).and_then(|s| s.resource_claim_name.as_ref())
    };
    let claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    let mut names: Vec<Option<&String>> = claims
        .map(|c| match (&c.resource_claim_name, &c.resource_claim_template_name) {
            (Some(name), _) => Some(name),
            (None, Some(_)) => made(&c.name),
            (None, None) => None,
        })
        .collect();
    let extended = status.and_then(|s| s.extended_resource_claim_status.as_ref());
    names.push(extended.map(|e| &e.resource_claim_name));
    named(names)
}

/// Namespaces and names of the secrets of a volume that its node reads.
pub fn volume_secrets(volume: &PersistentVolume) -> Vec<(&str, &str)> {
    let Some(v) = &volume.spec else { return Vec::new() };
    let claims = v.claim_ref.as_ref().and_then(|c| c.namespace.as_deref()).unwrap_or_default();
    // What was kept before volumes named a namespace means that of the claim.
    fn or<'a>(namespace: &'a Option<String>, claims: &'a str) -> &'a str {
        namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(claims)
    }
    let mut all: Vec<(&str, Option<&String>)> = Vec::new();
    if let Some(f) = &v.azure_file {
        all.push((or(&f.secret_namespace, claims), Some(&f.secret_name)));
    }
    let refs = [
        v.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.scale_io.as_ref().map(|s| &s.secret_ref),
    ];
    all.extend(refs.into_iter().flatten().map(|r| (or(&r.namespace, claims), r.name.as_ref())));
    let exact = [
        v.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.csi.as_ref().and_then(|s| s.node_publish_secret_ref.as_ref()),
        v.csi.as_ref().and_then(|s| s.node_stage_secret_ref.as_ref()),
        v.csi.as_ref().and_then(|s| s.node_expand_secret_ref.as_ref()),
    ];
    all.extend(
        exact.into_iter().flatten().map(|r| (r.namespace.as_deref().unwrap_or_default(), r.name.as_ref())),
    );
    let storageos = v.storageos.as_ref().and_then(|s| s.secret_ref.as_ref());
    all.extend(storageos.map(|r| (r.namespace.as_deref().unwrap_or_default(), r.name.as_ref())));
    let named = |(namespace, name): (_, Option<_>)| name.map(|n: &String| (namespace, n.as_str()));
    all.into_iter().filter_map(named).filter(|(_, name)| !name.is_empty()).collect()
}
