//! The same demands on both engines.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Commit, Compaction, Durability, Event, Expect, Store, StoreError};

/// etcd of its own, which ends with the test.
struct Etcd(Child, #[allow(dead_code)] tempfile::TempDir);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .expect("a free port")
}

async fn etcd() -> (Arc<dyn Store>, Etcd) {
    let dir = tempfile::tempdir().expect("a directory");
    let (client, peer) =
        (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path())
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed");
    let options = store::etcd::Options { servers: vec![client], ..Default::default() };
    let running = Etcd(child, dir);
    let store = store::etcd::Etcd::connect(&options, Duration::from_secs(60)).await.expect("etcd answers");
    (Arc::new(store), running)
}

fn put(key: &str, expect: Expect, value: &str) -> Commit {
    let change = Change::Put { value: value.to_string().into(), ttl: None };
    Commit { key: key.into(), expect, change, durability: Durability::Disk }
}

/// What any engine has to do.
async fn demands(store: Arc<dyn Store>) {
    let start = store.revision().await.expect("a revision");
    let mut watch = store.watch("/r/a/", start).await.expect("a watch");
    let first = store.commit(put("/r/a/x", Expect::Absent, "1")).await.expect("created");
    assert!(first > start);
    match store.commit(put("/r/a/x", Expect::Absent, "2")).await {
        Err(StoreError::Conflict(Some(kv))) => {
            assert_eq!((&kv.value[..], kv.mod_revision), (&b"1"[..], first))
        }
        other => panic!("a second creation: {other:?}"),
    }
    let second = store.commit(put("/r/a/x", Expect::Unchanged(first), "2")).await.expect("changed");
    assert!(second > first);
    assert!(matches!(
        store.commit(put("/r/a/x", Expect::Unchanged(first), "3")).await,
        Err(StoreError::Conflict(Some(_)))
    ));
    assert!(matches!(
        store.commit(put("/r/a/none", Expect::Unchanged(first), "3")).await,
        Err(StoreError::Conflict(None))
    ));
    store.commit(put("/r/b/y", Expect::Absent, "other")).await.expect("created");
    for i in 0..5 {
        store.commit(put(&format!("/r/a/k{i}"), Expect::Absent, "v")).await.expect("created");
    }
    // Pages come in the order of keys.
    let page = store.list("/r/a/", None, None, 4).await.expect("a page");
    assert_eq!(
        page.items.iter().map(|kv| &*kv.key).collect::<Vec<_>>(),
        ["/r/a/k0", "/r/a/k1", "/r/a/k2", "/r/a/k3"]
    );
    assert!(page.more && page.revision >= second);
    let page = store.list("/r/a/", Some("/r/a/k3"), None, 4).await.expect("a page");
    assert_eq!(page.items.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), ["/r/a/k4", "/r/a/x"]);
    assert!(!page.more);
    let gone = Commit {
        key: "/r/a/x".into(),
        expect: Expect::Unchanged(second),
        change: Change::Delete,
        durability: Durability::Disk,
    };
    let third = store.commit(gone).await.expect("removed");
    assert!(store.get("/r/a/x").await.expect("read").is_none());
    assert!(store.revision().await.expect("a revision") >= third);
    // The watch tells all of it, in order, and nothing of others.
    let mut told: Vec<Event> = Vec::new();
    while told.last().is_none_or(|e| e.revision() < third) {
        let batch =
            tokio::time::timeout(Duration::from_secs(30), watch.recv()).await.expect("events in time");
        told.extend(batch.expect("the watch goes on").expect("no error").events);
    }
    assert_eq!(told.len(), 8);
    assert!(told.windows(2).all(|w| w[0].revision() < w[1].revision()));
    assert!(matches!(told.last(), Some(Event::Delete { key, .. }) if &**key == "/r/a/x"));
    // What has a time to live goes away by itself, and that is told.
    let change = Change::Put { value: "brief".into(), ttl: Some(Duration::from_secs(1)) };
    store
        .commit(Commit {
            key: "/r/c/z".into(),
            expect: Expect::Absent,
            change,
            durability: Durability::Memory,
        })
        .await
        .expect("created");
    assert!(store.get("/r/c/z").await.expect("read").is_some());
    // Many at once: each revision is given once.
    let writers: Vec<_> = (0..50)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                store.commit(put(&format!("/r/d/{i}"), Expect::Absent, "v")).await.expect("created")
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.expect("a revision"));
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let dir = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(store::embedded::Embedded::open(dir.path()).expect("opens"));
    demands(store.clone()).await;
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while store.get("/r/c/z").await.expect("read").is_some() {
        assert!(std::time::Instant::now() < end, "the key with a time to live is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let revision = store.revision().await.expect("a revision");
    assert!(matches!(store::embedded::Embedded::open(dir.path()), Err(store::embedded::OpenError::InUse(_))));
    drop(store);
    // What was acknowledged is there after a clean end, and the count goes on.
    let again = store::embedded::Embedded::open(dir.path()).expect("opens again");
    assert_eq!(again.list("/r/d/", None, None, 1000).await.expect("a page").items.len(), 50);
    assert!(again.commit(put("/r/e", Expect::Absent, "v")).await.expect("created") > revision);
    assert!(matches!(
        again.watch("/r/", 1).await.expect("a watch").recv().await,
        Some(Err(StoreError::Compacted(1)))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_engine() {
    let (store, running) = etcd().await;
    demands(store.clone()).await;
    drop(running);
    assert!(
        matches!(store.get("/r/a/k0").await, Err(StoreError::Unavailable(_))),
        "a store that is away says so"
    );
}

#[tokio::test]
async fn servers_of_one_etcd_take_turns_to_compact() {
    let (store, _etcd) = etcd().await;
    let old = store.commit(put("/r/a", Expect::Absent, "1")).await.expect("created");
    store.commit(put("/r/a", Expect::Unchanged(old), "2")).await.expect("changed");
    let begun = Compaction::default();
    let first = store.compact(begun).await.expect("nothing to forget yet");
    assert_eq!(first.turn, 1);
    // Another server starts, and learns whose turn it was.
    let other = store.compact(begun).await.expect("an answer");
    assert_eq!(other.turn, 1);
    assert!(store.list("/r/", None, Some(old), 9).await.is_ok());
    let second = store.compact(first).await.expect("compacted");
    assert_eq!(second.turn, 2);
    assert!(matches!(store.list("/r/", None, Some(old), 9).await, Err(StoreError::Compacted(r)) if r == old));
    let newer = store.list("/r/", None, Some(first.revision), 9).await.expect("what is younger is kept");
    assert_eq!(newer.items.len(), 1);
    // The other server finds that it has been done, and its own turn comes after.
    assert_eq!(store.compact(other).await.expect("an answer").turn, 2);
}
