//! What makes pods: deployments, daemon sets, stateful sets, jobs; draining and eviction.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually};

/// Harmless to others.
pub const CASES: &[Case] = &[
    ("workloads a rollout and its undo", rollout),
    ("workloads a daemon set", daemon_set),
    ("workloads a stateful set", stateful_set),
    ("workloads a job", job),
    ("workloads a cron job", cron_job),
    ("workloads eviction", eviction),
    ("workloads foreground deletion", cascade),
];

/// Those that take a node away from others.
pub const ALONE: &[Case] = &[("workloads drain", drain), ("workloads a fresh node label", fresh_label)];

/// A deployment of pods that answer on 8080.
pub const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: "@IMAGE@"
        env: [{name: VERSION, value: one}]
        command: [sh, -c, "mkdir /www; echo $VERSION > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

fn rolled_out(space: &Space) -> Answer {
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).map(drop)
}

fn rollout(space: &Space) -> Answer {
    space.apply(WEB)?;
    rolled_out(space)?;
    space.kubectl(&["set", "env", "deployment/web", "VERSION=two"])?;
    rolled_out(space)?;
    space.pod("client", "sleep 1000", "", "")?;
    space.ready("client")?;
    let answers = |want: &str| {
        eventually(&format!("the service answers {want}"), || {
            let text = space.exec("client", "timeout 5 wget -qO- http://web/")?;
            ensure(text.trim() == want, text)
        })
    };
    answers("two")?;
    space.kubectl(&["rollout", "undo", "deployment/web"])?;
    rolled_out(space)?;
    answers("one")?;
    // One that can't come up does not take the old pods away.
    space.kubectl(&["set", "image", "deployment/web", "web=docker.io/library/nobody-has-this:1"])?;
    eventually("an image that nobody has is told", || {
        let reasons = space.field("pods", "{.items[*].status.containerStatuses[*].state.waiting.reason}")?;
        ensure(reasons.contains("ImagePull") || reasons.contains("ErrImage"), reasons)
    })?;
    answers("one")?;
    space.kubectl(&["rollout", "undo", "deployment/web"])?;
    rolled_out(space)?;
    space.kubectl(&["scale", "deployment/web", "--replicas=1"])?;
    eventually("it is scaled down", || {
        let pods = space.field("pods", "{.items[?(@.metadata.labels.app=='web')].metadata.name}")?;
        ensure(pods.split_whitespace().count() == 1, pods)
    })
}

fn daemon_set(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: d}
spec:
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "@IMAGE@", command: [sleep, "1000"]}]
"#,
    )?;
    space.kubectl(&["rollout", "status", "daemonset/d", "--timeout=120s"])?;
    let mut nodes: Vec<String> =
        space.field("pods", "{.items[*].spec.nodeName}")?.split(' ').map(str::to_owned).collect();
    nodes.sort();
    ensure(nodes == space.world.nodes, format!("pods on {nodes:?}"))?;
    space.kubectl(&["set", "env", "daemonset/d", "A=b"])?;
    space.kubectl(&["rollout", "status", "daemonset/d", "--timeout=120s"])?;
    let pod = space.field("pods", "{.items[0].metadata.name}")?;
    ensure(space.exec(&pod, "echo $A")?.trim() == "b", "the old template still runs")
}

fn stateful_set(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: "@IMAGE@"
        command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#,
    )?;
    space.kubectl(&["rollout", "status", "statefulset/db", "--timeout=120s"])?;
    let by_name = || {
        eventually("each pod is reached by its own name", || {
            for (from, to) in [("db-0", "db-1"), ("db-1", "db-0")] {
                let text = space.exec(from, &format!("timeout 5 wget -qO- http://{to}.db:8080/"))?;
                ensure(text.trim() == to, text)?;
            }
            Ok(())
        })
    };
    by_name()?;
    let before = space.field("pod/db-1", "{.metadata.uid}")?;
    space.kubectl(&["delete", "pod", "db-1", "--timeout=60s"])?;
    eventually("a pod of the same name comes back", || {
        let uid = space.field("pod/db-1", "{.metadata.uid}")?;
        ensure(!uid.is_empty() && uid != before, uid)
    })?;
    space.ready("db-1")?;
    by_name()
}

fn job(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec:
  completions: 4
  parallelism: 2
  completionMode: Indexed
  backoffLimit: 3
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "@IMAGE@", command: [sh, -c, "echo index $JOB_COMPLETION_INDEX"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 1
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "@IMAGE@", command: ["false"]}]
"#,
    )?;
    space.kubectl(&["wait", "--for=condition=Complete", "--timeout=120s", "job/j"])?;
    ensure(
        space.field("job/j", "{.status.completedIndexes}")? == "0-3",
        "other indexes than 0-3 are complete",
    )?;
    space.kubectl(&["wait", "--for=condition=Failed", "--timeout=120s", "job/fails"])?;
    let failed =
        space.field("job/fails", "{.status.failed} {.status.conditions[?(@.type=='Failed')].reason}")?;
    ensure(failed == "2 BackoffLimitExceeded", failed)
}

fn cron_job(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: c}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "@IMAGE@", command: ["true"]}]}}}}
"#,
    )?;
    space.kubectl(&["create", "job", "now", "--from=cronjob/c"])?;
    space.kubectl(&["wait", "--for=condition=Complete", "--timeout=120s", "job/now"]).map(drop)
}

fn eviction(space: &Space) -> Answer {
    space.apply(WEB)?;
    space.apply("{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web}, spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}}")?;
    rolled_out(space)?;
    eventually("the budget allows one", || {
        let allowed = space.field("pdb/web", "{.status.disruptionsAllowed}")?;
        ensure(allowed == "1", allowed)
    })?;
    let pods = space.field("pods", "{.items[*].metadata.name}")?;
    let evict = |pod: &str, dry_run: &str| {
        let body = format!(
            r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{}"}}{dry_run}}}"#,
            space.name
        );
        let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
        std::fs::write(file.path(), body).map_err(|e| e.to_string())?;
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", space.name);
        space.world.kubectl(&["create", "--raw", &path, "-f", &file.path().to_string_lossy()])
    };
    let names: Vec<&str> = pods.split(' ').collect();
    evict(names[0], r#","deleteOptions":{"dryRun":["All"]}"#)?;
    ensure(
        space.field(&format!("pod/{}", names[0]), "{.metadata.deletionTimestamp}")?.is_empty(),
        "a dry run evicted the pod",
    )?;
    evict(names[0], "")?;
    match evict(names[1], "") {
        Ok(_) => Err("a second eviction broke the budget".to_owned()),
        Err(e) => ensure(e.contains("disruption budget"), e),
    }?;
    rolled_out(space)
}

fn cascade(space: &Space) -> Answer {
    space.apply(WEB)?;
    rolled_out(space)?;
    space.kubectl(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"])?;
    let left = space.kubectl(&["get", "replicasets,pods", "-o", "name"])?;
    ensure(left.is_empty(), format!("left behind: {left}"))?;
    space.apply(WEB)?;
    rolled_out(space)?;
    space.kubectl(&["delete", "deployment", "web", "--cascade=orphan", "--timeout=60s"])?;
    let left =
        space.kubectl(&["get", "replicasets", "-o", "jsonpath={.items[*].metadata.ownerReferences}"])?;
    ensure(left.is_empty(), format!("an orphan still has an owner: {left}"))?;
    ensure(
        space.field("pods", "{.items[*].metadata.name}")?.split_whitespace().count() == 3,
        "the orphan's pods went",
    )
}

fn drain(space: &Space) -> Answer {
    let node = space.world.nodes[1].as_str();
    space.apply(WEB)?;
    space.apply("{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}}")?;
    rolled_out(space)?;
    let drained = space.world.kubectl(&[
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=120s",
    ]);
    let checked = drained.and_then(|_| {
        rolled_out(space)?;
        let nodes = space.field("pods", "{.items[?(@.metadata.labels.app=='web')].spec.nodeName}")?;
        ensure(
            nodes.split(' ').all(|n| n == space.world.nodes[0]),
            format!("pods on {nodes} after a drain of {node}"),
        )
    });
    space.world.kubectl(&["uncordon", node])?;
    checked
}

fn fresh_label(space: &Space) -> Answer {
    let node = space.world.nodes[1].as_str();
    for i in 0..5 {
        space.world.kubectl(&["label", "node", node, &format!("fresh={i}"), "--overwrite"])?;
        space.pod(
            &format!("p{i}"),
            "true",
            &format!("restartPolicy: Never, nodeSelector: {{fresh: \"{i}\"}}"),
            "",
        )?;
        space.phase(&format!("p{i}"), "Succeeded")?;
    }
    space.world.kubectl(&["label", "node", node, "fresh-"]).map(drop)
}
