//! Objects of the API that pods are made from: config maps, secrets, tokens, claims, services.

use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, ConfigMap, PersistentVolume, Pod, Secret, Service};
use std::sync::Arc;
use std::time::Duration;

/// Why an object could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is none of that name.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// The kind, as the API names resources in messages.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// This kubelet serves static pods alone.
    #[error("{kind} \"{name}\" cannot be had without an API server")]
    Standalone {
        /// The kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

impl ObjectError {
    /// Whether it is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ObjectError::NotFound { .. })
    }
}

/// Gets objects.
pub struct Objects {}

impl Objects {
    /// For a kubelet without an API server.
    pub fn standalone() -> Self {
        Objects {}
    }

    /// A config map.
    pub async fn config_map(&self, _ns: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(ObjectError::Standalone { kind: "configmap", name: name.into() })
    }

    /// A secret.
    pub async fn secret(&self, _ns: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Err(ObjectError::Standalone { kind: "secret", name: name.into() })
    }

    /// Services of a namespace, and the API server's own.
    pub fn services(&self, _ns: &str) -> Vec<Arc<Service>> {
        Vec::new()
    }

    /// A token of the pod's service account, and when to renew it.
    pub async fn token(&self, pod: &Pod, _audience: &str, _seconds: i64) -> Result<(String, Duration), ObjectError> {
        let name = pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_default();
        Err(ObjectError::Standalone { kind: "serviceaccount", name })
    }

    /// The certificates of a trust bundle.
    pub async fn trust_bundle(&self, b: &ClusterTrustBundleProjection) -> Result<String, ObjectError> {
        Err(ObjectError::Standalone { kind: "clustertrustbundle", name: b.name.clone().unwrap_or_default() })
    }

    /// The runtime's handler for a runtime class.
    pub async fn runtime_handler(&self, class: &str) -> Result<String, ObjectError> {
        Err(ObjectError::Standalone { kind: "runtimeclass", name: class.into() })
    }

    /// The volume that a claim of the pod is bound to, if it is.
    pub async fn volume_of_claim(&self, _pod: &Pod, claim: &str) -> Result<Option<Arc<PersistentVolume>>, ObjectError> {
        Err(ObjectError::Standalone { kind: "persistentvolumeclaim", name: claim.into() })
    }
}
