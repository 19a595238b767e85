//! Static pods: manifests in a directory (or one file), watched for changes.

use crate::config::Config;
use crate::pod;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sys::inotify::{Interest, Watcher};
use tokio::sync::mpsc;
use tracing::warn;

/// How long a change may be followed by others before the directory is read.
const SETTLE: Duration = Duration::from_millis(20);

/// Sends all static pods, at first and whenever the files change, until the receiver is gone.
pub async fn watch(config: Config, out: mpsc::Sender<Vec<Arc<Pod>>>) {
    let Some(path) = config.static_pod_path.clone() else { return };
    loop {
        // watching begins before reading, so that no change falls between
        let watcher = Watcher::new().and_then(|w| w.add(&path, Interest::Entries).map(|()| w));
        let (own, node) = (path.clone(), config.node_name.clone());
        match crate::blocking::quick(move || read(&own, &node)).await {
            Ok(pods) => {
                if out.send(pods).await.is_err() {
                    return;
                }
            }
            Err(e) => warn!(error = %e, "static pod manifests could not be read"),
        }
        let changed = async {
            match &watcher {
                Ok(w) => {
                    // now and then without a sign: the directory itself may be another by now
                    let _ = tokio::time::timeout(config.file_check_frequency, w.changed()).await;
                    tokio::time::sleep(SETTLE).await;
                }
                // the directory may come later
                Err(_) => tokio::time::sleep(config.file_check_frequency).await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = out.closed() => return,
        }
    }
}

/// Reads all manifests; those that are none are told of and passed over.
fn read(path: &Path, node: &str) -> Vec<Arc<Pod>> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect(),
        Err(_) if path.is_file() => vec![path.to_owned()],
        Err(_) => Vec::new(),
    };
    files.retain(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    files.sort();
    let mut pods = BTreeMap::new();
    for f in files {
        let text = match std::fs::read_to_string(&f) {
            Ok(t) => t,
            Err(e) => {
                warn!(file = %f.display(), error = %e, "static pod manifest cannot be read");
                continue;
            }
        };
        match parse(&text, &f, node) {
            Ok(p) => {
                pods.insert(p.metadata.uid.clone(), Arc::new(p));
            }
            Err(e) => warn!(file = %f.display(), error = e, "not a static pod"),
        }
    }
    pods.into_values().collect()
}

/// Reads one manifest and gives it what a pod needs that no API server has seen.
fn parse(text: &str, file: &Path, node: &str) -> Result<Pod, String> {
    let value: serde_json::Value = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    if value.get("kind").and_then(|k| k.as_str()) != Some("Pod")
        || value.get("apiVersion").and_then(|v| v.as_str()) != Some("v1")
    {
        return Err("want apiVersion v1, kind Pod".into());
    }
    let mut p: Pod = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let name = p.metadata.name.clone().filter(|n| !n.is_empty()).ok_or("metadata.name is missing")?;
    let spec = p.spec.as_mut().filter(|s| !s.containers.is_empty()).ok_or("spec.containers is empty")?;
    spec.node_name = Some(node.to_owned());
    default_spec(spec);
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    });
    let m = &mut p.metadata;
    m.name = Some(format!("{name}-{}", node.to_ascii_lowercase()));
    m.namespace.get_or_insert_with(|| "default".into());
    if m.uid.as_ref().is_none_or(String::is_empty) {
        m.uid = Some(hash(&[text.as_bytes(), node.as_bytes(), file.to_string_lossy().as_bytes()]));
    }
    let uid = m.uid.clone().unwrap_or_default();
    if !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) || uid.starts_with('.') {
        return Err(format!("metadata.uid {uid:?} is no name for a directory"));
    }
    let a = m.annotations.get_or_insert_default();
    a.insert(pod::HASH_ANNOTATION.into(), uid);
    a.insert(pod::SOURCE_ANNOTATION.into(), "file".into());
    a.insert(pod::SEEN_ANNOTATION.into(), jiff::Timestamp::now().to_string());
    Ok(p)
}

/// The defaults that the API server would have set.
fn default_spec(spec: &mut k8s_openapi::api::core::v1::PodSpec) {
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
    spec.security_context.get_or_insert_default();
    for c in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        c.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        c.termination_message_policy.get_or_insert_with(|| "File".into());
        let image = c.image.clone().unwrap_or_default();
        let latest = crate::images::full_name(&image).is_ok_and(|n| n.ends_with(":latest"));
        c.image_pull_policy.get_or_insert_with(|| if latest { "Always" } else { "IfNotPresent" }.into());
        for p in c.ports.iter_mut().flatten() {
            p.protocol.get_or_insert_with(|| "TCP".into());
            if spec.host_network == Some(true) {
                p.host_port.get_or_insert(p.container_port);
            }
        }
    }
    for v in spec.volumes.iter_mut().flatten() {
        if v == &(k8s_openapi::api::core::v1::Volume { name: v.name.clone(), ..Default::default() }) {
            v.empty_dir = Some(Default::default());
        }
    }
}

/// 128 bits as hexadecimal, the form of a uid made from a file.
fn hash(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for p in parts {
        context.update(p);
        context.update(&[0]);
    }
    context.finish().as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodExt;

    #[test]
    fn manifests() {
        let good = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: nginx}], volumes: [{name: v}]}\n";
        let p = parse(good, "/m/a.yaml".as_ref(), "Node-1").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((p.name(), p.namespace(), p.uid().len()), ("a-node-1", "default", 32));
        assert!(p.is_static() && p.spec().volumes.iter().flatten().all(|v| v.empty_dir.is_some()));
        let other = parse(&good.replace("nginx", "busybox"), "/m/a.yaml".as_ref(), "Node-1")
            .unwrap_or_else(|e| panic!("{e}"));
        assert_ne!(p.uid(), other.uid());
        for bad in [
            "",
            "kind: Pod",
            "apiVersion: v1\nkind: Service\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
            "{",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, uid: ../../x}\nspec: {containers: [{name: c}]}\n",
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: c}]}\n",
        ] {
            assert!(parse(bad, "/m".as_ref(), "n").is_err(), "{bad}");
        }
    }
}
