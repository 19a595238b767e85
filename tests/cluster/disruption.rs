//! Every daemon, the runtime and a shim are killed in the middle of work.

use crate::Case;
use crate::workloads::WEB;
use crate::world::{Answer, Space, ensure, eventually};

/// They stop what others need.
pub const ALONE: &[Case] = &[
    ("disruption the control plane is killed", control_plane),
    ("disruption kubelet and proxy are killed", node_daemons),
    ("disruption the runtime is killed", runtime),
    ("disruption a shim is killed", shim),
    ("disruption a node goes away and comes back", reboot),
    ("disruption a node crashes", crash),
];

/// What must not change: each pod's containers and how often they were started.
fn identities(space: &Space) -> Answer<String> {
    space.kubectl(&[
        "get",
        "pods",
        "--sort-by=.metadata.name",
        "-o",
        "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{\"\\n\"}{end}",
    ])
}

fn workload(space: &Space) -> Answer {
    space.apply(&WEB.replace("replicas: 3", "replicas: 4"))?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    let node = &space.world.nodes[1];
    space.pod("client", "sleep 100000", &format!("nodeName: {node}"), "")?;
    space.ready("client")
}

fn answers(space: &Space) -> Answer {
    eventually("the service answers", || space.exec("client", "timeout 5 wget -qO- http://web/").map(drop))
}

/// The cluster still does what it is asked for.
fn works(space: &Space, name: &str) -> Answer {
    space.world.settled()?;
    for node in &space.world.nodes {
        let pod = format!("{name}-{node}");
        space.pod(&pod, "echo ran", &format!("restartPolicy: Never, nodeName: {node}"), "")?;
        space.phase(&pod, "Succeeded")?;
        space.kubectl(&["delete", "pod", &pod, "--timeout=60s"])?;
    }
    answers(space)
}

fn control_plane(space: &Space) -> Answer {
    workload(space)?;
    let before = identities(space)?;
    for daemon in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "ferrokube-dns"] {
        space.world.on(&space.world.nodes[0], &format!("systemctl kill -s KILL --kill-who=main {daemon}"))?;
        works(space, daemon)?;
        space.kubectl(&["scale", "deployment/web", "--replicas=5"])?;
        space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
        space.kubectl(&["scale", "deployment/web", "--replicas=4"])?;
        eventually("the deployment has its size again", || {
            let pods = space.field("deployment/web", "{.status.replicas}")?;
            ensure(pods == "4", pods)
        })?;
    }
    eventually("no container was started again", || {
        let now = identities(space)?;
        ensure(now.lines().filter(|l| before.contains(*l)).count() >= 4, format!("{now} instead of {before}"))
    })
}

fn node_daemons(space: &Space) -> Answer {
    workload(space)?;
    let before = identities(space)?;
    for node in &space.world.nodes {
        for daemon in ["kubelet", "kube-proxy"] {
            space.world.on(node, &format!("systemctl kill -s KILL --kill-who=main {daemon}"))?;
            works(space, daemon)?;
            ensure(
                identities(space)? == before,
                format!("{daemon} of {node} was killed, and with it containers"),
            )?;
        }
    }
    Ok(())
}

fn runtime(space: &Space) -> Answer {
    workload(space)?;
    // A pod that is probed all the time, by commands too.
    space.pod(
        "probed",
        "touch /ok; sleep 100000",
        &format!("nodeName: {}", space.world.nodes[1]),
        "livenessProbe: {exec: {command: [cat, /ok]}, periodSeconds: 1, failureThreshold: 2}",
    )?;
    space.ready("probed")?;
    let before = identities(space)?;
    for node in &space.world.nodes {
        space.world.on(
            node,
            "systemctl kill -s KILL --kill-who=main containerd; sleep 3; systemctl start containerd",
        )?;
        works(space, "containerd")?;
        eventually("the same containers run", || {
            let now = identities(space)?;
            ensure(now == before, format!("{now} instead of {before}"))
        })?;
    }
    Ok(())
}

fn shim(space: &Space) -> Answer {
    workload(space)?;
    let node = &space.world.nodes[1];
    let id = space.field("pod/client", "{.status.containerStatuses[0].containerID}")?;
    let id = id.trim_start_matches("containerd://");
    // The shim is the parent of the container's first process.
    space.world.on(node, &format!("p=$(ctr -n k8s.io tasks ls | awk '$1 == \"{id}\" {{print $2}}'); kill -KILL $(awk '/^PPid/ {{print $2}}' /proc/$p/status)"))?;
    eventually("the container comes back", || {
        let now = space.field("pod/client", "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}")?;
        ensure(!now.starts_with('0') && now.len() > 2, now)
    })?;
    works(space, "shim")
}

fn reboot(space: &Space) -> Answer {
    again(space, "reboot")
}

fn crash(space: &Space) -> Answer {
    again(space, "crash")
}

fn again(space: &Space, how: &str) -> Answer {
    workload(space)?;
    let node = &space.world.nodes[1];
    space.world.host(&[how, node])?;
    space.world.settled()?;
    eventually("all pods of the node run again", || {
        let ready = space.field(
            "pods",
            "{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}",
        )?;
        ensure(!ready.contains("=False"), ready)
    })?;
    works(space, how)?;
    let rules =
        space.world.on(node, "iptables -w -t nat -S POSTROUTING; cat /proc/sys/net/ipv4/ip_forward")?;
    ensure(
        rules.contains("ferrokube") && rules.ends_with("1\n"),
        format!("pods have no way out after a {how}: {rules}"),
    )
}
