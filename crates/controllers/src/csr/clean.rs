//! Deletes requests that have served: an hour after they were approved or denied, a day if nobody decided,
//! and when the certificate has ended.

use super::{condition, has_certificate};
use crate::common::{delete_uid, gone_is_fine};
use crate::{Context, Outcome};
use api::time;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use std::time::Duration;

const NAME: &str = "certificatesigningrequest-cleaner-controller";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Deletes old requests.
pub async fn run(ctx: Context) {
    let client = ctx.client("certificate-controller");
    let requests = ctx.informers.informer::<CertificateSigningRequest>();
    let lister = requests.lister();
    ctx.controller(NAME)
        .each(&requests)
        .run(1, ctx.shutdown, move |key| {
            let (client, csr) = (client.clone(), lister.get("", &key.name));
            async move {
                let Some(csr) = csr else { return Outcome::Ok(None) };
                let left = time::until(end(&csr), Timestamp::now());
                if left.is_none() {
                    let options = delete_uid(csr.uid());
                    gone_is_fine(client.delete::<CertificateSigningRequest>("", csr.name(), &options).await)?;
                }
                Ok(left)
            }
        })
        .await;
}

/// When a request has served.
fn end(csr: &CertificateSigningRequest) -> Timestamp {
    let made = csr.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |t| t.0);
    let since = |kind: &str, wanted: bool| {
        let c = condition(csr, kind).filter(|c| wanted && c.status == "True")?;
        let at = c.last_update_time.as_ref().or(c.last_transition_time.as_ref())?;
        Some(time::later(at.0, HOUR))
    };
    let decided = [since("Approved", has_certificate(csr)), since("Denied", true), since("Failed", true)];
    let mut end = decided.into_iter().flatten().min().unwrap_or_else(|| time::later(made, DAY));
    if let Some(not_after) = not_after(csr) {
        end = end.min(not_after);
    }
    end
}

fn not_after(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let pem = csr.status.as_ref()?.certificate.as_ref()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem.0).ok()?;
    let certificate = block.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_end_in_time() {
        let csr = |conditions: serde_json::Value, certificate: &str| {
            serde_json::from_value::<CertificateSigningRequest>(json!({
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"request": "", "signerName": "s"},
                "status": {"conditions": conditions, "certificate": certificate},
            }))
            .unwrap()
        };
        let c =
            |kind: &str| json!([{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T10:00:00Z"}]);
        for (csr, want) in [
            (csr(json!([]), ""), "2026-01-02T00:00:00Z"),
            (csr(c("Denied"), ""), "2026-01-01T11:00:00Z"),
            (csr(c("Approved"), ""), "2026-01-02T00:00:00Z"),
            (csr(c("Approved"), "AAAA"), "2026-01-01T11:00:00Z"),
        ] {
            assert_eq!(end(&csr).to_string(), want);
        }
    }
}
