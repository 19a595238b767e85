//! Several sources in one directory, tokens of the pod's service account among them.

use super::atomic_writer::{self, File, Payload};
use super::{SetUpError, config_map, downward, secret};
use crate::context::Context;
use crate::pod::PodExt;
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource};
use std::time::Duration;

/// The volume's files, and in what time its tokens should be renewed.
pub(crate) async fn files(
    cx: &Context,
    pod: &Pod,
    source: &ProjectedVolumeSource,
) -> Result<(Payload, Option<Duration>), SetUpError> {
    let mode = config_map::mode(source.default_mode);
    let ns = pod.namespace();
    let mut files = Payload::new();
    let mut renew: Option<Duration> = None;
    for s in source.sources.iter().flatten() {
        if let Some(c) = &s.config_map {
            let optional = c.optional == Some(true);
            let map = match cx.objects.config_map(ns, &c.name).await {
                Err(e) if optional && e.is_not_found() => Default::default(),
                other => other?,
            };
            files.extend(config_map::payload(&map, c.items.as_deref(), mode, optional, &c.name)?);
        }
        if let Some(c) = &s.secret {
            let optional = c.optional == Some(true);
            let got = match cx.objects.secret(ns, &c.name).await {
                Err(e) if optional && e.is_not_found() => Default::default(),
                other => other?,
            };
            files.extend(secret::payload(&got, c.items.as_deref(), mode, optional, &c.name)?);
        }
        if let Some(d) = &s.downward_api {
            files.extend(downward::payload(cx, pod, d.items.as_deref().unwrap_or_default(), mode)?);
        }
        if let Some(t) = &s.service_account_token {
            let (token, next) = cx
                .objects
                .token(pod, t.audience.as_deref().unwrap_or(""), t.expiration_seconds.unwrap_or(3600))
                .await?;
            renew = Some(renew.map_or(next, |r| r.min(next)));
            let owner = only_user(pod);
            let fs_group = pod.spec().security_context.as_ref().is_some_and(|c| c.fs_group.is_some());
            // whoever else runs in the pod must not read a token that has one owner
            let mode = if owner.is_some() || fs_group { 0o600 } else { mode };
            atomic_writer::check_path(&t.path)?;
            files.insert(t.path.clone(), File { data: token.into_bytes(), mode, owner });
        }
        if s.pod_certificate.is_some() {
            return Err(SetUpError::Unsupported("podCertificate source".into()));
        }
        if let Some(b) = &s.cluster_trust_bundle {
            atomic_writer::check_path(&b.path)?;
            let pem = cx.objects.trust_bundle(b).await?;
            files.insert(b.path.clone(), File { data: pem.into_bytes(), mode, owner: None });
        }
    }
    Ok((files, renew))
}

/// The user all containers run as, when the pod says one.
fn only_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec().security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users =
        pod.containers().map(|(_, c)| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok())?
}
