//! PodTemplate.

use crate::apps::{images, names};
use crate::core::pod::warnings;
use crate::core::pod_spec;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::core::v1::PodTemplate;

/// The rules of PodTemplate.
pub static KIND: Kind<PodTemplate> = Kind {
    answers_deleted: true,
    has_generation: true,
    default: |t| pod_spec::default_template(t.template.get_or_insert_default()),
    validate: |t, errors| validate(t, None, errors),
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    warnings: |t, _| t.template.as_ref().map(|t| warnings::of_template(t, AT)).unwrap_or_default(),
    columns: &[
        Column::text("Containers", "Names of each container in the template.", |t: &PodTemplate, _| {
            names(t.template.as_ref())
        }),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
            |t: &PodTemplate, _| images(t.template.as_ref()),
        ),
        Column::text("Pod Labels", "The labels for the pod template.", |t: &PodTemplate, _| {
            let meta = t.template.as_ref().and_then(|t| t.metadata.as_ref());
            crate::table::labels(meta.and_then(|m| m.labels.as_ref()))
        }),
    ],
    ..Kind::namespaced("podtemplate", "podtemplates")
};

const AT: FieldPath<'static> = FieldPath::root("template");

fn validate(t: &PodTemplate, old: Option<&PodTemplate>, errors: &mut FieldErrors) {
    let none = Default::default();
    let old = old.and_then(|o| o.template.as_ref());
    pod_spec::validate_new_template(t.template.as_ref().unwrap_or(&none), old, AT, errors);
}
