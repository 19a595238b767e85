//! The daemon around the controllers: who leads, and what is served.

use crate::options::Options;
use crate::{Context, Error, registry, serving};
use client::leader::{Elector, LeaderConfig, Outcome};
use client::{Client, Config};
use std::pin::Pin;
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
    let mut config = match &options.kubeconfig {
        Some(path) => Config::from_kubeconfig_file(path),
        None => Config::in_cluster(),
    }
    .map_err(|e| Error::Other(format!("--kubeconfig: {e}")))?;
    if let Some(master) = &options.master {
        config.server.clone_from(master);
    }
    let client = Client::new(config.user_agent("kube-controller-manager"))?;
    let settings = options.config()?;
    let serving = serving::start(&options, &client, shutdown.clone()).await?;
    let work = async |leading: CancellationToken| match Context::new(client.clone(), settings, leading) {
        Ok(ctx) => registry::run(ctx).await,
        Err(e) => tracing::error!("{e}"),
    };
    let result = if options.leader_elect {
        let config = LeaderConfig {
            lease_duration: options.leader_elect_lease_duration,
            renew_deadline: options.leader_elect_renew_deadline,
            retry_period: options.leader_elect_retry_period,
            ..LeaderConfig::new(
                &options.leader_elect_resource_namespace,
                &options.leader_elect_resource_name,
                &identity(),
            )
        };
        match Elector::new(client.clone(), config).run(shutdown.clone(), work).await {
            Outcome::Released => Ok(()),
            Outcome::Lost => Err(Error::Other("leader election lost".into())),
        }
    } else {
        work(shutdown.child_token()).await;
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
