//! Short names for templates: the same template, the same name.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// What upstream writes names with: no vowels, so that no words come about.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template, as it stands in names and in `pod-template-hash`. A collision count makes another.
pub fn template(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = fnv(0x811c_9dc5, normal(template).to_string().as_bytes());
    if let Some(n) = collisions {
        hash = fnv(hash, &n.to_le_bytes());
    }
    safe(hash)
}

/// The hash of any bytes.
pub fn bytes(bytes: &[u8], collisions: Option<i32>) -> String {
    let mut hash = fnv(0x811c_9dc5, bytes);
    if let Some(n) = collisions {
        hash = fnv(hash, &n.to_le_bytes());
    }
    safe(hash)
}

fn fnv(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

fn safe(hash: u32) -> String {
    hash.to_string().bytes().map(|b| LETTERS[usize::from(b) % LETTERS.len()] as char).collect()
}

/// A template without what says nothing: absent and empty are the same.
pub fn normal(template: &PodTemplateSpec) -> Value {
    let mut value = serde_json::to_value(template).unwrap_or_default();
    prune(&mut value);
    value
}

/// Takes away nulls and empty lists and maps; whether the value itself is such.
fn prune(value: &mut Value) -> bool {
    match value {
        Value::Null => true,
        // An emptyDir: {} says something; only lists and metadata's maps that are empty don't.
        Value::Object(map) => {
            map.retain(|key, v| {
                !(prune(v) || v.as_object().is_some_and(|m| m.is_empty()) && is_plain_map(key))
            });
            false
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|v| {
                prune(v);
            });
            items.is_empty()
        }
        _ => false,
    }
}

fn is_plain_map(key: &str) -> bool {
    matches!(
        key,
        "labels"
            | "annotations"
            | "nodeSelector"
            | "limits"
            | "requests"
            | "overhead"
            | "matchLabels"
            | "metadata"
            | "resources"
            | "securityContext"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hashes_go_by_what_a_template_says() {
        let read = |v: Value| serde_json::from_value::<PodTemplateSpec>(v).unwrap();
        let a = read(
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {}}, "spec": {"containers": [{"name": "c", "resources": {}}]}}),
        );
        let b = read(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}));
        let c = read(json!({"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c"}]}}));
        assert_eq!((template(&a, None), normal(&a)), (template(&b, None), normal(&b)));
        assert_ne!(template(&a, None), template(&c, None));
        assert_ne!(template(&a, None), template(&a, Some(1)));
        let volume = |v| read(json!({"spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": v}]}}));
        assert_ne!(normal(&volume(json!({}))), normal(&volume(json!(null))));
        assert!(template(&a, None).bytes().all(|b| LETTERS.contains(&b)));
    }
}
