//! CronJob.

use crate::apps::{images, names, selector_cell};
use crate::check::{self, list, not_negative, text};
use crate::core::pod::{drop_disabled, warnings};
use crate::kind::age_column;
use crate::table::age;
use crate::{Column, Kind};
use api::cron::Schedule;
use api::field::{FieldErrors, FieldFault, FieldPath, quoted};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The longest name: a job's name has eleven characters more.
const MAX_NAME: usize = 52;

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
    prepare_create: |c, _| {
        c.status = Some(Default::default());
        drop_disabled(c.spec.job_template.spec.as_mut().and_then(|s| s.template.spec.as_mut()), None);
    },
    prepare_update: |new, old, _| {
        let template_spec = new.spec.job_template.spec.as_mut().and_then(|s| s.template.spec.as_mut());
        drop_disabled(template_spec, template(old).and_then(|t| t.spec.as_ref()));
    },
    validate: |c, errors| {
        validate(c, None, errors);
        let name = text(&c.metadata.name);
        if name.len() > MAX_NAME {
            let why = format!("must be no more than {MAX_NAME} characters");
            errors.invalid(FieldPath::root("metadata").child("name"), &name, why);
        }
    },
    validate_update: |new, old, errors| validate(new, Some(&old.spec), errors),
    warnings: |new, old| {
        let mut out = Vec::new();
        let faults = api::names::dns1123_label(text(&new.metadata.name));
        if old.is_none() && !faults.is_empty() {
            out.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", faults.join(" ")));
        }
        let root = FieldPath::root("spec");
        let job = root.child("jobTemplate");
        let job_spec = job.child("spec");
        if let Some(t) = template(new).filter(|t| old.and_then(template) != Some(t)) {
            out.extend(warnings::of_template(t, job_spec.child("template")));
        }
        if new.spec.schedule.contains("TZ") {
            out.push("spec.schedule: cannot use TZ or CRON_TZ in schedule, use timeZone instead".into());
        }
        out
    },
    columns: &[
        Column::text("Schedule", "When it runs.", |c: &CronJob, _| c.spec.schedule.clone().into()),
        Column::text("Timezone", "By which clock.", |c: &CronJob, _| {
            c.spec.time_zone.as_deref().unwrap_or("<none>").into()
        }),
        Column {
            kind: "boolean",
            ..Column::text("Suspend", "Whether it is held.", |c: &CronJob, _| match c.spec.suspend {
                None => "<unset>".into(),
                Some(true) => "True".into(),
                Some(false) => "False".into(),
            })
        },
        Column::number("Active", "Jobs that run.", |c: &CronJob, _| {
            c.status.as_ref().map_or(0, |s| list(&s.active).len()).into()
        }),
        Column::text("Last Schedule", "When it last ran.", |c: &CronJob, now| {
            match c.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()) {
                Some(time) => age(Some(time), now),
                None => "<none>".into(),
            }
        }),
        age_column(),
        Column::text("Containers", "Names of each container in the template.", |c: &CronJob, _| {
            names(template(c))
        })
        .wide(),
        Column::text("Images", "Images referenced by each container in the template.", |c: &CronJob, _| {
            images(template(c))
        })
        .wide(),
        Column::text("Selector", "The pods its jobs look after.", |c: &CronJob, _| {
            selector_cell(c.spec.job_template.spec.as_ref().and_then(|s| s.selector.as_ref()))
        })
        .wide(),
    ],
    ..Kind::namespaced("cronjob", "cronjobs").called(&["cj"], &["all"])
};

fn template(c: &CronJob) -> Option<&PodTemplateSpec> {
    c.spec.job_template.spec.as_ref().map(|s| &s.template)
}

fn validate(c: &CronJob, old: Option<&CronJobSpec>, errors: &mut FieldErrors) {
    let s = &c.spec;
    let root = FieldPath::root("spec");
    schedule(s, old, root.child("schedule"), errors);
    not_negative(s.starting_deadline_seconds, root.child("startingDeadlineSeconds"), errors);
    if let Some(zone) = s.time_zone.as_ref().filter(|_| old.is_none_or(|o| o.time_zone != s.time_zone)) {
        time_zone(zone, root.child("timeZone"), errors);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    check::required_one_of(text(&s.concurrency_policy), &policies, root.child("concurrencyPolicy"), errors);
    let none = JobSpec::default();
    let job = s.job_template.spec.as_ref().unwrap_or(&none);
    let template = root.child("jobTemplate");
    let at = template.child("spec");
    let old = old.and_then(|o| o.job_template.spec.as_ref()).map(|s| &s.template);
    super::job::validate::spec(job, old, at, errors);
    if let Some(selector) = &job.selector {
        errors.invalid(at.child("selector"), selector, "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        let fault = FieldFault::NotSupported(quoted(&true), vec!["nil".into(), "false".into()]);
        errors.push(at.child("manualSelector"), fault);
    }
    not_negative(s.successful_jobs_history_limit, root.child("successfulJobsHistoryLimit"), errors);
    not_negative(s.failed_jobs_history_limit, root.child("failedJobsHistoryLimit"), errors);
}

fn schedule(s: &CronJobSpec, old: Option<&CronJobSpec>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if check::required(&s.schedule, at, errors) {
        return;
    }
    // Old schedules may have their zone in front.
    let (zone, fields) = match s.schedule.strip_prefix("CRON_TZ=").or(s.schedule.strip_prefix("TZ=")) {
        Some(zoned) => zoned.split_once(' ').map_or((None, zoned), |(zone, rest)| (Some(zone), rest.trim())),
        None => (None, s.schedule.as_str()),
    };
    if let Some(zone) = zone.filter(|zone| jiff::tz::TimeZone::get(zone).is_err()) {
        let why = format!("provided bad location {zone}: unknown time zone {zone}");
        errors.invalid(at, &s.schedule, why);
    } else if let Err(e) = fields.parse::<Schedule>() {
        errors.invalid(at, &s.schedule, e.to_string());
    }
    let had = old.is_some_and(|o| o.schedule.contains("TZ"));
    if s.schedule.contains("TZ") && !had {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(at, &s.schedule, why);
    } else if s.schedule.contains("TZ") && s.time_zone.is_some() {
        errors.invalid(at, &s.schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn time_zone(zone: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if zone.is_empty() {
        return errors.invalid(at, &zone, "timeZone must be nil or non-empty string");
    }
    let unknown = format!("unknown time zone {zone}");
    let fits = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if !zone.split('/').all(fits) {
        return errors.invalid(at, &zone, unknown);
    }
    if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(at, &zone, why);
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.invalid(at, &zone, unknown);
    }
}
