//! Ports of nodes that services have: a bitmap in the store, upstream's, so that its servers and ours may share an etcd.
//! It is changed on condition that nobody else has changed it, so no port is given twice.

use super::{Claim, invalid, node_ports};
use crate::server::Server;
use crate::verbs::{Request, internal, store_failed};
use api::field::{FieldErrors, FieldPath};
use api::{Status, protobuf, read};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use rand::seq::IteratorRandom;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use store::{Change, Commit, Durability, Expect, StoreError};

/// Where the bitmap is, below the root.
const KEY: &str = "ranges/servicenodeports";
/// How often it may change under a claim.
const TRIES: usize = 32;

/// The range of ports.
pub struct Ports {
    low: u16,
    high: u16,
    /// Ports that no service had when they were last looked through.
    unused: Mutex<BTreeSet<u16>>,
}

/// The ports in use, and when that was last changed.
struct Bitmap {
    used: BTreeSet<u16>,
    revision: Option<u64>,
}

impl Ports {
    /// A range.
    pub fn new((low, high): (u16, u16)) -> Self {
        Ports { low, high, unused: Mutex::default() }
    }

    fn has(&self, port: i32) -> bool {
        (i32::from(self.low)..=i32::from(self.high)).contains(&port)
    }

    fn range(&self) -> String {
        format!("{}-{}", self.low, self.high)
    }

    fn key(server: &Server) -> String {
        format!("{}{KEY}", server.cache.root())
    }

    /// The bitmap; if there is none yet, what the services say.
    async fn load(&self, server: &Server) -> Result<Bitmap, Status> {
        let kept = server.store.get(&Self::key(server)).await.map_err(store_failed)?;
        let revision = kept.as_ref().map(|k| k.mod_revision);
        let read = kept.and_then(|kept| RangeAllocation::decode(&kept.value));
        match read {
            Some(allocation) if allocation.range == self.range() => {
                Ok(Bitmap { used: allocation.ports(self.low, self.high), revision })
            }
            // Of another range, or of none: the services know.
            _ => {
                Ok(Bitmap { used: of_services(server).filter(|p| self.has((*p).into())).collect(), revision })
            }
        }
    }

    /// Writes the bitmap, unless someone else has.
    async fn save(&self, server: &Server, bitmap: &Bitmap) -> Result<(), StoreError> {
        let allocation = RangeAllocation::new(self.range(), self.low, &bitmap.used);
        let value = allocation.encode(server.store.shared_with_upstream());
        let commit = Commit {
            key: Self::key(server).into(),
            expect: bitmap.revision.map_or(Expect::Absent, Expect::Unchanged),
            change: Change::Put { value, ttl: None },
            // What is lost in a crash the services tell again.
            durability: Durability::Memory,
        };
        server.store.commit(commit).await.map(drop)
    }

    /// Changes the bitmap on condition that nobody else does.
    async fn change<T>(
        &self,
        server: &Server,
        mut change: impl FnMut(&mut BTreeSet<u16>) -> Result<T, Status>,
    ) -> Result<T, Status> {
        for _ in 0..TRIES {
            let mut bitmap = self.load(server).await?;
            let before = bitmap.used.clone();
            let made = change(&mut bitmap.used)?;
            if bitmap.used == before && bitmap.revision.is_some() {
                return Ok(made);
            }
            match self.save(server, &bitmap).await {
                Ok(()) => return Ok(made),
                Err(StoreError::Conflict(_)) => {}
                Err(e) => return Err(store_failed(e)),
            }
        }
        Err(internal("the ports in use changed again and again"))
    }

    /// Gives ports back.
    pub async fn release(&self, server: &Server, ports: &[u16]) {
        if ports.is_empty() {
            return;
        }
        let done = self.change(server, |used| {
            used.retain(|p| !ports.contains(p));
            Ok(())
        });
        if let Err(e) = done.await {
            tracing::warn!(?ports, error = %e, "a service's ports could not be given back");
        }
    }

    /// Claims the ports that a service asks for, or has to have.
    pub async fn claim(
        &self,
        request: &Request,
        spec: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        name: &str,
        claim: &mut Claim,
    ) -> Result<(), Status> {
        let wants = wants_ports(spec);
        if !wants && spec.type_.as_deref() != Some("LoadBalancer") {
            spec.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
        }
        keep_ports(spec, old);
        let held: BTreeSet<u16> = old.map(node_ports).into_iter().flatten().collect();
        let checks = wants_health_check_port(spec) && spec.health_check_node_port.unwrap_or(0) == 0;
        let asked: BTreeSet<u16> = node_ports(spec).into_iter().collect();
        let missing = |s: &ServiceSpec| s.ports.iter().flatten().any(|p| p.node_port.unwrap_or(0) == 0);
        if checks || wants && missing(spec) || !asked.is_subset(&held) {
            let choose = |used: &mut BTreeSet<u16>| self.choose(spec, &held, used, name, wants, checks);
            let chosen = match request.options.dry_run {
                true => choose(&mut self.load(&request.server).await?.used)?,
                false => self.change(&request.server, choose).await?,
            };
            *spec = chosen;
        }
        let now: BTreeSet<u16> = node_ports(spec).into_iter().collect();
        claim.ports.extend(now.difference(&held));
        claim.old_ports.extend(held.difference(&now));
        Ok(())
    }

    fn choose(
        &self,
        spec: &ServiceSpec,
        held: &BTreeSet<u16>,
        used: &mut BTreeSet<u16>,
        name: &str,
        wants: bool,
        checks: bool,
    ) -> Result<ServiceSpec, Status> {
        let mut spec = spec.clone();
        let mut errors = FieldErrors::default();
        let root = FieldPath::root("spec");
        let ports = root.child("ports");
        // TCP and UDP of one service may share a number.
        let mut taken: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
        let mut take = |number: i32, protocol: &str, at: FieldPath<'_>, used: &mut BTreeSet<u16>| {
            let Some(port) = u16::try_from(number).ok().filter(|_| self.has(number)) else {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {}",
                    self.range()
                );
                return errors.invalid(at, &number, why);
            };
            let mine = taken.entry(port).or_default();
            let shared = !mine.is_empty() && !mine.contains(protocol);
            if !shared && !held.contains(&port) && !used.insert(port) {
                errors.invalid(at, &number, "provided port is already allocated");
            }
            mine.insert(protocol.into());
        };
        for (i, port) in spec.ports.iter().flatten().enumerate() {
            if let Some(number) = port.node_port.filter(|n| *n != 0) {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                take(number, protocol, ports.index(i).child("nodePort"), used);
            }
        }
        if let Some(number) = spec.health_check_node_port.filter(|n| *n != 0) {
            take(number, "health check", root.child("healthCheckNodePort"), used);
        }
        if !errors.is_empty() {
            return Err(invalid(name, &errors));
        }
        let mut free = |what: &str| {
            let port = (self.low..=self.high).filter(|p| !used.contains(p)).choose(&mut rand::rng());
            let port =
                port.ok_or_else(|| Status::internal(format!("failed to allocate a {what}: range is full")))?;
            used.insert(port);
            Ok::<_, Status>(Some(i32::from(port)))
        };
        let without = |p: &&mut k8s_openapi::api::core::v1::ServicePort| p.node_port.unwrap_or(0) == 0;
        for port in spec.ports.iter_mut().flatten().filter(|_| wants).filter(without) {
            port.node_port = free("nodePort")?;
        }
        if checks {
            spec.health_check_node_port = free("healthCheckNodePort")?;
        }
        Ok(spec)
    }
}

fn wants_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// A load balancer that sends to nodes with pods alone has to learn which those are.
fn wants_health_check_port(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Who replaces a service without saying its ports keeps them: each by its name, where no other port has it now.
fn keep_ports(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else { return };
    if wants_ports(spec) && wants_ports(old) {
        let asked: BTreeSet<i32> = spec.ports.iter().flatten().filter_map(|p| p.node_port).collect();
        for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
            let before = old.ports.iter().flatten().find(|o| o.name == port.name);
            port.node_port = before.and_then(|o| o.node_port).filter(|n| *n > 0 && !asked.contains(n));
        }
    }
    if wants_health_check_port(spec)
        && wants_health_check_port(old)
        && spec.health_check_node_port.unwrap_or(0) == 0
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

fn of_services(server: &Server) -> impl Iterator<Item = u16> {
    read::list::<Service>(server, None).into_iter().filter_map(|s| s.spec).flat_map(|s| node_ports(&s))
}

/// Marks the ports that services have, and gives back those that none has had for two rounds.
pub async fn repair(server: &Server) -> Result<(), Status> {
    let ports = &server.services.ports;
    server.consistent().await.map_err(store_failed)?;
    let there: BTreeSet<u16> = of_services(server).filter(|p| ports.has((*p).into())).collect();
    let before = ports.unused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let unused = ports
        .change(server, |used| {
            let unused: BTreeSet<u16> = used.difference(&there).copied().collect();
            used.retain(|p| !(unused.contains(p) && before.contains(p)));
            used.extend(&there);
            Ok(unused)
        })
        .await?;
    *ports.unused.lock().unwrap_or_else(PoisonError::into_inner) = unused;
    Ok(())
}

/// Upstream's RangeAllocation: which of a range is taken, as a number of which each bit stands for one.
struct RangeAllocation {
    range: String,
    /// Most significant byte first, without zeros in front.
    data: Vec<u8>,
}

impl RangeAllocation {
    fn new(range: String, low: u16, used: &BTreeSet<u16>) -> Self {
        let offsets = || used.iter().filter_map(|p| p.checked_sub(low)).map(usize::from);
        let mut data = vec![0; offsets().max().map_or(0, |o| o / 8 + 1)];
        for offset in offsets() {
            let byte = data.len() - 1 - offset / 8;
            data[byte] |= 1 << (offset % 8);
        }
        RangeAllocation { range, data }
    }

    fn ports(&self, low: u16, high: u16) -> BTreeSet<u16> {
        let set = |offset: u16| {
            let (byte, bit) = (usize::from(offset / 8), offset % 8);
            self.data.iter().rev().nth(byte).is_some_and(|b| b & (1 << bit) != 0)
        };
        (0..=high - low).filter(|o| set(*o)).map(|o| low + o).collect()
    }

    fn encode(&self, protobuf: bool) -> Bytes {
        if !protobuf {
            let data = STANDARD.encode(&self.data);
            return json!({"apiVersion": "v1", "kind": "RangeAllocation", "range": self.range, "data": data})
                .to_string()
                .into();
        }
        // metadata, range and data, each with a length.
        let mut raw = Vec::new();
        put(&mut raw, 1, &[]);
        put(&mut raw, 2, self.range.as_bytes());
        put(&mut raw, 3, &self.data);
        protobuf::wrap("v1", "RangeAllocation", &raw).into()
    }

    fn decode(stored: &[u8]) -> Option<Self> {
        if let Ok(envelope) = protobuf::unwrap(stored) {
            let mut raw = envelope.raw;
            let mut allocation = RangeAllocation { range: String::new(), data: Vec::new() };
            while !raw.is_empty() {
                let (tag, bytes) = take(&mut raw)?;
                match tag {
                    2 => allocation.range = String::from_utf8(bytes.into()).ok()?,
                    3 => allocation.data = bytes.into(),
                    _ => {}
                }
            }
            return Some(allocation);
        }
        let value: Value = serde_json::from_slice(stored).ok()?;
        let data = STANDARD.decode(value.get("data")?.as_str()?).ok()?;
        Some(RangeAllocation { range: value.get("range")?.as_str()?.into(), data })
    }
}

fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// The next field with a length.
fn take<'a>(raw: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, mut rest) = raw.split_first()?;
    if tag & 7 != 2 {
        return None;
    }
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
    let (bytes, after) = rest.split_at_checked(length)?;
    *raw = after;
    Some((tag >> 3, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_reads_as_it_was_written() {
        // The bytes are those of Go's big.Int: 30000 is the lowest bit.
        for (ports, data) in [
            (&[][..], &[][..]),
            (&[30000], &[1]),
            (&[30001, 30008], &[1, 2]),
            (&[30000, 32767], &[&[0x80][..], &[0; 344], &[1]].concat()),
        ] {
            let used: BTreeSet<u16> = ports.iter().copied().collect();
            let made = RangeAllocation::new("30000-32767".into(), 30000, &used);
            assert_eq!(made.data, data, "{ports:?}");
            for protobuf in [true, false] {
                let read = RangeAllocation::decode(&made.encode(protobuf)).unwrap();
                assert_eq!((read.range.as_str(), read.ports(30000, 32767)), ("30000-32767", used.clone()));
            }
        }
        assert!(RangeAllocation::decode(b"k8s\0x").is_none() && RangeAllocation::decode(b"{}").is_none());
        for cut in 0..40 {
            let whole = RangeAllocation::new("30000-32767".into(), 30000, &[30999].into()).encode(true);
            let _ = RangeAllocation::decode(&whole[..cut.min(whole.len())]);
        }
    }

    #[test]
    fn who_says_no_ports_keeps_them() {
        let spec = |ports: Value| -> ServiceSpec {
            serde_json::from_value(json!({"type": "NodePort", "ports": ports})).unwrap()
        };
        let port = |name: &str, port: i32, node: i32| json!({"name": name, "port": port, "nodePort": node});
        for (old, new, want) in [
            (json!([{"port": 80, "nodePort": 1}]), json!([{"port": 81, "targetPort": 8080}]), &[1][..]),
            (json!([port("a", 1, 1), port("b", 2, 2)]), json!([port("b", 9, 0), port("a", 2, 0)]), &[2, 1]),
            (json!([port("a", 1, 1)]), json!([port("c", 1, 0)]), &[]),
            (json!([port("a", 1, 1), port("b", 2, 2)]), json!([port("a", 1, 0), port("b", 2, 1)]), &[1]),
        ] {
            let mut new = spec(new);
            keep_ports(&mut new, Some(&spec(old)));
            assert_eq!(node_ports(&new), want);
        }
    }

    #[test]
    fn ports_are_chosen_once() {
        let ports = Ports::new((30000, 30002));
        let spec: ServiceSpec = serde_json::from_value(json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 53, "protocol": "TCP", "nodePort": 30001}, {"name": "b", "port": 53, "protocol": "UDP", "nodePort": 30001}, {"name": "c", "port": 1}]}))
        .unwrap();
        let mut used = BTreeSet::from([30002]);
        let made = ports.choose(&spec, &BTreeSet::new(), &mut used, "s", true, false).unwrap();
        assert_eq!(node_ports(&made), [30001, 30001, 30000]);
        assert_eq!(used, BTreeSet::from([30000, 30001, 30002]));
        let refused = ports.choose(&spec, &BTreeSet::new(), &mut used, "s", true, false).unwrap_err();
        assert!(refused.message.contains("provided port is already allocated"), "{}", refused.message);
    }
}
