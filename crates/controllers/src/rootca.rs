//! Puts the certificate of the cluster's authority into every namespace, for pods to check the API server by.
//! Watches namespaces and ConfigMaps of that name; both lead to the namespace.

use crate::serviceaccount::{ignore_lost_race, is_active};
use crate::{Context, Outcome};
use api::ObjectKey;
use client::{ObjectExt, Scope};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "root-ca-certificate-publisher-controller";
const MAP: &str = "kube-root-ca.crt";
const NOTE: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// What a namespace needs.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create(Box<ConfigMap>),
    Update(Box<ConfigMap>),
}

/// Publishes the certificate; without one there is nothing to do.
pub async fn run(ctx: Context) {
    let Some(ca) = ctx.config.root_ca.clone() else {
        tracing::info!("{NAME}: no --root-ca-file");
        return;
    };
    let client = ctx.client("root-ca-cert-publisher");
    let namespaces = ctx.informers.informer::<Namespace>();
    let maps = ctx.informers.informer_with::<ConfigMap>(Scope {
        field_selector: format!("metadata.name={MAP}"),
        ..Scope::default()
    });
    let (namespace_list, map_list) = (namespaces.lister(), maps.lister());
    let data: Arc<BTreeMap<String, String>> = Arc::new([("ca.crt".to_string(), ca)].into());
    ctx.controller(NAME)
        .on(&namespaces, |event, queue| queue.add(ObjectKey::new("", event.object().name())))
        .on(&maps, |event, queue| queue.add(ObjectKey::new("", event.object().namespace())))
        .run(ctx.workers(NAME, 1), ctx.shutdown, move |key| {
            let wanted = namespace_list.get("", &key.name).is_some_and(|ns| is_active(&ns));
            let step = if wanted {
                plan(&key.name, map_list.get(&key.name, MAP).as_deref(), &data)
            } else {
                Step::Nothing
            };
            let client = client.clone();
            async move {
                match step {
                    Step::Nothing => {}
                    Step::Create(map) => ignore_lost_race(client.create::<ConfigMap>(&map).await)?,
                    Step::Update(map) => ignore_lost_race(client.update::<ConfigMap>(&map).await)?,
                }
                Outcome::Ok(None)
            }
        })
        .await;
}

fn plan(namespace: &str, there: Option<&ConfigMap>, data: &BTreeMap<String, String>) -> Step {
    let mut map = there.cloned().unwrap_or_default();
    if there.is_some()
        && map.data.as_ref() == Some(data)
        && map.annotation(NOTE).is_some_and(|n| !n.is_empty())
    {
        return Step::Nothing;
    }
    map.data = Some(data.clone());
    map.metadata.annotations.get_or_insert_default().insert(NOTE.into(), TEXT.into());
    if there.is_some() {
        return Step::Update(Box::new(map));
    }
    map.metadata.namespace = Some(namespace.into());
    map.metadata.name = Some(MAP.into());
    Step::Create(Box::new(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_made_and_mended() {
        let data = [("ca.crt".to_string(), "pem".to_string())].into();
        let Step::Create(made) = plan("ns", None, &data) else { panic!() };
        assert_eq!((made.namespace(), made.name()), ("ns", MAP));
        assert_eq!(plan("ns", Some(&made), &data), Step::Nothing);
        let Step::Update(mended) = plan("ns", Some(&ConfigMap { data: None, ..*made.clone() }), &data) else {
            panic!()
        };
        assert_eq!(mended, made);
    }
}
