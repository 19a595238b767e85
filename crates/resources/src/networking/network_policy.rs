//! NetworkPolicy.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::networking::v1::NetworkPolicy;

/// The rules of NetworkPolicy.
pub static KIND: Kind<NetworkPolicy> = Kind {
    has_generation: true,
    default: |p| {
        let spec = p.spec.get_or_insert_default();
        for port in spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
        for port in spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
        if spec.policy_types.is_none() {
            let egress = spec.egress.as_ref().is_some_and(|e| !e.is_empty());
            spec.policy_types = Some(
                [Some("Ingress"), egress.then_some("Egress")].into_iter().flatten().map(Into::into).collect(),
            );
        }
    },
    columns: &[age_column()],
    ..Kind::namespaced("networkpolicy", "networkpolicies").called(&["netpol"], &[])
};
