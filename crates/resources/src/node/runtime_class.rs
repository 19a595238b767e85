//! RuntimeClass: how a pod's containers are run.

use crate::check::{immutable, required_text, unique};
use crate::kind::{age_column, label_name};
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use api::names;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::node::v1::RuntimeClass;

/// The rules of RuntimeClass.
pub static KIND: Kind<RuntimeClass> = Kind {
    create_on_update: true,
    unconditional_update: false,
    validate: |c, errors| {
        let rule = |h: &str| label_name(h, false);
        required_text(&c.handler, FieldPath::root("handler"), "", rule, errors);
        let at = FieldPath::root("overhead");
        for (name, amount) in c.overhead.iter().flat_map(|o| o.pod_fixed.iter().flatten()) {
            let limits = at.child("limits");
            errors.all_invalid(limits, name, names::qualified_name(name));
            crate::check::not_negative_amount(amount, limits.key(name), errors);
        }
        let Some(scheduling) = &c.scheduling else { return };
        let at = FieldPath::root("scheduling");
        crate::meta::labels(scheduling.node_selector.as_ref(), at.child("nodeSelector"), errors);
        let list = at.child("tolerations");
        for (i, t) in scheduling.tolerations.iter().flatten().enumerate() {
            toleration(t, list.index(i), errors);
        }
        unique(scheduling.tolerations.as_ref(), list, errors, |t| {
            (t.key.clone(), t.operator.clone(), t.value.clone(), t.effect.clone())
        });
    },
    validate_update: |new, old, errors| {
        immutable(&new.handler, &old.handler, FieldPath::root("handler"), errors);
    },
    columns: &[
        Column::text("Handler", "What the runtime calls it.", |o: &RuntimeClass, _| o.handler.clone().into()),
        age_column(),
    ],
    ..Kind::cluster("runtimeclass", "runtimeclasses")
};

fn toleration(t: &Toleration, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (key, value, effect, operator) = (text(&t.key), text(&t.value), text(&t.effect), text(&t.operator));
    if !key.is_empty() {
        errors.all_invalid(at.child("key"), &key, names::qualified_name(&key));
    } else if operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(at.child("operator"), &operator, why);
    }
    if t.toleration_seconds.is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(at.child("effect"), &effect, why);
    }
    match operator.as_str() {
        "Equal" | "" => errors.all_invalid(at.child("operator"), &value, names::label_value(&value)),
        "Exists" if !value.is_empty() => {
            errors.invalid(at.child("operator"), &value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        other => errors.not_supported(at.child("operator"), other, &["Equal", "Exists"]),
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !effect.is_empty() && !effects.contains(&effect.as_str()) {
        errors.not_supported(at.child("effect"), &effect, &effects);
    }
}
