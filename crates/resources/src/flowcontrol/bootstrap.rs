//! The flow schemas and priority levels that every cluster has: upstream's mandatory ones, which stay as they
//! are, and its suggested ones.

use serde_json::{Value, json};

/// Objects with this annotation, if it says `true`, follow what is suggested.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn level(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec,
    })
}

fn limited(name: &str, shares: i32, lendable: i32, (queues, hand): (i32, i32)) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
    let limited = json!({
        "nominalConcurrencyShares": shares, "lendablePercent": lendable,
        "limitResponse": {"type": "Queue", "queuing": queuing},
    });
    level(name, json!({"type": "Limited", "limited": limited}))
}

/// The priority levels, those that are mandatory first.
pub fn priority_levels() -> Vec<Value> {
    let mut all = mandatory_levels().to_vec();
    all.extend([
        limited("system", 30, 33, (64, 6)),
        limited("node-high", 40, 25, (64, 6)),
        limited("leader-election", 10, 0, (16, 4)),
        limited("workload-high", 40, 50, (128, 6)),
        limited("workload-low", 100, 90, (128, 6)),
        limited("global-default", 20, 50, (128, 6)),
    ]);
    all
}

/// The priority levels that nobody may change.
pub fn mandatory_levels() -> [Value; 2] {
    let rejected = json!({
        "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
    });
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    [
        level("catch-all", json!({"type": "Limited", "limited": rejected})),
        level("exempt", json!({"type": "Exempt", "exempt": exempt})),
    ]
}

fn schema(name: &str, level: &str, precedence: i32, distinguish: &str, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if !distinguish.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": distinguish });
    }
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec,
    })
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts() -> Vec<Value> {
    vec![json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})]
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Every request of someone.
fn everything(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

const EVERYONE: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// The flow schemas that nobody may change.
pub fn mandatory_schemas() -> [Value; 2] {
    [
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10000, "ByUser", everything(groups(&EVERYONE))),
    ]
}

/// The flow schemas, those that are mandatory first.
pub fn flow_schemas() -> Vec<Value> {
    let leases = "coordination.k8s.io";
    let probes = json!({
        "subjects": groups(&EVERYONE),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let mut leaders = users(&[MANAGER, SCHEDULER]);
    leaders.extend(system_accounts());
    let election = json!({
        "subjects": leaders, "resourceRules": [resources(&["get", "create", "update"], leases, &["leases"], false)],
    });
    let nodes = json!({
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true), resources(&["*"], leases, &["leases"], false),
        ],
    });
    let mut all = mandatory_schemas().to_vec();
    all.extend([
        schema("system-nodes", "system", 500, "ByUser", everything(groups(&["system:nodes"]))),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", election),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", everything(users(&[MANAGER]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&[SCHEDULER]))),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(system_accounts()),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", everything(groups(&EVERYONE))),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::field::FieldErrors;
    use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};

    #[test]
    fn all_are_complete_and_valid() {
        for value in flow_schemas() {
            let mut object: FlowSchema = serde_json::from_value(value).unwrap();
            let sent = object.clone();
            (crate::flowcontrol::flow_schema::KIND.default)(&mut object);
            assert_eq!(object, sent);
            let mut errors = FieldErrors::default();
            (crate::flowcontrol::flow_schema::KIND.validate)(&object, &mut errors);
            assert_eq!(errors.as_slice(), []);
        }
        for value in priority_levels() {
            let mut object: PriorityLevelConfiguration = serde_json::from_value(value).unwrap();
            let sent = object.clone();
            (crate::flowcontrol::priority_level_configuration::KIND.default)(&mut object);
            assert_eq!(object, sent);
            let mut errors = FieldErrors::default();
            (crate::flowcontrol::priority_level_configuration::KIND.validate)(&object, &mut errors);
            assert_eq!(errors.as_slice(), []);
        }
    }
}
