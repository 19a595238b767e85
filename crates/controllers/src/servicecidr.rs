//! Says of ServiceCIDRs whether they can be used, and keeps one that is in use from being deleted.
//! Watches ServiceCIDRs and the IPAddresses in them.

use crate::{Context, Outcome};
use api::ObjectKey;
use client::{Client, Lister, ObjectExt, Patch};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// API servers may hand out addresses until they have seen the deletion.
const GRACE: Duration = Duration::from_secs(10);

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    address: IpAddr,
    length: u8,
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (address, length) = text.split_once('/')?;
        let range = Range { address: address.parse().ok()?, length: length.parse().ok()? };
        (range.length <= if range.address.is_ipv4() { 32 } else { 128 }).then_some(range)
    }

    fn contains(self, other: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let shift = bits - u32::from(self.length);
            shift == bits || a >> shift == b >> shift
        };
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }

    fn covers(self, other: Range) -> bool {
        self.length <= other.length && self.contains(other.address)
    }
}

fn ranges(cidr: &ServiceCIDR) -> Vec<Range> {
    let cidrs = cidr.spec.as_ref().and_then(|s| s.cidrs.as_ref());
    cidrs.into_iter().flatten().filter_map(|c| Range::parse(c)).collect()
}

/// An address that an API server handed out.
fn handed_out(ip: &IPAddress) -> Option<IpAddr> {
    if ip.label(MANAGED_BY.0) == Some(MANAGED_BY.1) { ip.name().parse().ok() } else { None }
}

/// Whether no address is left without a range when this one goes.
fn is_free(cidr: &ServiceCIDR, all: &[Arc<ServiceCIDR>], addresses: impl Iterator<Item = IpAddr>) -> bool {
    let mine = ranges(cidr);
    let others: Vec<Range> = all.iter().filter(|c| c.name() != cidr.name()).flat_map(|c| ranges(c)).collect();
    if mine.iter().all(|m| others.iter().any(|o| o.covers(*m))) {
        return true;
    }
    let held = |a: &IpAddr| mine.iter().any(|m| m.contains(*a)) && !others.iter().any(|o| o.contains(*a));
    !addresses.into_iter().any(|a| held(&a))
}

struct Ranges {
    client: Client,
    cidrs: Lister<ServiceCIDR>,
    addresses: Lister<IPAddress>,
}

/// Looks after ServiceCIDRs.
pub async fn run(ctx: Context) {
    let client = ctx.client("service-cidrs-controller");
    let (cidrs, addresses) = (ctx.informers.informer::<ServiceCIDR>(), ctx.informers.informer::<IPAddress>());
    let this = Arc::new(Ranges { client, cidrs: cidrs.lister(), addresses: addresses.lister() });
    let (all, holding) = (cidrs.lister(), cidrs.lister());
    ctx.controller(NAME)
        .on(&cidrs, move |event, queue| {
            let cidr = event.object();
            queue.add(cidr.key());
            // Another that is being deleted may be covered by this one.
            if event.old().is_none() || event.is_deleted() {
                all.list().iter().filter(|c| c.is_deleting()).for_each(|c| queue.add(c.key()));
            }
        })
        .on(&addresses, move |event, queue| {
            let Some(address) =
                handed_out(event.object()).filter(|_| event.old().is_none() || event.is_deleted())
            else {
                return;
            };
            let waits =
                |c: &&Arc<ServiceCIDR>| c.is_deleting() && ranges(c).iter().any(|r| r.contains(address));
            holding.list().iter().filter(waits).for_each(|c| queue.add(c.key()));
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key: ObjectKey| {
            let this = this.clone();
            async move { this.reconcile(&key.name).await }
        })
        .await;
}

impl Ranges {
    async fn reconcile(&self, name: &str) -> Outcome {
        let Some(cidr) = self.cidrs.get("", name) else { return Ok(None) };
        let has = cidr.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        let Some(deleted) = &cidr.metadata.deletion_timestamp else {
            if !has {
                self.patch(name, json!({"metadata": {"finalizers": [FINALIZER]}})).await?;
            }
            self.say(&cidr, "True", "", "Kubernetes Service CIDR is ready").await?;
            return Ok(None);
        };
        let all = self.addresses.list();
        if !is_free(&cidr, &self.cidrs.list(), all.iter().filter_map(|a| handed_out(a))) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            self.say(&cidr, "False", "Terminating", message).await?;
            return Ok(None);
        }
        if let Some(left) = api::time::until(api::time::later(deleted.0, GRACE), Timestamp::now()) {
            return Ok(Some(left));
        }
        if has {
            let body =
                json!({"metadata": {"uid": cidr.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
            self.patch(name, body).await?;
        }
        Ok(None)
    }

    async fn patch(&self, name: &str, body: serde_json::Value) -> Result<(), client::Error> {
        match self.client.patch::<ServiceCIDR>("", name, &Patch::Strategic(body)).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Says whether the range is ready, unless it says so already.
    async fn say(
        &self,
        cidr: &ServiceCIDR,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), client::Error> {
        let conditions = cidr.status.as_ref().and_then(|s| s.conditions.as_ref());
        let before = conditions.into_iter().flatten().find(|c| c.type_ == "Ready");
        if before.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
            return Ok(());
        }
        let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": api::time::now()});
        let body = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": cidr.name()}, "status": {"conditions": [condition]}});
        let patch = Patch::Apply { body, field_manager: NAME.into(), force: true };
        match self.client.patch_status::<ServiceCIDR>("", cidr.name(), &patch).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(name: &str, cidrs: &[&str]) -> Arc<ServiceCIDR> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}})).unwrap(),
        )
    }

    #[test]
    fn a_range_that_holds_an_address_alone_stays() {
        let all = [
            cidr("kubernetes", &["10.0.0.0/16", "fd00::/108"]),
            cidr("inner", &["10.0.5.0/24"]),
            cidr("extra", &["10.1.0.0/24"]),
            cidr("half", &["10.1.0.0/25"]),
            cidr("any", &["0.0.0.0/0"]),
        ];
        let free = |name: &str, of: usize, addresses: &str| {
            let cidr = all.iter().find(|c| c.name() == name).unwrap();
            is_free(cidr, &all[..of], addresses.split_whitespace().map(|a| a.parse().unwrap()))
        };
        assert!(free("inner", 4, "10.0.5.7")); // the larger one covers it
        assert!(!free("extra", 4, "10.1.0.200"));
        assert!(free("extra", 4, "10.1.0.100 10.0.0.1 10.2.0.1")); // the half covers that one
        assert!(!free("kubernetes", 4, "fd00::5"));
        assert!(free("kubernetes", 5, "10.0.0.7") && free("extra", 5, "10.1.0.200"));
        assert!(free("kubernetes", 4, ""));
    }
}
