//! Pods made and deleted as fast as it goes: nothing may be left of them.

use crate::Case;
use crate::world::{Answer, Space, ensure, eventually, within};
use std::time::Duration;

/// It fills both nodes.
pub const ALONE: &[Case] = &[("churn leaves nothing", churn)];

/// What a node holds for pods: containerd's tasks and containers, control groups, mounts, network namespaces, addresses, directories.
const COUNT: &str = "echo tasks $(ctr -n k8s.io tasks ls -q | wc -l), containers $(ctr -n k8s.io containers ls -q | wc -l), \
    cgroups $(find /sys/fs/cgroup -type d -path '*kubepods*pod*' | wc -l), mounts $(grep -cE '/var/lib/kubelet/pods|/run/containerd/io' /proc/mounts), \
    networks $(ls /run/netns 2>/dev/null | wc -l), addresses $(ls /var/lib/cni/networks/ferrokube 2>/dev/null | grep -c '^[0-9]'), \
    directories $(ls /var/lib/kubelet/pods | wc -l), logs $(ls /var/log/pods | wc -l)";

fn churn(space: &Space) -> Answer {
    let counts =
        || -> Answer<Vec<String>> { space.world.nodes.iter().map(|n| space.world.on(n, COUNT)).collect() };
    // What earlier cases deleted has to be gone first.
    let before = settled(&counts)?;
    let names: Vec<String> = (0..60).map(|i| format!("p{i}")).collect();
    for round in 0..3 {
        std::thread::scope(|scope| -> Answer {
            let made: Vec<_> = names
                .chunks(15)
                .enumerate()
                .map(|(part, names)| {
                    scope.spawn(move || -> Answer {
                        let pods: Vec<String> = names
                            .iter()
                            .map(|name| {
                                format!(
                                    "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-{round}}}\nspec: {{terminationGracePeriodSeconds: 0, \
                                     containers: [{{name: a, image: \"@IMAGE@\", command: [sleep, \"1000\"]}}, {{name: b, image: \"@IMAGE@\", command: [sleep, \"1000\"]}}], \
                                     volumes: [{{name: v, emptyDir: {{medium: Memory}}}}]}}\n"
                                )
                            })
                            .collect();
                        space.apply(&pods.join("---\n"))?;
                        // Some are cut off while they start, at another moment each time.
                        std::thread::sleep(Duration::from_millis(300 * part as u64 + 150 * round));
                        let names: Vec<String> = names.iter().map(|n| format!("{n}-{round}")).collect();
                        let mut arguments = vec!["delete", "pod", "--wait=false"];
                        if part % 2 == 1 {
                            arguments.extend(["--force", "--grace-period=0"]);
                        }
                        arguments.extend(names.iter().map(String::as_str));
                        space.kubectl(&arguments).map(drop)
                    })
                })
                .collect();
            made.into_iter().try_for_each(|m| m.join().map_err(|_| "a thread panicked".to_owned())?)
        })?;
    }
    within(Duration::from_secs(180), "all pods are gone from the API", || {
        let left = space.kubectl(&["get", "pods", "-o", "name"])?;
        ensure(left.is_empty(), format!("{} pods", left.lines().count()))
    })?;
    within(Duration::from_secs(180), "nothing is left on the nodes", || {
        let now = counts()?;
        ensure(now == before, format!("{now:?} instead of {before:?}"))
    })?;
    // And the kubelets are quiet.
    for node in &space.world.nodes {
        eventually("the kubelet has nothing more to say", || {
            let lines = space.world.on(node, "journalctl -q -u kubelet --since -5s -o cat | wc -l")?;
            ensure(
                lines.trim().parse::<u32>().is_ok_and(|n| n < 20),
                format!("{} lines in five seconds", lines.trim()),
            )
        })?;
    }
    Ok(())
}

/// Waits until the same is counted for five seconds.
fn settled(counts: &dyn Fn() -> Answer<Vec<String>>) -> Answer<Vec<String>> {
    let mut last = counts()?;
    let mut same = 0;
    within(Duration::from_secs(180), "the nodes come to rest", || {
        let now = counts()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        ensure(same >= 25, format!("{last:?}"))
    })?;
    Ok(last)
}
