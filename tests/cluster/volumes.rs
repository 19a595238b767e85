//! Volumes of every kind that works without a driver.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually};

/// Harmless to others.
pub const CASES: &[Case] = &[
    ("volumes empty dirs", empty_dirs),
    ("volumes of objects", objects),
    ("volumes follow their objects", updates),
    ("volumes host paths", host_paths),
    ("volumes sub paths", sub_paths),
    ("volumes claims", claims),
    ("volumes of fsGroup", fs_group),
    ("volumes images", images),
    ("volumes that can't be had are refused", refused),
];

fn empty_dirs(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}]
  containers:
  - name: a
    image: "@IMAGE@"
    command: [sh, -c, "echo shared > /disk/f; sleep 1000"]
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  - name: b
    image: "@IMAGE@"
    command: [sh, -c, "until grep shared /disk/f; do sleep 0.1; done; sleep 1000"]
    volumeMounts: [{name: disk, mountPath: /disk, readOnly: true}]
    readinessProbe: {exec: {command: [grep, shared, /disk/f]}, periodSeconds: 1}
"#,
    )?;
    space.ready("p")?;
    let memory = space.kubectl(&["exec", "p", "-c", "a", "--", "df", "-T", "/memory"])?;
    ensure(memory.contains("tmpfs") && memory.contains("8192"), format!("no tmpfs of 8 MiB: {memory}"))?;
    ensure(
        space.kubectl(&["exec", "p", "-c", "b", "--", "touch", "/disk/x"]).is_err(),
        "a read-only mount was written to",
    )?;
    let node = space.field("pod/p", "{.spec.nodeName}")?;
    let uid = space.field("pod/p", "{.metadata.uid}")?;
    space.kubectl(&["delete", "pod", "p", "--timeout=60s"])?;
    eventually("what the pod had on the node is gone", || {
        let left = space.world.on(
            &node,
            &format!("ls -d /var/lib/kubelet/pods/{uid} 2>/dev/null; grep {uid} /proc/mounts; true"),
        )?;
        ensure(left.is_empty(), left)
    })
}

fn objects(space: &Space) -> Answer {
    space.kubectl(&["create", "configmap", "c", "--from-literal=key=value", "--from-literal=other=more"])?;
    space.kubectl(&["create", "secret", "generic", "s", "--from-literal=password=hidden"])?;
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {color: blue}}
spec:
  restartPolicy: Never
  volumes:
  - {name: map, configMap: {name: c, items: [{key: key, path: deep/er/file, mode: 0440}]}}
  - {name: secret, secret: {secretName: s, defaultMode: 0400}}
  - {name: missing, secret: {secretName: nobody, optional: true}}
  - {name: pod, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected:
      sources:
      - {configMap: {name: c}}
      - {secret: {name: s}}
      - {serviceAccountToken: {path: token, audience: somebody}}
      - {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  containers:
  - name: main
    image: "@IMAGE@"
    command: [sh, -c, "cat /map/deep/er/file; echo; stat -L -c %a /map/deep/er/file /secret/password; cat /secret/password; echo; cat /pod/labels; echo; ls /missing | wc -l; ls /all | tr '\n' ' '; wc -c < /all/token | grep -q ... && echo token; for d in /map /secret /pod /all; do touch $d/x 2>/dev/null && echo $d is writable; done; true"]
    volumeMounts: [{name: map, mountPath: /map}, {name: secret, mountPath: /secret}, {name: missing, mountPath: /missing}, {name: pod, mountPath: /pod}, {name: all, mountPath: /all}]
"#,
    )?;
    space.phase("p", "Succeeded")?;
    let log = space.logs("p")?;
    let want = "value\n440\n400\nhidden\ncolor=\"blue\"\n0\nkey name other password token token\n";
    ensure(log == want, format!("other files: {log:?}"))
}

fn updates(space: &Space) -> Answer {
    space.kubectl(&["create", "configmap", "c", "--from-literal=key=one"])?;
    space.pod(
        "p",
        "sleep 1000",
        "volumes: [{name: v, configMap: {name: c}}]",
        "volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /fixed, subPath: key}]",
    )?;
    space.ready("p")?;
    space.kubectl(&["patch", "configmap", "c", "-p", r#"{"data":{"key":"two","more":"new"}}"#])?;
    eventually("the files follow the ConfigMap", || {
        let found = space.exec("p", "cat /v/key /v/more")?;
        ensure(found == "twonew", found)
    })?;
    ensure(space.exec("p", "cat /fixed")? == "one", "a sub path has to stay as it was")
}

fn host_paths(space: &Space) -> Answer {
    let node = &space.world.nodes[1];
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: "@NODE2@"
  restartPolicy: Never
  volumes:
  - {name: made, hostPath: {path: "/var/tmp/@NAMESPACE@", type: DirectoryOrCreate}}
  - {name: there, hostPath: {path: /etc/hostname, type: File}}
  containers:
  - {name: main, image: "@IMAGE@", command: [sh, -c, "cat /there; echo kept > /made/f"], volumeMounts: [{name: made, mountPath: /made}, {name: there, mountPath: /there}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wrong}
spec:
  nodeName: "@NODE2@"
  volumes: [{name: v, hostPath: {path: /etc/hostname, type: Directory}}]
  containers: [{name: main, image: "@IMAGE@", command: ["true"], volumeMounts: [{name: v, mountPath: /v}]}]
"#,
    )?;
    space.phase("p", "Succeeded")?;
    ensure(space.logs("p")?.trim() == node, "another node's file")?;
    space.kubectl(&["delete", "pod", "p", "--timeout=60s"])?;
    let kept = space.world.on(node, &format!("cat /var/tmp/{0}/f; rm -r /var/tmp/{0}", space.name))?;
    ensure(kept == "kept\n", "what a pod wrote to the node has to stay")?;
    eventually("a path of another type is told", || {
        let events = space.kubectl(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=wrong,reason=FailedMount",
            "-o",
            "name",
        ])?;
        ensure(!events.is_empty(), "no event")
    })
}

fn sub_paths(space: &Space) -> Answer {
    space.pod(
        "p",
        "echo x > /v/f; cat /all/p/f",
        "restartPolicy: Never, volumes: [{name: v, emptyDir: {}}]",
        "env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], volumeMounts: [{name: v, mountPath: /all}, {name: v, mountPath: /v, subPathExpr: $(NAME)}]",
    )?;
    space.phase("p", "Succeeded")?;
    ensure(space.logs("p")? == "x\n", "the sub path is somewhere else")
}

fn claims(space: &Space) -> Answer {
    space.apply(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: "@NAMESPACE@"}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: "@NAMESPACE@"
  hostPath: {path: "/var/tmp/@NAMESPACE@", type: DirectoryOrCreate}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: ["@NODE2@"]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: "@NAMESPACE@", resources: {requests: {storage: 1Gi}}}
"#,
    )?;
    let pod = |name: &str, script: &str| {
        space.pod(
            name,
            script,
            "restartPolicy: Never, volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]",
            "volumeMounts: [{name: v, mountPath: /v}]",
        )
    };
    pod("writer", "echo kept > /v/f")?;
    space.phase("writer", "Succeeded")?;
    ensure(
        space.field("pod/writer", "{.spec.nodeName}")? == space.world.nodes[1],
        "on another node than its volume",
    )?;
    space.kubectl(&["delete", "pod", "writer", "--timeout=60s"])?;
    pod("reader", "cat /v/f")?;
    space.phase("reader", "Succeeded")?;
    ensure(space.logs("reader")? == "kept\n", "the data did not outlive the pod")?;
    space.kubectl(&["delete", "pod", "reader", "--timeout=60s"])?;
    space.kubectl(&["delete", "pvc", "data", "--timeout=60s"])?;
    eventually("a retained volume is released", || {
        let phase = space.field(&format!("pv/{}", space.name), "{.status.phase}")?;
        ensure(phase == "Released", phase)
    })?;
    space.kubectl(&["delete", "pv", &space.name])?;
    let kept = space
        .world
        .on(&space.world.nodes[1], &format!("cat /var/tmp/{0}/f; rm -r /var/tmp/{0}", space.name))?;
    ensure(kept == "kept\n", "the data of a retained volume is gone")
}

fn fs_group(space: &Space) -> Answer {
    space.pod(
        "p",
        "id -G; stat -c '%g %a' /v; touch /v/f && stat -c %g /v/f",
        "restartPolicy: Never, securityContext: {runAsUser: 1000, fsGroup: 4321}, volumes: [{name: v, emptyDir: {}}]",
        "volumeMounts: [{name: v, mountPath: /v}]",
    )?;
    space.phase("p", "Succeeded")?;
    let log = space.logs("p")?;
    let lines: Vec<&str> = log.lines().collect();
    ensure(
        lines.first().is_some_and(|l| l.split(' ').any(|g| g == "4321"))
            && lines.get(1).is_some_and(|l| l.starts_with("4321 2"))
            && lines.get(2) == Some(&"4321"),
        format!("another group: {log:?}"),
    )
}

/// containerd 1.6 can't mount an image, so that it is refused; the image is pulled by its policy all the same.
fn images(space: &Space) -> Answer {
    space.pod(
        "p",
        "true",
        "restartPolicy: Never, volumes: [{name: v, image: {reference: docker.io/library/nobody-has-this:1, pullPolicy: IfNotPresent}}]",
        "volumeMounts: [{name: v, mountPath: /v}]",
    )?;
    eventually("an image volume that can't be pulled is told", || {
        let events = space.kubectl(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=p,type=Warning",
            "-o",
            "jsonpath={.items[*].message}",
        ])?;
        ensure(events.contains("nobody-has-this"), events)
    })
}

fn refused(space: &Space) -> Answer {
    for (name, spec, container, word) in [
        ("userns", "hostUsers: false", "", "user namespace"),
        (
            "claims",
            "resourceClaims: [{name: c, resourceClaimName: c}]",
            "resources: {claims: [{name: c}]}",
            "claim",
        ),
    ] {
        space.pod(name, "sleep 1000", &format!("nodeName: \"@NODE2@\", {spec}"), container)?;
        eventually(&format!("{name} is refused with a reason"), || {
            let pod = space.get(&[&format!("pod/{name}")])?;
            let status = &pod["status"];
            let text = format!("{} {} {}", status["reason"], status["message"], status["containerStatuses"]);
            let events = space.kubectl(&[
                "get",
                "events",
                &format!("--field-selector=involvedObject.name={name}"),
                "-o",
                "jsonpath={.items[*].message}",
            ])?;
            let said = format!("{text} {events}").to_lowercase();
            ensure(!text.contains("\"running\"") && said.contains(word), said)
        })?;
    }
    Ok(())
}
