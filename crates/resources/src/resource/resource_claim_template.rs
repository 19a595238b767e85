//! ResourceClaimTemplate: what claims of pods are made of.

use super::claims;
use crate::Kind;
use crate::check::immutable;
use crate::kind::age_column;
use api::field::FieldPath;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of ResourceClaimTemplate.
pub static KIND: Kind<ResourceClaimTemplate> = Kind {
    answers_deleted: true,
    default: |t| claims::default(&mut t.spec.spec),
    validate: |t, errors| {
        if let Some(meta) = &t.spec.metadata {
            let at = SPEC.child("metadata");
            crate::meta::labels(meta.labels.as_ref(), at.child("labels"), errors);
            crate::meta::annotations(meta.annotations.as_ref(), at.child("annotations"), errors);
        }
        claims::validate(&t.spec.spec, SPEC.child("spec"), errors);
    },
    validate_update: |new, old, errors| immutable(&new.spec, &old.spec, SPEC, errors),
    columns: &[age_column()],
    ..Kind::namespaced("resourceclaimtemplate", "resourceclaimtemplates")
};
