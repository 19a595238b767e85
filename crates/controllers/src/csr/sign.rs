//! Signs approved requests with the cluster's authority, or with the one of their signer. The authority's files
//! are read for every signature, so that they can be replaced.

use super::{API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, fault, has_certificate, is};
use crate::{Config, Context, Error, Outcome};
use api::time;
use client::{Client, ObjectExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use pki::ca::{Ca, Usage};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "certificatesigningrequest-signing-controller";
/// Nothing shorter is signed: certificates are valid from five minutes before.
const SHORTEST: Duration = Duration::from_secs(600);

/// Signs requests, for those signers that have an authority.
pub async fn run(ctx: Context) {
    if ctx.config.signing.is_empty() {
        tracing::info!("{NAME}: no --cluster-signing-cert-file");
        return;
    }
    let client = ctx.client("certificate-controller");
    let requests = ctx.informers.informer::<CertificateSigningRequest>();
    let lister = requests.lister();
    let config = ctx.config.clone();
    ctx.controller(NAME)
        .each(&requests)
        .run(5, ctx.shutdown, move |key| {
            let (client, csr, config) = (client.clone(), lister.get("", &key.name), config.clone());
            async move {
                match csr {
                    Some(csr) => reconcile(&client, &csr, config).await,
                    None => Ok(None),
                }
            }
        })
        .await;
}

async fn reconcile(client: &Client, csr: &CertificateSigningRequest, config: Arc<Config>) -> Outcome {
    let signer = csr.spec.signer_name.as_str();
    let ours = [KUBELET_CLIENT, KUBELET_SERVING, API_CLIENT, LEGACY].contains(&signer);
    if !ours || !is(csr, "Approved") || is(csr, "Denied") || is(csr, "Failed") || has_certificate(csr) {
        return Ok(None);
    }
    let Some((certificate, key)) = config.signing.get(signer).or_else(|| config.signing.get("")) else {
        return Ok(None);
    };
    let request = &csr.spec.request.0;
    let subject = pki::ca::read_request(request)?;
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    let mut signed = csr.clone();
    let status = signed.status.get_or_insert_default();
    match fault(signer, &subject, usages).map_or_else(|| read_usages(usages), Err) {
        Err(why) => status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: "Failed".into(),
            status: "True".into(),
            reason: Some("SignerValidationFailure".into()),
            message: Some(why),
            last_update_time: Some(time::now()),
            last_transition_time: Some(time::now()),
        }),
        Ok(usages) => {
            let what = certificate.display().to_string();
            let ca = Ca::from_pem(&pki::files::read(certificate)?, &pki::files::read(key)?, &what)?;
            let lifetime = lifetime(csr.spec.expiration_seconds, config.signing_duration);
            status.certificate = Some(ByteString(ca.sign_request(request, &usages, lifetime)?.into_bytes()));
        }
    }
    match client.update_status(&signed).await {
        Err(e) if e.is_not_found() => return Ok(None),
        other => drop(other?),
    }
    tracing::info!("{NAME}: signed {} for {signer}", csr.name());
    Ok(None)
}

fn lifetime(asked: Option<i32>, longest: Duration) -> Duration {
    match asked {
        None => longest,
        Some(s) => Duration::from_secs(u64::try_from(s).unwrap_or_default()).max(SHORTEST).min(longest),
    }
}

fn read_usages(usages: &[String]) -> Result<Vec<Usage>, String> {
    let read = |u: &String| match u.as_str() {
        "digital signature" | "signing" => Ok(Usage::DigitalSignature),
        "key encipherment" => Ok(Usage::KeyEncipherment),
        "client auth" => Ok(Usage::ClientAuth),
        "server auth" => Ok(Usage::ServerAuth),
        other => Err(format!("unsupported usage: {other}")),
    };
    usages.iter().map(read).collect()
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Error::Other(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_bounded() {
        let year = Duration::from_secs(31_536_000);
        for (asked, want) in
            [(None, 31_536_000), (Some(60), 600), (Some(7200), 7200), (Some(i32::MAX), 31_536_000)]
        {
            assert_eq!(lifetime(asked, year).as_secs(), want);
        }
        assert!(read_usages(&["code signing".into()]).is_err());
    }
}
