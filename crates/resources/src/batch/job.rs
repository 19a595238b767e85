//! Job.

use crate::apps::{images, names, not_negative, selector_text};
use crate::core::pod_spec;
use crate::kind::age_column;
use crate::table::human_duration;
use crate::{Column, Context, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The rules of Job.
pub static KIND: Kind<Job> = Kind {
    has_status: true,
    has_generation: true,
    default: |j| default(j.spec.get_or_insert_default()),
    prepare_create,
    validate: |j, errors| validate(&spec(j), errors),
    validate_update: |new, old, errors| {
        let (new, old) = (spec(new), spec(old));
        validate(&new, errors);
        let root = FieldPath::root("spec");
        let immutable = "field is immutable";
        if new.selector != old.selector {
            errors.invalid(root.child("selector"), &new.selector, immutable);
        }
        let indexed = new.completion_mode.as_deref() == Some("Indexed");
        let together = new.completions == new.parallelism;
        if new.completions != old.completions && !(indexed && together) {
            errors.invalid(root.child("completions"), &new.completions, immutable);
        }
        if new.template != old.template && old.suspend != Some(true) {
            errors.invalid(root.child("template"), &"", immutable);
        }
        if new.completion_mode != old.completion_mode {
            errors.invalid(root.child("completionMode"), &new.completion_mode, immutable);
        }
        if new.backoff_limit_per_index != old.backoff_limit_per_index {
            errors.invalid(root.child("backoffLimitPerIndex"), &new.backoff_limit_per_index, immutable);
        }
    },
    selectable: &["status.successful=status.succeeded"],
    columns: &[
        Column::text("Status", "Running, Complete, Failed or Suspended.", |j: &Job, _| state(j).into()),
        Column::text("Completions", "Pods that have succeeded, and how many should.", |j: &Job, _| {
            let (spec, done) = (spec(j), status(j).succeeded.unwrap_or(0));
            match (spec.completions, spec.parallelism.unwrap_or(0)) {
                (Some(wanted), _) => format!("{done}/{wanted}").into(),
                (None, n) if n > 1 => format!("{done}/1 of {n}").into(),
                (None, _) => format!("{done}/1").into(),
            }
        }),
        Column::text("Duration", "How long it took.", |j: &Job, now| {
            let status = status(j);
            match (status.start_time, status.completion_time) {
                (None, _) => "".into(),
                (Some(start), None) => human_duration(now.as_second() - start.0.as_second()).into(),
                (Some(start), Some(end)) => human_duration(end.0.as_second() - start.0.as_second()).into(),
            }
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |j: &Job, _| {
            names(Some(&spec(j).template))
        })
        .wide(),
        Column::text("Images", "Images referenced by each container in the template.", |j: &Job, _| {
            images(Some(&spec(j).template))
        })
        .wide(),
        Column::text("Selector", "The pods it looks after.", |j: &Job, _| {
            selector_text(spec(j).selector.as_ref()).into()
        })
        .wide(),
    ],
    ..Kind::namespaced("job", "jobs").called(&[], &["all"])
};

fn spec(j: &Job) -> JobSpec {
    j.spec.clone().unwrap_or_default()
}

fn status(j: &Job) -> JobStatus {
    j.status.clone().unwrap_or_default()
}

fn state(j: &Job) -> &'static str {
    let conditions = status(j).conditions.unwrap_or_default();
    let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if j.metadata.deletion_timestamp.is_some() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// Sets a spec's defaults; a CronJob's template has them too.
pub fn default(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    if spec.backoff_limit.is_none() {
        // With a limit of each index, there is none of the whole.
        spec.backoff_limit = Some(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 });
    }
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    spec.pod_replacement_policy.get_or_insert_with(|| {
        if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" }.into()
    });
    pod_spec::default_template(&mut spec.template);
}

/// A job finds its pods by its own uid, unless it says otherwise.
fn prepare_create(j: &mut Job, _: &Context<'_>) {
    let (uid, name) =
        (j.metadata.uid.clone().unwrap_or_default(), j.metadata.name.clone().unwrap_or_default());
    let spec = j.spec.get_or_insert_default();
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        labels.insert(key.into(), value.clone());
    }
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    selector.match_labels.get_or_insert_default().insert("batch.kubernetes.io/controller-uid".into(), uid);
}

fn validate(spec: &JobSpec, errors: &mut FieldErrors) {
    let root = FieldPath::root("spec");
    validate_spec(spec, root, errors);
    if spec.selector.is_none() {
        errors.required(root.child("selector"), "");
    }
}

/// Checks a spec; a CronJob's template too.
pub fn validate_spec(spec: &JobSpec, root: FieldPath<'_>, errors: &mut FieldErrors) {
    for (name, value) in [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ] {
        not_negative(value, root.child(name), errors);
    }
    if let Some(deadline) = spec.active_deadline_seconds.filter(|d| *d < 0) {
        errors.invalid(root.child("activeDeadlineSeconds"), &deadline, "must be greater than or equal to 0");
    }
    match spec.completion_mode.as_deref() {
        Some("NonIndexed") => {}
        Some("Indexed") if spec.completions.is_none() => {
            errors.required(root.child("completions"), "when completion mode is Indexed");
        }
        Some("Indexed") => {}
        other => errors.not_supported(
            root.child("completionMode"),
            other.unwrap_or_default(),
            &["Indexed", "NonIndexed"],
        ),
    }
    let at = root.child("template");
    pod_spec::validate_template(&spec.template, at, errors);
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    if !matches!(policy, "OnFailure" | "Never") {
        let spec = at.child("spec");
        errors.required(spec.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
    }
}
