//! PriorityLevelConfiguration: how many requests are served at once, and which wait.

use super::bootstrap::mandatory_levels;
use super::flow_schema::condition_types;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration,
    PriorityLevelConfigurationSpec, QueuingConfiguration,
};
use serde_json::Value;

const MAX_QUEUES: i32 = 10_000_000;
/// Bits that the choice of queues may use up.
const MAX_ENTROPY: i64 = 60;
/// What upstream's v1beta3 keeps in an annotation, which has no business here.
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

/// The rules of PriorityLevelConfiguration.
pub static KIND: Kind<PriorityLevelConfiguration> = Kind {
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    default: |p| {
        let spec = p.spec.get_or_insert_default();
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        if let Some(limited) = &mut spec.limited {
            limited.nominal_concurrency_shares.get_or_insert(30);
            limited.lendable_percent.get_or_insert(0);
            if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
                for (number, usual) in [
                    (&mut queuing.hand_size, 8),
                    (&mut queuing.queues, 64),
                    (&mut queuing.queue_length_limit, 50),
                ] {
                    if number.is_none_or(|n| n == 0) {
                        *number = Some(usual);
                    }
                }
            }
        }
    },
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    validate_status: |new, _, errors| {
        let conditions = new.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        condition_types(conditions.iter().map(|c| c.type_.as_deref().unwrap_or_default()), errors);
    },
    columns: &[
        Column::text("Type", "Exempt or Limited.", |p: &PriorityLevelConfiguration, _| {
            p.spec.as_ref().map(|s| s.type_.clone()).unwrap_or_default().into()
        }),
        Column::text(
            "NominalConcurrencyShares",
            "Its share of the requests served at once.",
            |p: &PriorityLevelConfiguration, _| number(limited(p).and_then(|l| l.nominal_concurrency_shares)),
        ),
        Column::text("Queues", "How many queues it has.", |p: &PriorityLevelConfiguration, _| {
            number(queuing(p).and_then(|q| q.queues))
        }),
        Column::text("HandSize", "Queues that a flow may wait in.", |p: &PriorityLevelConfiguration, _| {
            number(queuing(p).and_then(|q| q.hand_size))
        }),
        Column::text("QueueLengthLimit", "Requests in a queue.", |p: &PriorityLevelConfiguration, _| {
            number(queuing(p).and_then(|q| q.queue_length_limit))
        }),
        age_column(),
    ],
    ..Kind::cluster("prioritylevelconfiguration", "prioritylevelconfigurations")
};

fn number(n: Option<i32>) -> Value {
    n.map_or_else(|| "<none>".into(), Value::from)
}

fn limited(p: &PriorityLevelConfiguration) -> Option<&LimitedPriorityLevelConfiguration> {
    p.spec.as_ref()?.limited.as_ref()
}

fn queuing(p: &PriorityLevelConfiguration) -> Option<&QueuingConfiguration> {
    limited(p)?.limit_response.as_ref()?.queuing.as_ref()
}

fn validate(p: &PriorityLevelConfiguration, errors: &mut FieldErrors) {
    let none = PriorityLevelConfigurationSpec::default();
    let spec = p.spec.as_ref().unwrap_or(&none);
    let name = p.metadata.name.as_deref().unwrap_or_default();
    if p.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(ZERO_SHARES)) {
        let metadata = FieldPath::root("metadata");
        errors.forbidden(metadata.child("annotations"), &format!("annotation '{ZERO_SHARES}' is forbidden"));
    }
    let at = FieldPath::root("spec");
    if (name == "exempt") != (spec.type_ == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.invalid(at.child("type"), &spec.type_, why);
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.forbidden(at.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = &spec.exempt {
                let at = at.child("exempt");
                shares(exempt.nominal_concurrency_shares, at, errors);
                lendable(exempt.lendable_percent, at, errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.forbidden(at.child("exempt"), "must be nil if the type is Limited");
            }
            match &spec.limited {
                None => errors.required(at.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => validate_limited(limited, at.child("limited"), errors),
            }
        }
        other => errors.not_supported(at.child("type"), other, &["Exempt", "Limited"]),
    }
    validate_mandatory(name, spec, errors);
}

fn validate_mandatory(name: &str, spec: &PriorityLevelConfigurationSpec, errors: &mut FieldErrors) {
    let at = FieldPath::root("spec");
    for fixed in mandatory_levels() {
        let fixed: Option<PriorityLevelConfiguration> = serde_json::from_value(fixed).ok();
        let fixed = fixed.filter(|f| f.metadata.name.as_deref() == Some(name)).and_then(|f| f.spec);
        let Some(fixed) = fixed else { continue };
        if name == "exempt" {
            let have = PriorityLevelConfigurationSpec { exempt: fixed.exempt.clone(), ..spec.clone() };
            if have != fixed {
                let why =
                    format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
                errors.invalid(at, spec, why);
            }
        } else if *spec != fixed {
            errors.invalid(at, spec, format!("spec of '{name}' must equal the fixed value"));
        }
    }
}

fn shares(n: Option<i32>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(n) = n.filter(|n| *n < 0) {
        errors.invalid(at.child("nominalConcurrencyShares"), &n, "must be a non-negative integer");
    }
}

fn lendable(percent: Option<i32>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(percent) = percent.filter(|p| !(0..=100).contains(p)) {
        errors.invalid(at.child("lendablePercent"), &percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(l: &LimitedPriorityLevelConfiguration, at: FieldPath<'_>, errors: &mut FieldErrors) {
    shares(l.nominal_concurrency_shares, at, errors);
    let none = LimitResponse::default();
    validate_response(l.limit_response.as_ref().unwrap_or(&none), at.child("limitResponse"), errors);
    lendable(l.lendable_percent, at, errors);
    if let Some(percent) = l.borrowing_limit_percent.filter(|p| *p < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.invalid(at.child("borrowingLimitPercent"), &percent, why);
    }
}

fn validate_response(response: &LimitResponse, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let here = at.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errors.forbidden(here, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            errors.required(here, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => validate_queuing(queuing, here, errors),
        ("Reject", None) => {}
        (other, _) => errors.not_supported(at.child("type"), other, &["Queue", "Reject"]),
    }
}

fn validate_queuing(q: &QueuingConfiguration, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let of = |n: Option<i32>| n.unwrap_or(0);
    let (length, queues, hand) = (of(q.queue_length_limit), of(q.queues), of(q.hand_size));
    if length <= 0 {
        errors.invalid(at.child("queueLengthLimit"), &length, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(at.child("queues"), &queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(at.child("queues"), &queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let here = at.child("handSize");
    let entropy = (f64::from(queues.max(1)).log2() * f64::from(hand)).ceil() as i64;
    if hand <= 0 {
        errors.invalid(here, &hand, "must be positive");
    } else if hand > queues {
        errors.invalid(here, &hand, format!("should not be greater than queues ({queues})"));
    } else if entropy > MAX_ENTROPY {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_ENTROPY}"
        );
        errors.invalid(here, &hand, why);
    }
}
