//! Job.

mod indexes;
mod status;
pub mod validate;

use crate::apps::{images, names, selector_cell, workload_warnings};
use crate::check::{self, list, text};
use crate::core::pod_spec;
use crate::kind::age_column;
use crate::table::human_duration;
use crate::{Column, Context, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Affinity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The rules of Job.
pub static KIND: Kind<Job> = Kind {
    orphans: true,
    has_status: true,
    has_generation: true,
    default: |j| default(j.spec.get_or_insert_default()),
    prepare_create,
    prepare_update: |new, old, _| {
        let template = new.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        crate::core::pod::drop_disabled(template, spec(old).template.spec.as_ref());
    },
    validate: |j, errors| validate(j, None, errors),
    validate_update,
    validate_status: status::validate,
    warnings: |new, old| {
        workload_warnings(&new.metadata, Some(&spec(new).template), old.map(|o| Some(&spec(o).template)))
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
            match (&status.start_time, &status.completion_time) {
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
            selector_cell(spec(j).selector.as_ref())
        })
        .wide(),
    ],
    ..Kind::namespaced("job", "jobs").called(&[], &["all"])
};

static NO_SPEC: LazyLock<JobSpec> = LazyLock::new(Default::default);
static NO_STATUS: LazyLock<JobStatus> = LazyLock::new(Default::default);

fn spec(j: &Job) -> &JobSpec {
    j.spec.as_ref().unwrap_or(&NO_SPEC)
}

fn status(j: &Job) -> &JobStatus {
    j.status.as_ref().unwrap_or(&NO_STATUS)
}

fn state(j: &Job) -> &'static str {
    let conditions = list(&status(j).conditions);
    let is = |kind: &str| conditions.iter().find(|c| c.type_ == kind).is_some_and(|c| c.status == "True");
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

const LABELS: [&str; 4] =
    ["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];

/// A job finds its pods by its own uid, unless it says otherwise. What the client has set is for validation
/// to refuse.
fn prepare_create(j: &mut Job, _: &Context<'_>) {
    let (uid, name) = (text(&j.metadata.uid).to_string(), text(&j.metadata.name).to_string());
    j.status = Some(JobStatus::default());
    let spec = j.spec.get_or_insert_default();
    crate::core::pod::drop_disabled(spec.template.spec.as_mut(), None);
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for key in LABELS {
        let value = if key.ends_with("name") { &name } else { &uid };
        labels.entry(key.into()).or_insert_with(|| value.clone());
    }
    // Upstream shows a job without labels with those of its pods.
    if j.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
        j.metadata.labels = Some(labels.clone());
    }
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    let labels = selector.match_labels.get_or_insert_default();
    labels.entry("batch.kubernetes.io/controller-uid".into()).or_insert(uid);
}

fn validate(j: &Job, old: Option<&Job>, errors: &mut FieldErrors) {
    let (s, root) = (spec(j), FieldPath::root("spec"));
    let prefixed = old.is_none_or(|o| {
        let labels = spec(o).template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        LABELS.iter().skip(2).all(|key| labels.is_some_and(|l| l.contains_key(*key)))
    });
    if s.manual_selector != Some(true) && s.selector.is_some() {
        own_labels(j, prefixed, errors);
    }
    validate::with_selector(s, old.map(spec), root, errors);
    if let (Some("Indexed"), Some(n)) = (s.completion_mode.as_deref(), s.completions.filter(|n| *n > 0)) {
        let name = text(&j.metadata.name);
        let host = format!("{name}-{}", n - 1);
        if !api::names::dns1123_label(&host).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {host}");
            errors.invalid(FieldPath::root("metadata").child("name"), &name, why);
        }
    }
}

/// The labels that were made for its pods are those of this job.
fn own_labels(j: &Job, prefixed: bool, errors: &mut FieldErrors) {
    let (uid, name, s) = (text(&j.metadata.uid), text(&j.metadata.name), spec(j));
    if uid.is_empty() {
        errors.required(FieldPath::root("metadata").child("uid"), "");
    }
    let labels = s.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let root = FieldPath::root("spec");
    let template = root.child("template");
    let metadata = template.child("metadata");
    let at = metadata.child("labels");
    let keys = if prefixed { &LABELS[..] } else { &LABELS[..2] };
    let mut expected = BTreeMap::new();
    for key in keys {
        let value = if key.ends_with("name") { name } else { uid };
        expected.insert(key.to_string(), value.to_string());
        match labels.and_then(|l| l.get(*key)) {
            None => errors.required(at.key(key), &format!("must be '{value}'")),
            Some(own) if own != value => errors.invalid(at.key(key), &labels, format!("must be '{value}'")),
            Some(_) => {}
        }
    }
    let parsed = s.selector.as_ref().and_then(|s| api::selector::LabelSelector::from_object(s).ok());
    if parsed.is_some_and(|p| !p.matches_labels(Some(&expected))) {
        errors.invalid(root.child("selector"), &s.selector, "`selector` not auto-generated");
    }
}

fn validate_update(new: &Job, old: &Job, errors: &mut FieldErrors) {
    validate(new, Some(old), errors);
    let (now, had) = (spec(new), spec(old));
    let root = FieldPath::root("spec");
    let at = root.child("completions");
    if now.completion_mode.as_deref() != Some("Indexed") {
        check::immutable(&now.completions, &had.completions, at, errors);
    } else if let Some(completions) = now.completions
        && now.completions != had.completions
        && now.completions != now.parallelism
    {
        errors.invalid(at, &completions, "can only be modified in tandem with spec.parallelism");
    }
    check::immutable(&now.selector, &had.selector, root.child("selector"), errors);
    template_kept(now, old, root, errors);
    check::immutable(&now.completion_mode, &had.completion_mode, root.child("completionMode"), errors);
    check::immutable(
        &now.pod_failure_policy,
        &had.pod_failure_policy,
        root.child("podFailurePolicy"),
        errors,
    );
    let at = root.child("backoffLimitPerIndex");
    check::immutable(&now.backoff_limit_per_index, &had.backoff_limit_per_index, at, errors);
    check::immutable(&now.managed_by, &had.managed_by, root.child("managedBy"), errors);
    check::immutable(&now.success_policy, &had.success_policy, root.child("successPolicy"), errors);
}

/// While a job is held, and none of its pods run, where they go and what they ask for may change.
fn template_kept(now: &JobSpec, old: &Job, root: FieldPath<'_>, errors: &mut FieldErrors) {
    let (had, state) = (spec(old), status(old));
    let held = list(&state.conditions).iter().any(|c| c.type_ == "Suspended" && c.status == "True");
    let suspended = had.suspend == Some(true);
    let mutable = suspended && (state.start_time.is_none() || held) && state.active.unwrap_or(0) == 0;
    let mut allowed = had.template.clone();
    if mutable {
        let (new_meta, meta) = (now.template.metadata.as_ref(), allowed.metadata.get_or_insert_default());
        meta.annotations = new_meta.and_then(|m| m.annotations.clone());
        meta.labels = new_meta.and_then(|m| m.labels.clone());
        if let (Some(new), Some(mine)) = (&now.template.spec, &mut allowed.spec) {
            mine.node_selector.clone_from(&new.node_selector);
            mine.tolerations.clone_from(&new.tolerations);
            mine.scheduling_gates.clone_from(&new.scheduling_gates);
            match (&new.affinity, &mut mine.affinity) {
                (None, Some(affinity)) => {
                    affinity.node_affinity = None;
                    if *affinity == Affinity::default() {
                        mine.affinity = None;
                    }
                }
                (Some(new), Some(affinity)) => affinity.node_affinity.clone_from(&new.node_affinity),
                (Some(new), None) => {
                    let node_affinity = new.node_affinity.clone();
                    mine.affinity = Some(Affinity { node_affinity, ..Affinity::default() });
                }
                (None, None) => {}
            }
            let inits = mine.init_containers.iter_mut().flatten();
            let pairs = mine.containers.iter_mut().zip(&new.containers);
            for (mine, new) in pairs.chain(inits.zip(list(&new.init_containers))) {
                if mine.name == new.name {
                    mine.resources.clone_from(&new.resources);
                }
            }
        }
        if now.template.spec != allowed.spec {
            errors.invalid(root.child("template.spec"), &now.template.spec, check::IMMUTABLE);
        }
    } else {
        check::immutable(&now.template, &allowed, root.child("template"), errors);
    }
}
