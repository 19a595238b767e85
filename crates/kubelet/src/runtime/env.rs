//! A container's environment: service variables, whole config maps and secrets, single values.

use super::expand::expand;
use crate::context::Context;
use crate::objects::ObjectError;
use crate::pod::PodExt;
use crate::quantity::{self, Amount};
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why an environment cannot be made; the container waits with CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// A config map or secret could not be had.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// ConfigMap or Secret.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field the downward API does not offer.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A resource the downward API does not offer.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// A file of variables that cannot be read.
    #[error("environment variable key {key:?} not found in file {path:?}")]
    File {
        /// The key.
        key: String,
        /// The file.
        path: String,
    },
}

/// Addresses a pod has, for the downward API.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Of the pod.
    pub pod: Vec<String>,
    /// Of the node.
    pub host: Vec<String>,
}

/// A container's variables in order, and the names that were left out as no valid names.
pub async fn resolve(
    cx: &Context,
    pod: &Pod,
    c: &Container,
    addresses: &Addresses,
) -> Result<(Vec<(String, String)>, Vec<String>), EnvError> {
    let mut skipped = Vec::new();
    let mut found: Vec<(String, String)> = Vec::new();
    let ns = pod.namespace();
    let services =
        service_variables(&cx.objects.services(ns)?, ns, pod.spec().enable_service_links != Some(false));
    for from in c.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let mut pairs = BTreeMap::new();
        if let Some(r) = &from.config_map_ref
            && let Some(m) = optional(cx.objects.config_map(ns, &r.name).await, r.optional)?
        {
            pairs.extend(m.data.clone().unwrap_or_default());
        }
        if let Some(r) = &from.secret_ref
            && let Some(s) = optional(cx.objects.secret(ns, &r.name).await, r.optional)?
        {
            let data = s.data.iter().flatten();
            pairs.extend(data.map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())));
        }
        for (k, v) in pairs {
            let name = format!("{prefix}{k}");
            if valid_name(&name) { set(&mut found, name, v) } else { skipped.push(name) }
        }
    }
    for e in c.env.iter().flatten() {
        let value = match &e.value_from {
            Some(from) => match value_from(cx, pod, c, from, addresses).await? {
                Some(v) => v,
                None => continue,
            },
            None => {
                let lookup = |n: &str| get(&found, n).or_else(|| get(&services, n));
                expand(e.value.as_deref().unwrap_or(""), lookup)
            }
        };
        set(&mut found, e.name.clone(), value);
    }
    for (k, v) in services {
        if !found.iter().any(|(have, _)| *have == k) {
            found.push((k, v));
        }
    }
    Ok((found, skipped))
}

fn get(list: &[(String, String)], name: &str) -> Option<String> {
    list.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
}

fn set(list: &mut Vec<(String, String)>, name: String, value: String) {
    match list.iter_mut().find(|(k, _)| *k == name) {
        Some((_, v)) => *v = value,
        None => list.push((name, value)),
    }
}

/// Any printable ASCII but `=` may be in a name.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn optional<T>(got: Result<T, ObjectError>, optional: Option<bool>) -> Result<Option<T>, ObjectError> {
    match got {
        Err(e) if e.is_not_found() && optional == Some(true) => Ok(None),
        other => other.map(Some),
    }
}

async fn value_from(
    cx: &Context,
    pod: &Pod,
    c: &Container,
    from: &EnvVarSource,
    addresses: &Addresses,
) -> Result<Option<String>, EnvError> {
    let ns = pod.namespace();
    let no_key = |kind, name: &str, key: &str| EnvError::NoKey {
        kind,
        namespace: ns.into(),
        name: name.into(),
        key: key.into(),
    };
    if let Some(f) = &from.field_ref {
        return field(cx, pod, &f.field_path, addresses).map(Some);
    }
    if let Some(r) = &from.resource_field_ref {
        let of = match r.container_name.as_deref().filter(|n| !n.is_empty() && *n != c.name) {
            Some(name) => {
                pod.container(name).map(|(_, c)| c).ok_or_else(|| EnvError::Resource(name.into()))?
            }
            None => c.clone(),
        };
        let divisor = r.divisor.as_ref().and_then(|d| quantity::parse(&d.0)).unwrap_or_default();
        return resource(cx, &of, &r.resource, divisor).map(Some);
    }
    if let Some(r) = &from.config_map_key_ref {
        let Some(m) = optional(cx.objects.config_map(ns, &r.name).await, r.optional)? else {
            return Ok(None);
        };
        return match m.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(v) => Ok(Some(v.clone())),
            None if r.optional == Some(true) => Ok(None),
            None => Err(no_key("ConfigMap", &r.name, &r.key)),
        };
    }
    if let Some(r) = &from.secret_key_ref {
        let Some(s) = optional(cx.objects.secret(ns, &r.name).await, r.optional)? else { return Ok(None) };
        return match s.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(v) => Ok(Some(String::from_utf8_lossy(&v.0).into_owned())),
            None if r.optional == Some(true) => Ok(None),
            None => Err(no_key("Secret", &r.name, &r.key)),
        };
    }
    if let Some(r) = &from.file_key_ref {
        let text = match crate::volumes::volume_path(&cx.config, pod, &r.volume_name) {
            Some(volume) => file_of(volume, r.path.clone()).await,
            None => None,
        };
        let value = text.as_deref().and_then(|t| env_file_value(t, &r.key));
        return match value {
            None if r.optional != Some(true) => {
                Err(EnvError::File { key: r.key.clone(), path: r.path.clone() })
            }
            found => Ok(found),
        };
    }
    Ok(None)
}

/// How much a file of variables may weigh.
const MAX_FILE: u64 = 64 << 10;

/// The text of a file that a container left in a volume: what it is and where links in it lead is the container's
/// doing, so only a regular file within the volume counts, and looking never waits.
async fn file_of(volume: PathBuf, path: String) -> Option<String> {
    let read = move || sys::dir::read_beneath(&volume, path.trim_start_matches('/').as_ref(), MAX_FILE);
    let data = crate::blocking::quick(read).await.and_then(|r| r);
    data.inspect_err(|e| tracing::debug!(error = %e, "a file of variables cannot be read"))
        .ok()
        .and_then(|d| String::from_utf8(d).ok())
}

/// The value of a key in a file of `KEY='value'` lines.
fn env_file_value(text: &str, key: &str) -> Option<String> {
    text.lines().filter(|l| !l.trim_start().starts_with('#')).find_map(|l| {
        let (k, v) = l.split_once('=')?;
        let v = v.trim();
        let v = v.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(v);
        (k.trim() == key).then(|| v.to_owned())
    })
}

/// One field of the pod, as the downward API names it.
pub fn field(cx: &Context, pod: &Pod, path: &str, addresses: &Addresses) -> Result<String, EnvError> {
    let subscript =
        |of: &str| path.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']").map(str::to_owned);
    if let Some(key) = subscript("metadata.annotations") {
        return Ok(pod.annotations().get(&key).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript("metadata.labels") {
        return Ok(pod.labels().get(&key).cloned().unwrap_or_default());
    }
    let lines = |m: &BTreeMap<String, String>| {
        m.iter().map(|(k, v)| format!("{k}={}", quote(v))).collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => pod.name().into(),
        "metadata.namespace" => pod.namespace().into(),
        "metadata.uid" => pod.uid().into(),
        "metadata.labels" => lines(pod.labels()),
        "metadata.annotations" => lines(pod.annotations()),
        "spec.nodeName" => cx.config.node_name.clone(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "spec.restartPolicy" => pod.restart_policy().into(),
        "status.hostIP" => addresses.host.first().cloned().unwrap_or_default(),
        "status.hostIPs" => addresses.host.join(","),
        "status.podIP" => addresses.pod.first().cloned().unwrap_or_default(),
        "status.podIPs" => addresses.pod.join(","),
        _ => return Err(EnvError::Field(path.into())),
    })
}

/// Go's `%q` of a string, as downward files show labels.
fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// One request or limit of a container, in units of `divisor` and rounded up. What is not limited is
/// limited by the node.
pub fn resource(cx: &Context, c: &Container, name: &str, divisor: Amount) -> Result<String, EnvError> {
    let (list, resource) = name.split_once('.').ok_or_else(|| EnvError::Resource(name.into()))?;
    let lists = c.resources.as_ref();
    let mut amount = match list {
        "limits" => quantity::of(lists.and_then(|r| r.limits.as_ref()), resource),
        "requests" => {
            let requests = lists.and_then(|r| r.requests.as_ref());
            match requests.is_some_and(|l| l.contains_key(resource)) {
                true => quantity::of(requests, resource),
                false => quantity::of(lists.and_then(|r| r.limits.as_ref()), resource),
            }
        }
        _ => return Err(EnvError::Resource(name.into())),
    };
    if list == "limits" && amount.is_zero() && matches!(resource, "cpu" | "memory" | "ephemeral-storage") {
        amount = cx.allocatable(resource);
    }
    let divisor = if divisor.is_zero() { Amount::from_units(1) } else { divisor };
    let (a, d) = (amount.milli(), divisor.milli().max(1));
    Ok((a / d + i64::from(a % d != 0)).to_string())
}

/// The variables that name services, as Docker links did: `REDIS_SERVICE_HOST` and so on. The API
/// server's own service is always named, those of the pod's namespace if `links`.
fn service_variables(services: &[std::sync::Arc<Service>], ns: &str, links: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for s in services {
        let (Some(name), Some(spec)) = (&s.metadata.name, &s.spec) else { continue };
        let service_ns = s.metadata.namespace.as_deref().unwrap_or("");
        let master = service_ns == "default" && name == "kubernetes";
        let ip = spec.cluster_ip.as_deref().unwrap_or("");
        if !(master || (links && service_ns == ns)) || matches!(ip, "" | "None") {
            continue;
        }
        let up = name.to_ascii_uppercase().replace('-', "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        out.push((format!("{up}_SERVICE_HOST"), ip.to_owned()));
        out.push((format!("{up}_SERVICE_PORT"), first.port.to_string()));
        for p in ports {
            if let Some(n) = p.name.as_deref().filter(|n| !n.is_empty()) {
                let n = n.to_ascii_uppercase().replace('-', "_");
                out.push((format!("{up}_SERVICE_PORT_{n}"), p.port.to_string()));
            }
        }
        for (i, p) in ports.iter().enumerate() {
            let protocol = p.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_ascii_lowercase(), p.port);
            if i == 0 {
                out.push((format!("{up}_PORT"), url.clone()));
            }
            let prefix = format!("{up}_PORT_{}_{protocol}", p.port);
            out.push((prefix.clone(), url));
            out.push((format!("{prefix}_PROTO"), protocol.to_ascii_lowercase()));
            out.push((format!("{prefix}_PORT"), p.port.to_string()));
            out.push((format!("{prefix}_ADDR"), ip.to_owned()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn files_of_variables_are_the_volumes_own() -> Result<(), Box<dyn std::error::Error>> {
        let t = tempfile::tempdir()?;
        let v = t.path().join("v");
        std::fs::create_dir(&v)?;
        std::fs::write(t.path().join("host"), "K=leak")?;
        std::fs::write(v.join("ok"), "# c\nK='v'\n")?;
        std::fs::write(v.join("large"), vec![b'x'; 65 << 10])?;
        std::os::unix::fs::symlink(t.path().join("host"), v.join("absolute"))?;
        std::os::unix::fs::symlink("../host", v.join("relative"))?;
        std::os::unix::fs::symlink("/dev/zero", v.join("zero"))?;
        assert!(std::process::Command::new("mkfifo").arg(v.join("fifo")).status()?.success());
        let get =
            async |p: &str| file_of(v.clone(), p.to_owned()).await.and_then(|t| env_file_value(&t, "K"));
        assert_eq!(get("ok").await.as_deref(), Some("v"));
        assert_eq!(get("/ok").await.as_deref(), Some("v"));
        for bad in ["absolute", "relative", "zero", "fifo", "large", "../host", "none", "."] {
            assert_eq!(get(bad).await, None, "{bad}");
        }
        Ok(())
    }

    #[test]
    fn services_become_variables() {
        let s: Service = serde_json::from_value(json!({"metadata": {"name": "my-db", "namespace": "ns"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "name": "web"}]}})).unwrap_or_else(|e| panic!("{e}"));
        let vars = service_variables(&[std::sync::Arc::new(s.clone())], "ns", true);
        let text: Vec<String> = vars.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        expect_test::expect![[r#"
            MY_DB_SERVICE_HOST=10.0.0.1
            MY_DB_SERVICE_PORT=80
            MY_DB_SERVICE_PORT_WEB=80
            MY_DB_PORT=tcp://10.0.0.1:80
            MY_DB_PORT_80_TCP=tcp://10.0.0.1:80
            MY_DB_PORT_80_TCP_PROTO=tcp
            MY_DB_PORT_80_TCP_PORT=80
            MY_DB_PORT_80_TCP_ADDR=10.0.0.1
        "#]]
        .assert_eq(&(text.join("\n") + "\n"));
        assert!(service_variables(&[std::sync::Arc::new(s)], "ns", false).is_empty());
    }

    #[test]
    fn labels_are_quoted_as_go_does() {
        assert_eq!(quote("a\"b\n"), r#""a\"b\n""#);
        assert_eq!(env_file_value("# A=0\nA='x y'\nB=2\n", "A").as_deref(), Some("x y"));
    }
}
