//! What we have programmed, and how to get from there to what should be: the text for one
//! `iptables-restore --noflush`, which the kernel takes whole or not at all.

use crate::rules::{Piece, Settings, Shared, Table, base, is_service_chain, jumps};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::hash::{Hash, Hasher};

/// A Service: namespace and name.
pub type ServiceKey = (String, String);

/// What is kept of a piece: own chains only by a hash, they are not written again unless they differ.
#[derive(Default)]
struct Kept {
    shared: Vec<(Shared, String)>,
    own: Vec<(String, u64)>,
}

/// What is in the kernel, as far as we put it there.
#[derive(Default)]
pub struct Tables {
    pieces: BTreeMap<ServiceKey, Kept>,
}

/// What was found in the kernel.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Chains of services.
    service_chains: BTreeSet<String>,
    /// Table, kernel's chain and our chain of each jump.
    jumps: BTreeSet<(Table, String, String)>,
}

impl Found {
    /// Reads what `iptables-save` prints.
    pub fn read(saved: &str) -> Found {
        let (mut found, mut table) = (Found::default(), None);
        for line in saved.lines() {
            match line.as_bytes().first() {
                Some(b'*') => {
                    table = match line {
                        "*filter" => Some(Table::Filter),
                        "*nat" => Some(Table::Nat),
                        _ => None,
                    }
                }
                Some(b':') if table == Some(Table::Nat) => {
                    let name = line.get(1..).and_then(|l| l.split(' ').next()).unwrap_or_default();
                    if is_service_chain(name) {
                        found.service_chains.insert(name.into());
                    }
                }
                Some(b'-') => {
                    let mut words = line.split(' ');
                    let (Some(table), Some("-A"), Some(from)) = (table, words.next(), words.next()) else {
                        continue;
                    };
                    if let Some((_, to)) = line.rsplit_once(" -j ")
                        && !from.starts_with("KUBE-")
                        && to.starts_with("KUBE-")
                    {
                        found.jumps.insert((table, from.into(), to.into()));
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// The text for `iptables-restore`, and how many rules it has.
#[derive(Debug, Default, PartialEq)]
pub struct Restore {
    /// Empty if nothing differs.
    pub text: String,
    /// Rules of the filter table in it.
    pub filter_rules: usize,
    /// Rules of the nat table in it.
    pub nat_rules: usize,
}

#[derive(Default)]
struct Section {
    chains: String,
    rules: String,
    count: usize,
}

impl Section {
    /// Declares a chain, which empties it, and writes its rules.
    fn chain(&mut self, name: &str, rules: &[impl AsRef<str>]) {
        let _ = writeln!(self.chains, ":{name} - [0:0]");
        for rule in rules {
            let _ = writeln!(self.rules, "-A {name} {}", rule.as_ref());
        }
        self.count += rules.len();
    }

    fn write(self, name: &str, out: &mut String) {
        if !self.chains.is_empty() || !self.rules.is_empty() {
            let _ = write!(out, "*{name}\n{}{}COMMIT\n", self.chains, self.rules);
        }
    }
}

impl Tables {
    /// Programs everything anew; chains of services that are no more go.
    pub fn full(s: &Settings, pieces: BTreeMap<ServiceKey, Piece>, found: &Found) -> (Tables, Restore) {
        let (mut tables, mut filter, mut nat) = (Tables::default(), Section::default(), Section::default());
        let mut stale = found.service_chains.clone();
        for (key, piece) in pieces {
            for (name, rules) in &piece.own {
                nat.chain(name, rules);
                stale.remove(name);
            }
            tables.pieces.insert(key, keep(piece));
        }
        let shared: BTreeSet<_> = Shared::ALL.into_iter().collect();
        tables.write_shared(s, &shared, &mut filter, &mut nat);
        for (table, chain, rules) in base(s) {
            let section = if table == Table::Filter { &mut filter } else { &mut nat };
            if !Shared::ALL.iter().any(|c| c.chain() == (table, chain)) {
                section.chain(chain, &rules);
            }
        }
        for (table, from, matching, to) in jumps(s) {
            if !found.jumps.contains(&(table, from.into(), to.into())) {
                let section = if table == Table::Filter { &mut filter } else { &mut nat };
                let space = if matching.is_empty() { "" } else { " " };
                let _ = writeln!(section.rules, "-I {from} {matching}{space}-j {to}");
            }
        }
        drop_chains(stale.iter(), &mut nat);
        (tables, finish(filter, nat))
    }

    /// Programs what is new of some services; `None` is a service that is no more.
    pub fn update(&mut self, s: &Settings, changes: Vec<(ServiceKey, Option<Piece>)>) -> Restore {
        let (mut filter, mut nat) = (Section::default(), Section::default());
        let (mut shared, mut stale) = (BTreeSet::new(), BTreeSet::new());
        let mut fresh = BTreeSet::new();
        for (key, piece) in changes {
            let old = self.pieces.remove(&key).unwrap_or_default();
            let piece = piece.unwrap_or_default();
            for rule in old.shared.iter().filter(|r| !piece.shared.contains(r)) {
                shared.insert(rule.0);
            }
            for rule in piece.shared.iter().filter(|r| !old.shared.contains(r)) {
                shared.insert(rule.0);
            }
            for (name, rules) in &piece.own {
                fresh.insert(name.clone());
                if !old.own.contains(&(name.clone(), hash(rules))) {
                    nat.chain(name, rules);
                }
            }
            stale.extend(old.own.into_iter().map(|(name, _)| name));
            if !piece.shared.is_empty() || !piece.own.is_empty() {
                self.pieces.insert(key, keep(piece));
            }
        }
        self.write_shared(s, &shared, &mut filter, &mut nat);
        drop_chains(stale.difference(&fresh), &mut nat);
        finish(filter, nat)
    }

    fn write_shared(&self, s: &Settings, which: &BTreeSet<Shared>, filter: &mut Section, nat: &mut Section) {
        let last = base(s);
        for shared in which {
            let at = shared.chain();
            let section = if at.0 == Table::Filter { &mut *filter } else { &mut *nat };
            let of_services = self.pieces.values().flat_map(|p| &p.shared).filter(|(c, _)| c == shared);
            let own = last
                .iter()
                .filter(|(table, chain, _)| (*table, *chain) == at)
                .flat_map(|(_, _, rules)| rules);
            let rules: Vec<&String> = of_services.map(|(_, rule)| rule).chain(own).collect();
            section.chain(at.1, &rules);
        }
    }
}

fn keep(piece: Piece) -> Kept {
    Kept {
        shared: piece.shared,
        own: piece.own.into_iter().map(|(name, rules)| (name, hash(&rules))).collect(),
    }
}

fn hash(rules: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}

/// Chains are emptied by being declared, all before any goes: they refer to each other.
fn drop_chains<'a>(names: impl Iterator<Item = &'a String>, nat: &mut Section) {
    for name in names {
        let _ = writeln!(nat.chains, ":{name} - [0:0]");
        let _ = writeln!(nat.rules, "-X {name}");
    }
}

fn finish(filter: Section, nat: Section) -> Restore {
    let mut out = Restore { text: String::new(), filter_rules: filter.count, nat_rules: nat.count };
    filter.write("filter", &mut out.text);
    nat.write("nat", &mut out.text);
    out
}

/// Takes away all that a proxy programs.
pub fn cleanup(s: &Settings, found: &Found) -> String {
    let (mut filter, mut nat) = (Section::default(), Section::default());
    for (table, from, matching, to) in jumps(s) {
        if to != "KUBE-FIREWALL" && found.jumps.contains(&(table, from.into(), to.into())) {
            let section = if table == Table::Filter { &mut filter } else { &mut nat };
            let _ = writeln!(section.rules, "-D {from} {matching} -j {to}");
        }
    }
    let ours = Shared::ALL
        .iter()
        .map(|c| c.chain())
        .chain(base(s).into_iter().map(|(table, chain, _)| (table, chain)));
    for (table, chain) in ours.collect::<BTreeSet<_>>() {
        if chain != "KUBE-FIREWALL" {
            let section = if table == Table::Filter { &mut filter } else { &mut nat };
            drop_chains(std::iter::once(&chain.to_string()), section);
        }
    }
    drop_chains(found.service_chains.iter(), &mut nat);
    finish(filter, nat).text
}
