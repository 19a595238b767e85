//! MutatingWebhookConfiguration: webhooks that may change requests.

use super::webhooks;
use crate::kind::age_column;
use crate::{Column, Kind};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};

/// The rules of MutatingWebhookConfiguration.
pub static KIND: Kind<MutatingWebhookConfiguration> = Kind {
    has_generation: true,
    unconditional_update: false,
    default: |c| {
        for h in c.webhooks.iter_mut().flatten() {
            let selectors = [&mut h.namespace_selector, &mut h.object_selector];
            webhooks::default(
                &mut h.failure_policy,
                &mut h.match_policy,
                selectors,
                &mut h.timeout_seconds,
                &mut h.rules,
                &mut h.client_config,
            );
            h.reinvocation_policy.get_or_insert_with(|| "Never".into());
        }
    },
    validate: |c, errors| webhooks::validate(hooks(c), None, errors),
    validate_update: |new, old, errors| webhooks::validate(hooks(new), Some(hooks(old)), errors),
    columns: &[
        Column::number("Webhooks", "How many webhooks it has.", |c: &MutatingWebhookConfiguration, _| {
            hooks(c).len().into()
        }),
        age_column(),
    ],
    ..Kind::cluster("mutatingwebhookconfiguration", "mutatingwebhookconfigurations")
        .called(&[], &["api-extensions"])
};

fn hooks(c: &MutatingWebhookConfiguration) -> &[MutatingWebhook] {
    c.webhooks.as_deref().unwrap_or_default()
}
