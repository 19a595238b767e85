//! Pods on a runtime that does not exist: what becomes of them when calls fail, hang and are cut off.

use super::*;
use crate::fake::{Fake, Fault};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;
use tonic::Code;

/// A kubelet without an API server: its pods, and what keeps them going.
struct Node {
    fake: Fake,
    pods: Arc<Pods>,
    _tasks: JoinSet<()>,
}

fn node(fake: Fake) -> Node {
    let cx = fake.context();
    let pods = Pods::new(cx.clone(), vec![Source::Api]);
    let mut tasks = JoinSet::new();
    let (send, mut receive) = tokio::sync::mpsc::channel(256);
    tasks.spawn(cri::events::watch(cx.runtime.clone(), send));
    let (own, reaper, collector) = (pods.clone(), pods.clone(), pods.clone());
    tasks.spawn(async move {
        while let Some(e) = receive.recv().await {
            own.runtime_event(&e);
        }
    });
    tasks.spawn(async move { reaper.reap().await });
    tasks.spawn(async move { collector.collect().await });
    Node { fake, pods, _tasks: tasks }
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    static UID: AtomicU32 = AtomicU32::new(1);
    let uid = format!("uid-{}", UID.fetch_add(1, Ordering::Relaxed));
    let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": uid}, "spec": spec});
    Arc::new(serde_json::from_value(pod).unwrap_or_else(|e| panic!("{e}")))
}

/// Waits, for as long as a slow machine may need, until something is so.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < end, "not in two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Node {
    fn left_on_disk(&self) -> Vec<String> {
        let dir = self.fake.dir.path();
        ["kubelet/pods", "logs", "links"]
            .iter()
            .flat_map(|d| std::fs::read_dir(dir.join(d)).into_iter().flatten().flatten())
            .map(|e| e.path().to_string_lossy().into_owned())
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.fake.count() == (0, 0) && self.pods.list().is_empty() && self.left_on_disk().is_empty()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_deleted_at_random_moments_leave_nothing() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    n.fake.be_bad(Duration::from_millis(25), 5, 30);
    let spec = json!({
        "initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    for round in 0..40 {
        let p = pod(&format!("p{round}"), spec.clone());
        n.pods.update(Source::Api, p.clone());
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..15))).await;
        if rand::random_range(0..4) > 0 {
            let pods = n.pods.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..250))).await;
                pods.remove(p.uid());
            });
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    n.fake.be_bad(Duration::ZERO, 0, 0);
    // what is declared stays and runs
    let declared = || n.pods.list().into_iter().filter(|(p, _)| !n.pods.is_gone(p.uid())).count();
    until("only what is declared is there, and all of it", || {
        let (sandboxes, containers) = n.fake.count();
        n.pods.list().len() == declared() && sandboxes == declared() && containers == 3 * declared()
    })
    .await;
    for (p, _) in n.pods.list() {
        n.pods.remove(p.uid());
    }
    until("nothing is left", || n.is_empty()).await;
}

#[tokio::test]
async fn a_call_under_way_is_not_forgotten() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    for call in ["RunPodSandbox", "CreateContainer", "StartContainer"] {
        let before = n.fake.calls(call).len();
        n.fake.fault(call, 0, 1, Fault::Late(Duration::from_millis(300)));
        let p = pod("p", json!({"containers": [{"name": "a", "image": "x"}]}));
        n.pods.update(Source::Api, p.clone());
        until("the call is under way", || n.fake.calls(call).len() > before).await;
        n.pods.remove(p.uid());
        until(call, || n.is_empty()).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(n.is_empty(), "{call}: nothing comes after the pod is gone");
    }
}

#[tokio::test]
async fn what_an_answer_that_was_lost_made_is_found() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    n.fake.fault("RunPodSandbox", 0, 1, Fault::Lost);
    let p = pod("p", json!({"containers": [{"name": "a", "image": "x"}]}));
    n.pods.update(Source::Api, p.clone());
    until("it runs in one sandbox", || n.fake.containers("a") == [(0, true)]).await;
    n.pods.remove(p.uid());
    until("nothing is left", || n.is_empty()).await;
}

#[tokio::test]
async fn orphans_end_even_if_the_runtime_comes_late() {
    let first = node(Fake::start());
    first.pods.mark_ready(Source::Api);
    let hook = json!({"preStop": {"exec": {"command": ["bye"]}}});
    let p = pod(
        "p",
        json!({"terminationGracePeriodSeconds": 300, "containers": [{"name": "a", "image": "x", "lifecycle": hook}]}),
    );
    first.pods.update(Source::Api, p.clone());
    until("it runs", || first.fake.containers("a") == [(0, true)]).await;
    // the kubelet ends, and the next one starts before the runtime
    let Node { fake, pods, _tasks: tasks } = first;
    drop((pods, tasks));
    fake.stop();
    std::fs::create_dir_all(fake.dir.path().join("kubelet/pods/left/volumes/x"))
        .unwrap_or_else(|e| panic!("{e}"));
    std::fs::create_dir_all(fake.dir.path().join("logs/ns_gone_left")).unwrap_or_else(|e| panic!("{e}"));
    let n = node(fake);
    n.pods.mark_ready(Source::Api);
    tokio::time::sleep(Duration::from_millis(200)).await;
    n.fake.serve();
    until("nothing is left", || n.is_empty()).await;
    assert_eq!(n.fake.calls("ExecSync"), ["bye"], "its hook is known from its annotations");
    assert_eq!(n.fake.calls("StopContainer"), ["a 300"]);
}

#[tokio::test]
async fn what_cannot_be_cleared_away_is_tried_ever_more_seldom() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let p = pod("p", json!({"containers": [{"name": "a", "image": "x"}]}));
    n.pods.update(Source::Api, p.clone());
    until("it runs", || n.fake.containers("a") == [(0, true)]).await;
    n.fake.fault("RemovePodSandbox", 0, 1000, Fault::Fail(Code::Internal));
    n.pods.remove(p.uid());
    until("it is tried", || !n.fake.calls("RemovePodSandbox").is_empty()).await;
    // whatever else happens on the node
    for _ in 0..50 {
        n.pods.runtime_event(&RuntimeEvent::Relist);
        n.pods.runtime_event(&RuntimeEvent::Container { id: "unknown".into(), what: What::Stopped });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tries = n.fake.calls("RemovePodSandbox").len();
    assert!(tries <= 3, "{tries} tries in a second");
    n.fake.fault("RemovePodSandbox", 0, 0, Fault::Hang);
    until("nothing is left", || n.is_empty()).await;
}

#[tokio::test]
async fn one_container_that_waits_does_not_hold_up_another() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    n.fake.no_image("nosuch");
    n.fake.exits("sick", 1);
    let probe = json!({"exec": {"command": ["sick"]}, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 7});
    let p = pod(
        "p",
        json!({"terminationGracePeriodSeconds": 90, "containers": [
            {"name": "a", "image": "nosuch"},
            {"name": "b", "image": "x", "livenessProbe": probe},
        ]}),
    );
    n.pods.update(Source::Api, p.clone());
    until("the other is restarted", || n.fake.containers("b").contains(&(1, true))).await;
    assert!(n.fake.calls("StopContainer").contains(&"b 7".to_owned()), "{:?}", n.fake.calls("StopContainer"));
}

#[tokio::test]
async fn a_runtime_that_is_away_is_no_failure_of_a_container() {
    let fake = Fake::start();
    let cx = fake.context();
    let probe = async || {
        let limit = Duration::from_secs(1);
        crate::probes::exec::probe(&cx.runtime, "c", vec!["x".into()], limit).await
    };
    use crate::probes::Outcome;
    assert_eq!(probe().await, Outcome::Success);
    for code in [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::NotFound] {
        fake.fault("ExecSync", 0, 1, Fault::Fail(code));
        assert!(matches!(probe().await, Outcome::Unknown(_)), "{code:?}");
    }
    fake.fault("ExecSync", 0, 1, Fault::Fail(Code::DeadlineExceeded));
    assert!(matches!(probe().await, Outcome::Failure(_)));
    fake.stop();
    assert!(matches!(probe().await, Outcome::Unknown(_)), "the socket is gone");
}

#[tokio::test]
async fn hooks_begin_at_once_and_signals_go_in_order() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let hook = |word: &str| json!({"preStop": {"exec": {"command": [word]}}});
    let p = pod(
        "p",
        json!({
            "initContainers": [
                {"name": "s1", "image": "x", "restartPolicy": "Always", "lifecycle": hook("h1")},
                {"name": "s2", "image": "x", "restartPolicy": "Always", "lifecycle": hook("h2")},
            ],
            "containers": [{"name": "a", "image": "x", "lifecycle": hook("h0")}],
        }),
    );
    n.pods.update(Source::Api, p.clone());
    until("all run", || ["s1", "s2", "a"].iter().all(|c| n.fake.containers(c) == [(0, true)])).await;
    n.pods.remove(p.uid());
    until("nothing is left", || n.is_empty()).await;
    let log = n.fake.log();
    let at = |call: &str, word: &str| {
        log.iter()
            .position(|(c, about)| *c == call && about.starts_with(word))
            .unwrap_or_else(|| panic!("{call} {word}"))
    };
    let stops = ["a", "s2", "s1"].map(|c| at("StopContainer", c));
    assert!(stops.is_sorted(), "{log:?}");
    for h in ["h0", "h1", "h2"] {
        assert!(at("ExecSync", h) < stops[0], "{h} began before the first signal");
    }
}

#[tokio::test]
async fn everything_is_given_a_moment_to_end_in() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let p = pod(
        "p",
        json!({
            "terminationGracePeriodSeconds": 0,
            "initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "image": "x"}],
        }),
    );
    n.pods.update(Source::Api, p.clone());
    until("all run", || ["s", "a"].iter().all(|c| n.fake.containers(c) == [(0, true)])).await;
    n.pods.remove(p.uid());
    until("nothing is left", || n.is_empty()).await;
    assert_eq!(n.fake.calls("StopContainer"), ["a 2", "s 2"]);
}

#[tokio::test]
async fn an_endless_grace_is_no_panic() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let p = pod(
        "p",
        json!({"terminationGracePeriodSeconds": i64::MAX, "containers": [{"name": "a", "image": "x"}]}),
    );
    n.pods.update(Source::Api, p.clone());
    until("it runs", || n.fake.containers("a") == [(0, true)]).await;
    n.pods.remove(p.uid());
    until("nothing is left", || n.is_empty()).await;
}

#[tokio::test]
async fn what_is_gone_from_the_api_stays_mounted() -> Result<(), Box<dyn std::error::Error>> {
    let fake = Fake::start();
    let cx = fake.context();
    let p = pod("p", json!({"containers": [], "volumes": [{"name": "v", "configMap": {"name": "c"}}]}));
    // without an API server no config map can be had
    assert!(crate::volumes::set_up(&cx, &p).await.is_err());
    let dir = cx.config.pod_dir(p.uid()).join("volumes/kubernetes.io~configmap/v");
    sys::dir::make_all(&dir.join("..2026_01_01_00_00_00.1"), 0o755)?;
    std::os::unix::fs::symlink("..2026_01_01_00_00_00.1", dir.join("..data"))?;
    assert!(crate::volumes::set_up(&cx, &p).await?.is_some(), "and is looked for again soon");
    Ok(())
}

#[tokio::test]
async fn lists_are_there_when_events_are_not() {
    let fake = Fake::start();
    let cx = fake.context();
    fake.fault("GetContainerEvents", 0, 1000, Fault::Fail(Code::Internal));
    let (send, mut receive) = tokio::sync::mpsc::channel(8);
    let watch = tokio::spawn(cri::events::watch(cx.runtime.clone(), send));
    for _ in 0..3 {
        assert_eq!(receive.recv().await, Some(RuntimeEvent::Relist));
    }
    drop(receive);
    assert!(watch.await.is_ok());
}

#[tokio::test]
async fn a_lost_worker_begins_anew() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let p = pod("p", json!({"containers": [{"name": "a", "image": "x"}]}));
    n.pods.update(Source::Api, p.clone());
    until("it runs", || n.fake.containers("a") == [(0, true)]).await;
    n.pods.lose_worker(p.uid());
    n.pods.remove(p.uid());
    until("nothing is left", || n.is_empty()).await;
}

#[tokio::test]
async fn a_pod_that_comes_back_runs_again() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let p = pod("p", json!({"containers": [{"name": "a", "image": "x"}]}));
    n.pods.update(Source::Api, p.clone());
    until("it runs", || n.fake.containers("a") == [(0, true)]).await;
    n.pods.remove(p.uid());
    n.pods.update(Source::Api, p.clone());
    until("it runs again", || {
        n.fake.calls("RunPodSandbox").len() == 2 && n.fake.containers("a") == [(0, true)]
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_hangs_holds_up_no_other_pod() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    n.fake.fault("RunPodSandbox", 0, 2, Fault::Hang);
    for name in ["p", "q"] {
        n.pods.update(Source::Api, pod(name, json!({"containers": [{"name": "stuck", "image": "x"}]})));
    }
    until("both hang", || n.fake.calls("RunPodSandbox").len() >= 2).await;
    n.pods.update(Source::Api, pod("r", json!({"containers": [{"name": "a", "image": "x"}]})));
    until("the third runs", || n.fake.containers("a") == [(0, true)]).await;
}

#[tokio::test]
async fn images_of_volumes_are_pulled_by_their_policy() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let image = |reference: &str, policy: &str| json!({"reference": reference, "pullPolicy": policy});
    let mount = |v: &str| json!({"name": v, "mountPath": format!("/{v}")});
    n.pods.update(Source::Api, pod("p", json!({
        "volumes": [{"name": "v", "image": image("q/v:1", "Always")}, {"name": "w", "image": image("q/w:1", "IfNotPresent")}],
        "containers": [{"name": "a", "image": "x:1", "volumeMounts": [mount("v"), mount("w")]}],
    })));
    until("it runs", || n.fake.containers("a") == [(0, true)]).await;
    assert_eq!(n.fake.calls("PullImage"), ["docker.io/q/v:1"]);
    n.fake.no_image("nosuch");
    n.pods.update(
        Source::Api,
        pod(
            "q",
            json!({
                "volumes": [{"name": "v", "image": image("nosuch:1", "IfNotPresent")}],
                "containers": [{"name": "b", "image": "x:1", "volumeMounts": [mount("v")]}],
            }),
        ),
    );
    until("it is tried", || n.fake.calls("PullImage").iter().any(|i| i.contains("nosuch"))).await;
    assert!(n.fake.containers("b").is_empty(), "no container without its volume");
}

#[tokio::test]
async fn what_the_api_has_of_a_pod_that_is_done_stays() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let mut done = Pod::clone(&pod("p", json!({"containers": [{"name": "a", "image": "x"}]})));
    done.status = serde_json::from_value(json!({"phase": "Failed", "reason": "PodFeatureUnsupported"})).ok();
    let done = Arc::new(done);
    n.pods.update(Source::Api, done.clone());
    until("it has been looked at", || !n.fake.calls("ListContainers").is_empty()).await;
    n.pods.update(Source::Api, pod("q", json!({"containers": [{"name": "b", "image": "x"}]})));
    until("another runs", || n.fake.containers("b") == [(0, true)]).await;
    let status = n.pods.cx.status.get(done.uid());
    assert!(status.is_none_or(|s| s == *done.api_status()), "nothing else is told of it");
}

#[tokio::test]
async fn why_a_pod_failed_is_told_when_it_has_ended() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let p = pod("p", json!({"activeDeadlineSeconds": 1, "containers": [{"name": "a", "image": "x"}]}));
    n.fake.fault("StopContainer", 0, 1, Fault::Late(Duration::from_millis(500)));
    n.pods.update(Source::Api, p.clone());
    let told = || n.pods.cx.status.get(p.uid()).unwrap_or_default();
    until("it is being stopped", || !n.fake.calls("StopContainer").is_empty()).await;
    assert_eq!(told().phase.as_deref(), Some("Running"), "it may still run");
    // the API's echo, and somebody's label
    let mut echo = Pod::clone(&p);
    echo.status = Some(told());
    echo.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    n.pods.update(Source::Api, Arc::new(echo));
    until("it has failed", || told().phase.as_deref() == Some("Failed")).await;
    assert_eq!(told().reason.as_deref(), Some("DeadlineExceeded"));
}

#[tokio::test]
async fn a_pod_that_still_ends_keeps_its_room() {
    let n = node(Fake::start());
    n.pods.mark_ready(Source::Api);
    let big =
        || json!({"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": "3"}}}]});
    let (p, q) = (pod("p", big()), pod("q", big()));
    n.pods.update(Source::Api, p.clone());
    until("it runs", || n.fake.containers("a") == [(0, true)]).await;
    n.fake.fault("StopContainer", 0, 1, Fault::Late(Duration::from_millis(300)));
    n.pods.remove(p.uid());
    until("it is being stopped", || !n.fake.calls("StopContainer").is_empty()).await;
    n.pods.update(Source::Api, q.clone());
    let reason = |uid: &str| n.pods.cx.status.get(uid).and_then(|s| s.reason);
    until("the other is turned away", || reason(q.uid()).as_deref() == Some("OutOfcpu")).await;
}
