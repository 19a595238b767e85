//! All controllers by their names, and running those that are wanted.

use crate::Error;
use crate::context::Context;
use futures::future::BoxFuture;
use std::collections::HashMap;
use tokio::task::JoinSet;

struct Entry {
    name: &'static str,
    /// What it was called before: manifests still say so.
    alias: &'static str,
    /// Whether it runs unless left out.
    default: bool,
    run: fn(Context) -> BoxFuture<'static, ()>,
}

macro_rules! entries {
    ($($name:literal $alias:literal $default:literal $run:path,)*) => {
        &[$(Entry { name: $name, alias: $alias, default: $default, run: |ctx| Box::pin($run(ctx)) },)*]
    };
}

const ALL: &[Entry] = entries! {
    "serviceaccount-token-controller" "serviceaccount-token" true crate::token::run,
    "namespace-controller" "namespace" true crate::namespace::run,
    "serviceaccount-controller" "serviceaccount" true crate::serviceaccount::run,
    "root-ca-certificate-publisher-controller" "root-ca-cert-publisher" true crate::rootca::run,
    "clusterrole-aggregation-controller" "clusterrole-aggregation" true crate::clusterrole::run,
    "replicaset-controller" "replicaset" true crate::replica::run_replica_sets,
    "replicationcontroller-controller" "replicationcontroller" true crate::replica::run_replication_controllers,
    "deployment-controller" "deployment" true crate::deployment::run,
    "daemonset-controller" "daemonset" true crate::daemonset::run,
    "job-controller" "job" true crate::job::run,
    "cronjob-controller" "cronjob" true crate::cronjob::run,
    "statefulset-controller" "statefulset" true crate::statefulset::run,
    "disruption-controller" "disruption" true crate::disruption::run,
    "resourcequota-controller" "resourcequota" true crate::resourcequota::run,
    "persistentvolumeclaim-protection-controller" "pvc-protection" true crate::protection::run_claims,
    "persistentvolume-protection-controller" "pv-protection" true crate::protection::run_volumes,
    "volumeattributesclass-protection-controller" "" true crate::protection::run_classes,
    "persistentvolume-binder-controller" "persistentvolume-binder" true crate::binder::run,
    "ephemeral-volume-controller" "ephemeral-volume" true crate::ephemeral::run,
    "horizontal-pod-autoscaler-controller" "horizontalpodautoscaling" true crate::horizontal::run,
    "bootstrap-signer-controller" "bootstrapsigner" false crate::bootstrap::run_signer,
    "token-cleaner-controller" "tokencleaner" false crate::bootstrap::run_cleaner,
    "endpoints-controller" "endpoint" true crate::endpoints::run_endpoints,
    "endpointslice-controller" "endpointslice" true crate::endpoints::run_slices,
    "endpointslice-mirroring-controller" "endpointslicemirroring" true crate::endpoints::run_mirror,
    "garbage-collector-controller" "garbagecollector" true crate::gc::run,
    "certificatesigningrequest-approving-controller" "csrapproving" true crate::csr::run_approver,
    "certificatesigningrequest-signing-controller" "csrsigning" true crate::csr::run_signer,
    "certificatesigningrequest-cleaner-controller" "csrcleaner" true crate::csr::run_cleaner,
    "node-ipam-controller" "nodeipam" true crate::ipam::run,
    "node-lifecycle-controller" "nodelifecycle" true crate::node::run_lifecycle,
    "taint-eviction-controller" "" true crate::node::run_eviction,
    "ttl-controller" "ttl" true crate::ttl_nodes::run,
    "service-cidr-controller" "" true crate::servicecidr::run,
    "pod-garbage-collector-controller" "podgc" true crate::podgc::run,
    "ttl-after-finished-controller" "ttl-after-finished" true crate::ttl::run,
};

/// Upstream's controllers that are not built here, by name and alias: they can be left out, not asked for.
const ABSENT: [(&str, &str); 17] = [
    ("podcertificaterequest-cleaner-controller", ""),
    ("device-taint-eviction-controller", ""),
    ("persistentvolume-attach-detach-controller", "attachdetach"),
    ("persistentvolume-expander-controller", "persistentvolume-expander"),
    ("podgroup-protection-controller", ""),
    ("kube-apiserver-serving-clustertrustbundle-publisher-controller", ""),
    ("storageversion-garbage-collector-controller", "storage-version-gc"),
    ("resourceclaim-controller", "resource-claim-controller"),
    ("resourcepoolstatusrequest-controller", ""),
    ("legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner"),
    ("validatingadmissionpolicy-status-controller", ""),
    ("storage-version-migrator-controller", "svm"),
    ("selinux-warning-controller", ""),
    ("service-ca-certificate-publisher-controller", "service-ca-cert-publisher"),
    ("service-lb-controller", "service"),
    ("node-route-controller", "route"),
    ("cloud-node-lifecycle-controller", "cloud-node-lifecycle"),
];

/// `--controllers` with today's names: those that it asks for are there.
pub fn canonical(list: &[String]) -> Result<Vec<String>, Error> {
    list.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).map(one).collect()
}

fn one(word: &str) -> Result<String, Error> {
    let (minus, name) = word.strip_prefix('-').map_or(("", word), |name| ("-", name));
    let is = |canonical: &str, alias: &str| name == canonical || !alias.is_empty() && name == alias;
    if word == "*" {
        return Ok(word.into());
    }
    if let Some(entry) = ALL.iter().find(|e| is(e.name, e.alias)) {
        return Ok(format!("{minus}{}", entry.name));
    }
    match ABSENT.iter().find(|(n, alias)| is(n, alias)) {
        Some((n, _)) if minus.is_empty() => {
            Err(Error::Other(format!("--controllers: {n} is not built into this controller manager")))
        }
        Some((n, _)) => Ok(format!("-{n}")),
        None => Err(Error::Other(format!("--controllers: {name:?} is not in the list of known controllers"))),
    }
}

/// Whether `--controllers` wants a controller: what it says of it first counts.
fn is_wanted(name: &str, default: bool, list: &[String]) -> bool {
    for word in list {
        match word.strip_prefix('-') {
            Some(left_out) if left_out == name => return false,
            None if word == name => return true,
            _ => {}
        }
    }
    default && list.iter().any(|w| w == "*")
}

/// Runs the controllers that are wanted until shutdown.
pub async fn run(ctx: Context) {
    let (mut running, mut names) = (JoinSet::new(), HashMap::new());
    running.spawn(crate::definitions::run(ctx.clone()));
    for entry in ALL.iter().filter(|e| is_wanted(e.name, e.default, &ctx.config.controllers)) {
        ctx.health.runs(entry.name, true);
        let (ctx, work) = (ctx.clone(), entry.run);
        // One that ends has nothing to do, such as for want of a certificate, and said so.
        let task = running.spawn(async move { work(ctx).await });
        names.insert(task.id(), entry.name);
    }
    while let Some(ended) = running.join_next().await {
        if let Err(e) = ended
            && e.is_panic()
        {
            // One that panicked is not run again with who knows what state: the daemon ends and starts anew.
            let name = names.get(&e.id()).copied().unwrap_or("definitions");
            tracing::error!("{name} failed: {e}");
            ctx.health.runs(name, false);
            ctx.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &str) -> Vec<String> {
        list.split(',').map(String::from).collect()
    }

    #[test]
    fn the_list_of_controllers_is_understood() {
        for (list, name, default, want) in [
            ("*", "a", true, true),
            ("*", "a", false, false),
            ("*,a", "a", false, true),
            ("*,-a", "a", true, false),
            ("b", "a", true, false),
            ("a", "a", true, true),
            ("a,-a", "a", true, true),
            ("-a,a", "a", true, false),
        ] {
            assert_eq!(is_wanted(name, default, &words(list)), want, "{list}");
        }
    }

    #[test]
    fn what_kubeadm_writes_is_understood() {
        let got = |list: &str| canonical(&words(list)).map_err(|e| e.to_string());
        assert_eq!(
            got("*,bootstrapsigner,tokencleaner").unwrap().join(","),
            "*,bootstrap-signer-controller,token-cleaner-controller"
        );
        assert_eq!(
            got("*,-nodeipam,-attachdetach").unwrap()[1..],
            ["-node-ipam-controller", "-persistentvolume-attach-detach-controller"]
        );
        // Asked for and not there: it is refused rather than missed.
        for absent in ["attachdetach", "*,resourceclaim-controller"] {
            assert!(got(absent).unwrap_err().contains("is not built into"), "{absent}");
        }
        assert!(got("*,nobody").unwrap_err().contains("\"nobody\""));
    }

    #[test]
    fn every_controller_of_upstream_has_one_place() {
        let names: Vec<&str> = ALL.iter().map(|e| e.name).chain(ABSENT.iter().map(|a| a.0)).collect();
        let aliases = ALL.iter().map(|e| e.alias).chain(ABSENT.iter().map(|a| a.1)).filter(|a| !a.is_empty());
        let mut all: Vec<&str> = names.iter().copied().chain(aliases).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(names.len(), 53); // 50 of the controller manager, 3 of the cloud's
    }
}
