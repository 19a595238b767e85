//! Objects of the API that pods are made from: config maps, secrets, tokens, claims, services. Config maps and
//! secrets that pods here refer to are watched one by one, as a node may see no others.

use crate::pod::PodExt;
use client::{Client, Informer, Informers, Scope};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Why an object could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is none of that name.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// The kind, as the API names resources in messages.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The API server did not give it.
    #[error("failed to fetch {kind} \"{name}\": {source}")]
    Api {
        /// The kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: client::Error,
    },
    /// This kubelet serves static pods alone.
    #[error("{kind} \"{name}\" cannot be had without an API server")]
    Standalone {
        /// The kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It is there and not for this pod.
    #[error("{0}")]
    Refused(String),
    /// The kubelet has not heard of all of them yet.
    #[error("services have not yet been read at least once, cannot construct envvars")]
    NotRead,
}

impl ObjectError {
    /// Whether it is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ObjectError::NotFound { .. })
    }
}

/// A config map or secret by kind, namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// What a pod refers to.
pub type Reference = (Kind, String, String);

struct Watched<T> {
    informer: Informer<T>,
    _stop: DropGuard,
}

type Watches<T> = Mutex<HashMap<(String, String), Watched<T>>>;
type OnChange = Box<dyn Fn(&Reference) + Send + Sync>;

/// A token until it has to be renewed.
struct Token {
    text: String,
    renew: Instant,
}

/// Gets objects, and remembers those that are watched.
pub struct Objects {
    client: Option<Client>,
    services: OnceLock<Informer<Service>>,
    config_maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
    tokens: Mutex<HashMap<(String, String, i64), Token>>,
    on_change: Arc<OnceLock<OnChange>>,
}

impl Objects {
    /// From the API server, if there is one.
    pub fn new(client: Option<Client>) -> Self {
        Objects {
            client,
            services: OnceLock::new(),
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            tokens: Mutex::default(),
            on_change: Arc::default(),
        }
    }

    /// Knows services from here on.
    pub fn set_services(&self, services: Informer<Service>) {
        let _ = self.services.set(services);
    }

    /// Has `f` called when a watched object changes.
    pub fn on_change(&self, f: impl Fn(&Reference) + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(f));
    }

    fn client(&self, kind: &'static str, name: &str) -> Result<&Client, ObjectError> {
        self.client.as_ref().ok_or_else(|| ObjectError::Standalone { kind, name: name.to_owned() })
    }

    /// A config map.
    pub async fn config_map(&self, ns: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.watched(&self.config_maps, Kind::ConfigMap, "configmap", ns, name).await
    }

    /// A secret.
    pub async fn secret(&self, ns: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.watched(&self.secrets, Kind::Secret, "secret", ns, name).await
    }

    async fn watched<T: client::Object>(
        &self,
        watches: &Watches<T>,
        kind: Kind,
        word: &'static str,
        ns: &str,
        name: &str,
    ) -> Result<Arc<T>, ObjectError> {
        let client = self.client(word, name)?;
        let key = (ns.to_owned(), name.to_owned());
        let known = {
            let watches = watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.get(&key).filter(|w| w.informer.has_synced()).map(|w| w.informer.lister().get(ns, name))
        };
        // one that was just made may not have come over the watch yet
        if let Some(Some(found)) = known {
            return Ok(found);
        }
        let got = client.get_opt::<T>(ns, name).await.map_err(|source| ObjectError::Api {
            kind: word,
            name: name.to_owned(),
            source,
        })?;
        self.watch(watches, client, kind, key);
        got.map(Arc::new).ok_or_else(|| ObjectError::NotFound { kind: word, name: name.to_owned() })
    }

    fn watch<T: client::Object>(
        &self,
        watches: &Watches<T>,
        client: &Client,
        kind: Kind,
        key: (String, String),
    ) {
        let mut watches = watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.contains_key(&key) {
            return;
        }
        let stop = CancellationToken::new();
        let scope = Scope {
            namespace: key.0.clone(),
            field_selector: format!("metadata.name={}", key.1),
            ..Scope::default()
        };
        let informer = Informers::new(client.clone(), stop.clone()).informer_with::<T>(scope);
        let (told, reference) = (self.on_change.clone(), (kind, key.0.clone(), key.1.clone()));
        informer.on(move |_| {
            if let Some(f) = told.get() {
                f(&reference);
            }
        });
        watches.insert(key, Watched { informer, _stop: stop.drop_guard() });
    }

    /// Stops watching what no pod refers to any more.
    pub fn retain(&self, wanted: &BTreeSet<Reference>) {
        let keep = |kind, key: &(String, String)| wanted.contains(&(kind, key.0.clone(), key.1.clone()));
        self.config_maps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|k, _| keep(Kind::ConfigMap, k));
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).retain(|k, _| keep(Kind::Secret, k));
        let now = Instant::now();
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, t| t.renew > now);
    }

    /// Forgets the tokens of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).retain(|(pod, ..), _| pod != uid);
    }

    /// Services of a namespace, and the API server's own; an error before all have been read once, as containers
    /// would start without.
    pub(crate) fn services(&self, ns: &str) -> Result<Vec<Arc<Service>>, ObjectError> {
        let Some(informer) = self.services.get() else { return Ok(Vec::new()) };
        if !informer.has_synced() {
            return Err(ObjectError::NotRead);
        }
        let lister = informer.lister();
        let mut list = lister.list_namespace(ns);
        if ns != "default" {
            list.extend(lister.get("default", "kubernetes"));
        }
        list.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        Ok(list)
    }

    /// A token of the pod's service account, and in what time to renew it.
    pub async fn token(
        &self,
        pod: &Pod,
        audience: &str,
        seconds: i64,
    ) -> Result<(String, Duration), ObjectError> {
        let account =
            pod.spec().service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let client = self.client("serviceaccount", account)?;
        let key = (pod.uid().to_owned(), audience.to_owned(), seconds);
        let now = Instant::now();
        if let Some(t) =
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).filter(|t| t.renew > now)
        {
            return Ok((t.text.clone(), t.renew - now));
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience).filter(|a| !a.is_empty()).map(|a| vec![a.to_owned()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name().into()),
                    uid: Some(pod.uid().into()),
                }),
                expiration_seconds: Some(seconds),
            }),
            ..Default::default()
        };
        let made: Result<TokenRequest, client::Error> = client
            .create_subresource::<ServiceAccount, _, _>(pod.namespace(), account, "token", &request)
            .await;
        let made = made.map_err(|source| ObjectError::Api {
            kind: "token for serviceaccount",
            name: account.to_owned(),
            source,
        })?;
        let status = made.status.unwrap_or_default();
        let left = status
            .expiration_timestamp
            .map_or(seconds, |t| t.0.duration_since(jiff::Timestamp::now()).as_secs());
        // renewed when a fifth of its life is left, and after a day in any case
        let left = u64::try_from(left).unwrap_or(0);
        let next =
            Duration::from_secs((left * 4 / 5).clamp(10, 24 * 3600)).mul_f64(rand::random_range(0.95..1.0));
        let text = status.token.unwrap_or_default();
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Token { text: text.clone(), renew: now + next });
        Ok((text, next))
    }

    /// The certificates of trust bundles.
    pub async fn trust_bundle(&self, b: &ClusterTrustBundleProjection) -> Result<String, ObjectError> {
        const KIND: &str = "clustertrustbundle";
        let name = b.name.as_deref().or(b.signer_name.as_deref()).unwrap_or("");
        let client = self.client(KIND, name)?;
        let failed = |source| ObjectError::Api { kind: KIND, name: name.to_owned(), source };
        let bundles = match &b.name {
            Some(n) => {
                client.get_opt::<ClusterTrustBundle>("", n).await.map_err(failed)?.into_iter().collect()
            }
            None => {
                let labels =
                    b.label_selector.as_ref().and_then(|s| s.match_labels.clone()).unwrap_or_default();
                let text: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let list = client
                    .list_all::<ClusterTrustBundle>("", &client::ListParams::labels(text.join(",")))
                    .await
                    .map_err(failed)?;
                let own = |c: &ClusterTrustBundle| c.spec.signer_name.as_deref() == b.signer_name.as_deref();
                list.items.into_iter().filter(own).collect::<Vec<_>>()
            }
        };
        if bundles.is_empty() && b.optional != Some(true) {
            return Err(ObjectError::NotFound { kind: KIND, name: name.to_owned() });
        }
        Ok(bundles.into_iter().map(|c| c.spec.trust_bundle).collect::<Vec<_>>().join("\n"))
    }

    /// The runtime's handler for a runtime class.
    pub async fn runtime_handler(&self, class: &str) -> Result<String, ObjectError> {
        const KIND: &str = "runtimeclass";
        let got = self.client(KIND, class)?.get_opt::<RuntimeClass>("", class).await;
        match got {
            Ok(Some(c)) => Ok(c.handler),
            Ok(None) => Err(ObjectError::NotFound { kind: KIND, name: class.to_owned() }),
            Err(source) => Err(ObjectError::Api { kind: KIND, name: class.to_owned(), source }),
        }
    }

    /// The volume that a claim of the pod is bound to, if it is. The claim must not be going away, must be the pod's
    /// own where the pod made it, and the volume must be bound to this very claim.
    pub(crate) async fn volume_of_claim(
        &self,
        pod: &Pod,
        claim: &Claim<'_>,
    ) -> Result<Option<Arc<PersistentVolume>>, ObjectError> {
        const KIND: &str = "persistentvolumeclaim";
        let name = claim.name();
        let client = self.client(KIND, name)?;
        let failed = |source| ObjectError::Api { kind: KIND, name: name.to_owned(), source };
        let got = client.get_opt::<PersistentVolumeClaim>(pod.namespace(), name).await.map_err(failed)?;
        let pvc = got.ok_or_else(|| ObjectError::NotFound { kind: KIND, name: name.to_owned() })?;
        check_claim(pod, claim, &pvc)?;
        let bound = pvc.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let volume = pvc.spec.as_ref().and_then(|s| s.volume_name.as_deref());
        let Some(volume) = volume.filter(|v| bound && !v.is_empty()) else { return Ok(None) };
        let Some(pv) = client.get_opt::<PersistentVolume>("", volume).await.map_err(failed)? else {
            return Ok(None);
        };
        let owner = pv.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_deref());
        if owner.is_none() || owner != pvc.metadata.uid.as_deref() {
            let why = format!("PV {volume:?} is bound to another claim than PVC {}/{name}", pod.namespace());
            return Err(ObjectError::Refused(why));
        }
        Ok(Some(Arc::new(pv)))
    }
}

/// A claim by what the pod says of it.
#[derive(Clone, Debug)]
pub(crate) enum Claim<'a> {
    /// One that is there already.
    Named(&'a str),
    /// One made for this pod alone.
    OfPod(String),
}

impl Claim<'_> {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Claim::Named(n) => n,
            Claim::OfPod(n) => n,
        }
    }
}

/// Whether a pod may use a claim as it is.
fn check_claim(pod: &Pod, claim: &Claim<'_>, pvc: &PersistentVolumeClaim) -> Result<(), ObjectError> {
    let name = claim.name();
    if let Claim::OfPod(_) = claim {
        let own = pvc.metadata.owner_references.iter().flatten();
        if !own.clone().any(|o| o.controller == Some(true) && o.uid == pod.uid()) {
            let why = format!(
                "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                pod.namespace(),
                pod.namespace(),
                pod.name()
            );
            return Err(ObjectError::Refused(why));
        }
    }
    if pvc.metadata.deletion_timestamp.is_some() {
        return Err(ObjectError::Refused(format!("PVC {}/{name} is being deleted", pod.namespace())));
    }
    Ok(())
}

/// The config maps and secrets a pod refers to.
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut out = BTreeSet::new();
    let ns = pod.namespace();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            out.insert((kind, ns.to_owned(), name.to_owned()));
        }
    };
    let spec = pod.spec();
    for s in spec.image_pull_secrets.iter().flatten() {
        add(Kind::Secret, &s.name);
    }
    let ephemeral: Vec<_> =
        spec.ephemeral_containers.iter().flatten().map(crate::pod::from_ephemeral).collect();
    for c in pod.containers().map(|(_, c)| c).chain(&ephemeral) {
        for f in c.env_from.iter().flatten() {
            f.config_map_ref.iter().for_each(|r| add(Kind::ConfigMap, &r.name));
            f.secret_ref.iter().for_each(|r| add(Kind::Secret, &r.name));
        }
        for v in c.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            v.config_map_key_ref.iter().for_each(|r| add(Kind::ConfigMap, &r.name));
            v.secret_key_ref.iter().for_each(|r| add(Kind::Secret, &r.name));
        }
    }
    for v in spec.volumes.iter().flatten() {
        v.config_map.iter().for_each(|c| add(Kind::ConfigMap, &c.name));
        v.secret.iter().for_each(|s| add(Kind::Secret, s.secret_name.as_deref().unwrap_or("")));
        for s in v.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            s.config_map.iter().for_each(|c| add(Kind::ConfigMap, &c.name));
            s.secret.iter().for_each(|c| add(Kind::Secret, &c.name));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_that_are_not_the_pods() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "1"}}))
                .unwrap_or_else(|e| panic!("{e}"));
        let own = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true}]);
        let other = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "2", "controller": true}]);
        let named = Claim::Named("c");
        let made = Claim::OfPod("c".into());
        for (claim, metadata, want) in [
            (&named, json!({}), ""),
            (&named, json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), "being deleted"),
            (&made, json!({"ownerReferences": own}), ""),
            (&made, json!({"ownerReferences": other}), "not owner"),
            (&made, json!({}), "not owner"),
        ] {
            let pvc: PersistentVolumeClaim =
                serde_json::from_value(json!({"metadata": metadata})).unwrap_or_else(|e| panic!("{e}"));
            let got = check_claim(&pod, claim, &pvc).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(got.contains(want) && got.is_empty() == want.is_empty(), "{metadata}: {got}");
        }
    }

    #[test]
    fn all_kinds_of_references() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "c1"}}], "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}]}],
            "volumes": [{"name": "v", "configMap": {"name": "c2"}}, {"name": "w", "projected": {"sources": [{"secret": {"name": "s2"}}]}}],
        }}))
        .unwrap_or_else(|e| panic!("{e}"));
        let names: Vec<String> = references(&pod).into_iter().map(|(_, _, n)| n).collect();
        assert_eq!(names, ["c1", "c2", "pull", "s1", "s2"]);
    }
}
