//! The store goes away under load and comes back: what was acknowledged is there, who watches hears of all of it, and
//! nobody has to be started again.

use client::Client;
use ferrokube_tests::{Cluster, Store, eventually};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: usize = 8;

fn request(method: &str, path: &str, body: &Value) -> http::Request<bytes::Bytes> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = http::Request::builder().method(method).uri(path);
    request.header("content-type", "application/json").body(body.into()).unwrap()
}

/// Writers that go on until they are told to stop, and maybe one who watches what they write.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    watched: Option<Arc<Mutex<BTreeSet<String>>>>,
    refused: Arc<AtomicUsize>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Load {
    fn start(client: &Client) -> Self {
        let mut load = Load {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            watched: None,
            refused: Arc::default(),
            writers: Vec::new(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        for writer in 0..WRITERS {
            let (client, stop) = (client.clone(), load.stop.clone());
            let (acknowledged, refused) = (load.acknowledged.clone(), load.refused.clone());
            let writer = load.runtime.spawn(async move {
                for i in 0.. {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let name = format!("w{writer}-{i}");
                    let map = json!({"metadata": {"name": name}, "data": {"i": i.to_string()}});
                    match client.raw(request("POST", PATH, &map)).await {
                        Ok(response) if response.status() == 201 => {
                            acknowledged.lock().unwrap().insert(name);
                        }
                        _ => {
                            refused.fetch_add(1, Ordering::AcqRel);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            });
            load.writers.push(writer);
        }
        load
    }

    /// Watches, with one watch, that never ends meanwhile.
    fn watched(mut self, client: Client) -> Self {
        let watched = Arc::<Mutex<BTreeSet<String>>>::default();
        self.watched = Some(watched.clone());
        self.runtime.spawn(async move {
            let watch = request("GET", &format!("{PATH}?watch=true&timeoutSeconds=600"), &Value::Null);
            let mut body = client.stream(watch).await.unwrap().into_body();
            let mut text = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                text.extend_from_slice(frame.data_ref().map_or(&[], |d| d));
                while let Some(end) = text.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let event: Value = serde_json::from_slice(&line).unwrap();
                    assert_eq!(event["type"], "ADDED");
                    let name = event["object"]["metadata"]["name"].as_str().unwrap().to_string();
                    assert!(watched.lock().unwrap().insert(name), "told twice");
                }
            }
        });
        self
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more were acknowledged.
    fn goes_on(&self, more: usize) {
        let from = self.count();
        eventually("writes go on", || (self.count() >= from + more).then_some(()));
    }

    /// Stops writing, and looks for everything that was acknowledged.
    fn check(mut self, c: &Cluster) {
        self.stop.store(true, Ordering::Release);
        for writer in self.writers.drain(..) {
            self.runtime.block_on(writer).unwrap();
        }
        let acknowledged = self.acknowledged.clone();
        if let Some(watched) = &self.watched {
            eventually("the watch tells all", || {
                acknowledged.lock().unwrap().is_subset(&watched.lock().unwrap()).then_some(())
            });
        }
        let names = c.kubectl(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]).unwrap();
        let there: BTreeSet<String> = names.split_whitespace().map(Into::into).collect();
        let lost: Vec<_> = acknowledged.lock().unwrap().difference(&there).cloned().collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        self.runtime.shutdown_background();
    }
}

#[test]
fn etcd_goes_away_and_comes_back() {
    let mut c = Cluster::start(Store::Etcd);
    let load = Load::start(&c.client()).watched(c.client());
    load.goes_on(50);
    c.kill_etcd(0);
    // Reads of any state are answered meanwhile, and what needs the store says what is wrong.
    assert!(c.kubectl(&["get", "--raw", &format!("{PATH}?resourceVersion=0")]).is_ok());
    let map = json!({"metadata": {"name": "a"}}).to_string();
    let (head, body) = c.curl(&["-X", "POST", "-H", "Content-Type: application/json", "-d", &map], PATH);
    assert!(
        head.contains(" 503") && head.contains("retry-after: "),
        "{head}{}",
        String::from_utf8_lossy(&body)
    );
    c.start_etcd(0);
    load.goes_on(50);
    load.check(&c);
}

#[test]
fn a_member_of_etcd_dies() {
    let mut c = Cluster::start(Store::ThreeEtcds);
    let load = Load::start(&c.client()).watched(c.client());
    load.goes_on(50);
    for member in 0..3 {
        let (before, killed) = (load.refused.load(Ordering::Acquire), Instant::now());
        c.kill_etcd(member);
        load.goes_on(100);
        let refused = load.refused.load(Ordering::Acquire) - before;
        println!(
            "member {member} away: {refused} writes refused, 100 acknowledged after {:?}",
            killed.elapsed()
        );
        // Who was on its way is refused, and who comes before another member leads.
        let from = load.refused.load(Ordering::Acquire);
        load.goes_on(100);
        let later = load.refused.load(Ordering::Acquire) - from;
        assert_eq!(later, 0, "writes are refused although two members live");
        c.start_etcd(member);
        load.goes_on(100);
    }
    load.check(&c);
}

#[test]
fn the_server_is_killed_under_load() {
    let mut c = Cluster::start(Store::Embedded);
    let load = Load::start(&c.client());
    for _ in 0..5 {
        load.goes_on(100);
        c.kill_server();
        c.start_server();
    }
    load.goes_on(100);
    load.check(&c);
}

/// A disk of its own for a folder, until this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: PathBuf, size: &str) -> Self {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&folder)
            .status();
        assert!(mount.is_ok_and(|s| s.success()), "a small disk can be made by root only");
        Disk(folder)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("other")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut c = Cluster::start(Store::Embedded);
    c.kill_server();
    let disk = Disk::mount(c.path("data"), "40m");
    c.start_server();
    let load = Load::start(&c.client()).watched(c.client());
    load.goes_on(50);
    disk.fill();
    let map = json!({"metadata": {"name": "a"}, "data": {"x": "y".repeat(100_000)}}).to_string();
    let create = ["-X", "POST", "-H", "Content-Type: application/json", "-d", &map];
    let refused = eventually("a write is refused", || {
        let (head, body) = c.curl(&create, PATH);
        (!head.contains(" 201") && !head.contains(" 409")).then(|| head + &String::from_utf8_lossy(&body))
    });
    assert!(refused.contains(" 507") && refused.contains("no room left"), "{refused}");
    assert!(c.kubectl(&["get", "configmaps", "-o", "name"]).is_ok(), "what is there can be read");
    // Room helps at once.
    std::fs::remove_file(disk.0.join("other")).unwrap();
    load.goes_on(50);
    load.check(&c);
    c.kill_server();
    drop(disk);
}
