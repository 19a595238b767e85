//! The bootstrap script on machines that were part of a cluster before, or are lied to.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually};

/// They take a node away.
pub const ALONE: &[Case] = &[
    ("machines init again changes nothing", init_again),
    ("machines join refuses a liar", join_refused),
    ("machines reset and join again", reset_and_join),
];

fn init_again(space: &Space) -> Answer {
    let [control, _] = &space.world.nodes;
    let address = space.world.address(control)?;
    let files = "cd /etc/kubernetes && sha256sum pki/* *.conf";
    let before = space.world.on(control, files)?;
    space.world.on(
        control,
        &format!("ferrokube init --apiserver-advertise-address {address} --node-name {control}"),
    )?;
    ensure(space.world.on(control, files)? == before, "keys or certificates that count were made again")?;
    space.world.settled()
}

fn join_refused(space: &Space) -> Answer {
    let [control, node] = &space.world.nodes;
    let join = space.world.on(control, "ferrokube token create --print-join-command")?;
    let join = join.trim();
    let authority = space.world.on(node, "sha256sum /etc/kubernetes/pki/ca.crt")?;
    let refused = |what: &str, command: &str, word: &str| match space.world.on(node, command) {
        Ok(_) => Err(format!("{what}: joined")),
        Err(e) => ensure(e.contains(word), format!("{what}: {e}")),
    };
    refused("a node of a cluster", join, "is there")?;
    // The rest as if the node were new: its files are set aside for the moment.
    space.world.on(node, "mv /etc/kubernetes /etc/kubernetes.aside")?;
    let checked = refused("another hash", &join.replace('a', "b"), "ferrokube:")
        .and_then(|()| {
            let words: Vec<&str> = join.split(' ').collect();
            let wrong: Vec<String> = words
                .iter()
                .map(|w| {
                    if w.contains('.') && w.len() == 23 {
                        format!("{}.0000000000000000", &w[..6])
                    } else {
                        (*w).to_owned()
                    }
                })
                .collect();
            refused("a wrong token", &wrong.join(" "), "not signed with this token")
        })
        .and_then(|()| {
            ensure(
                space.world.on(node, "ls /etc/kubernetes/pki 2>/dev/null; true")?.is_empty(),
                "a refused join left files",
            )
        });
    space.world.on(node, "rm -rf /etc/kubernetes && mv /etc/kubernetes.aside /etc/kubernetes")?;
    checked?;
    ensure(
        space.world.on(node, "sha256sum /etc/kubernetes/pki/ca.crt")? == authority,
        "the certificate authority was changed",
    )
}

fn reset_and_join(space: &Space) -> Answer {
    let [control, node] = &space.world.nodes;
    // A pod with mounts, so that there is something to take down.
    space.pod(
        "p",
        "sleep 100000",
        &format!("nodeName: {node}, volumes: [{{name: v, emptyDir: {{medium: Memory}}}}]"),
        "volumeMounts: [{name: v, mountPath: /v}]",
    )?;
    space.ready("p")?;
    match space.world.on(node, "ferrokube reset < /dev/null") {
        Ok(_) => Err("reset did not ask".to_owned()),
        Err(e) => ensure(e.contains("--force"), e),
    }?;
    // Something of somebody else's is mounted there and in use: reset stops and deletes nothing of it.
    space.world.on(node, "mkdir -p /var/lib/kubelet/foreign /var/tmp/precious; echo kept > /var/tmp/precious/f; mount --bind /var/tmp/precious /var/lib/kubelet/foreign; (cd /var/lib/kubelet/foreign && exec setsid sleep 1000 > /dev/null 2>&1 < /dev/null) & echo $! > /run/holder")?;
    let stopped = match space.world.on(node, "ferrokube reset --force") {
        Ok(_) => Err("reset went on in spite of a mount in use".to_owned()),
        Err(e) => ensure(e.contains("/var/lib/kubelet/foreign"), e),
    };
    space.world.on(node, "kill $(cat /run/holder); sleep 0.5; umount /var/lib/kubelet/foreign; true")?;
    stopped?;
    ensure(
        space.world.on(node, "cat /var/tmp/precious/f; rm -r /var/tmp/precious")? == "kept\n",
        "reset deleted what was mounted",
    )?;
    space.world.on(node, "ferrokube reset --force")?;
    let left = space.world.on(
        node,
        "ls -A /var/lib/kubelet /etc/kubernetes 2>/dev/null | grep -v : ; ctr -n k8s.io containers ls -q; grep /var/lib/kubelet/ /proc/mounts; iptables-save | grep -E 'KUBE-(SERVICES|NODEPORTS|FORWARD)|ferrokube'; ip link show cni0 2>/dev/null; ls /run/netns; true",
    )?;
    ensure(left.trim().is_empty(), format!("left behind: {left}"))?;
    space.world.kubectl(&["delete", "node", node])?;
    let join = space.world.on(control, "ferrokube token create --print-join-command")?;
    space.world.on(node, &format!("{} --node-name {node}", join.trim()))?;
    space.world.settled()?;
    let range = space.world.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.podCIDR}"])?;
    let route = format!("route replace {range} via {} dev host0", space.world.address(node)?);
    space.world.on(control, &format!("echo '{route}' > /etc/routes; ip -batch /etc/routes"))?;
    space.kubectl(&["delete", "pod", "p", "--ignore-not-found", "--force", "--grace-period=0"])?;
    space.pod("again", "sleep 1000", &format!("nodeName: {node}"), "")?;
    space.ready("again")?;
    eventually("commands run in it", || space.exec("again", "echo hello").map(drop))
}
