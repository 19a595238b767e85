//! The flags, by upstream's names.

use crate::Config;
use clap::Parser;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A span of time as Go writes it: `1h30m`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is not a duration such as 1h30m or 40s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(fault()),
        };
        total += number.parse::<f64>().map_err(|_| fault())? * seconds;
        rest = tail;
    }
    if text.is_empty() { Err(fault()) } else { Duration::try_from_secs_f64(total).map_err(|_| fault()) }
}

/// A file; none if its name is empty, as tools write what they leave out.
#[derive(Clone, Debug, Default)]
pub struct File(PathBuf);

impl From<std::ffi::OsString> for File {
    fn from(name: std::ffi::OsString) -> Self {
        File(name.into())
    }
}

impl File {
    /// Where it is, if there is one.
    pub fn path(&self) -> Option<&Path> {
        Some(self.0.as_path()).filter(|p| !p.as_os_str().is_empty())
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $([$($arg:tt)*])? $name:ident: $kind:ty $(= $default:literal)?,)*) => {
        /// The controller manager.
        #[derive(Parser, Clone, Debug)]
        #[command(name = "kube-controller-manager", version, about, long_about = None)]
        pub struct Options {
            $(
                $(#[$doc])*
                #[arg(long $(, $($arg)*)? $(, default_value = $default)?)]
                pub $name: $kind,
            )*
            /// Verbosity: 2 for information, 4 and above for what went on
            #[arg(short, long = "v", default_value_t = 2)]
            pub v: u8,
        }
    };
}

options! {
    /// File that says where the API server is and who we are; the pod's service account if there is none
    kubeconfig: File = "",
    /// Address of the API server, instead of the kubeconfig's
    master: Option<String>,
    /// kubeconfig for asking who sends a request to us; empty for that of --kubeconfig
    authentication_kubeconfig: File = "",
    /// kubeconfig for asking whether they may; empty for that of --kubeconfig
    authorization_kubeconfig: File = "",
    /// Paths that anyone may ask for
    [value_delimiter = ','] authorization_always_allow_paths: Vec<String> = "/healthz,/readyz,/livez",
    /// Authorities whose client certificates are accepted
    client_ca_file: File = "",
    /// Address to listen on
    bind_address: IpAddr = "0.0.0.0",
    /// Port to listen on, with TLS; 0 for none
    secure_port: u16 = "10257",
    /// Our serving certificate
    tls_cert_file: File = "",
    /// Its key
    tls_private_key_file: File = "",
    /// Whether only one of several instances works
    [num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set] leader_elect: bool = "true",
    /// How long others wait for a leader that does not renew
    [value_parser = duration] leader_elect_lease_duration: Duration = "15s",
    /// How long a leader tries to renew
    [value_parser = duration] leader_elect_renew_deadline: Duration = "10s",
    /// How often it tries
    [value_parser = duration] leader_elect_retry_period: Duration = "2s",
    /// Name of the Lease
    leader_elect_resource_name: String = "kube-controller-manager",
    /// Namespace of the Lease
    leader_elect_resource_namespace: String = "kube-system",
    /// Controllers to run: names, * for the usual ones, -name for all but this
    [value_delimiter = ',', allow_hyphen_values = true] controllers: Vec<String> = "*",
    /// Whether each controller has its own service account
    [num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set] use_service_account_credentials: bool = "false",
    /// Whether nodes are given address ranges for their pods
    [num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set] allocate_node_cidrs: bool = "false",
    /// Ranges of pods' addresses
    [value_delimiter = ','] cluster_cidr: Vec<String>,
    /// Ranges of services' addresses
    [value_delimiter = ','] service_cluster_ip_range: Vec<String>,
    /// Size of a node's range; 24 for IPv4 and 64 for IPv6 if it is 0
    node_cidr_mask_size: u8 = "0",
    /// Size of a node's IPv4 range
    node_cidr_mask_size_ipv4: u8 = "0",
    /// Size of a node's IPv6 range
    node_cidr_mask_size_ipv6: u8 = "0",
    /// Key that signs service account tokens
    service_account_private_key_file: File = "",
    /// Authority of the cluster, which is published to every namespace
    root_ca_file: File = "",
    /// Certificate of the authority that signs for the cluster
    cluster_signing_cert_file: File = "",
    /// Its key
    cluster_signing_key_file: File = "",
    /// The same for kubernetes.io/kube-apiserver-client
    cluster_signing_kube_apiserver_client_cert_file: File = "",
    /// Its key
    cluster_signing_kube_apiserver_client_key_file: File = "",
    /// The same for kubernetes.io/kube-apiserver-client-kubelet
    cluster_signing_kubelet_client_cert_file: File = "",
    /// Its key
    cluster_signing_kubelet_client_key_file: File = "",
    /// The same for kubernetes.io/kubelet-serving
    cluster_signing_kubelet_serving_cert_file: File = "",
    /// Its key
    cluster_signing_kubelet_serving_key_file: File = "",
    /// The same for kubernetes.io/legacy-unknown
    cluster_signing_legacy_unknown_cert_file: File = "",
    /// Its key
    cluster_signing_legacy_unknown_key_file: File = "",
    /// How long certificates are valid that are signed
    [value_parser = duration] cluster_signing_duration: Duration = "8760h",
    /// How long a node may be silent before it counts as lost
    [value_parser = duration] node_monitor_grace_period: Duration = "50s",
    /// How long a new node may be silent
    [value_parser = duration] node_startup_grace_period: Duration = "60s",
    /// How often nodes are looked at
    [value_parser = duration] node_monitor_period: Duration = "5s",
    /// Nodes per second whose pods are evicted in a healthy zone
    node_eviction_rate: f64 = "0.1",
    /// The same in an unhealthy zone
    secondary_node_eviction_rate: f64 = "0.01",
    /// Share of lost nodes that makes a zone unhealthy
    unhealthy_zone_threshold: f64 = "0.55",
    /// Nodes from which on a zone counts as large
    large_cluster_size_threshold: usize = "50",
    /// Ended pods that may be there before some are deleted; 0 for any number
    terminated_pod_gc_threshold: usize = "12500",
    /// Endpoints in one slice
    max_endpoints_per_slice: usize = "100",
    /// How many addresses of a subset of Endpoints are mirrored
    mirroring_max_endpoints_per_subset: usize = "1000",
    /// Workers
    mirroring_concurrent_service_endpoint_syncs: usize = "5",
    /// Whether objects without owners are deleted
    [num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set] enable_garbage_collector: bool = "true",
    /// Workers
    concurrent_cron_job_syncs: usize = "5",
    /// Workers
    concurrent_daemonset_syncs: usize = "2",
    /// Workers
    concurrent_deployment_syncs: usize = "5",
    /// Workers
    concurrent_endpoint_syncs: usize = "5",
    /// Workers
    concurrent_gc_syncs: usize = "20",
    /// Workers
    concurrent_job_syncs: usize = "5",
    /// Workers
    concurrent_namespace_syncs: usize = "10",
    /// Workers
    concurrent_replicaset_syncs: usize = "5",
    /// Workers
    concurrent_rc_syncs: usize = "5",
    /// Workers
    concurrent_service_endpoint_syncs: usize = "5",
    /// Workers
    concurrent_serviceaccount_token_syncs: usize = "5",
    /// Workers
    concurrent_statefulset_syncs: usize = "5",
    /// Workers
    concurrent_ttl_after_finished_syncs: usize = "5",
    /// Workers
    concurrent_resource_quota_syncs: usize = "5",
    /// Workers
    concurrent_horizontal_pod_autoscaler_syncs: usize = "5",
    /// Workers
    concurrent_ephemeralvolume_syncs: usize = "5",
    /// How often each autoscaler is looked at
    [value_parser = duration] horizontal_pod_autoscaler_sync_period: Duration = "15s",
    /// A usage that is off by less than this share is let be
    horizontal_pod_autoscaler_tolerance: f64 = "0.1",
    /// What a pod uses of the CPU says little for so long after its start
    [value_parser = duration] horizontal_pod_autoscaler_cpu_initialization_period: Duration = "5m",
    /// A pod that is not ready so long after its start never was
    [value_parser = duration] horizontal_pod_autoscaler_initial_readiness_delay: Duration = "30s",
    /// A workload shrinks only if nothing else was recommended for so long
    [value_parser = duration] horizontal_pod_autoscaler_downscale_stabilization: Duration = "5m",
    /// How often claims that wait are looked at
    [value_parser = duration] pvclaimbinder_sync_period: Duration = "15s",
    /// Whether provisioners are asked for volumes
    [num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set] enable_dynamic_provisioning: bool = "true",
    /// How often quotas are counted anew
    [value_parser = duration] resource_quota_sync_period: Duration = "5m",
    /// All objects are looked at again after so long, or up to twice as long
    [value_parser = duration] min_resync_period: Duration = "12h",
    /// How long what is at work may take to end
    [value_parser = duration] controller_shutdown_timeout: Duration = "10s",
    /// Requests a second of each controller; no limit but that of requests at once if it is 0
    kube_api_qps: f64 = "0",
    /// How many of them at once
    kube_api_burst: u32 = "30",
}

impl Options {
    /// The controllers' settings.
    pub fn config(&self) -> Result<Config, crate::Error> {
        let root_ca = match self.root_ca_file.path() {
            None => None,
            Some(path) => {
                let pem = pki::files::read(path)?;
                pki::files::certificates(&pem, &path.display().to_string())?;
                Some(String::from_utf8_lossy(&pem).into_owned())
            }
        };
        let mut controllers = crate::registry::canonical(&self.controllers)?;
        if !self.enable_garbage_collector {
            controllers.insert(0, "-garbage-collector-controller".into());
        }
        let positive = [
            ("kube-api-qps", self.kube_api_qps >= 0.0 && self.kube_api_qps.is_finite()),
            ("horizontal-pod-autoscaler-tolerance", self.horizontal_pod_autoscaler_tolerance >= 0.0),
            ("horizontal-pod-autoscaler-sync-period", !self.horizontal_pod_autoscaler_sync_period.is_zero()),
            ("pvclaimbinder-sync-period", !self.pvclaimbinder_sync_period.is_zero()),
            ("resource-quota-sync-period", !self.resource_quota_sync_period.is_zero()),
        ];
        if let Some((flag, _)) = positive.iter().find(|(_, good)| !good) {
            return Err(crate::Error::Other(format!("--{flag}: must be greater than 0")));
        }
        let size = |own: u8, usual| match (own, self.node_cidr_mask_size) {
            (0, 0) => usual,
            (0, both) => both,
            (own, _) => own,
        };
        Ok(Config {
            controllers,
            use_service_account_credentials: self.use_service_account_credentials,
            allocate_node_cidrs: self.allocate_node_cidrs,
            cluster_cidrs: self.cluster_cidr.clone(),
            service_cidrs: self.service_cluster_ip_range.clone(),
            node_cidr_mask_sizes: (
                size(self.node_cidr_mask_size_ipv4, 24),
                size(self.node_cidr_mask_size_ipv6, 64),
            ),
            service_account_key: self.service_account_private_key_file.path().map(Into::into),
            root_ca,
            signing: self.signing()?,
            signing_duration: self.cluster_signing_duration,
            node_monitor_grace_period: self.node_monitor_grace_period,
            node_startup_grace_period: self.node_startup_grace_period,
            node_monitor_period: self.node_monitor_period,
            node_eviction_rate: self.node_eviction_rate,
            secondary_node_eviction_rate: self.secondary_node_eviction_rate,
            unhealthy_zone_threshold: self.unhealthy_zone_threshold,
            large_cluster_size: self.large_cluster_size_threshold,
            terminated_pods: self.terminated_pod_gc_threshold,
            max_endpoints_per_slice: self.max_endpoints_per_slice,
            mirroring_max_endpoints_per_subset: self.mirroring_max_endpoints_per_subset,
            horizontal: crate::horizontal::Settings {
                period: self.horizontal_pod_autoscaler_sync_period,
                tolerance: self.horizontal_pod_autoscaler_tolerance,
                cpu_initialization: self.horizontal_pod_autoscaler_cpu_initialization_period,
                initial_readiness: self.horizontal_pod_autoscaler_initial_readiness_delay,
                stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
            },
            binder_sync_period: self.pvclaimbinder_sync_period,
            dynamic_provisioning: self.enable_dynamic_provisioning,
            resource_quota_sync_period: self.resource_quota_sync_period,
            min_resync_period: self.min_resync_period,
            shutdown_timeout: self.controller_shutdown_timeout,
            pace: (self.kube_api_qps > 0.0).then_some((self.kube_api_qps, self.kube_api_burst)),
            workers: self.workers(),
        })
    }

    fn signing(&self) -> Result<HashMap<String, (PathBuf, PathBuf)>, crate::Error> {
        let mut signing = HashMap::new();
        for (signer, flag, certificate, key) in [
            ("", "cluster-signing", &self.cluster_signing_cert_file, &self.cluster_signing_key_file),
            (
                "kubernetes.io/kube-apiserver-client",
                "cluster-signing-kube-apiserver-client",
                &self.cluster_signing_kube_apiserver_client_cert_file,
                &self.cluster_signing_kube_apiserver_client_key_file,
            ),
            (
                "kubernetes.io/kube-apiserver-client-kubelet",
                "cluster-signing-kubelet-client",
                &self.cluster_signing_kubelet_client_cert_file,
                &self.cluster_signing_kubelet_client_key_file,
            ),
            (
                "kubernetes.io/kubelet-serving",
                "cluster-signing-kubelet-serving",
                &self.cluster_signing_kubelet_serving_cert_file,
                &self.cluster_signing_kubelet_serving_key_file,
            ),
            (
                "kubernetes.io/legacy-unknown",
                "cluster-signing-legacy-unknown",
                &self.cluster_signing_legacy_unknown_cert_file,
                &self.cluster_signing_legacy_unknown_key_file,
            ),
        ] {
            match (certificate.path(), key.path()) {
                (Some(c), Some(k)) => drop(signing.insert(signer.to_string(), (c.into(), k.into()))),
                (None, None) => {}
                _ => {
                    return Err(crate::Error::Other(format!(
                        "--{flag}-cert-file and --{flag}-key-file need each other"
                    )));
                }
            }
        }
        Ok(signing)
    }

    fn workers(&self) -> HashMap<&'static str, usize> {
        [
            ("serviceaccount-token-controller", self.concurrent_serviceaccount_token_syncs),
            ("ephemeral-volume-controller", self.concurrent_ephemeralvolume_syncs),
            ("cronjob-controller", self.concurrent_cron_job_syncs),
            ("daemonset-controller", self.concurrent_daemonset_syncs),
            ("deployment-controller", self.concurrent_deployment_syncs),
            ("endpoints-controller", self.concurrent_endpoint_syncs),
            ("garbage-collector-controller", self.concurrent_gc_syncs),
            ("job-controller", self.concurrent_job_syncs),
            ("namespace-controller", self.concurrent_namespace_syncs),
            ("replicaset-controller", self.concurrent_replicaset_syncs),
            ("replicationcontroller-controller", self.concurrent_rc_syncs),
            ("endpointslice-controller", self.concurrent_service_endpoint_syncs),
            ("endpointslice-mirroring-controller", self.mirroring_concurrent_service_endpoint_syncs),
            ("statefulset-controller", self.concurrent_statefulset_syncs),
            ("ttl-after-finished-controller", self.concurrent_ttl_after_finished_syncs),
            ("resourcequota-controller", self.concurrent_resource_quota_syncs),
            ("horizontal-pod-autoscaler-controller", self.concurrent_horizontal_pod_autoscaler_syncs),
        ]
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, want) in [
            ("1h30m", 5400.0),
            ("40s", 40.0),
            ("8760h0m0s", 31_536_000.0),
            ("1.5s", 1.5),
            ("500ms", 0.5),
            ("0", 0.0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(want)), "{text}");
        }
        for bad in ["", "5", "s", "1x", "-1s", "1..5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_manifest_s_flags_are_understood() {
        let line = "x --kubeconfig=/k --leader-elect=false --controllers=*,bootstrapsigner,tokencleaner --cluster-signing-cert-file= --cluster-signing-key-file= \
            --allocate-node-cidrs --cluster-cidr=10.0.0.0/16 -v=4 --node-cidr-mask-size 26 \
            --use-service-account-credentials=true --concurrent-job-syncs=9 --node-monitor-grace-period=16s";
        let o = Options::try_parse_from(line.split_whitespace()).unwrap();
        assert!(!o.leader_elect && o.allocate_node_cidrs && o.use_service_account_credentials && o.v == 4);
        let c = o.config().unwrap();
        assert_eq!(
            (c.node_cidr_mask_sizes, c.workers["job-controller"], c.node_monitor_grace_period.as_secs()),
            ((26, 26), 9, 16)
        );
        assert!(c.controllers.contains(&"token-cleaner-controller".to_string()) && c.signing.is_empty());
        for bad in [
            "x --nonsense=1",
            "x --controllers=nobody",
            "x --controllers=attachdetach",
            "x --pvclaimbinder-sync-period=0",
            "x --cluster-signing-cert-file=a",
        ] {
            let o = Options::try_parse_from(bad.split_whitespace());
            assert!(o.is_err() || o.is_ok_and(|o| o.config().is_err()), "{bad}");
        }
    }
}
