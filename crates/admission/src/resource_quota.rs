//! What an object uses is charged to the quotas of its namespace before it is kept.
//!
//! The charge is a change of the quota's status that fails if someone else charged meanwhile, and is then made
//! again. What a request that fails after it has charged leaves behind, the quota controller gives back.

use crate::config::{Config, ConfigError};
use crate::{Future, Host, Operation, Request, Waiting};
use api::object::Object;
use api::pod_resources::{self, Amounts};
use api::quota::{self, Item};
use api::{GroupResource, Status, read};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ScopedResourceSelectorRequirement as Scope,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// See the module.
pub struct ResourceQuotas {
    limited: Vec<Limited>,
    /// One charge at a time in a namespace: otherwise they would only undo each other.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// A resource that nobody uses without a quota that covers it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    api_group: String,
    resource: String,
    match_contains: Vec<String>,
    match_scopes: Vec<Scope>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    limited_resources: Vec<Limited>,
}

/// What is to be charged to a quota.
struct Charge {
    quota: String,
    delta: Amounts,
}

impl ResourceQuotas {
    /// Reads what the configuration says.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let file: File = config.of("ResourceQuota")?.unwrap_or_default();
        Ok(ResourceQuotas { limited: file.limited_resources, turns: Mutex::default() })
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(namespace.into(), Arc::downgrade(&turn));
        turn
    }

    /// What the request adds, by quota; or why it may not.
    fn charges(
        &self,
        request: &Request<'_>,
        object: &Object,
        quotas: &[Arc<ResourceQuota>],
    ) -> Result<Vec<Charge>, Status> {
        let now = Timestamp::now();
        let item = Item::from(object);
        let used = quota::usage(request.resource, item, now);
        let old = request.old.map(Item::from);
        let before = old.map(|old| quota::usage(request.resource, old, now)).unwrap_or_default();
        let grown = grown(&used, &before);
        let (mut charges, mut covered, mut scopes) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut matched = false;
        for quota in quotas {
            let (name, spec) =
                (quota.metadata.name.clone().unwrap_or_default(), quota.spec.clone().unwrap_or_default());
            scopes.extend(
                quota::scopes(&spec).into_iter().filter(|s| quota::in_scope(s, item)).map(|s| s.scope_name),
            );
            let entries = quota::entries(quota, request.resource);
            if entries.is_empty() || !quota::in_scopes(&spec, item) {
                continue;
            }
            if let Some(missing) = quota::missing(entries.iter().map(String::as_str), item) {
                return Err(request.forbidden(format!("failed quota: {name}: {missing}")));
            }
            let status = quota.status.as_ref().and_then(|s| s.used.as_ref());
            if entries.iter().any(|e| status.is_none_or(|used| !used.contains_key(e))) {
                return Err(request.forbidden(format!(
                    "status unknown for quota: {name}, resources: {}",
                    entries.join(",")
                )));
            }
            matched = true;
            let in_before = old.is_some_and(|old| quota::in_scopes(&spec, old));
            let mut delta = if in_before { grown.clone() } else { used.clone() };
            delta.retain(|name, amount| !amount.is_zero() && entries.contains(name));
            covered.extend(entries);
            if !delta.is_empty() {
                charges.push(Charge { quota: name, delta });
            }
        }
        let negative: Vec<&str> =
            used.iter().filter(|(_, v)| v.sign() < 0).map(|(k, _)| k.as_str()).collect();
        if !negative.is_empty() {
            return Err(
                request.forbidden(format!("quota usage is negative for resource(s): {}", negative.join(",")))
            );
        }
        let adds = if request.old.is_some() { &grown } else { &used };
        if matched && charges.is_empty() || !adds.values().any(|v| !v.is_zero()) {
            return Ok(charges);
        }
        self.check_limited(request, item, &used, &covered, &scopes)?;
        Ok(charges)
    }

    fn check_limited(
        &self,
        request: &Request<'_>,
        item: Item<'_>,
        used: &Amounts,
        covered: &BTreeSet<String>,
        scopes: &BTreeSet<String>,
    ) -> Result<(), Status> {
        let about =
            |l: &&Limited| l.api_group == request.resource.group && l.resource == request.resource.resource;
        let mut bare = BTreeSet::new();
        for limited in self.limited.iter().filter(about) {
            let hit = |name: &str| limited.match_contains.iter().any(|part| name.contains(part));
            bare.extend(
                used.iter()
                    .filter(|(n, v)| v.sign() > 0 && hit(n) && !covered.contains(*n))
                    .map(|(n, _)| n.as_str()),
            );
        }
        if !bare.is_empty() {
            let list: Vec<&str> = bare.into_iter().collect();
            return Err(request.forbidden(format!("insufficient quota to consume: {}", list.join(","))));
        }
        let asked = self.limited.iter().flat_map(|l| &l.match_scopes).filter(|s| quota::in_scope(s, item));
        let open: Vec<String> = asked
            .filter(|s| !scopes.contains(&s.scope_name))
            .map(|s| {
                format!(
                    "{{{} {} [{}]}}",
                    s.scope_name,
                    s.operator,
                    s.values.clone().unwrap_or_default().join(" ")
                )
            })
            .collect();
        if !open.is_empty() {
            return Err(
                request.forbidden(format!("insufficient quota to match these scopes: [{}]", open.join(" ")))
            );
        }
        Ok(())
    }

    async fn charge(&self, request: &Request<'_>, object: &Object) -> Result<(), Status> {
        let quotas =
            || -> Vec<Arc<ResourceQuota>> { read::list_kept(request.reader, Some(request.namespace)) };
        if self.limited.is_empty() && quotas().is_empty() {
            return Ok(());
        }
        let turn = self.turn(request.namespace);
        let _turn = turn.lock().await;
        let quotas = quotas();
        let charges = self.charges(request, object, &quotas)?;
        // Nobody is charged for what another quota refuses anyway, as far as is known.
        for charge in &charges {
            let known = quotas.iter().find(|q| q.metadata.name.as_deref() == Some(&charge.quota));
            if charges.len() > 1 || request.dry_run {
                known.map(|q| charged(request, (**q).clone(), charge)).transpose()?;
            }
        }
        if request.dry_run {
            return Ok(());
        }
        for (i, charge) in charges.iter().enumerate() {
            let change = |old: &Value| {
                let quota: ResourceQuota = serde_json::from_value(old.clone()).map_err(Status::internal)?;
                serde_json::to_value(charged(request, quota, charge)?).map_err(Status::internal)
            };
            if let Err(refused) = change_quota(request.host, request.namespace, &charge.quota, &change).await
            {
                for done in charges.iter().take(i) {
                    let back = |old: &Value| {
                        let quota: ResourceQuota =
                            serde_json::from_value(old.clone()).map_err(Status::internal)?;
                        serde_json::to_value(given_back(quota, done)).map_err(Status::internal)
                    };
                    // If this fails too, the controller counts anew.
                    let _ = change_quota(request.host, request.namespace, &done.quota, &back).await;
                }
                return Err(refused);
            }
        }
        Ok(())
    }
}

async fn change_quota(
    host: &dyn Host,
    namespace: &str,
    name: &str,
    change: crate::Change<'_>,
) -> Result<(), Status> {
    host.change(&GroupResource::new("", "resourcequotas"), namespace, name, change).await.map(drop)
}

fn grown(used: &Amounts, before: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &api::quantity::Quantity)| {
        let delta = before.get(name).map_or(*amount, |b| *amount - *b);
        (name.clone(), if delta.sign() > 0 { delta } else { Default::default() })
    };
    used.iter().map(more).collect()
}

/// The quota with the charge, or a refusal if that is more than it allows.
fn charged(
    request: &Request<'_>,
    mut quota: ResourceQuota,
    charge: &Charge,
) -> Result<ResourceQuota, Status> {
    let status = quota.status.get_or_insert_default();
    let hard = pod_resources::read(status.hard.as_ref());
    let used = pod_resources::read(status.used.as_ref());
    let mut delta = charge.delta.clone();
    delta.retain(|name, _| hard.contains_key(name));
    let mut after = used.clone();
    pod_resources::add(&mut after, &delta);
    let exceeded = |name: &&String| hard.get(*name).zip(after.get(*name)).is_some_and(|(h, a)| a > h);
    let over: Vec<&String> = delta.keys().filter(exceeded).collect();
    if !over.is_empty() && request.subresource != "status" {
        let show = |amounts: &Amounts| {
            let one = |name: &&String| amounts.get(*name).map(|v| format!("{name}={v}"));
            over.iter().filter_map(one).collect::<Vec<_>>().join(",")
        };
        return Err(request.forbidden(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            charge.quota,
            show(&delta),
            show(&used),
            show(&hard)
        )));
    }
    status.used = Some(pod_resources::write(&after));
    Ok(quota)
}

fn given_back(mut quota: ResourceQuota, charge: &Charge) -> ResourceQuota {
    let status = quota.status.get_or_insert_default();
    let mut used = pod_resources::read(status.used.as_ref());
    for (name, amount) in &charge.delta {
        if let Some(there) = used.get_mut(name) {
            *there -= *amount;
        }
    }
    status.used = Some(pod_resources::write(&used));
    quota
}

/// Whether the request can use more than before.
fn concerns(request: &Request<'_>, object: &Object) -> bool {
    if request.namespace.is_empty() || request.is("", "namespaces") || quota::is_ignored(request.resource) {
        return false;
    }
    let at = (request.resource.group.as_str(), request.resource.resource.as_str(), request.subresource);
    match (request.operation, at) {
        (Operation::Create, (_, _, "")) => true,
        (Operation::Update, ("", "services" | "persistentvolumeclaims", "")) => true,
        (Operation::Update, ("", "pods", "resize")) => true,
        (Operation::Update, ("", "pods", "")) => {
            let ends = |o: &Object| o.get::<Pod>().is_some_and(quota::is_terminating);
            request.old.is_some_and(|old| ends(old) != ends(object))
        }
        (Operation::Update, ("", "persistentvolumeclaims", "status")) => {
            let allocated = |o: &Object| {
                o.get::<PersistentVolumeClaim>().and_then(|c| c.status.clone()).map(|s| {
                    (s.allocated_resources, s.current_volume_attributes_class_name, s.modify_volume_status)
                })
            };
            request.old.is_some_and(|old| allocated(old) != allocated(object))
        }
        _ => false,
    }
}

impl Waiting for ResourceQuotas {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Object>,
    ) -> Future<'a, Result<(), Status>> {
        match object.filter(|o| concerns(request, o)) {
            Some(object) => Box::pin(self.charge(request, object)),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}
