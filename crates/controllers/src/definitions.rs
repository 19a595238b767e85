//! Follows what is served: definitions of custom resources and aggregated APIs come and go, and whoever keeps a copy
//! of discovery has to ask anew.

use crate::Context;
use std::collections::HashMap;
use std::time::Duration;

/// Whether there is something new to follow is looked at so often.
const LOOK: Duration = Duration::from_secs(60);
const DEFINITIONS: [(&str, &str); 2] =
    [("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")];

/// Tells those who keep a copy of discovery when it is old. Runs until shutdown.
pub async fn run(ctx: Context) {
    let mut following = HashMap::new();
    loop {
        match ctx.discovery.within(LOOK).await {
            Err(e) => tracing::warn!("what is served can't be found out: {e}"),
            Ok(found) => {
                for (group, plural) in DEFINITIONS {
                    let served = found.preferred().into_iter().find(|r| {
                        r.resource.group == group && r.resource.plural == plural && r.can(&["list", "watch"])
                    });
                    let Some(served) = served.filter(|_| !following.contains_key(plural)) else { continue };
                    let informer = ctx.informers.metadata(&served.resource, ctx.shutdown.clone());
                    let (discovery, changed) = (ctx.discovery.clone(), ctx.definitions.clone());
                    informer.on(move |_| {
                        discovery.invalidate();
                        changed.send_replace(());
                    });
                    following.insert(plural, informer);
                }
            }
        }
        if ctx.shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}
