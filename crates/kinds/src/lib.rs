//! Compiles the decoders and encoders of the `k8s-openapi` kinds once, for all crates above this one.
//!
//! They are generic code, which rustc would otherwise compile again in each crate that reads or writes a kind (and once more for that
//! crate's tests): at the optimisation levels that build them for size or not at all it uses what a crate further down has already.
//! A crate gains by it with `use kinds as _;`. Nothing here has to be called, and what a program does not use is not linked into it.

use api::object::{AnyObject, Object};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What is compiled for one kind: reading it from JSON text and from a value, printing it as text and as a value, and what
/// [`AnyObject`] asks of it.
pub struct Codec {
    /// From text.
    pub read: fn(&[u8]) -> Result<Box<dyn AnyObject>, serde_json::Error>,
    /// From a value that is kept.
    pub read_value: fn(&Value) -> Result<Object, serde_json::Error>,
    /// From a value that is used up.
    pub take_value: fn(Value) -> Result<Object, serde_json::Error>,
    /// As text.
    pub print: fn(&dyn AnyObject) -> Result<Vec<u8>, serde_json::Error>,
}

const fn codec<T: AnyObject + Serialize + DeserializeOwned>() -> Codec {
    Codec {
        read: |text| serde_json::from_slice::<T>(text).map(|object| Box::new(object) as Box<dyn AnyObject>),
        read_value: Object::from_value::<T>,
        take_value: |value| serde_json::from_value::<T>(value).map(Object::new),
        print: |object| match object.as_any().downcast_ref::<T>() {
            Some(object) => serde_json::to_vec(object),
            None => Ok(Vec::new()),
        },
    }
}

/// One entry a kind.
pub static CODECS: &[Codec] = &[
    codec::<k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy>(),
    codec::<k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
    codec::<k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration>(),
    codec::<k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy>(),
    codec::<k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
    codec::<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration>(),
    codec::<k8s_openapi::api::apps::v1::ControllerRevision>(),
    codec::<k8s_openapi::api::apps::v1::DaemonSet>(),
    codec::<k8s_openapi::api::apps::v1::Deployment>(),
    codec::<k8s_openapi::api::apps::v1::ReplicaSet>(),
    codec::<k8s_openapi::api::apps::v1::StatefulSet>(),
    codec::<k8s_openapi::api::authentication::v1::SelfSubjectReview>(),
    codec::<k8s_openapi::api::authentication::v1::TokenRequest>(),
    codec::<k8s_openapi::api::authentication::v1::TokenReview>(),
    codec::<k8s_openapi::api::authorization::v1::LocalSubjectAccessReview>(),
    codec::<k8s_openapi::api::authorization::v1::SelfSubjectAccessReview>(),
    codec::<k8s_openapi::api::authorization::v1::SelfSubjectRulesReview>(),
    codec::<k8s_openapi::api::authorization::v1::SubjectAccessReview>(),
    codec::<k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler>(),
    codec::<k8s_openapi::api::autoscaling::v1::Scale>(),
    codec::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(),
    codec::<k8s_openapi::api::batch::v1::CronJob>(),
    codec::<k8s_openapi::api::batch::v1::Job>(),
    codec::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>(),
    codec::<k8s_openapi::api::coordination::v1::Lease>(),
    codec::<k8s_openapi::api::core::v1::Binding>(),
    codec::<k8s_openapi::api::core::v1::ConfigMap>(),
    codec::<k8s_openapi::api::core::v1::Endpoints>(),
    codec::<k8s_openapi::api::core::v1::Event>(),
    codec::<k8s_openapi::api::core::v1::LimitRange>(),
    codec::<k8s_openapi::api::core::v1::Namespace>(),
    codec::<k8s_openapi::api::core::v1::Node>(),
    codec::<k8s_openapi::api::core::v1::PersistentVolume>(),
    codec::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(),
    codec::<k8s_openapi::api::core::v1::Pod>(),
    codec::<k8s_openapi::api::core::v1::PodTemplate>(),
    codec::<k8s_openapi::api::core::v1::ReplicationController>(),
    codec::<k8s_openapi::api::core::v1::ResourceQuota>(),
    codec::<k8s_openapi::api::core::v1::Secret>(),
    codec::<k8s_openapi::api::core::v1::Service>(),
    codec::<k8s_openapi::api::core::v1::ServiceAccount>(),
    codec::<k8s_openapi::api::discovery::v1::EndpointSlice>(),
    codec::<k8s_openapi::api::events::v1::Event>(),
    codec::<k8s_openapi::api::flowcontrol::v1::FlowSchema>(),
    codec::<k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration>(),
    codec::<k8s_openapi::api::networking::v1::Ingress>(),
    codec::<k8s_openapi::api::networking::v1::IngressClass>(),
    codec::<k8s_openapi::api::networking::v1::IPAddress>(),
    codec::<k8s_openapi::api::networking::v1::NetworkPolicy>(),
    codec::<k8s_openapi::api::networking::v1::ServiceCIDR>(),
    codec::<k8s_openapi::api::node::v1::RuntimeClass>(),
    codec::<k8s_openapi::api::policy::v1::Eviction>(),
    codec::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(),
    codec::<k8s_openapi::api::rbac::v1::ClusterRole>(),
    codec::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>(),
    codec::<k8s_openapi::api::rbac::v1::Role>(),
    codec::<k8s_openapi::api::rbac::v1::RoleBinding>(),
    codec::<k8s_openapi::api::resource::v1::DeviceClass>(),
    codec::<k8s_openapi::api::resource::v1::ResourceClaim>(),
    codec::<k8s_openapi::api::resource::v1::ResourceClaimTemplate>(),
    codec::<k8s_openapi::api::resource::v1::ResourceSlice>(),
    codec::<k8s_openapi::api::scheduling::v1::PriorityClass>(),
    codec::<k8s_openapi::api::storage::v1::CSIDriver>(),
    codec::<k8s_openapi::api::storage::v1::CSINode>(),
    codec::<k8s_openapi::api::storage::v1::CSIStorageCapacity>(),
    codec::<k8s_openapi::api::storage::v1::StorageClass>(),
    codec::<k8s_openapi::api::storage::v1::VolumeAttachment>(),
    codec::<k8s_openapi::api::storage::v1::VolumeAttributesClass>(),
    codec::<k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService>(),
];
