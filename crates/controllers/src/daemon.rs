//! The daemon around the controllers: who leads, and what is served.

use crate::health::Health;
use crate::options::Options;
use crate::{Context, Error, registry, serving};
use client::leader::{Elector, LeaderConfig, Outcome};
use client::{Client, Config, Metrics};
use std::pin::Pin;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs the controller manager until shutdown. An error ends it, a lost lease too.
pub fn run(
    options: Options,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>>>> {
    // Boxed, the daemon is compiled here, once, and not again in its program.
    Box::pin(work(options, shutdown))
}

async fn work(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let mut config = match options.kubeconfig.path() {
        Some(path) => Config::from_kubeconfig_file(path),
        None => Config::in_cluster(),
    }
    .map_err(|e| Error::Other(format!("--kubeconfig: {e}")))?;
    if let Some(master) = &options.master {
        config.server.clone_from(master);
    }
    let access = config.clone();
    let (metrics, health) = (Metrics::default(), Health::default());
    let client = Client::new(config.user_agent("kube-controller-manager"))?.metered(&metrics);
    let settings = options.config()?;
    let serving = serving::start(&options, &client, &metrics, &health, shutdown.clone()).await?;
    let checks = health.clone();
    let work = async |leading: CancellationToken| match Context::new(
        client.clone(),
        settings,
        metrics.clone(),
        checks,
        leading,
    ) {
        Ok(ctx) => registry::run(ctx).await,
        Err(e) => tracing::error!("{e}"),
    };
    let result = if options.leader_elect {
        let config = LeaderConfig {
            lease_duration: options.leader_elect_lease_duration,
            renew_deadline: options.leader_elect_renew_deadline,
            retry_period: options.leader_elect_retry_period,
            // The workers have so long; what is around them needs a moment more.
            shutdown_timeout: options.controller_shutdown_timeout + Duration::from_secs(2),
            ..LeaderConfig::new(
                &options.leader_elect_resource_namespace,
                &options.leader_elect_resource_name,
                &identity(),
            )
        };
        // Over connections of its own: it must not wait for other requests.
        let own = Client::new(access.user_agent("kube-controller-manager/leader-election"))?;
        let elector = Elector::new(own.metered(&metrics), config).metered(&metrics);
        health.watch(elector.leadership(), &options.leader_elect_resource_name);
        match elector.run(shutdown.clone(), work).await {
            Outcome::Released => Ok(()),
            Outcome::Lost => Err(Error::Other("leader election lost".into())),
        }
    } else {
        let stopping = shutdown.child_token();
        let work = work(stopping.clone());
        let limit = async {
            shutdown.cancelled().await;
            tokio::time::sleep(options.controller_shutdown_timeout + Duration::from_secs(2)).await;
        };
        tokio::select! {
            () = work => {}
            () = limit => tracing::warn!("the controllers did not end in time and are dropped"),
        }
        Ok(())
    };
    if !shutdown.is_cancelled() && result.is_ok() {
        return Err(Error::Other("the controllers ended".into()));
    }
    drop(serving);
    result
}

/// The host's name and something random: two instances on a host are two.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}", host.trim(), rand::random::<u64>())
}
