//! What a pod, a user or a kubelet in wrong hands tries.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually};

/// Harmless to others, if all is well.
pub const CASES: &[Case] = &[
    ("attacks links in volumes of objects", links),
    ("attacks links in environment files", environment_files),
    ("attacks files of other users", modes),
    ("attacks ports without credentials", ports),
    ("attacks a kubelet's certificate", kubelet_certificate),
    ("attacks dry run", dry_run),
];

/// A pod that replaces `..data` by a link makes the kubelet delete what the link points to.
fn links(space: &Space) -> Answer {
    let node = &space.world.nodes[1];
    let victim = format!("/var/tmp/{}", space.name);
    space.world.on(node, &format!("mkdir -p {victim}; echo precious > {victim}/f"))?;
    space.kubectl(&["create", "configmap", "c", "--from-literal=k=1"])?;
    space.pod(
        "p",
        &format!("cd /v; rm -f ..data; ln -s {victim} ..data; ln -s {victim} k2; mkfifo k3; sleep 1000"),
        &format!("nodeName: {node}, securityContext: {{runAsUser: 1000}}, volumes: [{{name: v, configMap: {{name: c}}}}]"),
        "volumeMounts: [{name: v, mountPath: /v}]",
    )?;
    space.ready("p")?;
    space.kubectl(&["patch", "configmap", "c", "-p", r#"{"data":{"k":"2","k2":"x","k3":"y"}}"#])?;
    eventually("the files follow the ConfigMap in spite of it", || {
        let found = space.exec("p", "cat /v/k /v/k2 /v/k3")?;
        ensure(found == "2xy", found)
    })?;
    let kept = space.world.on(node, &format!("cat {victim}/f; ls {victim} | wc -l; rm -r {victim}"))?;
    ensure(kept == "precious\n1\n", format!("the node's directory was changed: {kept}"))
}

fn environment_files(space: &Space) -> Answer {
    for (name, make) in [
        ("link", "ln -s /etc/os-release /v/env"),
        ("zero", "ln -s /dev/zero /v/env"),
        ("fifo", "mkfifo /v/env"),
    ] {
        space.apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes: [{{name: v, emptyDir: {{}}}}]
  initContainers: [{{name: plant, image: "@IMAGE@", command: [sh, -c, "{make}"], volumeMounts: [{{name: v, mountPath: /v}}]}}]
  containers:
  - name: main
    image: "@IMAGE@"
    command: [sh, -c, "echo leaked $X"]
    env: [{{name: X, valueFrom: {{fileKeyRef: {{volumeName: v, path: env, key: ID}}}}}}]
"#
        ))?;
    }
    for name in ["link", "zero", "fifo"] {
        eventually(&format!("{name}: the container is not started"), || {
            let state =
                space.field(&format!("pod/{name}"), "{.status.containerStatuses[0].state.waiting.reason}")?;
            ensure(state.contains("Config") || state.contains("Error"), format!("{state:?}"))
        })?;
    }
    // The kubelet is still at work.
    space.pod("after", "true", "restartPolicy: Never", "")?;
    space.phase("after", "Succeeded")
}

fn modes(space: &Space) -> Answer {
    space.kubectl(&["create", "secret", "generic", "s", "--from-literal=password=hidden"])?;
    let node = &space.world.nodes[1];
    space.pod(
        "p",
        "sleep 1000",
        &format!("nodeName: {node}, volumes: [{{name: v, secret: {{secretName: s}}}}]"),
        "volumeMounts: [{name: v, mountPath: /v}]",
    )?;
    space.ready("p")?;
    let seen = space.world.on(node, "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'cat /var/lib/kubelet/pods/*/volumes/*/*/password /var/lib/kubelet/pods/*/volumes/*/*/token 2>/dev/null; ls /var/log/pods 2>/dev/null; true'")?;
    ensure(seen.is_empty(), format!("another user of the node reads {seen:?}"))
}

fn ports(space: &Space) -> Answer {
    for node in &space.world.nodes {
        let address = space.world.address(node)?;
        let probe = |port: u16, path: &str| {
            space.world.on(&space.world.nodes[0], &format!("curl -sk -o /dev/null -w '%{{http_code}}' --max-time 5 https://{address}:{port}{path}; true"))
        };
        for path in ["/pods", "/metrics", "/stats/summary", "/nowhere", "/exec/a/b/c?command=id"] {
            let code = probe(10250, path)?;
            ensure(
                code == "401" || code == "403",
                format!("{node}: the kubelet answers {code} to anyone who asks for {path}"),
            )?;
        }
        let open = space.world.on(
            node,
            "curl -s -o /dev/null -w '%{http_code}' --max-time 5 http://127.0.0.1:10255/pods; true",
        )?;
        ensure(open == "000", format!("{node}: the read-only port answers {open}"))?;
    }
    Ok(())
}

fn kubelet_certificate(space: &Space) -> Answer {
    // Nothing of this namespace runs on the second node, so that its kubelet has no business here.
    space.kubectl(&["create", "secret", "generic", "s", "--from-literal=password=hidden"])?;
    let as_node = |arguments: &str| {
        space.world.on(
            &space.world.nodes[1],
            &format!(
                "kubectl --kubeconfig /etc/kubernetes/kubelet.conf -n {} {arguments} 2>&1; true",
                space.name
            ),
        )
    };
    for (what, arguments) in [
        ("read a secret", "get secret s".to_owned()),
        ("list secrets", "get secrets".to_owned()),
        ("label another node", format!("label node {} attack=yes", space.world.nodes[0])),
        ("delete another node", format!("delete node {}", space.world.nodes[0])),
        ("make a pod", "run p --image=x".to_owned()),
        ("make a token", "create token default".to_owned()),
        ("list all pods", "get pods -A".to_owned()),
    ] {
        let said = as_node(&arguments)?;
        ensure(said.contains("orbidden"), format!("a kubelet may {what}: {said}"))?;
    }
    let mirror = format!(
        r#"echo '{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"m","annotations":{{"kubernetes.io/config.mirror":"x"}}}},"spec":{{"nodeName":"{}","containers":[{{"name":"c","image":"i"}}],"volumes":[{{"name":"v","secret":{{"secretName":"s"}}}}]}}}}' | kubectl --kubeconfig /etc/kubernetes/kubelet.conf -n {} create -f - 2>&1; true"#,
        space.world.nodes[1], space.name
    );
    let said = space.world.on(&space.world.nodes[1], &mirror)?;
    ensure(
        said.contains("orbidden") || said.contains("can not"),
        format!("a mirror pod with a secret was taken: {said}"),
    )?;
    let said = as_node("get secret s")?;
    ensure(said.contains("orbidden"), format!("a kubelet reads a secret after all: {said}"))
}

fn dry_run(space: &Space) -> Answer {
    space.pod("p", "sleep 1000", "", "")?;
    space.ready("p")?;
    space.kubectl(&["delete", "pod", "p", "--dry-run=server", "--wait=false"])?;
    space.world.kubectl(&["delete", "namespace", &space.name, "--dry-run=server", "--wait=false"])?;
    let deleted = space.field("pod/p", "{.metadata.deletionTimestamp}")?
        + &space.world.kubectl(&[
            "get",
            "namespace",
            &space.name,
            "-o",
            "jsonpath={.metadata.deletionTimestamp}",
        ])?;
    ensure(deleted.is_empty(), format!("a dry run deleted for real at {deleted}"))
}
