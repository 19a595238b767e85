//! One pod's life: probes, hooks, init containers and sidecars, the environment, ends.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually};

/// Harmless to others.
pub const CASES: &[Case] = &[
    ("pods probes", probes),
    ("pods readiness gates", readiness_gates),
    ("pods hooks", hooks),
    ("pods init containers and sidecars", init_and_sidecars),
    ("pods environment", environment),
    ("pods ends", ends),
    ("pods back off counts from the crash", back_off),
    ("pods limits", limits),
    ("pods identity", identity),
];

fn probes(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: dies
    image: "@IMAGE@"
    command: [sh, -c, "touch /tmp/ok; sleep 1000"]
    startupProbe: {exec: {command: [cat, /tmp/ok]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [cat, /tmp/ok]}, periodSeconds: 1, failureThreshold: 1}
  - name: web
    image: "@IMAGE@"
    command: [sh, -c, "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"]
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1, failureThreshold: 1}
"#,
    )?;
    space.ready("p")?;
    space.kubectl(&["exec", "p", "-c", "web", "--", "mv", "/www/index.html", "/www/away"])?;
    space.kubectl(&["wait", "--for=condition=Ready=false", "--timeout=60s", "pod/p"])?;
    space.kubectl(&["exec", "p", "-c", "web", "--", "mv", "/www/away", "/www/index.html"])?;
    space.ready("p")?;
    space.kubectl(&["exec", "p", "-c", "dies", "--", "rm", "/tmp/ok"])?;
    eventually("the container whose liveness probe fails is started again", || {
        let count = space.field("pod/p", "{.status.containerStatuses[?(@.name=='dies')].restartCount}")?;
        ensure(count != "0", count)
    })?;
    let web = space.field("pod/p", "{.status.containerStatuses[?(@.name=='web')].restartCount}")?;
    ensure(web == "0", format!("the other container was started again {web} times"))
}

fn readiness_gates(space: &Space) -> Answer {
    space.pod("p", "sleep 1000", "readinessGates: [{conditionType: example.com/gate}]", "")?;
    space.kubectl(&["wait", "--for=condition=ContainersReady", "--timeout=60s", "pod/p"])?;
    ensure(
        space.field("pod/p", "{.status.conditions[?(@.type=='Ready')].status}")? == "False",
        "ready before its gate",
    )?;
    let patch = r#"{"status":{"conditions":[{"type":"example.com/gate","status":"True"}]}}"#;
    space.kubectl(&["patch", "pod", "p", "--subresource=status", "--type=strategic", "-p", patch])?;
    space.ready("p")?;
    // The kubelet leaves what others say alone, also when it writes next.
    space.kubectl(&["label", "pod", "p", "touched=yes"])?;
    for _ in 0..10 {
        let gate = space.field("pod/p", "{.status.conditions[?(@.type=='example.com/gate')].status}")?;
        ensure(gate == "True", "the condition of somebody else was taken away")?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}

fn hooks(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: "@NODE2@"
  terminationGracePeriodSeconds: 30
  volumes: [{name: out, hostPath: {path: "/var/tmp/@NAMESPACE@", type: DirectoryOrCreate}}]
  containers:
  - name: main
    image: "@IMAGE@"
    command: [sh, -c, "trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep 1 & wait $!; done"]
    volumeMounts: [{name: out, mountPath: /out}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo started >> /out/log"]}}
      preStop: {exec: {command: [sh, -c, "sleep 1; echo stopping >> /out/log"]}}
"#,
    )?;
    space.ready("p")?;
    space.kubectl(&["delete", "pod", "p", "--timeout=60s"])?;
    let log = space
        .world
        .on(&space.world.nodes[1], &format!("cat /var/tmp/{0}/log; rm -r /var/tmp/{0}", space.name))?;
    ensure(log == "started\nstopping\nterm\n", format!("the hooks ran in another order: {log:?}"))
}

fn init_and_sidecars(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: first, image: "@IMAGE@", command: [sh, -c, "echo first >> /v/log"], volumeMounts: [{name: v, mountPath: /v}]}
  - name: sidecar
    image: "@IMAGE@"
    restartPolicy: Always
    command: [sh, -c, "echo sidecar >> /v/log; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
    startupProbe: {exec: {command: [grep, sidecar, /v/log]}, periodSeconds: 1}
    volumeMounts: [{name: v, mountPath: /v}]
  - {name: second, image: "@IMAGE@", command: [sh, -c, "echo second >> /v/log"], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: "@IMAGE@", command: [cat, /v/log], volumeMounts: [{name: v, mountPath: /v}]}
"#,
    )?;
    space.phase("p", "Succeeded")?;
    let log = space.kubectl(&["logs", "p", "-c", "main"])?;
    ensure(log == "first\nsidecar\nsecond\n", format!("another order: {log:?}"))
}

fn environment(space: &Space) -> Answer {
    space.kubectl(&[
        "create",
        "configmap",
        "c",
        "--from-literal=FROM_MAP=map",
        "--from-literal=other=key",
    ])?;
    space.kubectl(&["create", "secret", "generic", "s", "--from-literal=password=hidden"])?;
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {color: blue}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: "@IMAGE@"
    command: [sh, -c, "echo $FROM_MAP $OTHER $PASSWORD $COLOR $LIMIT $SUM $NODE; test -n \"$KUBERNETES_SERVICE_HOST\" && test $IP = $(hostname -i)"]
    resources: {limits: {memory: 32Mi}}
    envFrom: [{configMapRef: {name: c}}]
    env:
    - {name: OTHER, valueFrom: {configMapKeyRef: {name: c, key: other}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}
    - {name: COLOR, valueFrom: {fieldRef: {fieldPath: "metadata.labels['color']"}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: SUM, value: "$(OTHER)-$(COLOR)-$$(X)"}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
"#,
    )?;
    space.phase("p", "Succeeded")?;
    let node = space.field("pod/p", "{.spec.nodeName}")?;
    let log = space.logs("p")?;
    ensure(
        log == format!("map key hidden blue 32 key-blue-$(X) {node}\n"),
        format!("another environment: {log:?}"),
    )
}

fn ends(space: &Space) -> Answer {
    space.pod("good", "echo done > /dev/termination-log", "restartPolicy: Never", "")?;
    space.pod(
        "bad",
        "echo broken; exit 3",
        "restartPolicy: Never",
        "terminationMessagePolicy: FallbackToLogsOnError",
    )?;
    space.pod("late", "sleep 1000", "restartPolicy: Never, activeDeadlineSeconds: 2", "")?;
    space.phase("good", "Succeeded")?;
    space.phase("bad", "Failed")?;
    space.phase("late", "Failed")?;
    let ended = "{.status.containerStatuses[0].state.terminated";
    let message = space.field("pod/good", &format!("{ended}.message}}"))?;
    ensure(message.trim() == "done", format!("termination message {message:?}"))?;
    let bad = space.field("pod/bad", &format!("{ended}.exitCode}} {ended}.reason}} {ended}.message}}"))?;
    ensure(bad.trim() == "3 Error broken", format!("the end of a failure reads {bad:?}"))?;
    let reason = space.field("pod/late", "{.status.reason}")?;
    ensure(reason == "DeadlineExceeded", format!("a deadline reads {reason:?}"))
}

fn back_off(space: &Space) -> Answer {
    space.pod("p", "exit 1", "", "")?;
    eventually("a container that crashes is held back", || {
        let reason = space.field("pod/p", "{.status.containerStatuses[0].state.waiting.reason}")?;
        ensure(reason == "CrashLoopBackOff", reason)
    })
}

fn limits(space: &Space) -> Answer {
    space.pod(
        "p",
        "cat /dev/zero | head -c 100000000 | tail > /dev/null; sleep 1",
        "restartPolicy: Never",
        "resources: {limits: {memory: 20Mi, cpu: 500m}}",
    )?;
    eventually("what takes more memory than its limit is killed", || {
        let phase = space.field("pod/p", "{.status.phase}")?;
        ensure(phase == "Failed" || phase == "Succeeded", phase)
    })?;
    ensure(space.field("pod/p", "{.status.qosClass}")? == "Guaranteed", "limits alone make a guaranteed pod")
}

fn identity(space: &Space) -> Answer {
    space.pod(
        "p",
        "id -u; id -g; id -G; cat /proc/1/status | grep -E '^(CapEff|NoNewPrivs|Seccomp):'; touch /x 2>/dev/null || echo read-only",
        "restartPolicy: Never, securityContext: {runAsUser: 1234, runAsGroup: 2345, supplementalGroups: [3456], seccompProfile: {type: RuntimeDefault}}",
        "securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}",
    )?;
    space.phase("p", "Succeeded")?;
    let log = space.logs("p")?;
    let lines: Vec<&str> = log.lines().collect();
    ensure(lines.starts_with(&["1234", "2345", "2345 3456"]), format!("another identity: {log}"))?;
    for want in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "read-only"] {
        ensure(lines.contains(&want), format!("no {want:?} in {log}"))?;
    }
    Ok(())
}
