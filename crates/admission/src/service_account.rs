//! A pod runs as a service account that is there, with its token mounted unless it says otherwise.

use crate::{Operation, Plugin, Request};
use api::Status;
use api::object::Object;
use api::pod_references as references;
use api::read;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use std::sync::Arc;

/// See the module.
pub struct ServiceAccounts;

/// Where clients look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// One hour and seven seconds: upstream's, by which its tokens are told from others.
const TOKEN_SECONDS: i64 = 3607;

impl Plugin for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(pod) = object.and_then(|o| o.get_mut::<Pod>()) else { return Ok(()) };
        let is_mirror = references::is_mirror(pod);
        let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
        if is_mirror {
            return mirror(request, spec);
        }
        if spec.service_account_name.as_ref().is_none_or(String::is_empty) {
            spec.service_account_name = Some("default".into());
        }
        spec.service_account.clone_from(&spec.service_account_name);
        let name = spec.service_account_name.clone().unwrap_or_default();
        let account: Arc<ServiceAccount> =
            read::kept(request.reader, request.namespace, &name).ok_or_else(|| {
                request.forbidden(format!(
                    "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                    request.namespace
                ))
            })?;
        let mount =
            spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true);
        if mount {
            mount_token(spec);
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account.image_pull_secrets.clone().filter(|s| !s.is_empty());
        }
        Ok(())
    }
}

/// A mirror pod stands for one that runs without the API, and names nothing of it.
fn mirror(request: &Request<'_>, spec: &PodSpec) -> Result<(), Status> {
    if spec.service_account_name.as_ref().is_some_and(|n| !n.is_empty()) {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    if !references::secrets(spec).is_empty() {
        return Err(request.forbidden("a mirror pod may not reference secrets"));
    }
    let projected = spec.volumes.iter().flatten().filter_map(|v| v.projected.as_ref());
    let mut sources = projected.flat_map(|p| p.sources.iter().flatten());
    if sources.any(|s| s.service_account_token.is_some()) {
        return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn mount_token(spec: &mut PodSpec) {
    let existing = spec
        .volumes
        .iter()
        .flatten()
        .find(|v| v.name.starts_with("kube-api-access-"))
        .map(|v| v.name.clone());
    let name = existing.clone().unwrap_or_else(|| format!("kube-api-access-{}", suffix()));
    let mut needed = false;
    let add = |c: &mut Container| {
        let mounts = c.volume_mounts.get_or_insert_default();
        let has = mounts.iter().any(|m| m.mount_path == MOUNT_PATH);
        if !has {
            mounts.push(VolumeMount {
                name: name.clone(),
                mount_path: MOUNT_PATH.into(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
        !has
    };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        needed |= add(container);
    }
    if needed && existing.is_none() {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

fn token_volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".into(),
            expiration_seconds: Some(TOKEN_SECONDS),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let root = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".into(),
            items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".into(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: "metadata.namespace".into(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, root, namespace]),
        }),
        ..Volume::default()
    }
}

/// Five characters, as generated names end with.
fn suffix() -> String {
    api::names::random_suffix(&mut rand::rng(), 5)
}
