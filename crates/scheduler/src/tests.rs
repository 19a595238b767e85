//! Small clusters as text. A line is a node or a pod: a name, then words. Pods without `on=` are placed one
//! after the other, each seeing those before it.

use crate::cluster::Cluster;
use crate::framework::{Outcome, place};
use crate::plugins::DEFAULT;
use crate::pod::PodInfo;
use crate::preemption;
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

fn labels(text: &str) -> Value {
    text.split(',').filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_string(), json!(v))).collect()
}

fn node(name: &str, words: &[(&str, &str)]) -> Node {
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    let (mut taints, mut all, mut cordoned) = (Vec::new(), json!({"kubernetes.io/hostname": name}), false);
    for (key, value) in words {
        match *key {
            "taint" => {
                let (key, effect) = value.split_once(':').unwrap();
                taints.push(json!({"key": key, "effect": effect}));
            }
            "label" => all.as_object_mut().unwrap().extend(labels(value).as_object().unwrap().clone()),
            "cordoned" => cordoned = true,
            key => allocatable[key] = json!(value),
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": all},
        "spec": {"taints": taints, "unschedulable": cordoned},
        "status": {"allocatable": allocatable},
    }))
    .unwrap()
}

fn pod(name: &str, words: &[(&str, &str)]) -> Pod {
    let (mut requests, mut ports, mut spec) = (json!({}), Vec::new(), json!({}));
    let mut all = json!({});
    let term = |value: &str| {
        let (label, key) = value.split_once('@').unwrap();
        json!([{"labelSelector": {"matchLabels": labels(label)}, "topologyKey": key}])
    };
    for (key, value) in words {
        match *key {
            "on" => spec["nodeName"] = json!(value),
            "label" => all = labels(value),
            "priority" => spec["priority"] = json!(value.parse::<i32>().unwrap()),
            "port" => ports.push(json!({"containerPort": 1, "hostPort": value.parse::<i32>().unwrap()})),
            "select" => spec["nodeSelector"] = labels(value),
            "tolerate" => spec["tolerations"] = json!([{"key": value, "operator": "Exists"}]),
            "near" => {
                spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                    term(value)
            }
            "away" => {
                spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                    term(value);
            }
            "prefer" => {
                let (k, v) = value.split_once(':').unwrap();
                spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{"weight": 1, "preference": {"matchExpressions": [{"key": k, "operator": "In", "values": [v]}]}}]);
            }
            "spread" => {
                let (label, key) = value.split_once('@').unwrap();
                spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": key,
                    "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels(label)}}]);
            }
            "claim" => {
                spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": value}}])
            }
            key => requests[key] = json!(value),
        }
    }
    spec["containers"] = json!([{"name": "c", "resources": {"requests": requests}, "ports": ports}]);
    let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": all});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn check(text: &str, expected: Expect) {
    let (mut cluster, mut said, mut start) = (Cluster::default(), String::new(), 0);
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let words: Vec<_> = words.map(|w| w.split_once('=').unwrap_or((w, ""))).collect();
        if kind == "node" {
            cluster.set_node(Arc::new(node(name, &words)));
            continue;
        }
        let info = Arc::new(PodInfo::new(Arc::new(pod(name, &words))));
        if let Some(node) = info.spec().and_then(|s| s.node_name.clone()) {
            cluster.set_pod(info, &node);
            continue;
        }
        match place(&DEFAULT, &info, &cluster, &mut start) {
            Outcome::Placed(node) => {
                cluster.set_pod(info, &node);
                writeln!(said, "{name} -> {node}").unwrap();
            }
            Outcome::Unplaced(diagnosis) => {
                writeln!(said, "{name}: {}", diagnosis.message()).unwrap();
                if let Ok(c) = preemption::find(&DEFAULT, &info, &mut cluster, &diagnosis, &[]) {
                    let victims: Vec<_> =
                        c.victims.iter().filter_map(|v| v.pod.metadata.name.clone()).collect();
                    writeln!(said, "{name} preempts {} on {}", victims.join(" "), c.node).unwrap();
                }
            }
        }
    }
    expected.assert_eq(&said);
}

#[test]
fn untolerated_taint_keeps_the_pod_off() {
    check(
        "
node a  cpu=4  taint=gpu:NoSchedule
node b  cpu=2
pod  p  cpu=1
pod  q  cpu=2  tolerate=gpu
pod  r  cpu=2
",
        expect![[r#"
            p -> b
            q -> a
            r: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).
        "#]],
    );
}

#[test]
fn every_reason_is_counted() {
    check(
        "
node a  cordoned
node b  pods=0
node c  label=zone:x
node d  example.com/gpu=1
pod  p  select=zone:y
pod  q  example.com/gpu=2
pod  r  memory=9Gi cpu=5
",
        expect![[r#"
            p: 0/4 nodes are available: 1 node(s) were unschedulable, 3 node(s) didn't match Pod's node affinity/selector.
            q: 0/4 nodes are available: 1 Too many pods, 1 node(s) were unschedulable, 3 Insufficient example.com/gpu.
            r: 0/4 nodes are available: 1 Too many pods, 1 node(s) were unschedulable, 3 Insufficient cpu, 3 Insufficient memory.
        "#]],
    );
    check(
        "pod p",
        expect![[r#"
        p: no nodes available to schedule pods
    "#]],
    );
}

#[test]
fn the_emptier_node_is_better() {
    check(
        "
node a
node b
pod  x  cpu=2 memory=4Gi on=a
pod  p  cpu=1 memory=2Gi
",
        expect![[r#"
            p -> b
        "#]],
    );
}

#[test]
fn preferred_nodes_and_taints() {
    check(
        "
node a  label=disk:ssd
node b
pod  p  prefer=disk:ssd
",
        expect![[r#"
            p -> a
        "#]],
    );
    check(
        "
node a  taint=old:PreferNoSchedule
node b
pod  p
",
        expect![[r#"
            p -> b
        "#]],
    );
}

#[test]
fn a_host_port_is_taken_once() {
    check(
        "
node a
pod  p  port=80
pod  q  port=81
pod  r  port=80
",
        expect![[r#"
            p -> a
            q -> a
            r: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.
        "#]],
    );
}

#[test]
fn affinity_and_anti_affinity() {
    check(
        "
node a  label=zone:x
node b  label=zone:y
pod  w  label=app:web on=a
pod  p  near=app:web@zone
pod  q  away=app:web@zone
pod  r  near=app:none@zone
pod  s  label=app:s near=app:s@zone away=app:web@kubernetes.io/hostname
pod  t  label=app:web away=app:web@zone
pod  u  label=app:s away=app:s@kubernetes.io/hostname cpu=1
pod  v  label=app:s away=app:s@kubernetes.io/hostname cpu=1
",
        expect![[r#"
            p -> a
            q -> b
            r: 0/2 nodes are available: 2 node(s) didn't match pod affinity rules.
            s -> b
            t: 0/2 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 1 node(s) didn't satisfy existing pods anti-affinity rules.
            u -> a
            v: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.
        "#]],
    );
}

#[test]
fn pods_are_spread() {
    check(
        "
node a  label=zone:x
node b  label=zone:y
node c
pod  x  label=app:w on=a
pod  p  label=app:w spread=app:w@zone
pod  q  label=app:w spread=app:w@zone select=zone:x
pod  r  label=app:w spread=app:w@zone select=kubernetes.io/hostname:c
",
        expect![[r#"
            p -> b
            q -> a
            r: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), 2 node(s) didn't match Pod's node affinity/selector.
        "#]],
    );
}

#[test]
fn the_least_important_leave() {
    check(
        "
node a  cpu=2
node b  cpu=2
pod  x  cpu=1 priority=5 on=a
pod  y  cpu=1 priority=1 on=a
pod  z  cpu=2 priority=5 on=b
pod  p  cpu=1 priority=10
pod  q  cpu=1 priority=1
",
        expect![[r#"
            p: 0/2 nodes are available: 2 Insufficient cpu.
            p preempts y on a
            q: 0/2 nodes are available: 2 Insufficient cpu.
        "#]],
    );
}

#[test]
fn a_claim_has_to_be_there() {
    check(
        "node a\npod p claim=data",
        expect![[r#"
        p: 0/1 nodes are available: persistentvolumeclaim "data" not found.
    "#]],
    );
}

#[test]
fn numbers_follow_pods() {
    let mut cluster = Cluster::default();
    for name in ["a", "b", "c"] {
        cluster.set_node(Arc::new(node(name, &[])));
    }
    let info = |name: &str| Arc::new(PodInfo::new(Arc::new(pod(name, &[("cpu", "1")]))));
    cluster.set_pod(info("p"), "a");
    cluster.set_pod(info("q"), "c");
    cluster.set_pod(info("p"), "c"); // it moved
    cluster.remove_node("a"); // the last row takes its place
    assert_eq!(cluster.index("c").map(|at| cluster.columns.used_cpu[at]), Some(2000));
    cluster.remove_pod("q");
    cluster.remove_node("c"); // a pod is still there
    assert_eq!((cluster.node_count(), cluster.rows.len()), (1, 2));
    cluster.remove_pod("p");
    assert_eq!(cluster.rows.len(), 1);
    assert!(cluster.columns.used_cpu.iter().all(|n| *n == 0));
}
