//! Gives every node a range of addresses for its pods.
//! Watches nodes.

use crate::{Context, Error, Outcome};
use client::{Client, ObjectExt, Patch};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

const NAME: &str = "node-ipam-controller";
/// At most so many ranges are kept track of, as upstream's bitmaps.
const MOST: u128 = 1 << 16;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: u128,
    bits: u8,
    v6: bool,
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (base, bits) = text.trim().split_once('/')?;
        let (base, width, v6) = match base.parse().ok()? {
            IpAddr::V4(a) => (u128::from(u32::from(a)), 32, false),
            IpAddr::V6(a) => (u128::from(a), 128, true),
        };
        let bits: u8 = bits.parse().ok().filter(|b| *b <= width)?;
        let size = 1u128.checked_shl(u32::from(width - bits));
        Some(Range { base: size.map_or(0, |s| base & !(s - 1)), bits, v6 })
    }

    fn size(&self) -> u128 {
        let width = if self.v6 { 128 } else { 32 };
        1u128.checked_shl(u32::from(width - self.bits)).unwrap_or(u128::MAX)
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.v6 == other.v6
            && self.base < other.base.saturating_add(other.size())
            && other.base < self.base.saturating_add(self.size())
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.v6 {
            true => write!(f, "{}/{}", Ipv6Addr::from(self.base), self.bits),
            false => write!(f, "{}/{}", Ipv4Addr::from(self.base as u32), self.bits),
        }
    }
}

/// One of the cluster's ranges, handed out in parts of the same size.
struct Pool {
    whole: Range,
    part: u8,
    /// Parts that are taken, and by how many.
    taken: HashMap<u128, usize>,
    next: u128,
}

impl Pool {
    fn new(whole: Range, part: u8) -> Result<Pool, String> {
        if part < whole.bits {
            return Err(format!("a node's range of /{part} is larger than the cluster's, {whole}"));
        }
        if part - whole.bits > 16 {
            return Err(format!("{whole} has more than {MOST} ranges of /{part}"));
        }
        Ok(Pool { whole, part, taken: HashMap::new(), next: 0 })
    }

    fn count(&self) -> u128 {
        1 << (self.part - self.whole.bits)
    }

    fn nth(&self, n: u128) -> Range {
        let one = Range { bits: self.part, ..self.whole };
        Range { base: self.whole.base + n * one.size(), ..one }
    }

    /// The parts that a range overlaps.
    fn parts(&self, range: &Range) -> std::ops::Range<u128> {
        if !self.whole.overlaps(range) {
            return 0..0;
        }
        let size = self.nth(0).size();
        let from = range.base.saturating_sub(self.whole.base) / size;
        let end = range.base.saturating_add(range.size()).saturating_sub(self.whole.base).div_ceil(size);
        from..end.min(self.count())
    }

    fn take(&mut self, range: &Range) {
        for n in self.parts(range) {
            *self.taken.entry(n).or_default() += 1;
        }
    }

    fn give_back(&mut self, range: &Range) {
        for n in self.parts(range) {
            if let Some(count) = self.taken.get_mut(&n) {
                *count -= 1;
                if *count == 0 {
                    self.taken.remove(&n);
                }
            }
        }
    }

    /// The next part that is free. One that was given back comes last.
    fn allocate(&mut self) -> Option<Range> {
        let count = self.count();
        let n = (0..count).map(|i| (self.next + i) % count).find(|n| !self.taken.contains_key(n))?;
        self.next = (n + 1) % count;
        self.taken.insert(n, 1);
        Some(self.nth(n))
    }
}

/// What is handed out, and to whom.
struct Allocator {
    pools: Vec<Pool>,
    held: HashMap<String, Vec<Range>>,
}

impl Allocator {
    /// A node has these ranges now, instead of those it had.
    fn hold(&mut self, node: &str, ranges: Vec<Range>) {
        ranges.iter().for_each(|r| self.pools.iter_mut().for_each(|p| p.take(r)));
        let old =
            if ranges.is_empty() { self.held.remove(node) } else { self.held.insert(node.into(), ranges) };
        for range in old.into_iter().flatten() {
            self.pools.iter_mut().for_each(|p| p.give_back(&range));
        }
    }

    /// Ranges for a node, one of each pool, if there are any left.
    fn allocate(&mut self, node: &str) -> Option<Vec<Range>> {
        let mut ranges = Vec::new();
        for pool in &mut self.pools {
            ranges.extend(pool.allocate());
        }
        let complete = ranges.len() == self.pools.len();
        self.hold(node, if complete { ranges.clone() } else { Vec::new() });
        // Held once is enough.
        ranges.iter().for_each(|r| self.pools.iter_mut().for_each(|p| p.give_back(r)));
        complete.then_some(ranges)
    }
}

fn ranges_of(node: &Node) -> Vec<Range> {
    let spec = node.spec.as_ref();
    let listed = spec.and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
    let single = spec.and_then(|s| s.pod_cidr.as_ref()).filter(|_| listed.is_empty());
    listed.iter().chain(single).filter_map(|c| Range::parse(c)).collect()
}

/// Hands out ranges.
pub async fn run(ctx: Context) {
    if !ctx.config.allocate_node_cidrs {
        return;
    }
    let allocator = match pools(&ctx) {
        Ok(pools) => Arc::new(Mutex::new(Allocator { pools, held: HashMap::new() })),
        Err(e) => {
            tracing::error!("{NAME}: {e}");
            return ctx.shutdown.cancel();
        }
    };
    let client = ctx.client("node-controller");
    let nodes = ctx.informers.informer::<Node>();
    let (lister, seen) = (nodes.lister(), allocator.clone());
    ctx.controller(NAME)
        .on(&nodes, move |event, queue| {
            let ranges = if event.is_deleted() { Vec::new() } else { ranges_of(event.object()) };
            // A node that has none yet may be about to get some.
            if event.is_deleted() || !ranges.is_empty() {
                seen.lock().unwrap_or_else(|e| e.into_inner()).hold(event.object().name(), ranges);
            } else {
                queue.add(event.object().key());
            }
        })
        .run(ctx.workers(NAME, 5), ctx.shutdown, move |key| {
            let (client, node, allocator) = (client.clone(), lister.get("", &key.name), allocator.clone());
            async move {
                match node.filter(|n| ranges_of(n).is_empty() && !n.is_deleting()) {
                    Some(node) => assign(&client, &node, &allocator).await,
                    None => Ok(None),
                }
            }
        })
        .await;
}

fn pools(ctx: &Context) -> Result<Vec<Pool>, String> {
    let parse = |flag: &str, text: &String| {
        Range::parse(text).ok_or_else(|| format!("--{flag}: {text:?} is not an address range"))
    };
    let (v4, v6) = ctx.config.node_cidr_mask_sizes;
    let mut pools = Vec::new();
    for text in &ctx.config.cluster_cidrs {
        let whole = parse("cluster-cidr", text)?;
        pools.push(
            Pool::new(whole, if whole.v6 { v6 } else { v4 }).map_err(|e| format!("--cluster-cidr: {e}"))?,
        );
    }
    if pools.is_empty() {
        return Err("--allocate-node-cidrs needs --cluster-cidr".into());
    }
    for text in &ctx.config.service_cidrs {
        let range = parse("service-cluster-ip-range", text)?;
        pools.iter_mut().for_each(|p| p.take(&range));
    }
    Ok(pools)
}

async fn assign(client: &Client, node: &Node, allocator: &Mutex<Allocator>) -> Outcome {
    let lock = || allocator.lock().unwrap_or_else(|e| e.into_inner());
    let Some(ranges) = lock().allocate(node.name()) else {
        return Err(Error::Other("no range is left".into()));
    };
    let texts: Vec<String> = ranges.iter().map(Range::to_string).collect();
    let body = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"podCIDR": texts.first(), "podCIDRs": texts}});
    match client.patch::<Node>("", node.name(), &Patch::Merge(body)).await {
        Ok(_) => {
            tracing::info!("{NAME}: {} has {}", node.name(), texts.join(", "));
            Ok(None)
        }
        Err(e) => {
            // Whether it was written is not known if there was no answer; the node's next event says.
            lock().hold(node.name(), Vec::new());
            if e.is_not_found() { Ok(None) } else { Err(e.into()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_handed_out_once() {
        let range = |t: &str| Range::parse(t).unwrap();
        let mut pool = Pool::new(range("10.244.0.0/22"), 24).unwrap();
        pool.take(&range("10.244.1.0/25"));
        pool.take(&range("192.168.0.0/16"));
        let take = |pool: &mut Pool| pool.allocate().map(|r| r.to_string());
        assert_eq!(take(&mut pool).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(take(&mut pool).as_deref(), Some("10.244.2.0/24"));
        pool.give_back(&range("10.244.0.0/24"));
        assert_eq!(take(&mut pool).as_deref(), Some("10.244.3.0/24"));
        assert_eq!(take(&mut pool).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(take(&mut pool), None);
        pool.take(&range("10.0.0.0/8"));
        pool.give_back(&range("10.0.0.0/8"));
        assert_eq!((take(&mut pool), pool.taken.len()), (None, 4));
        let mut a =
            Allocator { pools: vec![Pool::new(range("10.0.0.0/23"), 24).unwrap()], held: HashMap::new() };
        let x = a.allocate("x").unwrap();
        a.hold("x", x.clone()); // its event
        assert!(a.allocate("y").is_some() && a.allocate("z").is_none());
        a.hold("x", Vec::new());
        assert_eq!((a.allocate("z"), a.allocate("w")), (Some(x), None));
        let mut six = Pool::new(range("fd00:1::/48"), 64).unwrap();
        assert_eq!(
            (take(&mut six).as_deref(), take(&mut six).as_deref()),
            (Some("fd00:1::/64"), Some("fd00:1:0:1::/64"))
        );
        assert!(Pool::new(range("10.0.0.0/24"), 16).is_err() && Pool::new(range("10.0.0.0/8"), 28).is_err());
        assert!(Range::parse("10.0.0.0/33").is_none() && Range::parse("x").is_none());
    }
}
