//! PodTemplate.

use crate::Kind;
use crate::kind::age_column;
use k8s_openapi::api::core::v1::PodTemplate;

/// The rules of PodTemplate.
pub static KIND: Kind<PodTemplate> = Kind {
    has_generation: true,
    default: |t| {
        if let Some(template) = &mut t.template {
            crate::core::pod_spec::default_template(template);
        }
    },
    columns: &[age_column()],
    ..Kind::namespaced("podtemplate", "podtemplates")
};
