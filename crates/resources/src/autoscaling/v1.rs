//! HorizontalPodAutoscaler in version v1, which knows one metric by itself: the processor's use. The others,
//! behavior and conditions are kept in annotations, as upstream keeps them.

use crate::kind::{Names, Version};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// What is aimed for where nothing is said.
pub(super) const DEFAULT_UTILIZATION: i32 = 80;

/// Version v1.
pub(super) const V1: Version = Version {
    names: Names {
        group: "autoscaling",
        version: "v1",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short: &["hpa"],
        categories: &["all"],
    },
    to_own,
    from_own,
    check: None,
    deprecated: "",
    selectable: &[],
};

/// Names of a metric source's members in v1, and where they are in v2.
struct Source {
    field: &'static str,
    names: &'static [(&'static str, &'static str)],
    status: &'static [(&'static str, &'static str)],
}

const SOURCES: [Source; 5] = [
    Source {
        field: "object",
        names: &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("averageValue", "/target/averageValue"),
        ],
        status: &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("averageValue", "/current/averageValue"),
        ],
    },
    Source {
        field: "pods",
        names: &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        status: &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    },
    Source {
        field: "resource",
        names: &[
            ("name", "/name"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        status: &[
            ("name", "/name"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    },
    Source {
        field: "containerResource",
        names: &[
            ("name", "/name"),
            ("container", "/container"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        status: &[
            ("name", "/name"),
            ("container", "/container"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    },
    Source {
        field: "external",
        names: &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        status: &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    },
];

/// Sets the value at a path of at most two steps.
fn set(to: &mut Value, path: &str, value: Value) {
    match path.trim_start_matches('/').split_once('/') {
        Some((outer, inner)) => to[outer][inner] = value,
        None => to[path.trim_start_matches('/')] = value,
    }
}

fn metric_to_v1(metric: &Value, status: bool) -> Value {
    let mut out = json!({"type": metric.get("type")});
    for source in &SOURCES {
        let Some(from) = metric.get(source.field) else { continue };
        let mut to = json!({});
        for (here, there) in if status { source.status } else { source.names } {
            if let Some(value) = from.pointer(there) {
                to[*here] = value.clone();
            }
        }
        // These are values in v1, never absent.
        let always = match (source.field, status) {
            ("object", false) => "targetValue",
            ("object" | "external", true) => "currentValue",
            ("pods", false) => "targetAverageValue",
            ("pods" | "resource" | "containerResource", true) => "currentAverageValue",
            _ => "",
        };
        if !always.is_empty() && to.get(always).is_none() {
            to[always] = "0".into();
        }
        out[source.field] = to;
    }
    out
}

fn metric_to_v2(metric: &Value, status: bool) -> Value {
    let mut out = json!({"type": metric.get("type")});
    for source in &SOURCES {
        let Some(from) = metric.get(source.field).filter(|s| s.is_object()) else { continue };
        let has = |name: &str| from.get(name).is_some_and(|v| !v.is_null());
        let mut to = if source.field.ends_with("esource") { json!({}) } else { json!({"metric": {}}) };
        let aim = if status { "current" } else { "target" };
        to[aim] = json!({});
        if !status {
            to[aim]["type"] = match source.field {
                "object" if has("averageValue") => "AverageValue",
                "object" => "Value",
                "pods" => "AverageValue",
                "external" if has("targetValue") => "Value",
                "external" => "AverageValue",
                _ if has("targetAverageUtilization") => "Utilization",
                _ => "AverageValue",
            }
            .into();
        }
        for (here, there) in if status { source.status } else { source.names } {
            // Beside an average, a value of zero is one that is not set.
            let unset = *here == "targetValue"
                && source.field == "object"
                && has("averageValue")
                && from.get(*here).is_some_and(|v| v == "0");
            if let Some(value) = from.get(*here).filter(|v| !v.is_null() && !unset) {
                set(&mut to, there, value.clone());
            }
        }
        out[source.field] = to;
    }
    out
}

fn is_cpu_use(metric: &Value) -> bool {
    metric.get("type").is_some_and(|t| t == "Resource")
        && metric.pointer("/resource/name").is_some_and(|n| n == "cpu")
        && metric.pointer("/resource/target/averageUtilization").is_some_and(Value::is_number)
}

fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The member of an object, which is made if it is not there.
fn member<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    object.as_object_mut()?.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

fn from_own(hpa: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let metrics = list(hpa, "/spec/metrics");
    let cpu = metrics.iter().find(|m| is_cpu_use(m));
    let cpu = cpu.and_then(|m| m.pointer("/resource/target/averageUtilization")).cloned();
    let others: Vec<Value> =
        metrics.iter().filter(|m| !is_cpu_use(m)).map(|m| metric_to_v1(m, false)).collect();
    if !others.is_empty() {
        notes.push((METRICS, others.into()));
    }
    let current = list(hpa, "/status/currentMetrics");
    let used = current
        .iter()
        .filter(|m| m.pointer("/resource/name").is_some_and(|n| n == "cpu"))
        .filter_map(|m| m.pointer("/resource/current/averageUtilization").cloned())
        .next_back();
    if !current.is_empty() {
        notes.push((CURRENT_METRICS, current.iter().map(|m| metric_to_v1(m, true)).collect()));
    }
    if let Some(behavior) = hpa.pointer("/spec/behavior").filter(|b| b.is_object()) {
        notes.push((BEHAVIOR, behavior_to_note(behavior)));
    }
    let conditions = list(hpa, "/status/conditions");
    if !conditions.is_empty() {
        notes.push((CONDITIONS, conditions.into()));
    }
    for (part, gone, field, value) in [
        ("spec", ["metrics", "behavior"], "targetCPUUtilizationPercentage", cpu),
        ("status", ["currentMetrics", "conditions"], "currentCPUUtilizationPercentage", used),
    ] {
        if let Some(Value::Object(part)) = hpa.get_mut(part) {
            gone.iter().for_each(|name| {
                part.remove(*name);
            });
            if let Some(value) = value {
                part.insert(field.into(), value);
            }
        }
    }
    drop_notes(hpa);
    if notes.is_empty() {
        return;
    }
    let annotations = hpa.get_mut("metadata").and_then(|m| member(m, "annotations"));
    if let Some(annotations) = annotations {
        annotations.extend(notes.into_iter().map(|(name, v)| (name.to_string(), v.to_string().into())));
    }
}

fn to_own(hpa: &mut Value) {
    let note = |name: &str| -> Option<Value> {
        let text = hpa.pointer("/metadata/annotations")?.get(name)?.as_str()?;
        api::json::decode_any(text.as_bytes()).ok()
    };
    let resource =
        |name: &str, value: &Value| json!({"type": "Resource", "resource": {"name": "cpu", name: value}});
    let all = |list: Value, status| match list {
        Value::Array(list) => list.iter().map(|m| metric_to_v2(m, status)).collect(),
        _ => Vec::new(),
    };
    let mut metrics: Vec<Value> = note(METRICS).map(|m| all(m, false)).unwrap_or_default();
    let current = note(CURRENT_METRICS).map(|m| all(m, true));
    let behavior = note(BEHAVIOR).as_ref().and_then(behavior_of_note);
    let conditions = note(CONDITIONS).filter(|c| c.is_array());
    drop_notes(hpa);
    if let Some(spec) = member(hpa, "spec") {
        if let Some(aim) = spec.remove("targetCPUUtilizationPercentage").filter(|v| !v.is_null()) {
            metrics.push(resource("target", &json!({"type": "Utilization", "averageUtilization": aim})));
        }
        if metrics.is_empty() {
            let aim = json!({"type": "Utilization", "averageUtilization": DEFAULT_UTILIZATION});
            metrics.push(resource("target", &aim));
        }
        spec.insert("metrics".into(), metrics.into());
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    let told = hpa.get("status").is_some() || current.is_some() || conditions.is_some();
    if told && let Some(status) = member(hpa, "status") {
        let used = status.remove("currentCPUUtilizationPercentage").filter(|v| !v.is_null());
        let current = current
            .or_else(|| used.map(|used| vec![resource("current", &json!({ "averageUtilization": used }))]));
        if let Some(current) = current {
            status.insert("currentMetrics".into(), current.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
}

fn drop_notes(hpa: &mut Value) {
    let Some(Value::Object(metadata)) = hpa.get_mut("metadata") else { return };
    let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else { return };
    let before = annotations.len();
    for name in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
        annotations.remove(name);
    }
    if annotations.is_empty() && before > 0 {
        metadata.remove("annotations");
    }
}

const RULES: [(&str, &str); 2] = [("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")];
const RULE: [(&str, &str); 4] = [
    ("StabilizationWindowSeconds", "stabilizationWindowSeconds"),
    ("SelectPolicy", "selectPolicy"),
    ("Policies", "policies"),
    ("Tolerance", "tolerance"),
];
const POLICY: [(&str, &str); 3] = [("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds")];

fn renamed(from: &Value, names: impl Iterator<Item = (&'static str, &'static str)>) -> Map<String, Value> {
    names.map(|(from_name, to)| (to.into(), from.get(from_name).cloned().unwrap_or_default())).collect()
}

/// Upstream writes its internal struct here, whose members are spelled with capitals.
fn behavior_to_note(behavior: &Value) -> Value {
    let flip = |(a, b): (&'static str, &'static str)| (b, a);
    let mut out = renamed(behavior, RULES.into_iter().map(flip));
    for rule in out.values_mut().filter(|r| r.is_object()) {
        let mut made = renamed(rule, RULE.into_iter().map(flip));
        if let Some(Value::Array(policies)) = made.get_mut("Policies") {
            policies.iter_mut().for_each(|p| *p = renamed(p, POLICY.into_iter().map(flip)).into());
        }
        *rule = made.into();
    }
    out.into()
}

fn behavior_of_note(note: &Value) -> Option<Value> {
    let present = |map: Map<String, Value>| -> Map<String, Value> {
        map.into_iter().filter(|(_, v)| !v.is_null()).collect()
    };
    let mut out = present(renamed(note, RULES.into_iter()));
    for rule in out.values_mut() {
        let mut made = present(renamed(rule, RULE.into_iter()));
        if let Some(Value::Array(policies)) = made.get_mut("policies") {
            policies.iter_mut().for_each(|p| *p = present(renamed(p, POLICY.into_iter())).into());
        }
        *rule = made.into();
    }
    (!out.is_empty()).then(|| out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let own = json!({
            "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "packets", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
                    {"type": "Object", "object": {"metric": {"name": "requests"}, "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}, "target": {"type": "Value", "value": "10k"}}},
                    {"type": "Object", "object": {"metric": {"name": "requests"}, "describedObject": {"kind": "Service", "name": "main"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
                    "scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                },
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "40m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let mut value = own.clone();
        from_own(&mut value);
        assert_eq!(value["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(value["status"]["currentCPUUtilizationPercentage"], 40);
        assert!(value["spec"].get("metrics").is_none() && value["spec"].get("behavior").is_none());
        assert!(value["metadata"]["annotations"][BEHAVIOR].as_str().unwrap().contains("\"ScaleUp\":{"));
        to_own(&mut value);
        assert_eq!(value, own);
    }

    #[test]
    fn plain_v1() {
        let sent = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}});
        let mut value = sent.clone();
        to_own(&mut value);
        assert_eq!(value["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
        from_own(&mut value);
        assert_eq!(value, sent);
        let mut silent = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3}});
        to_own(&mut silent);
        assert_eq!(
            silent["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            DEFAULT_UTILIZATION
        );
    }
}
