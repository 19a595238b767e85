//! Whole controllers over a server that is a map: what they do to it.

use crate::testing::Api;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/pods";
const MAPS: &str = "/api/v1/configmaps";
const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const SETS: &str = "/apis/apps/v1/statefulsets";
const JOBS: &str = "/apis/batch/v1/jobs";

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid})
}

#[tokio::test]
async fn what_names_an_owner_that_it_can_t_have_is_not_collected() {
    let api = Api::default();
    api.put(MAPS, json!({"metadata": {"name": "o", "namespace": "ns", "uid": "o"}}));
    for (name, of) in [("lives", "o"), ("gone", "x")] {
        let meta = json!({"name": name, "uid": name, "ownerReferences": [owner("ConfigMap", "o", of)]});
        api.put(ROLES, json!({"metadata": meta}));
    }
    let lost = |namespace: &str, name: &str, of: &str| json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "ownerReferences": [owner("ConfigMap", "o", of)]}});
    api.put(MAPS, lost("ns", "good", "o"));
    api.put(MAPS, lost("ns", "lost", "x"));
    api.put(MAPS, lost("elsewhere", "stranger", "o"));
    let ctx = api.context().await;
    let stop = ctx.shutdown.clone();
    let running = tokio::spawn(crate::gc::run(ctx));
    for (namespace, name) in [("ns", "lost"), ("elsewhere", "stranger")] {
        api.until("it is collected", |a| a.get(MAPS, namespace, name).is_none().then_some(())).await;
    }
    let told = |a: &Api| {
        let events = a.events();
        events
            .iter()
            .any(|e| e["reason"] == "OwnerRefInvalidNamespace" && e["involvedObject"]["name"] == "stranger")
    };
    api.until("the event", |a| told(a).then_some(())).await;
    // The owner goes: so does what it owned, and nothing else.
    api.remove(MAPS, "ns", "o");
    api.until("the dependent goes", |a| a.get(MAPS, "ns", "good").is_none().then_some(())).await;
    assert!(api.get(ROLES, "", "lives").is_some() && api.get(ROLES, "", "gone").is_some());
    stop.cancel();
    running.await.unwrap();
}

fn set(more: Value) -> Value {
    let mut set = json!({"metadata": {"name": "w", "namespace": "ns", "uid": "w"}, "spec": {"replicas": 1, "serviceName": "w",
        "selector": {"matchLabels": {"app": "w"}},
        "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    set["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    set
}

#[tokio::test]
async fn a_stateful_set_gets_a_name_when_a_foreign_pod_leaves_it() {
    let api = Api::default();
    api.put(PODS, json!({"metadata": {"name": "w-0", "namespace": "ns"}, "spec": {"containers": []}}));
    api.put(SETS, set(json!({})));
    let ctx = api.context().await;
    let stop = ctx.shutdown.clone();
    let running = tokio::spawn(crate::statefulset::run(ctx));
    let tried = |a: &Api| a.asked().contains(&"POST /api/v1/namespaces/ns/pods".to_string()).then_some(());
    api.until("it tries", tried).await;
    assert!(api.get(PODS, "ns", "w-0").unwrap()["metadata"]["ownerReferences"].is_null());
    api.remove(PODS, "ns", "w-0");
    api.until("its own pod", |a| {
        a.get(PODS, "ns", "w-0").filter(|p| p["metadata"]["ownerReferences"][0]["uid"] == "w")
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_stateful_set_waits_until_an_earlier_pod_s_claim_is_gone() {
    let api = Api::default();
    api.put(
        CLAIMS,
        json!({"metadata": {"name": "data-w-0", "namespace": "ns", "uid": "old", "ownerReferences": [owner("Pod", "w-0", "earlier")]}}),
    );
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
    api.put(SETS, set(json!({"persistentVolumeClaimRetentionPolicy": policy, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]})));
    let ctx = api.context().await;
    let stop = ctx.shutdown.clone();
    let running = tokio::spawn(crate::statefulset::run(ctx));
    // It has looked at the set when it wrote its status.
    api.until("its status", |a| a.get(SETS, "ns", "w").filter(|s| s["status"]["updateRevision"].is_string()))
        .await;
    assert!(api.get(PODS, "ns", "w-0").is_none(), "the pod would lose its data");
    api.remove(CLAIMS, "ns", "data-w-0");
    api.until("the pod", |a| a.get(PODS, "ns", "w-0")).await;
    assert_ne!(api.get(CLAIMS, "ns", "data-w-0").unwrap()["metadata"]["uid"], "old");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_big_job_is_complete_when_all_pods_are_counted() {
    let api = Api::default();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "uid": "j"}, "spec": {
        "completions": 510, "parallelism": 510, "completionMode": "Indexed", "selector": {"matchLabels": {"job": "j"}},
        "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"containers": [], "restartPolicy": "Never"}}}});
    api.put(JOBS, job);
    for i in 0..510 {
        let mut of = owner("Job", "j", "j");
        of["apiVersion"] = "batch/v1".into();
        of["controller"] = true.into();
        api.put(
            PODS,
            json!({"metadata": {"name": format!("j-{i}"), "namespace": "ns", "labels": {"job": "j"}, "ownerReferences": [of],
                "annotations": {"batch.kubernetes.io/job-completion-index": i.to_string()}, "finalizers": ["batch.kubernetes.io/job-tracking"]},
                "spec": {"containers": []}, "status": {"phase": "Succeeded"}}),
        );
    }
    let ctx = api.context().await;
    let stop = ctx.shutdown.clone();
    let running = tokio::spawn(crate::job::run(ctx));
    let complete = |a: &Api| {
        let job = a.get(JOBS, "ns", "j")?;
        let done = job["status"]["conditions"].as_array()?.iter().any(|c| c["type"] == "Complete");
        done.then_some(job)
    };
    let job = api.until("it is complete", complete).await;
    assert_eq!(
        (&job["status"]["succeeded"], &job["status"]["completedIndexes"]),
        (&json!(510), &json!("0-509"))
    );
    stop.cancel();
    running.await.unwrap();
}
