//! An election over a server that is a map, under a clock that is stopped.

use super::*;
use api::Status;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Default)]
struct State {
    lease: Mutex<Option<Lease>>,
    down: AtomicBool,
    hangs: AtomicBool,
    writes: AtomicUsize,
    reads: AtomicUsize,
}

#[derive(Clone, Default)]
struct Server(Arc<State>);

impl Server {
    async fn heard(&self) -> Result<(), Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.0.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        match self.0.down.load(Ordering::Relaxed) {
            true => Err(Error::Timeout("the server".into())),
            false => Ok(()),
        }
    }

    fn edit(&self, change: impl FnOnce(&mut Lease)) {
        let mut lease = self.0.lease.lock().unwrap();
        let lease = lease.as_mut().unwrap();
        change(lease);
        bump(lease);
    }

    fn holder(&self) -> String {
        let lease = self.0.lease.lock().unwrap();
        let spec = lease.as_ref().and_then(|l| l.spec.as_ref());
        spec.and_then(|s| s.holder_identity.clone()).unwrap_or_default()
    }
}

fn bump(lease: &mut Lease) {
    let version: u64 = lease.metadata.resource_version.as_deref().unwrap_or("0").parse().unwrap();
    lease.metadata.resource_version = Some((version + 1).to_string());
}

impl Leases for Server {
    async fn get(&self, _: &str, _: &str) -> Result<Option<Lease>, Error> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        self.heard().await?;
        Ok(self.0.lease.lock().unwrap().clone())
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, Error> {
        self.heard().await?;
        let mut made = lease.clone();
        bump(&mut made);
        *self.0.lease.lock().unwrap() = Some(made.clone());
        Ok(made)
    }

    async fn update(&self, lease: &Lease) -> Result<Lease, Error> {
        self.heard().await?;
        let mut there = self.0.lease.lock().unwrap();
        if there.as_ref().map(|l| &l.metadata.resource_version) != Some(&lease.metadata.resource_version) {
            return Err(Error::Api(Box::new(Status::failure(409, "Conflict", "it was changed"))));
        }
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        let mut written = lease.clone();
        bump(&mut written);
        *there = Some(written.clone());
        Ok(written)
    }
}

struct Instance {
    stop: CancellationToken,
    leads: Leadership,
    ended: tokio::task::JoinHandle<Outcome>,
}

/// An instance whose work takes `drain` to end once it is told to.
fn start(server: &Server, identity: &str, drain: Duration) -> Instance {
    let elector = Elector::new(server.clone(), LeaderConfig::new("kube-system", "x", identity));
    let (stop, leads) = (CancellationToken::new(), elector.leadership());
    let work = move |leading: CancellationToken| async move {
        leading.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    Instance { ended: tokio::spawn(elector.run(stop.clone(), work)), stop, leads }
}

async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over() {
    let server = Server::default();
    let a = start(&server, "a", Duration::ZERO);
    seconds(1).await;
    let b = start(&server, "b", Duration::ZERO);
    seconds(60).await;
    assert!(a.leads.leads() && !b.leads.leads());
    let reads = server.0.reads.load(Ordering::Relaxed);
    seconds(60).await;
    assert!(server.0.writes.load(Ordering::Relaxed) > 40);
    // Only the one that waits reads.
    assert!(server.0.reads.load(Ordering::Relaxed) - reads < 35);
    a.stop.cancel();
    assert_eq!(a.ended.await.unwrap(), Outcome::Released);
    seconds(6).await;
    assert!(b.leads.leads() && server.holder() == "b");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_or_a_hanging_request_does_not_lose_the_lease() {
    let server = Server::default();
    let a = start(&server, "a", Duration::ZERO);
    seconds(1).await;
    for _ in 0..20 {
        server.edit(|l| {
            l.metadata.annotations.get_or_insert_default().insert("a".into(), "b".into());
        });
        seconds(3).await;
    }
    assert!(a.leads.leads());
    // One request hangs; the next is answered.
    server.0.hangs.store(true, Ordering::Relaxed);
    seconds(3).await;
    server.0.hangs.store(false, Ordering::Relaxed);
    seconds(30).await;
    assert!(a.leads.leads() && !a.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_or_taken_is_lost() {
    for taken in [false, true] {
        let server = Server::default();
        let a = start(&server, "a", Duration::from_secs(3600));
        seconds(1).await;
        match taken {
            true => server.edit(|l| l.spec.as_mut().unwrap().holder_identity = Some("b".into())),
            false => server.0.down.store(true, Ordering::Relaxed),
        }
        let start = Instant::now();
        // The work, which would take an hour to end, is dropped.
        assert_eq!(a.ended.await.unwrap(), Outcome::Lost);
        assert!(start.elapsed() < Duration::from_secs(if taken { 3 } else { 13 }));
        assert!(!a.leads.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_while_the_work_ends_and_given_up_after_the_time_limit() {
    for (drain, held_for) in [(6, 6), (3600, 10)] {
        let server = Server::default();
        let a = start(&server, "a", Duration::from_secs(drain));
        seconds(1).await;
        let before = server.0.writes.load(Ordering::Relaxed);
        let start = Instant::now();
        a.stop.cancel();
        assert_eq!(a.ended.await.unwrap(), Outcome::Released);
        assert_eq!(start.elapsed().as_secs(), held_for);
        assert!(server.0.writes.load(Ordering::Relaxed) >= before + 2, "renewed meanwhile");
        assert_eq!(server.holder(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_renew_is_not_healthy() {
    let leads = Leadership::default();
    assert!(!leads.is_stale(Duration::from_secs(20)));
    leads.set(Some(Held { at: Instant::now(), lease_duration: Duration::from_secs(15) }));
    seconds(34).await;
    assert!(!leads.is_stale(Duration::from_secs(20)));
    seconds(2).await;
    assert!(leads.is_stale(Duration::from_secs(20)));
}
