//! Changes that no service accounts for.

use super::ServiceChange;
use super::affinity::{is_per_number, service_number};
use super::meaning::{Frontend, Key, Meaning, address, frontend, is_per_frontend, setting};
use crate::kernel::ABOUT;
use crate::nft::diff::{ChangeKind, ElementChange, Plan};
use crate::nft::model::Family;
use natlet_core::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Most elements of a set that are named.
const NAMED: usize = 5;

/// In words, one line a set or chain.
pub(super) fn of(plan: &Plan<'_>, old: &Meaning, new: &Meaning, services: &[ServiceChange]) -> Vec<String> {
    let accounts = Accounts::of(old, new, services);
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for change in plan.element_changes().filter(|c| !accounts.for_element(c)) {
        let kind = match (change.old.is_some(), change.new.is_some()) {
            (false, _) => "lacks",
            (true, false) => "has too much",
            (true, true) => "has otherwise",
        };
        let noun = change.new.or(change.old).map_or("set", |(set, _)| set.noun());
        let title = format!("{noun} {} ({}) {kind}", change.set(), change.family.name());
        lines.entry(title).or_default().push(words(&change));
    }
    let mut out: Vec<String> = Vec::new();
    for (family, reason) in &plan.summary.replaced {
        out.push(format!("table {} natlet is replaced whole: {reason}", family.name()));
    }
    for (title, mut elements) in lines {
        let more = elements.len().saturating_sub(NAMED);
        elements.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        out.push(format!("{title} {}{more}", elements.join(", ")));
    }
    // these come and go with the endpoints of services
    let follows = |name: &str| name.starts_with("select-") || name.starts_with("remember-") || name == "passed-over";
    let follows = |name: &str| follows(name) && !services.is_empty();
    for chain in plan.chains.iter().filter(|c| c.kind == ChangeKind::Changed || !follows(c.name)) {
        let (name, family) = (chain.name, chain.family.name());
        out.push(match chain.kind {
            ChangeKind::New => format!("chain {name} ({family}) is added"),
            ChangeKind::Gone => format!("chain {name} ({family}) is removed"),
            ChangeKind::Changed => format!("the rules of chain {name} ({family}) are written anew"),
        });
    }
    out
}

fn words(change: &ElementChange<'_>) -> String {
    let comment = if change.comment().is_empty() { String::new() } else { format!(" \"{}\"", change.comment()) };
    let key = change.key();
    match (change.old_data(), change.new_data()) {
        (Some(old), Some(new)) if old != new => format!("{key}{comment}: {old} instead of {new}"),
        (old, new) => {
            let data = new.or(old).filter(|d| !d.is_empty()).map(|d| format!(": {d}")).unwrap_or_default();
            format!("{key}{comment}{data}")
        }
    }
}

/// What the services that change account for.
struct Accounts<'m> {
    old: &'m Meaning,
    new: &'m Meaning,
    services: BTreeSet<(&'m str, Protocol)>,
    old_addresses: Addresses,
    new_addresses: Addresses,
}

/// Addresses that sets are derived of.
struct Addresses {
    frontends: BTreeSet<IpAddr>,
    endpoints: BTreeSet<IpAddr>,
}

impl Addresses {
    fn of(meaning: &Meaning) -> Self {
        let lists = |f: &Frontend| f.cluster.keys().chain(f.local.iter().flat_map(BTreeMap::keys)).copied().collect();
        let all: Vec<Vec<SocketAddr>> = meaning.frontends.values().map(lists).collect();
        Self {
            frontends: meaning.frontends.keys().filter_map(|k| k.address).collect(),
            endpoints: all.iter().flatten().map(SocketAddr::ip).collect(),
        }
    }
}

impl<'m> Accounts<'m> {
    fn of(old: &'m Meaning, new: &'m Meaning, changes: &'m [ServiceChange]) -> Self {
        let services = changes.iter().map(|c| (c.name.as_str(), c.protocol)).collect();
        Self { old, new, services, old_addresses: Addresses::of(old), new_addresses: Addresses::of(new) }
    }

    fn for_element(&self, change: &ElementChange<'_>) -> bool {
        let Some((set, element)) = change.new.or(change.old) else { return true };
        if setting(&set.name).is_some() || set.name == ABOUT {
            return true;
        }
        let owner = |m: &Meaning, key: Key| {
            let service = m.frontends.get(&key).map(|f| f.service.as_str());
            service.is_some_and(|s| self.services.contains(&(s, key.protocol)))
        };
        if is_per_frontend(&set.name) {
            let Some((key, _)) = frontend(change.family, set, element.key) else { return false };
            return owner(self.old, key) || owner(self.new, key);
        }
        if is_per_number(&set.name) {
            let Some(number) = service_number(element.key) else { return false };
            let of = (change.family == Family::Ip6, number);
            return [self.old, self.new].iter().any(|m| m.numbers.get(&of).is_some_and(|key| owner(m, *key)));
        }
        let derived_of: fn(&Addresses) -> &BTreeSet<IpAddr> = match set.name.as_str() {
            "cluster-ips" => |a| &a.frontends,
            "hairpin" => |a| &a.endpoints,
            _ => return false,
        };
        let Some((ip, _)) = address(change.family, element.key) else { return false };
        // it comes or goes with what it is derived of
        let (was, will) =
            (derived_of(&self.old_addresses).contains(&ip), derived_of(&self.new_addresses).contains(&ip));
        (change.old.is_some(), change.new.is_some()) == (was, will) && was != will
    }
}
