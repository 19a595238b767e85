//! Leader election: of several instances of a daemon, the one that holds a Lease works.

use crate::error::Error;
use crate::verbs::Client;
use api::time;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use rand::Rng;
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
}

impl LeaderConfig {
    /// Upstream's times: 15, 10 and 2 seconds.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        LeaderConfig {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
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

/// Takes part in an election.
pub struct Elector {
    client: Client,
    config: LeaderConfig,
}

/// What another holder's Lease said, and when we saw it say so: clocks of machines are not compared.
struct Observed {
    spec: LeaseSpec,
    at: Instant,
}

impl Elector {
    /// An instance that takes part.
    pub fn new(client: Client, config: LeaderConfig) -> Self {
        Elector { client, config }
    }

    /// Waits until we lead, then runs `work`, which gets a token that is cancelled when it has to stop.
    pub async fn run<F, R>(self, shutdown: CancellationToken, work: F) -> Outcome
    where
        F: FnOnce(CancellationToken) -> R,
        R: Future<Output = ()>,
    {
        if shutdown.run_until_cancelled(self.acquire()).await.is_none() {
            return Outcome::Released;
        }
        tracing::info!(
            "{} leads: holds lease {}/{}",
            self.config.identity,
            self.config.namespace,
            self.config.name
        );
        let leading = shutdown.child_token();
        let work = work(leading.clone());
        tokio::pin!(work);
        let mut ended = false;
        let lost = tokio::select! {
            () = &mut work => { ended = true; false }
            () = self.renew() => true,
            () = shutdown.cancelled() => false,
        };
        leading.cancel();
        if lost {
            tracing::error!("lost lease {}/{}", self.config.namespace, self.config.name);
            return Outcome::Lost;
        }
        // It is given the time to end what it is at.
        if !ended {
            work.await;
        }
        if let Err(e) = self.release().await {
            tracing::warn!("cannot release lease {}/{}: {e}", self.config.namespace, self.config.name);
        }
        Outcome::Released
    }

    async fn acquire(&self) {
        let mut observed = None;
        loop {
            match self.try_hold(&mut observed).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(e) => {
                    tracing::warn!("cannot take lease {}/{}: {e}", self.config.namespace, self.config.name)
                }
            }
            let jitter = rand::rng().random_range(1.0..2.2);
            tokio::time::sleep(self.config.retry_period.mul_f64(jitter)).await;
        }
    }

    /// Renews until that fails for too long.
    async fn renew(&self) {
        let mut observed = None;
        let mut held = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let left = (held + self.config.renew_deadline).saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.try_hold(&mut observed)).await {
                Ok(Ok(true)) => held = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(e)) => {
                    tracing::warn!("cannot renew lease {}/{}: {e}", self.config.namespace, self.config.name)
                }
                Err(_) => return,
            }
            if held.elapsed() >= self.config.renew_deadline {
                return;
            }
        }
    }

    /// Takes or renews the Lease; false if another holds it.
    async fn try_hold(&self, observed: &mut Option<Observed>) -> Result<bool, Error> {
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
        let Some(mut lease) = self.client.get_opt::<Lease>(&c.namespace, &c.name).await? else {
            let mut lease = Lease { spec: Some(wanted), ..Lease::default() };
            lease.metadata.namespace = Some(c.namespace.clone());
            lease.metadata.name = Some(c.name.clone());
            return held(self.client.create(&lease).await);
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
                    return Ok(false);
                }
            }
            wanted.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        lease.spec =
            Some(LeaseSpec { strategy: spec.strategy, preferred_holder: spec.preferred_holder, ..wanted });
        held(self.client.update(&lease).await)
    }

    async fn release(&self) -> Result<(), Error> {
        let c = &self.config;
        let mut lease: Lease = self.client.get(&c.namespace, &c.name).await?;
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
        self.client.update(&lease).await.map(drop)
    }
}

/// Someone else was faster: they hold it.
fn held(result: Result<Lease, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.is_conflict() || e.is_already_exists() => Ok(false),
        Err(e) => Err(e),
    }
}
