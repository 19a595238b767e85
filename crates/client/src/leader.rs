//! Leader election: of several instances of a daemon, the one that holds a Lease works.

use crate::error::Error;
use crate::metrics::Metrics;
use crate::verbs::Client;
use api::time;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use rand::Rng;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How an election goes.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who we are; no two instances are the same.
    pub identity: String,
    /// Others wait so long after the last renewal they saw.
    pub lease_duration: Duration,
    /// We stop if we could not renew for so long.
    pub renew_deadline: Duration,
    /// How often we try.
    pub retry_period: Duration,
    /// How long the work may take to end when it is told to; the Lease is renewed meanwhile.
    pub shutdown_timeout: Duration,
}

impl LeaderConfig {
    /// Upstream's times: 15, 10 and 2 seconds, and 10 to end.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        LeaderConfig {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// We were told to stop, or the work ended; the Lease is free.
    Released,
    /// We could not renew the Lease: another instance may work now.
    Lost,
}

/// Where Leases are kept: the API server, or a test.
pub trait Leases: Send + Sync {
    /// The Lease, if it is there.
    fn get(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<Lease>, Error>> + Send;
    /// Makes it.
    fn create(&self, lease: &Lease) -> impl Future<Output = Result<Lease, Error>> + Send;
    /// Replaces it, if nobody else did.
    fn update(&self, lease: &Lease) -> impl Future<Output = Result<Lease, Error>> + Send;
}

impl Leases for Client {
    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Lease>, Error> {
        self.get_opt(namespace, name).await
    }
    async fn create(&self, lease: &Lease) -> Result<Lease, Error> {
        Client::create(self, lease).await
    }
    async fn update(&self, lease: &Lease) -> Result<Lease, Error> {
        Client::update(self, lease).await
    }
}

/// Whether we lead, and since when the Lease was not renewed; for the health check.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Held>>>);

#[derive(Clone, Copy, Debug)]
struct Held {
    at: Instant,
    lease_duration: Duration,
}

impl Leadership {
    fn set(&self, held: Option<Held>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Whether we hold the Lease.
    pub fn leads(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether we lead by a Lease that ended more than `tolerance` ago: then we are alive only in part.
    pub fn is_stale(&self, tolerance: Duration) -> bool {
        let held = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_some_and(|h| h.at.elapsed() > h.lease_duration + tolerance)
    }
}

/// Takes part in an election.
pub struct Elector<L = Client> {
    leases: L,
    config: LeaderConfig,
    leadership: Leadership,
    metrics: Option<Metrics>,
}

/// What another holder's Lease said, and when we saw it say so: clocks of machines are not compared.
struct Observed {
    spec: LeaseSpec,
    at: Instant,
}

/// What an attempt came to.
enum Attempt {
    /// The Lease is ours, as it was written now.
    Ours(Box<Lease>),
    /// Another holds it.
    Theirs,
    /// Someone changed it meanwhile: it may still be ours.
    Changed,
}

impl<L: Leases> Elector<L> {
    /// An instance that takes part.
    pub fn new(leases: L, config: LeaderConfig) -> Self {
        Elector { leases, config, leadership: Leadership::default(), metrics: None }
    }

    /// Measures whether it leads.
    pub fn metered(mut self, metrics: &Metrics) -> Self {
        metrics.leads(&self.config.name, false);
        self.metrics = Some(metrics.clone());
        self
    }

    /// Whether it leads, for others to see.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    fn set_leads(&self, leads: bool, at: Instant) {
        let lease_duration = self.config.lease_duration;
        self.leadership.set(leads.then_some(Held { at, lease_duration }));
        if let Some(metrics) = &self.metrics {
            metrics.leads(&self.config.name, leads);
        }
    }

    /// Waits until we lead, then runs `work`, which gets a token that is cancelled when it has to stop. Work that
    /// does not end in time then is dropped, and so is all work when the Lease is lost.
    pub async fn run<F, R>(self, shutdown: CancellationToken, work: F) -> Outcome
    where
        F: FnOnce(CancellationToken) -> R,
        R: Future<Output = ()>,
    {
        let Some((lease, since)) = shutdown.run_until_cancelled(self.acquire()).await else {
            return Outcome::Released;
        };
        let (namespace, name) = (&self.config.namespace, &self.config.name);
        tracing::info!("{} leads: holds lease {namespace}/{name}", self.config.identity);
        self.set_leads(true, since);
        let leading = shutdown.child_token();
        let mut work = Box::pin(work(leading.clone()));
        let lost = {
            let renewing = self.renew(lease, since);
            tokio::pin!(renewing);
            let mut ended = false;
            let mut lost = tokio::select! {
                () = &mut work => { ended = true; false }
                () = &mut renewing => true,
                () = shutdown.cancelled() => false,
            };
            leading.cancel();
            if !ended && !lost {
                // What it is at may still be written, so the Lease has to stay ours.
                lost = tokio::select! {
                    () = &mut work => false,
                    () = &mut renewing => true,
                    () = tokio::time::sleep(self.config.shutdown_timeout) => {
                        tracing::warn!("the work did not end in time and is dropped");
                        false
                    }
                };
            }
            lost
        };
        drop(work);
        self.set_leads(false, since);
        if lost {
            tracing::error!("lost lease {namespace}/{name}");
            return Outcome::Lost;
        }
        match tokio::time::timeout(self.config.renew_deadline, self.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("cannot release lease {namespace}/{name}: {e}"),
            Err(_) => tracing::warn!("cannot release lease {namespace}/{name}: no answer in time"),
        }
        Outcome::Released
    }

    /// Waits until the Lease is ours; answers since when it surely is.
    async fn acquire(&self) -> (Lease, Instant) {
        let (namespace, name) = (&self.config.namespace, &self.config.name);
        let mut observed = None;
        loop {
            let asked = Instant::now();
            let attempt = self.try_hold(&mut observed);
            match tokio::time::timeout(self.config.renew_deadline, attempt).await {
                Ok(Ok(Attempt::Ours(lease))) => return (*lease, asked),
                Ok(Ok(Attempt::Theirs | Attempt::Changed)) => {}
                Ok(Err(e)) => tracing::warn!("cannot take lease {namespace}/{name}: {e}"),
                Err(_) => tracing::warn!("cannot take lease {namespace}/{name}: no answer in time"),
            }
            let jitter = rand::rng().random_range(1.0..2.2);
            tokio::time::sleep(self.config.retry_period.mul_f64(jitter)).await;
        }
    }

    /// Renews until that fails for too long, or another holds the Lease.
    async fn renew(&self, lease: Lease, since: Instant) {
        let (namespace, name) = (&self.config.namespace, &self.config.name);
        let (mut last, mut held, mut observed) = (Some(lease), since, None);
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let asked = Instant::now();
            let left = (held + self.config.renew_deadline).saturating_duration_since(asked);
            // One try that hangs must leave the time for another.
            let limit = (self.config.renew_deadline / 2).min(left);
            match tokio::time::timeout(limit, self.hold_on(&mut last, &mut observed)).await {
                Ok(Ok(Attempt::Ours(lease))) => {
                    (last, held) = (Some(*lease), asked);
                    self.set_leads(true, asked);
                }
                Ok(Ok(Attempt::Theirs)) => return,
                Ok(Ok(Attempt::Changed)) => tracing::debug!("lease {namespace}/{name} was changed"),
                Ok(Err(e)) => tracing::warn!("cannot renew lease {namespace}/{name}: {e}"),
                Err(_) => tracing::warn!("cannot renew lease {namespace}/{name}: no answer in time"),
            }
            if held.elapsed() >= self.config.renew_deadline {
                return;
            }
        }
    }

    /// Renews what we wrote last without reading it again, if nobody has changed it.
    async fn hold_on(
        &self,
        last: &mut Option<Lease>,
        observed: &mut Option<Observed>,
    ) -> Result<Attempt, Error> {
        if let Some(mut lease) = last.take() {
            let spec = lease.spec.get_or_insert_default();
            spec.renew_time = Some(time::now_micro());
            match self.leases.update(&lease).await {
                Ok(written) => return Ok(Attempt::Ours(Box::new(written))),
                Err(e) => tracing::debug!("lease {}: {e}, reading it", self.config.name),
            }
        }
        self.try_hold(observed).await
    }

    /// Takes or renews the Lease.
    async fn try_hold(&self, observed: &mut Option<Observed>) -> Result<Attempt, Error> {
        let c = &self.config;
        let now = time::now_micro();
        let wanted = LeaseSpec {
            holder_identity: Some(c.identity.clone()),
            lease_duration_seconds: i32::try_from(c.lease_duration.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = self.leases.get(&c.namespace, &c.name).await? else {
            let mut lease = Lease { spec: Some(wanted), ..Lease::default() };
            lease.metadata.namespace = Some(c.namespace.clone());
            lease.metadata.name = Some(c.name.clone());
            return held(self.leases.create(&lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let mut wanted = wanted;
        wanted.lease_transitions = spec.lease_transitions;
        if holder == c.identity {
            wanted.acquire_time = spec.acquire_time.clone();
        } else {
            if !holder.is_empty() {
                if observed.as_ref().is_none_or(|o| o.spec != spec) {
                    *observed = Some(Observed { spec: spec.clone(), at: Instant::now() });
                }
                let duration = spec
                    .lease_duration_seconds
                    .map_or(c.lease_duration, |s| Duration::from_secs(s.max(1) as u64));
                if observed.as_ref().is_some_and(|o| o.at.elapsed() < duration) {
                    return Ok(Attempt::Theirs);
                }
            }
            wanted.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        lease.spec =
            Some(LeaseSpec { strategy: spec.strategy, preferred_holder: spec.preferred_holder, ..wanted });
        held(self.leases.update(&lease).await)
    }

    async fn release(&self) -> Result<(), Error> {
        let c = &self.config;
        let Some(mut lease) = self.leases.get(&c.namespace, &c.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&c.identity) {
            return Ok(());
        }
        let now = time::now_micro();
        *spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: spec.lease_transitions,
            ..LeaseSpec::default()
        };
        self.leases.update(&lease).await.map(drop)
    }
}

fn held(result: Result<Lease, Error>) -> Result<Attempt, Error> {
    match result {
        Ok(lease) => Ok(Attempt::Ours(Box::new(lease))),
        Err(e) if e.is_conflict() || e.is_already_exists() => Ok(Attempt::Changed),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
