//! A running cluster, such as `hack/up` makes: how long pods take to run and to go, and what the daemons cost.

use client::{Client, Config, Error, ListParams, WatchEvent};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "default";
const LABEL: &str = "ferrokube-bench=node";
/// For how long the daemons' idle processor time is measured.
const IDLE: Duration = Duration::from_secs(20);
/// A pod that has not come or gone by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
const DAEMONS: [&str; 8] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "ferrokube-dns",
    "etcd",
    "containerd",
];

type Failure = Box<dyn std::error::Error>;

/// Measures the cluster of a kubeconfig. `count` pods one after the other, then as many as 60 at once.
pub async fn run(kubeconfig: &Path, image: &str, count: usize) -> Result<(), Failure> {
    let client = Client::new(Config::from_kubeconfig_file(kubeconfig)?)?;
    idle().await?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for n in 0..count {
        let name = format!("bench-{n}");
        let started = Instant::now();
        create(&client, &name, image).await?;
        wait(&client, std::slice::from_ref(&name), Until::Running).await?;
        up.push(started.elapsed());
        let started = Instant::now();
        client.delete::<Pod>(NAMESPACE, &name, &Default::default()).await?;
        wait(&client, &[name], Until::Gone).await?;
        down.push(started.elapsed());
    }
    show("create a pod to Running, image present", &mut up);
    show("delete a pod that ends on TERM", &mut down);
    let names: Vec<String> = (0..60).map(|n| format!("bench-many-{n}")).collect();
    let before = costs();
    let started = Instant::now();
    for name in &names {
        create(&client, name, image).await?;
    }
    wait(&client, &names, Until::Running).await?;
    println!("60 pods at once to Running                {:>8.2} s", started.elapsed().as_secs_f64());
    for (daemon, cost) in costs() {
        let spent = cost.cpu.saturating_sub(before.get(&daemon).map_or(Duration::ZERO, |b| b.cpu));
        println!(
            "  {daemon:<24} {:>8.1} MB   {:>8.2} ms of processor time a pod",
            cost.rss as f64 / 1e6,
            spent.as_secs_f64() * 1e3 / 60.0
        );
    }
    client.delete_collection::<Pod>(NAMESPACE, &ListParams::labels(LABEL), &Default::default()).await?;
    wait(&client, &names, Until::Gone).await
}

async fn idle() -> Result<(), Failure> {
    let before = costs();
    tokio::time::sleep(IDLE).await;
    println!("idle, over {} s", IDLE.as_secs());
    let (mut rss, mut cpu) = (0, Duration::ZERO);
    for (daemon, cost) in costs() {
        let spent = cost.cpu.saturating_sub(before.get(&daemon).map_or(Duration::ZERO, |b| b.cpu));
        if daemon != "containerd" {
            rss += cost.rss;
            cpu += spent;
        }
        println!(
            "  {daemon:<24} {:>8.1} MB   {:>8.2} % of a core",
            cost.rss as f64 / 1e6,
            spent.as_secs_f64() * 100.0 / IDLE.as_secs_f64()
        );
    }
    println!(
        "  {:<24} {:>8.1} MB   {:>8.2} % of a core",
        "all but containerd",
        rss as f64 / 1e6,
        cpu.as_secs_f64() * 100.0 / IDLE.as_secs_f64()
    );
    Ok(())
}

async fn create(client: &Client, name: &str, image: &str) -> Result<(), Failure> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"ferrokube-bench": "node"}},
        "spec": {
            "terminationGracePeriodSeconds": 10,
            "containers": [{
                "name": "c", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"],
            }],
        },
    }))?;
    client.create(&pod).await?;
    Ok(())
}

fn running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
}

/// What pods are waited for to be.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    Running,
    Gone,
}

/// Waits until all of these pods are.
async fn wait(client: &Client, names: &[String], until: Until) -> Result<(), Failure> {
    let list = client.list::<Pod>(NAMESPACE, &ListParams::labels(LABEL)).await?;
    let name = |p: &Pod| p.metadata.name.clone().unwrap_or_default();
    let there: HashMap<String, bool> = list.items.iter().map(|p| (name(p), running(p))).collect();
    let mut left: HashSet<String> = names.iter().cloned().collect();
    left.retain(|n| match until {
        Until::Running => there.get(n) != Some(&true),
        Until::Gone => there.contains_key(n),
    });
    let mut watch =
        client.watch::<Pod>(NAMESPACE, &ListParams::labels(LABEL), &list.resource_version).await?;
    while !left.is_empty() {
        match tokio::time::timeout(PATIENCE, watch.next()).await {
            Ok(Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))))
                if until == Until::Running && running(&pod) =>
            {
                left.remove(&name(&pod));
            }
            Ok(Some(Ok(WatchEvent::Deleted(pod)))) => {
                left.remove(&name(&pod));
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(e))) => return Err(e.into()),
            Ok(None) => return Err(Error::Request("the watch ended".into()).into()),
            Err(_) => return Err(format!("nothing happened to {left:?} in {PATIENCE:?}").into()),
        }
    }
    Ok(())
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    let ms = |d: Option<Duration>| d.unwrap_or_default().as_secs_f64() * 1e3;
    println!("{what:<41} p50 {:>6.0} ms   p99 {:>6.0} ms", ms(at(50)), ms(at(99)));
}

#[derive(Clone, Copy, Default)]
struct Cost {
    /// Bytes.
    rss: u64,
    cpu: Duration,
}

/// What the daemons on this machine hold and have spent so far, its hosts' among them.
fn costs() -> std::collections::BTreeMap<String, Cost> {
    let mut all: HashMap<String, Cost> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = entry.path();
        let Ok(line) = std::fs::read(dir.join("cmdline")) else { continue };
        let program = line.split(|b| *b == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program);
        let name = program.rsplit('/').next().unwrap_or_default();
        if !DAEMONS.contains(&name) {
            continue;
        }
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        // Fields after the name, which may have blanks in it: proc(5), stat.
        let stat = read("stat");
        let fields: Vec<u64> = stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .map(|f| f.parse().unwrap_or_default())
            .collect();
        let ticks = fields.get(11).copied().unwrap_or(0) + fields.get(12).copied().unwrap_or(0);
        let rss = read("status")
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or_default();
        let cost = all.entry(name.to_string()).or_default();
        cost.rss += rss * 1024;
        cost.cpu += Duration::from_millis(ticks * 10);
    }
    all.into_iter().collect()
}
