//! The group `events.k8s.io`: another face of the core group's Event.

use crate::kind::{Names, Version};
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
