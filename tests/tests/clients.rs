//! The official clients of three languages against the API server: lists and watches, patches, apply, dynamic objects,
//! commands in containers.

mod exec_node;

use ferrokube_tests::{Cluster, Store};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{
    AttachParams, AttachedProcess, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, Discovery, ResourceExt};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a program to its end, and gives what it printed.
fn run(command: &mut Command) -> String {
    let out =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run hack/test, which installs it"));
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {text}");
    text
}

/// Runs an installer. Without a way to its registry there is nothing to test with, which is said and not held against
/// the server.
fn installed(command: &mut Command) -> bool {
    let out =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run hack/test, which installs it"));
    if !out.status.success() {
        eprintln!("LEFT OUT, since {command:?} failed: {}", String::from_utf8_lossy(&out.stderr));
    }
    out.status.success()
}

/// Where packages of other languages are kept between runs.
fn kept(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

#[test]
fn python() {
    let dir = kept("python");
    let wanted = clients().join("python/requirements.txt");
    let stamp = dir.join("requirements.txt");
    if std::fs::read(&stamp).ok() != std::fs::read(&wanted).ok() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir));
        if !installed(Command::new(dir.join("bin/pip")).args(["install", "-q", "-r"]).arg(&wanted)) {
            return;
        }
        std::fs::copy(&wanted, &stamp).expect("copied");
    }
    for store in [Store::Embedded, Store::Etcd] {
        let c = Cluster::start(store);
        let _node = exec_node::start(&c);
        let script = clients().join("python/test_client.py");
        let mut python = Command::new(dir.join("bin/python"));
        let said = run(python.args(["-W", "ignore"]).arg(script).arg(c.path("kubeconfig")));
        assert!(said.contains("ok"), "{said}");
    }
}

#[test]
fn javascript() {
    let dir = kept("node");
    let wanted = clients().join("node/package.json");
    if std::fs::read(dir.join("package.json")).ok() != std::fs::read(&wanted).ok() {
        // Under its own name it says that all is there.
        let unpacked = kept("node-new");
        std::fs::copy(&wanted, unpacked.join("package.json")).expect("copied");
        let npm = ["install", "--silent", "--no-audit", "--no-fund"];
        if !installed(Command::new("npm").current_dir(&unpacked).args(npm)) {
            return;
        }
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::rename(unpacked, &dir).expect("moved");
    }
    std::fs::copy(clients().join("node/client.test.mjs"), dir.join("client.test.mjs")).expect("copied");
    for store in [Store::Embedded, Store::Etcd] {
        let c = Cluster::start(store);
        let _node = exec_node::start(&c);
        let mut node = Command::new("node");
        let said = run(node.current_dir(&dir).arg("client.test.mjs").arg(c.path("kubeconfig")));
        assert!(said.contains("ok"), "{said}");
    }
}

#[test]
fn rust() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for store in [Store::Embedded, Store::Etcd] {
        let c = Cluster::start(store);
        let node = exec_node::start(&c);
        node.block_on(async {
            let file = Kubeconfig::read_from(c.path("kubeconfig"))?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            let client = Client::try_from(config)?;
            round(client.clone()).await?;
            commands(Api::default_namespaced(client)).await
        })?;
    }
    Ok(())
}

/// Commands in a container: what they say, how they end, what they are told.
async fn commands(pods: Api<Pod>) -> Result<(), Box<dyn std::error::Error>> {
    async fn all(from: Option<impl AsyncRead + Unpin>) -> String {
        let mut text = String::new();
        if let Some(mut from) = from {
            from.read_to_string(&mut text).await.expect("text");
        }
        text
    }
    async fn exit_code(process: &mut AttachedProcess) -> Option<String> {
        let status = process.take_status()?.await?;
        let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
        causes.first().map_or(status.status, |c| c.message.clone())
    }
    let mut process =
        pods.exec("shell", ["sh", "-c", "echo out; echo err >&2; exit 3"], &AttachParams::default()).await?;
    let (out, err) = (process.stdout(), process.stderr());
    assert_eq!(tokio::join!(all(out), all(err)), ("out\n".into(), "err\n".into()));
    assert_eq!(exit_code(&mut process).await.as_deref(), Some("3"));
    let told = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.exec("shell", ["cat"], &told).await?;
    let mut stdin = process.stdin().ok_or("no input")?;
    stdin.write_all(b"hello").await?;
    stdin.shutdown().await?;
    drop(stdin);
    assert_eq!(all(process.stdout()).await, "hello");
    assert_eq!(exit_code(&mut process).await.as_deref(), Some("Success"));
    assert!(pods.exec("nobody", ["true"], &AttachParams::default()).await.is_err());
    Ok(())
}

async fn round(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let space: Namespace = serde_json::from_value(json!({"metadata": {"name": "rust"}}))?;
    namespaces.create(&PostParams::default(), &space).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    let map = |name: &str, value: &str| -> Result<ConfigMap, serde_json::Error> {
        serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"mine": "yes"}}, "data": {"k": value}}),
        )
    };
    // A watcher that starts with what is there: as a list, and as a streamed list.
    for (n, config) in
        [watcher::Config::default(), watcher::Config::default().streaming_lists()].into_iter().enumerate()
    {
        let (first, second) = (format!("first-{n}"), format!("second-{n}"));
        maps.create(&PostParams::default(), &map(&first, "1")?).await?;
        let fields = watcher::Config { label_selector: Some("mine=yes".into()), ..config };
        let mut events = Box::pin(watcher(maps.clone(), fields).applied_objects());
        let seen = events.try_next().await?.ok_or("the watch ended")?;
        assert_eq!(seen.name_any(), first);
        maps.create(&PostParams::default(), &map(&second, "1")?).await?;
        assert_eq!(events.try_next().await?.ok_or("the watch ended")?.name_any(), second);
        let patch = json!({"data": {"k": "2"}});
        maps.patch(&second, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        let seen = events.next().await.ok_or("the watch ended")??;
        assert_eq!(seen.data.and_then(|d| d.get("k").cloned()).as_deref(), Some("2"));
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("mine=yes")).await?;
    }
    // Kinds found by discovery, applied as dynamic objects.
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let (kind, _) = discovery
        .groups()
        .flat_map(|g| g.recommended_resources())
        .find(|(k, _)| k.kind == "Secret" && k.group.is_empty())
        .ok_or("no secrets")?;
    let dynamic: Api<DynamicObject> = Api::namespaced_with(client.clone(), "rust", &kind);
    let wanted =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    dynamic.patch("s", &PatchParams::apply("one"), &Patch::Apply(&wanted)).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "rust");
    assert_eq!(
        secrets.get("s").await?.data.and_then(|d| d.get("a").map(|v| v.0.clone())),
        Some(b"b".to_vec())
    );
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Other"});
    let refused = dynamic.patch("s", &PatchParams::apply("two"), &Patch::Apply(&other)).await;
    assert!(refused.is_err(), "the type of a secret stays");
    // What is there is made no second time.
    match namespaces.create(&PostParams::default(), &space).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"))
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}
