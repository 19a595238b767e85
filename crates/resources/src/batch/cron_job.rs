//! CronJob.

use crate::apps::not_negative;
use crate::kind::age_column;
use crate::table::age;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};

/// The rules of CronJob.
pub static KIND: Kind<CronJob> = Kind {
    has_status: true,
    has_generation: true,
    default: |c| {
        let spec = &mut c.spec;
        spec.concurrency_policy.get_or_insert_with(|| "Allow".into());
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        super::job::default(spec.job_template.spec.get_or_insert_default());
    },
    validate,
    validate_update: |new, _, errors| validate(new, errors),
    columns: &[
        Column::text("Schedule", "When it runs.", |c: &CronJob, _| spec(c).schedule.into()),
        Column::text("Timezone", "By which clock.", |c: &CronJob, _| {
            spec(c).time_zone.unwrap_or_else(|| "<none>".into()).into()
        }),
        Column::text("Suspend", "Whether it is held.", |c: &CronJob, _| {
            if spec(c).suspend == Some(true) { "True".into() } else { "False".into() }
        }),
        Column::number("Active", "Jobs that run.", |c: &CronJob, _| {
            c.status.as_ref().and_then(|s| s.active.as_ref()).map_or(0, Vec::len).into()
        }),
        Column::text("Last Schedule", "When it last ran.", |c: &CronJob, now| {
            match c.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()) {
                Some(time) => age(Some(time), now),
                None => "<none>".into(),
            }
        }),
        age_column(),
    ],
    ..Kind::namespaced("cronjob", "cronjobs").called(&["cj"], &["all"])
};

fn spec(c: &CronJob) -> CronJobSpec {
    c.spec.clone()
}

fn validate(c: &CronJob, errors: &mut FieldErrors) {
    let spec = spec(c);
    let root = FieldPath::root("spec");
    if spec.schedule.is_empty() {
        errors.required(root.child("schedule"), "");
    } else if spec.schedule.contains("TZ") {
        errors.invalid(
            root.child("schedule"),
            &spec.schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    } else if let Err(e) = spec.schedule.parse::<api::cron::Schedule>() {
        errors.invalid(root.child("schedule"), &spec.schedule, e.to_string());
    }
    if let Some(zone) = &spec.time_zone {
        let at = root.child("timeZone");
        if zone.is_empty() {
            errors.invalid(at, zone, "timeZone must be nil or non-empty string");
        } else if zone.eq_ignore_ascii_case("local") {
            errors.invalid(
                at,
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if zone != "UTC" && jiff::tz::TimeZone::get(zone).is_err() {
            errors.invalid(at, zone, format!("unknown time zone {zone}"));
        }
    }
    if spec.starting_deadline_seconds.is_some_and(|s| s < 0) {
        errors.invalid(
            root.child("startingDeadlineSeconds"),
            &spec.starting_deadline_seconds,
            "must be greater than or equal to 0",
        );
    }
    if !matches!(spec.concurrency_policy.as_deref(), Some("Allow" | "Forbid" | "Replace")) {
        errors.not_supported(
            root.child("concurrencyPolicy"),
            spec.concurrency_policy.as_deref().unwrap_or_default(),
            &["Allow", "Forbid", "Replace"],
        );
    }
    not_negative(spec.successful_jobs_history_limit, root.child("successfulJobsHistoryLimit"), errors);
    not_negative(spec.failed_jobs_history_limit, root.child("failedJobsHistoryLimit"), errors);
    let template = root.child("jobTemplate");
    super::job::validate_spec(&spec.job_template.spec.unwrap_or_default(), template.child("spec"), errors);
}
