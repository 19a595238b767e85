//! Gives every namespace its `default` service account.
//! Watches namespaces and service accounts; both lead to the namespace.

use crate::{Context, Outcome};
use api::ObjectKey;
use client::ObjectExt;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};

const NAME: &str = "serviceaccount-controller";
const DEFAULT: &str = "default";

/// Keeps the accounts.
pub async fn run(ctx: Context) {
    let client = ctx.client("service-account-controller");
    let (namespaces, accounts) =
        (ctx.informers.informer::<Namespace>(), ctx.informers.informer::<ServiceAccount>());
    let (namespace_list, account_list) = (namespaces.lister(), accounts.lister());
    ctx.controller(NAME)
        .on(&namespaces, |event, queue| queue.add(ObjectKey::new("", event.object().name())))
        .on(&accounts, |event, queue| {
            if event.is_deleted() && event.object().name() == DEFAULT {
                queue.add(ObjectKey::new("", event.object().namespace()));
            }
        })
        .run(ctx.workers(NAME, 1), ctx.shutdown, move |key| {
            let wanted = namespace_list.get("", &key.name).is_some_and(|ns| is_active(&ns));
            let missing = wanted && account_list.get(&key.name, DEFAULT).is_none();
            let client = client.clone();
            async move {
                if missing {
                    let mut account = ServiceAccount::default();
                    account.metadata.namespace = Some(key.name);
                    account.metadata.name = Some(DEFAULT.into());
                    ignore_lost_race(client.create(&account).await)?;
                }
                Outcome::Ok(None)
            }
        })
        .await;
}

/// Whether things can be made in a namespace.
pub fn is_active(ns: &Namespace) -> bool {
    ns.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating") && !ns.is_deleting()
}

/// Someone made it first, or the namespace is on its way out: then nothing is left to do.
pub fn ignore_lost_race<T>(result: Result<T, client::Error>) -> Result<(), client::Error> {
    match result {
        Err(e) if e.is_already_exists() || e.is_namespace_terminating() || e.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
