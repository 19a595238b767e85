//! Images: pulled when a container's policy says so, with back-off, one pull per image at a time.

use crate::context::Context;
use crate::pod::PodExt;
use crate::runtime::security::ImageUser;
use base64::Engine;
use cri::types::{AuthConfig, Image, ImageSpec, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tracing::{info, warn};

/// Back-off between failed pulls of one image for one pod.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LAST_BACKOFF: Duration = Duration::from_secs(300);
/// Where it is written down who pulled what.
const RECORDS: &str = "pulled_images.json";

/// Why an image is not here; the reason is what the container waits with.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has such a name.
    #[error("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {why}")]
    InvalidName {
        /// As given.
        image: String,
        /// What is wrong.
        why: &'static str,
    },
    /// It is not here and may not be pulled.
    #[error("Container image {image:?} is not present with pull policy of Never")]
    NeverPull {
        /// Which.
        image: String,
    },
    /// The runtime could not tell.
    #[error("Failed to inspect image {image:?}: {source}")]
    Inspect {
        /// Which.
        image: String,
        /// Why.
        source: cri::Error,
    },
    /// It could not be pulled.
    #[error("{message}")]
    Pull {
        /// Which.
        image: String,
        /// What the runtime says.
        message: String,
    },
    /// It could not be pulled a moment ago.
    #[error("Back-off pulling image {image:?}: {reason}: {message}")]
    BackOff {
        /// Which.
        image: String,
        /// The reason of the last failure.
        reason: &'static str,
        /// What it said.
        message: String,
        /// When to try again.
        until: Instant,
    },
}

impl ImageError {
    /// What the container waits with.
    pub fn reason(&self) -> &'static str {
        match self {
            ImageError::InvalidName { .. } => "InvalidImageName",
            ImageError::NeverPull { .. } => "ErrImageNeverPull",
            ImageError::Inspect { .. } => "ImageInspectError",
            ImageError::Pull { message, .. } if message.contains("signature") => "SignatureValidationFailed",
            ImageError::Pull { .. } => "ErrImagePull",
            ImageError::BackOff { .. } => "ImagePullBackOff",
        }
    }
}

/// An image that is here.
#[derive(Clone, Debug)]
pub struct Present {
    /// The runtime's id, to create containers from.
    pub id: String,
    /// The user it says to run as.
    pub user: ImageUser,
}

#[derive(Debug)]
struct Failure {
    until: Instant,
    pause: Duration,
    reason: &'static str,
    message: String,
}

/// How an image came here that the kubelet pulled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pulled {
    /// Nobody had to say who he is.
    anonymous: bool,
    /// Digests of the logins that the registry took.
    logins: BTreeSet<String>,
}

/// What stands for a login where it is remembered.
fn digest(auth: &AuthConfig) -> String {
    let parts = [&auth.username, &auth.password, &auth.auth, &auth.identity_token, &auth.registry_token];
    let text = parts.iter().map(|p| format!("{}:{p}", p.len())).collect::<String>();
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether a pod with these logins may run an image that is here. One that somebody had to show a login for is his; one
/// that was here before is everybody's.
fn may_run(pulled: Option<&Pulled>, logins: &[AuthConfig]) -> bool {
    pulled.is_none_or(|p| p.anonymous || logins.iter().any(|l| p.logins.contains(&digest(l))))
}

/// Pulls images and remembers which failed and which were used.
#[derive(Debug)]
pub(crate) struct Images {
    /// Who pulled what; read when it is first asked for.
    pulled: tokio::sync::Mutex<Option<BTreeMap<String, Pulled>>>,
    slots: Semaphore,
    pulling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    failures: Mutex<HashMap<(String, String), Failure>>,
    seen: Mutex<HashMap<String, Instant>>,
}

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Images {
    /// At most `parallel` pulls at a time.
    pub fn new(parallel: usize) -> Self {
        Images {
            pulled: Default::default(),
            slots: Semaphore::new(parallel),
            pulling: Mutex::default(),
            failures: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Sees to it that a container's image is here.
    pub(crate) async fn ensure(
        &self,
        cx: &Context,
        pod: &Pod,
        c: &Container,
        sandbox: &PodSandboxConfig,
    ) -> Result<Present, ImageError> {
        let path = crate::events::container_path(pod, &c.name);
        let wanted = c.image.as_deref().unwrap_or("").trim();
        self.get(cx, pod, wanted, c.image_pull_policy.as_deref(), &path, sandbox).await
    }

    /// Sees to it that an image is here that is mounted as a volume.
    pub(crate) async fn ensure_volume(
        &self,
        cx: &Context,
        pod: &Pod,
        source: &ImageVolumeSource,
        sandbox: &PodSandboxConfig,
    ) -> Result<Present, ImageError> {
        let wanted = source.reference.as_deref().unwrap_or("").trim();
        self.get(cx, pod, wanted, source.pull_policy.as_deref(), "", sandbox).await
    }

    async fn get(
        &self,
        cx: &Context,
        pod: &Pod,
        wanted: &str,
        policy: Option<&str>,
        path: &str,
        sandbox: &PodSandboxConfig,
    ) -> Result<Present, ImageError> {
        let image = full_name(wanted).inspect_err(|e| {
            cx.events.container(pod, path, "Warning", "InspectFailed", &e.to_string());
        })?;
        let spec =
            ImageSpec { image: image.clone(), user_specified_image: wanted.to_owned(), ..Default::default() };
        let policy = policy.filter(|p| !p.is_empty()).unwrap_or_else(|| default_policy(&image));
        let here = cx.runtime.image_status(spec.clone()).await.map_err(|source| {
            cx.events.container(
                pod,
                path,
                "Warning",
                "InspectFailed",
                &format!("Failed to inspect image {wanted:?}: {source}"),
            );
            ImageError::Inspect { image: wanted.into(), source }
        })?;
        let here = match here {
            Some(i) if policy != "Always" && !self.is_allowed(cx, pod, &image, &i.id).await => None,
            other => other,
        };
        match (policy, here) {
            ("Never", None) => {
                let e = ImageError::NeverPull { image: wanted.into() };
                cx.events.container(pod, path, "Warning", "ErrImageNeverPull", &e.to_string());
                return Err(e);
            }
            ("Never" | "IfNotPresent", Some(found)) => {
                let note = format!(
                    "Container image {wanted:?} already present on machine and can be accessed by the pod"
                );
                cx.events.container(pod, path, "Normal", "Pulled", &note);
                return Ok(present(found));
            }
            _ => {}
        }
        self.pull(cx, pod, spec, wanted, path, sandbox).await
    }

    async fn pull(
        &self,
        cx: &Context,
        pod: &Pod,
        spec: ImageSpec,
        wanted: &str,
        path: &str,
        sandbox: &PodSandboxConfig,
    ) -> Result<Present, ImageError> {
        let key = (pod.uid().to_owned(), spec.image.clone());
        if let Some(f) = locked(&self.failures).get(&key).filter(|f| f.until > Instant::now()) {
            let e = ImageError::BackOff {
                image: wanted.into(),
                reason: f.reason,
                message: f.message.clone(),
                until: f.until,
            };
            cx.events.container(
                pod,
                path,
                "Normal",
                "BackOff",
                &format!("Back-off pulling image {wanted:?}"),
            );
            return Err(e);
        }
        let one = locked(&self.pulling).entry(spec.image.clone()).or_default().clone();
        let asked = Instant::now();
        let guard = one.lock().await;
        cx.events.container(pod, path, "Normal", "Pulling", &format!("Pulling image {wanted:?}"));
        let result = self.pull_with_secrets(cx, pod, &spec, sandbox).await;
        drop(guard);
        locked(&self.pulling).retain(|_, m| Arc::strong_count(m) > 1);
        match result {
            Ok((image_ref, login)) => {
                locked(&self.failures).remove(&key);
                let by_ref = ImageSpec { image: image_ref, ..Default::default() };
                let found = cx.runtime.image_status(by_ref).await.ok().flatten();
                let found = match found {
                    Some(i) => i,
                    None => cx.runtime.image_status(spec).await.ok().flatten().unwrap_or_default(),
                };
                let id = found.id.clone();
                self.records(cx, |records| {
                    let record = records.entry(id).or_default();
                    match &login {
                        Some(l) => drop(record.logins.insert(digest(l))),
                        None => record.anonymous = true,
                    }
                })
                .await;
                let took = format!("{:.3}s", asked.elapsed().as_secs_f64());
                let note = format!(
                    "Successfully pulled image {wanted:?} in {took} ({took} including waiting). Image size: {} bytes.",
                    found.size
                );
                cx.events.container(pod, path, "Normal", "Pulled", &note);
                Ok(present(found))
            }
            Err(e) => {
                let message = e.to_string();
                let e = ImageError::Pull { image: wanted.into(), message };
                warn!(image = wanted, error = %e, "image pull failed");
                cx.events.container(
                    pod,
                    path,
                    "Warning",
                    "Failed",
                    &format!("Failed to pull image {wanted:?}: {e}"),
                );
                cx.events.container(pod, path, "Warning", "Failed", &format!("Error: {}", e.reason()));
                let mut failures = locked(&self.failures);
                let pause = failures.get(&key).map_or(FIRST_BACKOFF, |f| (f.pause * 2).min(LAST_BACKOFF));
                let until = Instant::now() + pause;
                failures.insert(key, Failure { until, pause, reason: e.reason(), message: e.to_string() });
                Err(e)
            }
        }
    }

    /// The logins that a pod has for an image.
    async fn logins(&self, cx: &Context, pod: &Pod, image: &str) -> Vec<AuthConfig> {
        let mut logins = Vec::new();
        for r in pod.spec().image_pull_secrets.iter().flatten() {
            match cx.objects.secret(pod.namespace(), &r.name).await {
                Ok(secret) => {
                    let data =
                        |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
                    if let Some(json) = data(".dockerconfigjson").or_else(|| data(".dockercfg")) {
                        logins.extend(credentials(json, image));
                    }
                }
                Err(e) => info!(secret = r.name, error = %e, "an image pull secret could not be had"),
            }
        }
        logins
    }

    /// What is remembered of pulls, to be read or changed.
    async fn records<T>(&self, cx: &Context, f: impl FnOnce(&mut BTreeMap<String, Pulled>) -> T) -> T {
        let mut held = self.pulled.lock().await;
        let path = cx.config.root_dir.join(RECORDS);
        if held.is_none() {
            let own = path.clone();
            let read = crate::blocking::quick(move || std::fs::read(own)).await.and_then(|r| r);
            *held = Some(read.ok().and_then(|data| serde_json::from_slice(&data).ok()).unwrap_or_default());
        }
        let records = held.get_or_insert_default();
        let before = records.clone();
        let answer = f(records);
        if *records != before {
            let data = serde_json::to_vec(&*records).unwrap_or_default();
            let written = crate::blocking::quick(move || {
                let new = path.with_extension("new");
                std::fs::write(&new, data)?;
                std::fs::rename(new, path)
            });
            if let Err(e) = written.await.and_then(|r| r) {
                warn!(error = %e, "who pulled which image could not be written down");
            }
        }
        answer
    }

    async fn is_allowed(&self, cx: &Context, pod: &Pod, image: &str, id: &str) -> bool {
        if !cx.config.verify_pulled_images {
            return true;
        }
        let pulled = self.records(cx, |r| r.get(id).cloned()).await;
        match pulled {
            Some(p) if !p.anonymous => may_run(Some(&p), &self.logins(cx, pod, image).await),
            _ => true,
        }
    }

    async fn pull_with_secrets(
        &self,
        cx: &Context,
        pod: &Pod,
        spec: &ImageSpec,
        sandbox: &PodSandboxConfig,
    ) -> Result<(String, Option<AuthConfig>), cri::Error> {
        let _slot = self.slots.acquire().await;
        let logins = self.logins(cx, pod, &spec.image).await;
        let mut last = None;
        for auth in logins.into_iter().map(Some).chain([None]) {
            match cx.runtime.pull_image(spec.clone(), auth.clone(), sandbox.clone()).await {
                Ok(image_ref) => return Ok((image_ref, auth)),
                // the failure with credentials says more than the one without
                Err(e) if auth.is_none() && last.is_some() => drop(e),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or(cri::Error::Incomplete("PullImage", "a result")))
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        locked(&self.failures).retain(|(pod, _), _| pod != uid);
    }

    /// Removes images nobody uses, longest unused first, when their disk is fuller than the operator
    /// wants; answers what was removed in bytes.
    pub async fn collect_garbage(&self, cx: &Context) -> Result<u64, cri::Error> {
        let images = cx.runtime.list_images().await?;
        let used: HashSet<String> = cx
            .runtime
            .list_containers(None)
            .await?
            .into_iter()
            .flat_map(|c| [c.image_ref, c.image_id, c.image.map(|i| i.image).unwrap_or_default()])
            .collect();
        self.records(cx, |r| r.retain(|id, _| images.iter().any(|i| i.id == *id))).await;
        let now = Instant::now();
        let in_use = |i: &Image| {
            used.contains(&i.id) || i.repo_digests.iter().chain(&i.repo_tags).any(|n| used.contains(n))
        };
        let mut idle = Vec::new();
        {
            let mut seen = locked(&self.seen);
            seen.retain(|id, _| images.iter().any(|i| i.id == *id));
            for i in &images {
                let last = seen.entry(i.id.clone()).or_insert(now);
                if in_use(i) {
                    *last = now;
                } else if !i.pinned && !i.repo_tags.contains(&cx.config.pause_image) {
                    idle.push((*last, i.clone()));
                }
            }
        }
        let Some(fs) = cx.runtime.image_fs_info().await?.into_iter().next() else { return Ok(0) };
        let mount = fs.fs_id.map(|f| f.mountpoint).unwrap_or_default();
        let looked = crate::blocking::quick(move || sys::mount::usage(mount.as_ref())).await;
        let Ok(Ok(usage)) = looked else { return Ok(0) };
        let percent = 100 - (usage.available * 100).checked_div(usage.capacity).unwrap_or(100);
        if percent < u64::from(cx.config.image_gc_high) {
            return Ok(0);
        }
        let keep = usage.capacity / 100 * u64::from(100 - cx.config.image_gc_low);
        let to_free = keep.saturating_sub(usage.available);
        idle.sort_by_key(|(last, _)| *last);
        let mut freed = 0;
        for (last, image) in idle {
            if freed >= to_free {
                break;
            }
            if now.duration_since(last) < cx.config.image_gc_min_age {
                continue;
            }
            match cx.runtime.remove_image(&image.id).await {
                Ok(()) => freed += image.size,
                Err(e) => warn!(image = image.id, error = %e, "image could not be removed"),
            }
        }
        if freed < to_free {
            let note = format!(
                "Failed to garbage collect required amount of images. Attempted to free {to_free} bytes, but only found {freed} bytes eligible to free."
            );
            cx.events.node("Warning", "FreeDiskSpaceFailed", &note);
        }
        Ok(freed)
    }
}

fn present(i: Image) -> Present {
    let uid = i.uid.map(|u| u.value);
    // an image that names nobody runs as root
    let uid = if uid.is_none() && i.username.is_empty() { Some(0) } else { uid };
    Present { id: i.id, user: ImageUser { uid, name: i.username } }
}

fn default_policy(image: &str) -> &'static str {
    if image.ends_with(":latest") { "Always" } else { "IfNotPresent" }
}

/// The whole name of an image: registry, path and tag or digest.
pub fn full_name(image: &str) -> Result<String, ImageError> {
    let invalid = |why| Err(ImageError::InvalidName { image: image.to_owned(), why });
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let path_start = name.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match name[path_start..].rfind(':') {
        Some(i) => (&name[..path_start + i], Some(&name[path_start + i + 1..])),
        None => (name, None),
    };
    if repository.is_empty() || tag == Some("") || digest == Some("") {
        return invalid("invalid reference format");
    }
    let (first, rest) = repository.split_once('/').unwrap_or(("", repository));
    let has_registry = first.contains(['.', ':']) || first == "localhost";
    let path = if has_registry { rest } else { repository };
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return invalid("invalid reference format: repository name must be lowercase");
    }
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if path.is_empty()
        || !path.bytes().all(ok)
        || path.split('/').any(|p| !p.starts_with(|c: char| c.is_ascii_alphanumeric()))
    {
        return invalid("invalid reference format");
    }
    let repository = match (has_registry, repository.contains('/')) {
        (true, _) => repository.to_owned(),
        (false, true) => format!("docker.io/{repository}"),
        (false, false) => format!("docker.io/library/{repository}"),
    };
    Ok(match (tag, digest) {
        (Some(t), Some(d)) => format!("{repository}:{t}@{d}"),
        (None, Some(d)) => format!("{repository}@{d}"),
        (t, None) => format!("{repository}:{}", t.unwrap_or("latest")),
    })
}

/// The logins in a docker configuration that fit an image.
fn credentials(json: &[u8], image: &str) -> Vec<AuthConfig> {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(json) else { return Vec::new() };
    let auths = value.get("auths").unwrap_or(&value);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for (registry, login) in auths.as_object().into_iter().flatten() {
        let Some(length) = registry_matches(registry, image) else { continue };
        let text = |k: &str| login.get(k).and_then(|v| v.as_str()).unwrap_or("").to_owned();
        let (mut username, mut password) = (text("username"), text("password"));
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth").trim()).ok();
        if let Some((u, p)) = decoded
            .and_then(|d| String::from_utf8(d).ok())
            .and_then(|t| t.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned())))
        {
            (username, password) = (u, p);
        }
        let auth = AuthConfig {
            username,
            password,
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
            ..Default::default()
        };
        found.push((length, auth));
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, a)| a).collect()
}

/// How well a registry entry fits an image: the length of the match, `None` when it does not.
fn registry_matches(entry: &str, image: &str) -> Option<usize> {
    let entry = entry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let entry = entry.strip_suffix("/v1").or_else(|| entry.strip_suffix("/v2")).unwrap_or(entry);
    let entry = if entry == "index.docker.io" { "docker.io" } else { entry };
    let (want_host, want_path) = entry.split_once('/').unwrap_or((entry, ""));
    let (host, path) = image.split_once('/')?;
    let wants: Vec<&str> = want_host.split('.').collect();
    let parts: Vec<&str> = host.split('.').collect();
    let host_fits = wants.len() == parts.len() && wants.iter().zip(&parts).all(|(w, p)| glob(w, p));
    let path_fits = want_path.is_empty() || path.starts_with(want_path);
    (host_fits && path_fits).then_some(entry.len())
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
        None => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (given, want) in [
            ("nginx", Some("docker.io/library/nginx:latest")),
            ("nginx:1.7.9", Some("docker.io/library/nginx:1.7.9")),
            ("a/b", Some("docker.io/a/b:latest")),
            ("172.17.4.1:5000/my-app:0.1", Some("172.17.4.1:5000/my-app:0.1")),
            ("localhost/x", Some("localhost/x:latest")),
            ("gcr.io/x@sha256:ab", Some("gcr.io/x@sha256:ab")),
            ("Nginx", None),
            ("", None),
            ("a:", None),
            ("a//b", None),
            ("a b", None),
        ] {
            assert_eq!(full_name(given).ok().as_deref(), want, "{given}");
        }
    }

    #[test]
    fn a_private_image_is_for_those_with_its_login() {
        let login = |u: &str| AuthConfig { username: u.into(), password: "p".into(), ..Default::default() };
        let private = Pulled { anonymous: false, logins: [digest(&login("a"))].into() };
        let open = Pulled { anonymous: true, ..private.clone() };
        for (pulled, logins, want) in [
            (None, vec![], true),
            (Some(&open), vec![], true),
            (Some(&private), vec![], false),
            (Some(&private), vec![login("b")], false),
            (Some(&private), vec![login("b"), login("a")], true),
        ] {
            assert_eq!(may_run(pulled, &logins), want, "{pulled:?} {logins:?}");
        }
        let shifted = AuthConfig { username: "ap".into(), ..Default::default() };
        assert_ne!(digest(&login("a")), digest(&shifted));
    }

    #[tokio::test]
    async fn who_pulled_what_outlives_the_kubelet() {
        let fake = crate::fake::Fake::start();
        let cx = fake.context();
        cx.images
            .records(&cx, |r| r.insert("i".into(), Pulled { anonymous: true, ..Default::default() }))
            .await;
        let next = Images::new(1);
        assert!(next.records(&cx, |r| r.contains_key("i")).await);
    }

    #[test]
    fn logins() {
        let json = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"*.gcr.io":{"username":"g","password":"q"},"reg:5000/team":{"username":"t","password":"r"}}}"#;
        let user = |image: &str| credentials(json, image).into_iter().map(|a| a.username).collect::<Vec<_>>();
        assert_eq!(user("docker.io/library/nginx:latest"), ["u"]);
        assert_eq!(user("eu.gcr.io/x:1"), ["g"]);
        assert_eq!(user("reg:5000/team/x:1"), ["t"]);
        assert!(user("reg:5000/other/x:1").is_empty());
        assert!(credentials(b"no json", "a/b").is_empty());
    }
}
