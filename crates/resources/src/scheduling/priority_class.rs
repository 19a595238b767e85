//! PriorityClass.

use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::scheduling::v1::PriorityClass;

/// The rules of PriorityClass.
pub static KIND: Kind<PriorityClass> = Kind {
    has_generation: true,
    default: |c| {
        c.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    },
    validate,
    validate_update: |new, old, errors| {
        let immutable = "may not be changed in an update.";
        if new.value != old.value {
            errors.forbidden(FieldPath::root("value"), immutable);
        }
        let at = FieldPath::root("preemptionPolicy");
        crate::check::immutable(&new.preemption_policy, &old.preemption_policy, at, errors);
    },
    columns: &[
        Column::number("Value", "The priority.", |c: &PriorityClass, _| c.value.unwrap_or_default().into()),
        Column {
            kind: "boolean",
            ..Column::text(
                "Global-Default",
                "Whether pods without a class have this one.",
                |c: &PriorityClass, _| c.global_default.unwrap_or(false).into(),
            )
        },
        age_column(),
        Column::text(
            "PreemptionPolicy",
            "Whether its pods may push others aside.",
            |c: &PriorityClass, _| c.preemption_policy.clone().into(),
        )
        .wide(),
    ],
    ..Kind::cluster("priorityclass", "priorityclasses").called(&["pc"], &[])
};

/// What users may not reach: scheduling's `HighestUserDefinablePriority`.
const MAX_USER_VALUE: i32 = 1_000_000_000;

fn validate(class: &PriorityClass, errors: &mut FieldErrors) {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let value = class.value.unwrap_or_default();
    if name.starts_with("system-") {
        let known = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
        let why = match known.iter().find(|(known, _)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, fixed)) if *fixed != value => {
                Some(format!("value of {name} PriorityClass must be {fixed}"))
            }
            Some(_) if class.global_default == Some(true) => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            errors.forbidden(
                FieldPath::root("metadata").child("name"),
                &format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"),
            );
        }
    } else if value > MAX_USER_VALUE {
        errors.forbidden(
            FieldPath::root("value"),
            &format!("maximum allowed value of a user defined priority is {MAX_USER_VALUE}"),
        );
    }
    if let Some(policy) =
        class.preemption_policy.as_deref().filter(|p| !matches!(*p, "Never" | "PreemptLowerPriority"))
    {
        errors.not_supported(FieldPath::root("preemptionPolicy"), policy, &["Never", "PreemptLowerPriority"]);
    }
}
