//! Ingress in version v1beta1, which upstream served until 1.21: many manifests are still written in it.

use crate::kind::{Names, Version};
use serde_json::{Map, Value, json};

/// Version v1beta1.
pub(super) const V1BETA1: Version = Version {
    names: Names {
        group: "networking.k8s.io",
        version: "v1beta1",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short: &["ing"],
        categories: &[],
    },
    to_own: |ingress| {
        let Some(Value::Object(spec)) = ingress.get_mut("spec") else { return };
        if let Some(backend) = spec.remove("backend") {
            spec.insert("defaultBackend".into(), backend);
        }
        for backend in backends(spec, "defaultBackend", true) {
            to_own(backend);
        }
    },
    from_own: |ingress| {
        let Some(Value::Object(spec)) = ingress.get_mut("spec") else { return };
        if let Some(backend) = spec.remove("defaultBackend") {
            spec.insert("backend".into(), backend);
        }
        for backend in backends(spec, "backend", false) {
            from_own(backend);
        }
    },
    check: None,
    deprecated: "networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
    selectable: &[],
};

/// Every backend; with `typed`, paths without a type get the one that was meant.
fn backends<'a>(
    spec: &'a mut Map<String, Value>,
    default: &str,
    typed: bool,
) -> Vec<&'a mut Map<String, Value>> {
    let mut all = Vec::new();
    for (name, value) in spec.iter_mut() {
        match value {
            Value::Object(backend) if name == default => all.push(backend),
            Value::Array(rules) if name == "rules" => {
                let paths = rules.iter_mut().filter_map(|r| r.pointer_mut("/http/paths")?.as_array_mut());
                for path in paths.flatten().filter_map(Value::as_object_mut) {
                    if typed && path.get("pathType").is_none_or(Value::is_null) {
                        path.insert("pathType".into(), "ImplementationSpecific".into());
                    }
                    all.extend(path.get_mut("backend").and_then(Value::as_object_mut));
                }
            }
            _ => {}
        }
    }
    all
}

fn to_own(backend: &mut Map<String, Value>) {
    let name = backend.remove("serviceName").filter(|n| n.as_str().is_some_and(|n| !n.is_empty()));
    let port = match backend.remove("servicePort") {
        Some(Value::String(name)) => json!({ "name": name }),
        Some(Value::Number(n)) if n.as_i64() != Some(0) => json!({ "number": n }),
        _ => Value::Null,
    };
    if name.is_none() && port.is_null() {
        return;
    }
    let mut service = json!({"name": name.unwrap_or_else(|| "".into())});
    if !port.is_null() {
        service["port"] = port;
    }
    backend.insert("service".into(), service);
}

fn from_own(backend: &mut Map<String, Value>) {
    let Some(service) = backend.remove("service") else { return };
    if let Some(name) = service.get("name") {
        backend.insert("serviceName".into(), name.clone());
    }
    let port = |name: &str| service.get("port").and_then(|p| p.get(name)).cloned();
    let name = port("name").filter(|n| n.as_str().is_some_and(|n| !n.is_empty()));
    backend.insert("servicePort".into(), name.or_else(|| port("number")).unwrap_or_else(|| 0.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let sent = json!({"spec": {
            "backend": {"serviceName": "d", "servicePort": "http"},
            "rules": [{"host": "a", "http": {"paths": [
                {"path": "/x", "pathType": "ImplementationSpecific", "backend": {"serviceName": "s", "servicePort": 80}},
                {"pathType": "Prefix", "path": "/", "backend": {"resource": {"kind": "K", "name": "n"}}},
            ]}}],
        }});
        let mut value = sent.clone();
        value["spec"]["rules"][0]["http"]["paths"][0].as_object_mut().unwrap().remove("pathType");
        (V1BETA1.to_own)(&mut value);
        assert_eq!(
            value["spec"]["defaultBackend"]["service"],
            json!({"name": "d", "port": {"name": "http"}})
        );
        let path = &value["spec"]["rules"][0]["http"]["paths"][0];
        assert_eq!(path["backend"]["service"], json!({"name": "s", "port": {"number": 80}}));
        assert_eq!(path["pathType"], "ImplementationSpecific");
        (V1BETA1.from_own)(&mut value);
        assert_eq!(value, sent);
    }
}
