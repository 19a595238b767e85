//! Fills Secrets of type `kubernetes.io/service-account-token` with a token for the account they name, and deletes
//! those whose account is gone.
//! Watches such Secrets, and service accounts; an account that goes leads to its Secrets. It works with the daemon's
//! own rights: the tokens of all other controllers depend on what is here.

use crate::common::gone_is_fine;
use crate::{Context, Error, Outcome};
use api::ObjectKey;
use client::{Client, Lister, ObjectExt, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "serviceaccount-token-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// A Secret, or one that is gone and the account that may list it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Secret(ObjectKey),
    Gone { secret: ObjectKey, account: String },
}

struct Tokens {
    client: Client,
    signer: pki::jwt::Signer,
    /// The authority of the cluster, PEM.
    root_ca: Option<String>,
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccount>,
}

/// Fills Secrets; without a key there is nothing to sign with.
pub async fn run(ctx: Context) {
    let Some(path) = ctx.config.service_account_key.clone() else {
        tracing::info!("{NAME}: no --service-account-private-key-file");
        return;
    };
    let signer = pki::files::read(&path)
        .and_then(|pem| pki::jwt::Signer::from_pem(&pem, "--service-account-private-key-file"));
    let signer = match signer {
        Ok(signer) => signer,
        Err(e) => {
            tracing::error!("{NAME}: {e}");
            return ctx.shutdown.cancel();
        }
    };
    let client = ctx.own_client(NAME);
    let scope = Scope { field_selector: format!("type={TYPE}"), ..Scope::default() };
    let secrets = ctx.informers.informer_with::<Secret>(scope);
    let accounts = ctx.informers.informer::<ServiceAccount>();
    let this = Arc::new(Tokens {
        client,
        signer,
        root_ca: ctx.config.root_ca.clone(),
        secrets: secrets.lister(),
        accounts: accounts.lister(),
    });
    let of_account = secrets.lister();
    ctx.controller::<Work>(NAME)
        .on(&secrets, |event, queue| {
            let secret = event.object();
            if !event.is_deleted() {
                queue.add(Work::Secret(secret.key()));
            } else if let Some(account) = secret.annotation(ACCOUNT_NAME) {
                queue.add(Work::Gone { secret: secret.key(), account: account.into() });
            }
        })
        .on(&accounts, move |event, queue| {
            let account = event.object();
            // One of the name was there before, or is there now.
            let changed = event.is_deleted() || event.old().is_none_or(|o| o.uid() != account.uid());
            if changed {
                let all = of_account.list_namespace(account.namespace());
                all.iter()
                    .filter(|s| s.annotation(ACCOUNT_NAME) == Some(account.name()))
                    .for_each(|s| queue.add(Work::Secret(s.key())));
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |work| {
            let this = this.clone();
            async move {
                match work {
                    Work::Secret(key) => this.reconcile(key).await,
                    Work::Gone { secret, account } => this.unlist(&secret, &account).await,
                }
            }
        })
        .await;
}

/// Whether a Secret is for this account, and not for another that had the name.
fn is_for(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = secret.annotation(ACCOUNT_UID).unwrap_or_default();
    uid.is_empty() || uid == account.uid()
}

/// What the token says. It has no end: it counts as long as its Secret is there.
fn claims(account: &ServiceAccount, secret: &Secret) -> Value {
    let (namespace, name) = (account.namespace(), account.name());
    json!({
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret.name(),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    })
}

/// What a Secret lacks is put in; none if it lacks nothing.
fn filled(
    secret: &Secret,
    account: &ServiceAccount,
    root_ca: Option<&str>,
    sign: impl FnOnce(&Value) -> Result<String, pki::PkiError>,
) -> Result<Option<Secret>, pki::PkiError> {
    let has = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let empty = |key: &str| has(key).is_none_or(<[u8]>::is_empty);
    let ca = root_ca.filter(|ca| has("ca.crt") != Some(ca.as_bytes()));
    let (no_namespace, no_token) = (empty("namespace"), empty("token"));
    if ca.is_none() && !no_namespace && !no_token {
        return Ok(None);
    }
    let mut new = secret.clone();
    let data = new.data.get_or_insert_default();
    if let Some(ca) = ca {
        data.insert("ca.crt".into(), ByteString(ca.as_bytes().to_vec()));
    }
    if no_namespace {
        data.insert("namespace".into(), ByteString(secret.namespace().as_bytes().to_vec()));
    }
    if no_token {
        data.insert("token".into(), ByteString(sign(&claims(account, secret))?.into_bytes()));
    }
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_NAME.into(), account.name().into());
    annotations.insert(ACCOUNT_UID.into(), account.uid().into());
    Ok(Some(new))
}

impl Tokens {
    async fn reconcile(&self, key: ObjectKey) -> Outcome {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(None) };
        let named = secret.annotation(ACCOUNT_NAME).unwrap_or_default();
        if named.is_empty() || secret.is_deleting() {
            return Ok(None);
        }
        let cached = self.accounts.get(&key.namespace, named).filter(|a| is_for(&secret, a));
        let account = match cached {
            Some(account) => Some(account),
            // What would be deleted is looked at closely.
            None => {
                let there = self.client.get_opt::<ServiceAccount>(&key.namespace, named).await?;
                there.filter(|a| is_for(&secret, a)).map(Arc::new)
            }
        };
        let Some(account) = account else {
            tracing::info!("{NAME}: deleting {key}: its service account {named} is gone");
            let options = DeleteOptions {
                preconditions: Some(Preconditions {
                    uid: Some(secret.uid().into()),
                    resource_version: Some(secret.resource_version().into()),
                }),
                ..DeleteOptions::default()
            };
            return match gone_is_fine(self.client.delete::<Secret>(&key.namespace, &key.name, &options).await)
            {
                // It has changed: its event brings us back.
                Err(e) if e.is_conflict() => Ok(None),
                other => Ok(other.map(|()| None)?),
            };
        };
        let sign = |claims: &Value| self.signer.sign(claims);
        let Some(filled) = filled(&secret, &account, self.root_ca.as_deref(), sign)? else { return Ok(None) };
        match self.client.update(&filled).await {
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(None),
            other => Ok(other.map(|_| None)?),
        }
    }

    /// Takes a Secret that is gone out of its account's list.
    async fn unlist(&self, secret: &ObjectKey, account: &str) -> Outcome {
        if self.secrets.get(&secret.namespace, &secret.name).is_some() {
            return Ok(None);
        }
        let lists = |a: &ServiceAccount| {
            a.secrets.iter().flatten().any(|s| s.name.as_deref() == Some(secret.name.as_str()))
        };
        if !self.accounts.get(&secret.namespace, account).is_some_and(|a| lists(&a)) {
            return Ok(None);
        }
        let Some(mut fresh) = self.client.get_opt::<ServiceAccount>(&secret.namespace, account).await? else {
            return Ok(None);
        };
        if lists(&fresh) {
            let left = fresh.secrets.take().unwrap_or_default();
            let others = left.into_iter().filter(|s| s.name.as_deref() != Some(secret.name.as_str()));
            fresh.secrets = Some(others.collect());
            match self.client.update(&fresh).await {
                Err(e) if e.is_not_found() => {}
                other => drop(other.map_err(Error::from)?),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(data: Value, annotations: Value) -> Secret {
        serde_json::from_value(
            json!({"metadata": {"name": "t", "namespace": "ns", "annotations": annotations}, "type": TYPE, "data": data}),
        )
        .unwrap()
    }

    #[test]
    fn a_secret_gets_what_it_lacks() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "ns", "uid": "u1"}}))
                .unwrap();
        let named = json!({ACCOUNT_NAME: "robot"});
        let fill =
            |s: &Secret| filled(s, &account, Some("CA"), |c| Ok(format!("signed {}", c["sub"]))).unwrap();
        let new = fill(&secret(json!({"extra": "eA=="}), named.clone())).unwrap();
        let data = new.data.as_ref().unwrap();
        assert_eq!(data["token"].0, b"signed \"system:serviceaccount:ns:robot\"");
        assert_eq!(
            (&data["ca.crt"].0[..], &data["namespace"].0[..], &data["extra"].0[..]),
            (&b"CA"[..], &b"ns"[..], &b"x"[..])
        );
        assert_eq!(new.annotation(ACCOUNT_UID), Some("u1"));
        assert!(fill(&new).is_none());
        // A token that is there stays.
        let mut old_ca = new.clone();
        old_ca.data.as_mut().unwrap().insert("ca.crt".into(), ByteString(b"old".to_vec()));
        let again = filled(&old_ca, &account, Some("CA"), |_| panic!("signed anew")).unwrap().unwrap();
        assert_eq!(again.data.unwrap()["ca.crt"].0, b"CA");
        // Another account of the name is another account.
        assert!(is_for(&new, &account) && is_for(&secret(json!({}), named), &account));
        assert!(!is_for(&secret(json!({}), json!({ACCOUNT_NAME: "robot", ACCOUNT_UID: "u0"})), &account));
    }

    #[test]
    fn claims_are_upstream_s() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "ns", "uid": "u1"}}))
                .unwrap();
        let c = claims(&account, &secret(json!({}), json!({})));
        assert_eq!(c["iss"], "kubernetes/serviceaccount");
        assert_eq!(c["kubernetes.io/serviceaccount/secret.name"], "t");
        assert!(c.get("exp").is_none());
    }
}
