//! Fields of a KubeletConfiguration that this kubelet does not honour: where the operator would count on what they ask
//! for they are refused, the others are named in a warning.

use serde_json::Value;

/// Fields whose silent lack would be dangerous, each with what else than nothing it may say.
const REFUSED: [(&str, &[&str]); 22] = [
    ("cpuManagerPolicy", &["none"]),
    ("enforceNodeAllocatable", &["[\"pods\"]", "[\"none\"]"]),
    ("evictionSoft", &[]),
    ("evictionSoftGracePeriod", &[]),
    ("imagePullCredentialsVerificationPolicy", &["NeverVerify", "NeverVerifyPreloadedImages"]),
    ("memoryManagerPolicy", &["None"]),
    ("memorySwap", &["{\"swapBehavior\":\"NoSwap\"}", "{\"swapBehavior\":\"\"}"]),
    ("preloadedImagesVerificationAllowlist", &[]),
    ("protectKernelDefaults", &[]),
    ("qosReserved", &[]),
    ("reservedMemory", &[]),
    ("reservedSystemCPUs", &[]),
    ("runOnce", &[]),
    ("shutdownGracePeriod", &[]),
    ("shutdownGracePeriodByPodPriority", &[]),
    ("shutdownGracePeriodCriticalPods", &[]),
    ("staticPodURL", &[]),
    ("staticPodURLHeader", &[]),
    ("systemReservedCgroup", &[]),
    ("tlsCipherSuites", &[]),
    ("tlsCurvePreferences", &[]),
    ("topologyManagerPolicy", &["none"]),
];

/// Fields whose lack is only a pity, each with what else than nothing is the default.
const IDLE: [(&str, &[&str]); 46] = [
    ("configMapAndSecretChangeDetectionStrategy", &["Watch"]),
    ("containerLogMaxWorkers", &["1"]),
    ("contentType", &["application/vnd.kubernetes.protobuf"]),
    ("cpuManagerPolicyOptions", &[]),
    ("cpuManagerReconcilePeriod", &["10s"]),
    ("enableContentionProfiling", &[]),
    ("enableDebugFlagsHandler", &[]),
    ("enableProfilingHandler", &[]),
    ("enableSystemLogQuery", &[]),
    ("eventBurst", &["100"]),
    ("eventRecordQPS", &["50"]),
    ("evictionMaxPodGracePeriod", &[]),
    ("evictionMinimumReclaim", &[]),
    ("evictionPressureTransitionPeriod", &["5m0s"]),
    ("featureGates", &[]),
    ("hairpinMode", &["promiscuous-bridge", "none"]),
    ("httpCheckFrequency", &["20s"]),
    ("imageMaximumGCAge", &[]),
    ("iptablesDropBit", &["15"]),
    ("iptablesMasqueradeBit", &["14"]),
    ("kernelMemcgNotification", &[]),
    ("kubeAPIBurst", &["100"]),
    ("kubeAPIQPS", &["50"]),
    ("kubeReservedCgroup", &[]),
    ("kubeletCgroups", &[]),
    ("localStorageCapacityIsolation", &["true"]),
    ("logging", &[]),
    ("makeIPTablesUtilChains", &["true"]),
    ("maxOpenFiles", &["1000000"]),
    ("memoryReservationPolicy", &["None"]),
    ("memoryThrottlingFactor", &["0.9"]),
    ("mergeDefaultEvictionSettings", &[]),
    ("podCIDR", &[]),
    ("registryBurst", &["10"]),
    ("registryPullQPS", &["5"]),
    ("showHiddenMetricsForVersion", &[]),
    ("streamingConnectionIdleTimeout", &["4h0m0s"]),
    ("systemCgroups", &[]),
    ("topologyManagerPolicyOptions", &[]),
    ("topologyManagerScope", &["container"]),
    ("tracing", &[]),
    ("userNamespaces", &[]),
    ("volumePluginDir", &["/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"]),
    ("volumeStatsAggPeriod", &["1m0s"]),
    // pods are not evicted: what these say only lowers what is allocatable
    ("evictionHard", &[]),
    ("memoryManagerReconcilePeriod", &[]),
];

/// The fields that are set and have no effect; an error names one that asks for what there is not.
pub(super) fn check(config: &Value) -> Result<Vec<&'static str>, String> {
    for (name, may) in REFUSED {
        if let Some(v) = config.get(name).filter(|v| asks(v, may)) {
            return Err(format!("{name}: {} is not supported by this kubelet", shown(v)));
        }
    }
    let set = |(name, may): &(&str, &[&str])| config.get(name).is_some_and(|v| asks(v, may));
    Ok(IDLE.iter().filter(|f| set(f)).map(|(name, _)| *name).collect())
}

fn shown(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

/// Whether a value is neither nothing nor one that means the same here.
fn asks(v: &Value, may: &[&str]) -> bool {
    !nothing(v) && !may.contains(&shown(v).as_str())
}

fn nothing(v: &Value) -> bool {
    match v {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty() || s == "0" || s == "0s",
        Value::Array(a) => a.is_empty(),
        Value::Object(m) => m.values().all(nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_for_and_cannot_be_had_is_refused() {
        for (config, want) in [
            (json!({}), Ok(vec![])),
            (
                json!({"runOnce": false, "shutdownGracePeriod": "0s", "tlsCipherSuites": [], "memorySwap": {}}),
                Ok(vec![]),
            ),
            (
                json!({"memorySwap": {"swapBehavior": "NoSwap"}, "enforceNodeAllocatable": ["pods"]}),
                Ok(vec![]),
            ),
            (json!({"memorySwap": {"swapBehavior": "LimitedSwap"}}), Err("memorySwap")),
            (json!({"enforceNodeAllocatable": ["pods", "kube-reserved"]}), Err("enforceNodeAllocatable")),
            (json!({"tlsCipherSuites": ["TLS_AES_128_GCM_SHA256"]}), Err("tlsCipherSuites")),
            (json!({"cpuManagerPolicy": "static"}), Err("cpuManagerPolicy: static")),
            (
                json!({"logging": {"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}, "verbosity": 0}}),
                Ok(vec![]),
            ),
            (
                json!({"logging": {"format": "json"}, "volumeStatsAggPeriod": "2m"}),
                Ok(vec!["logging", "volumeStatsAggPeriod"]),
            ),
        ] {
            let got = check(&config);
            match want {
                Ok(list) => assert_eq!(got, Ok(list), "{config}"),
                Err(text) => assert!(got.is_err_and(|e| e.contains(text)), "{config}"),
            }
        }
    }
}
