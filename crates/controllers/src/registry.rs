//! All controllers by their names, and running those that are wanted.

use crate::context::Context;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

struct Entry {
    name: &'static str,
    /// Whether it runs unless left out.
    default: bool,
    run: fn(Context) -> BoxFuture<'static, ()>,
}

macro_rules! entries {
    ($($name:literal $default:literal $run:path,)*) => {
        &[$(Entry { name: $name, default: $default, run: |ctx| Box::pin($run(ctx)) },)*]
    };
}

const ALL: &[Entry] = entries! {
    "namespace-controller" true crate::namespace::run,
    "serviceaccount-controller" true crate::serviceaccount::run,
    "root-ca-certificate-publisher-controller" true crate::rootca::run,
    "clusterrole-aggregation-controller" true crate::clusterrole::run,
    "replicaset-controller" true crate::replica::run_replica_sets,
    "replicationcontroller-controller" true crate::replica::run_replication_controllers,
    "deployment-controller" true crate::deployment::run,
    "daemonset-controller" true crate::daemonset::run,
    "job-controller" true crate::job::run,
    "cronjob-controller" true crate::cronjob::run,
    "statefulset-controller" true crate::statefulset::run,
    "disruption-controller" true crate::disruption::run,
    "resourcequota-controller" true crate::resourcequota::run,
    "persistentvolumeclaim-protection-controller" true crate::protection::run_claims,
    "persistentvolume-protection-controller" true crate::protection::run_volumes,
    "volumeattributesclass-protection-controller" true crate::protection::run_classes,
    "persistentvolume-binder-controller" true crate::binder::run,
    "ephemeral-volume-controller" true crate::ephemeral::run,
    "horizontal-pod-autoscaler-controller" true crate::horizontal::run,
    "bootstrap-signer-controller" false crate::bootstrap::run_signer,
    "token-cleaner-controller" false crate::bootstrap::run_cleaner,
    "endpoints-controller" true crate::endpoints::run_endpoints,
    "endpointslice-controller" true crate::endpoints::run_slices,
    "endpointslice-mirroring-controller" true crate::endpoints::run_mirror,
    "garbage-collector-controller" true crate::gc::run,
    "certificatesigningrequest-approving-controller" true crate::csr::run_approver,
    "certificatesigningrequest-signing-controller" true crate::csr::run_signer,
    "certificatesigningrequest-cleaner-controller" true crate::csr::run_cleaner,
    "node-ipam-controller" true crate::ipam::run,
    "node-lifecycle-controller" true crate::node::run_lifecycle,
    "taint-eviction-controller" true crate::node::run_eviction,
    "pod-garbage-collector-controller" true crate::podgc::run,
    "ttl-after-finished-controller" true crate::ttl::run,
};

/// The names of all controllers.
pub const NAMES: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut i = 0;
    while i < ALL.len() {
        names[i] = ALL[i].name;
        i += 1;
    }
    names
};

/// Whether `--controllers` wants a controller.
fn is_wanted(name: &str, default: bool, list: &[String]) -> bool {
    let mut wanted = default && list.iter().any(|w| w == "*");
    for word in list {
        match word.strip_prefix('-') {
            Some(left_out) if left_out == name => return false,
            None if word == name => wanted = true,
            _ => {}
        }
    }
    wanted
}

/// Runs the controllers that are wanted until shutdown.
pub async fn run(ctx: Context) {
    let mut running = JoinSet::new();
    for entry in ALL.iter().filter(|e| is_wanted(e.name, e.default, &ctx.config.controllers)) {
        let (ctx, work) = (ctx.clone(), entry.run);
        running.spawn(async move { work(ctx).await });
    }
    while let Some(ended) = running.join_next().await {
        if let Err(e) = ended
            && e.is_panic()
        {
            // One that panicked is not run again with who knows what state: the daemon ends and starts anew.
            tracing::error!("a controller failed: {e}");
            ctx.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_controllers_is_understood() {
        for (list, name, default, want) in [
            ("*", "a", true, true),
            ("*", "a", false, false),
            ("*,a", "a", false, true),
            ("*,-a", "a", true, false),
            ("b", "a", true, false),
            ("a", "a", true, true),
        ] {
            let words: Vec<String> = list.split(',').map(String::from).collect();
            assert_eq!(is_wanted(name, default, &words), want, "{list}");
        }
    }
}
