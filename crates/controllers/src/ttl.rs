//! Deletes Jobs that ended and whose time to stay is over.
//! Watches Jobs.

use crate::{Context, Outcome};
use api::time;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use std::time::Duration;

const NAME: &str = "ttl-after-finished-controller";

/// Deletes Jobs.
pub async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let jobs = ctx.informers.informer::<Job>();
    let lister = jobs.lister();
    ctx.controller(NAME)
        .each(&jobs)
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let (client, job) = (client.clone(), lister.get(&key.namespace, &key.name));
            async move {
                let Some(end) = job.as_deref().filter(|j| !j.is_deleting()).and_then(end) else {
                    return Outcome::Ok(None);
                };
                if let Some(left) = time::until(end, Timestamp::now()) {
                    return Ok(Some(left));
                }
                // Its time may have been prolonged: what is deleted is looked at closely.
                let fresh = match client.get_opt::<Job>(&key.namespace, &key.name).await? {
                    Some(fresh)
                        if self::end(&fresh).is_some_and(|e| time::until(e, Timestamp::now()).is_none()) =>
                    {
                        fresh
                    }
                    _ => return Ok(None),
                };
                let options = DeleteOptions {
                    propagation_policy: Some("Foreground".into()),
                    preconditions: Some(Preconditions {
                        uid: Some(fresh.uid().into()),
                        resource_version: Some(fresh.resource_version().into()),
                    }),
                    ..DeleteOptions::default()
                };
                crate::common::gone_is_fine(client.delete::<Job>(&key.namespace, &key.name, &options).await)?;
                Ok(None)
            }
        })
        .await;
}

/// When a Job's time is over, if it ended and has such a time.
fn end(job: &Job) -> Option<Timestamp> {
    let stay = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).unwrap_or_default();
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(time::later(ended.last_transition_time.as_ref()?.0, Duration::from_secs(stay)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_jobs_that_ended_end() {
        let job = |ttl: Option<i32>, kind: &str| {
            serde_json::from_value::<Job>(json!({
                "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        assert_eq!(end(&job(Some(60), "Complete")).unwrap().to_string(), "2026-01-01T00:01:00Z");
        assert!(
            end(&job(Some(0), "Failed")).is_some()
                && end(&job(None, "Complete")).is_none()
                && end(&job(Some(1), "Suspended")).is_none()
        );
    }
}
