//! The group `events.k8s.io`: another face of the core group's Event.

use crate::check::IMMUTABLE;
use crate::kind::{Names, Version};
use api::field::{FieldErrors, FieldPath};
use serde_json::{Value, json};

/// Event in version v1 of `events.k8s.io`.
pub const V1: Version = Version {
    names: Names {
        group: "events.k8s.io",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        categories: &[],
    },
    to_own: |event| rename(event, |(here, core)| (here, core), "involvedObject"),
    from_own: |event| {
        rename(event, |(here, core)| (core, here), "");
        // It is printed even where it says nothing.
        if let Value::Object(map) = event {
            map.entry("eventTime").or_insert(Value::Null);
        }
    },
    check: Some(check),
    deprecated: "",
    selectable: &[
        ("reason", "reason"),
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ],
};

/// Texts that must be there, and how long they may be.
const REQUIRED: [(&str, usize); 4] =
    [("reportingComponent", usize::MAX), ("reportingInstance", 128), ("action", 128), ("reason", 128)];
const MAX_NOTE: usize = 1024;
/// Fields that only the core group's version writes.
const DEPRECATED: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];
/// Fields that stay as they were made.
const FIXED: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

/// Upstream is stricter here than in the core group.
fn check(new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let text = |name: &str| new.get(name).and_then(Value::as_str).unwrap_or_default();
    let series = new.get("series").filter(|s| s.is_object());
    if let Some(series) = series.filter(|s| old.is_none_or(|o| o.get("series") != Some(*s))) {
        if series.get("count").and_then(Value::as_i64).unwrap_or(0) < 2 {
            errors.invalid(FieldPath::root("series.count"), &"", "should be at least 2");
        }
        if series.get("lastObservedTime").is_none_or(Value::is_null) {
            errors.required(FieldPath::root("series.lastObservedTime"), "");
        }
    }
    if let Some(old) = old {
        let said = |v: &Value, name: &str| v.get(name).filter(|v| !v.is_null()).cloned();
        for name in FIXED.into_iter().filter(|name| said(new, name) != said(old, name)) {
            let shown = if name == "reportingComponent" { "reportingController" } else { name };
            errors.invalid(FieldPath::root(shown), &new.get(name), IMMUTABLE);
        }
        return;
    }
    if text("eventTime").is_empty() {
        return errors.required(FieldPath::root("eventTime"), "");
    }
    for (name, most) in REQUIRED {
        let at = FieldPath::root(if name == "reportingComponent" { "reportingController" } else { name });
        if text(name).is_empty() {
            errors.required(at, "");
        }
        if text(name).len() > most {
            errors.invalid(at, &"", format!("can have at most {most} characters"));
        }
    }
    let controller = text("reportingComponent");
    if !controller.is_empty() {
        let at = FieldPath::root("reportingController");
        errors.all_invalid(at, controller, api::names::qualified_name(controller));
    }
    if text("message").len() > MAX_NOTE {
        errors.invalid(FieldPath::root("message"), &"", format!("can have at most {MAX_NOTE} characters"));
    }
    if !matches!(text("type"), "Normal" | "Warning") {
        let why = format!("has invalid value: {}", text("type"));
        errors.invalid(FieldPath::root("type"), &"", why);
    }
    for name in DEPRECATED {
        let empty = |v: &Value| v.is_null() || *v == 0 || v.as_object().is_some_and(|o| o.is_empty());
        if new.get(name).is_some_and(|v| !empty(v)) {
            errors.invalid(FieldPath::root(name), &"", "needs to be unset");
        }
    }
}

/// Names here, and in the core group.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

type Pair = (&'static str, &'static str);

fn rename(event: &mut Value, direction: fn(Pair) -> Pair, required: &str) {
    let Value::Object(map) = event else { return };
    for (from, to) in NAMES.map(direction) {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
    if !required.is_empty() {
        map.entry(required).or_insert_with(|| json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict() {
        let said = |new: &Value, old: Option<&Value>| {
            let mut errors = FieldErrors::default();
            check(new, old, &mut errors);
            errors.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "a.b/c", "reportingInstance": "i",
            "action": "a", "reason": "r", "type": "Normal",
        });
        assert_eq!(said(&good, None), [""; 0]);
        let mut bad = good.clone();
        (bad["type"], bad["count"], bad["action"]) = ("x".into(), 2.into(), "".into());
        assert_eq!(
            said(&bad, None),
            [
                "action: Required value",
                "type: Invalid value: \"\": has invalid value: x",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        let mut later = good.clone();
        later["series"] = json!({"count": 1});
        later["reason"] = "other".into();
        assert_eq!(
            said(&later, Some(&good)),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "reason: Invalid value: \"other\": field is immutable",
            ]
        );
    }

    #[test]
    fn there_and_back() {
        let mut event = json!({
            "metadata": {"name": "a"}, "regarding": {"kind": "Pod", "name": "p"}, "note": "n", "reason": "r", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i", "action": "a",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}, "deprecatedCount": 3,
            "deprecatedSource": {"component": "x"}, "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:00Z",
        });
        let sent = event.clone();
        (V1.to_own)(&mut event);
        assert_eq!(event["involvedObject"]["name"], "p");
        assert_eq!(event["count"], 3);
        assert_eq!(event["reportingComponent"], "c");
        assert!(event.get("note").is_none());
        (V1.from_own)(&mut event);
        assert_eq!(event, sent);
    }
}
