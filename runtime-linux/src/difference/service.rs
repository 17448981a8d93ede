//! Two meanings compared, service by service.

use super::meaning::{Frontend, Key, List, Meaning};
use super::{ServiceChange, ServiceKind};
use natlet_core::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Most frontends that are named where a change is not at all of them.
const NAMED: usize = 3;

/// A frontend whose name one side does not know is of the service that the other side says; where neither knows, it is a
/// service of its own.
pub(super) fn agree_on_names(old: &mut Meaning, new: &mut Meaning) {
    let take = |into: &mut Meaning, from: &Meaning| {
        for (key, frontend) in into.frontends.iter_mut().filter(|(_, f)| f.service.is_empty()) {
            let other = from.frontends.get(key).filter(|f| !f.service.is_empty());
            frontend.service = other.map_or_else(|| key.to_string(), |f| f.service.clone());
        }
    };
    take(old, new);
    take(new, old);
}

type Frontends<'m> = BTreeMap<Key, &'m Frontend>;

fn by_service(meaning: &Meaning) -> BTreeMap<(&str, Protocol), Frontends<'_>> {
    let mut services: BTreeMap<_, Frontends<'_>> = BTreeMap::new();
    for (key, frontend) in &meaning.frontends {
        services.entry((frontend.service.as_str(), key.protocol)).or_default().insert(*key, frontend);
    }
    services
}

/// The services that differ.
pub(super) fn changes(old: &Meaning, new: &Meaning) -> Vec<ServiceChange> {
    let (old, new) = (by_service(old), by_service(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let none = Frontends::new();
    names
        .into_iter()
        .filter_map(|name| change(name, old.get(&name).unwrap_or(&none), new.get(&name).unwrap_or(&none)))
        .collect()
}

fn change((name, protocol): (&str, Protocol), old: &Frontends<'_>, new: &Frontends<'_>) -> Option<ServiceChange> {
    let kind = match (old.is_empty(), new.is_empty()) {
        (true, _) => ServiceKind::New,
        (_, true) => ServiceKind::Gone,
        _ => ServiceKind::Changed,
    };
    let only = |these: &Frontends<'_>, those: &Frontends<'_>| {
        these.keys().filter(|k| !those.contains_key(k)).map(ToString::to_string).collect()
    };
    let mut change = ServiceChange {
        name: name.into(),
        protocol,
        kind,
        frontends_added: only(new, old),
        frontends_removed: only(old, new),
        endpoints_added: Vec::new(),
        endpoints_removed: Vec::new(),
        details: Vec::new(),
    };
    if kind == ServiceKind::Changed {
        let pairs: Vec<Pair<'_>> =
            old.iter().filter_map(|(&key, &old)| new.get(&key).map(|&new| Pair { key, old, new })).collect();
        compare(&pairs, &mut change);
        let same = change.frontends_added.is_empty()
            && change.frontends_removed.is_empty()
            && change.endpoints_added.is_empty()
            && change.endpoints_removed.is_empty()
            && change.details.is_empty();
        return (!same).then_some(change);
    }
    let there = if kind == ServiceKind::New { new } else { old };
    let all: BTreeSet<&SocketAddr> =
        there.values().flat_map(|f| f.cluster.keys().chain(f.local.iter().flat_map(BTreeMap::keys))).collect();
    let all = all.into_iter().map(ToString::to_string).collect();
    if kind == ServiceKind::New {
        change.endpoints_added = all;
    } else {
        change.endpoints_removed = all;
    }
    Some(change)
}

/// A frontend that both sides have.
struct Pair<'m> {
    key: Key,
    old: &'m Frontend,
    new: &'m Frontend,
}

/// Frontends by what is said of them.
type Sayings = BTreeMap<String, Vec<Key>>;

fn compare(pairs: &[Pair<'_>], change: &mut ServiceChange) {
    let (mut added, mut removed, mut details) = (Sayings::new(), Sayings::new(), Sayings::new());
    for Pair { key, old, new } in pairs {
        let mut say = |text: String| details.entry(text).or_default().push(*key);
        if old.outcome != new.outcome {
            say(format!("connections are {} instead of {}", new.outcome, old.outcome));
        }
        if old.drawn != new.drawn && !old.drawn.is_empty() && !new.drawn.is_empty() {
            say(format!("endpoints are drawn by {} instead of {}", new.drawn, old.drawn));
        }
        let translated = [old, new].iter().all(|f| f.outcome == "translated");
        if old.masquerade != new.masquerade && translated {
            say(format!("masquerading: {} instead of {}", new.masquerade, old.masquerade));
        }
        if old.local.is_some() != new.local.is_some() {
            let policy = |f: &Frontend| if f.local.is_some() { "Local" } else { "Cluster" };
            say(format!("traffic from outside goes by policy {} instead of {}", policy(new), policy(old)));
        }
        if old.ranges != new.ranges {
            let ranges = |f: &Frontend| match &f.ranges {
                None => "everybody".to_owned(),
                Some(ranges) if ranges.is_empty() => "nobody".to_owned(),
                Some(ranges) => ranges.iter().cloned().collect::<Vec<_>>().join(", "),
            };
            say(format!("open to {} instead of {}", ranges(new), ranges(old)));
        }
        lists(&old.cluster, &new.cluster, "", *key, (&mut added, &mut removed, &mut details));
        if let (Some(before), Some(after)) = (&old.local, &new.local) {
            let what = " for sources outside";
            let (mut more, mut less, mut weights) = (Sayings::new(), Sayings::new(), Sayings::new());
            lists(before, after, what, *key, (&mut more, &mut less, &mut weights));
            // what comes or goes altogether has been said
            more.retain(|text, _| !added.contains_key(text.trim_end_matches(what)));
            less.retain(|text, _| !removed.contains_key(text.trim_end_matches(what)));
            weights.retain(|text, _| !details.contains_key(&text.replacen(what, "", 1)));
            merge(&mut added, more);
            merge(&mut removed, less);
            merge(&mut details, weights);
        }
    }
    change.endpoints_added = told(added, pairs);
    change.endpoints_removed = told(removed, pairs);
    change.details = told(details, pairs);
}

fn merge(into: &mut Sayings, from: Sayings) {
    for (text, keys) in from {
        into.entry(text).or_default().extend(keys);
    }
}

fn lists(
    old: &List,
    new: &List,
    what: &str,
    key: Key,
    (added, removed, details): (&mut Sayings, &mut Sayings, &mut Sayings),
) {
    for (endpoint, slots) in new {
        match old.get(endpoint) {
            None => added.entry(format!("{endpoint}{what}")).or_default().push(key),
            Some(before) if before != slots => {
                let text = format!("endpoint {endpoint}{what}: weight {slots} instead of {before}");
                details.entry(text).or_default().push(key);
            }
            Some(_) => {}
        }
    }
    for endpoint in old.keys().filter(|e| !new.contains_key(e)) {
        removed.entry(format!("{endpoint}{what}")).or_default().push(key);
    }
}

/// Each saying; with the frontends that it is about, unless it is about all of their family.
fn told(sayings: Sayings, pairs: &[Pair<'_>]) -> Vec<String> {
    let tell = |(text, keys): (String, Vec<Key>)| {
        let families: BTreeSet<bool> = keys.iter().map(|k| k.v6).collect();
        // local lists are of external frontends only: those that could have the saying are those with such a list
        let concerned = pairs.iter().filter(|p| families.contains(&p.key.v6));
        let concerned =
            concerned.filter(|p| !text.contains("outside") || p.new.local.is_some() || p.old.local.is_some());
        if keys.len() == concerned.count() {
            return text;
        }
        let mut names: Vec<String> = keys.iter().take(NAMED).map(ToString::to_string).collect();
        if keys.len() > NAMED {
            names.push(format!("{} more", keys.len() - NAMED));
        }
        format!("{text} (at {})", names.join(", "))
    };
    sayings.into_iter().map(tell).collect()
}
