//! What is in force: loads programs, removes them, and tells what is loaded.
//!
//! The kernel keeps the program's content id with the tables, in the comment of the one element of set `program` (a table's
//! own comment cannot be changed once it is created). A restarted process reads it there.

mod loader;
mod owner;
mod remembered;

pub use loader::{Loader, Trust};
pub use remembered::Remembered;

use crate::lower::{FRONTENDS, lower};
use crate::netlink::{LoadError, Netlink, Owner};
use crate::nft::apply::{self, Outcome};
use crate::nft::model::{Ownership, Ruleset};
use crate::nft::read::{Loaded, LoadedTable, read_counts, read_matching};
use natlet_core::Program;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use owner::{Claim, claim, owner};

/// The set whose element's comment says what is loaded.
pub(crate) const ABOUT: &str = "program";

/// What the kernel keeps with a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Version of the natlet that loaded it.
    pub version: String,
    /// The program's content id, 32 hexadecimal digits.
    pub content_id: String,
    /// When it was loaded, to the nanosecond, so that no two loads say the same; the Unix epoch if that is not known (the
    /// text of `natlet export --format nft`).
    pub since: SystemTime,
}

impl About {
    /// Of a program that this natlet loads now.
    fn now(program: &Program<'_>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            content_id: program.content_id().to_string(),
            since: SystemTime::now(),
        }
    }

    /// Of a program that something else than natlet will load, nobody knows when.
    pub(crate) fn undated(program: &Program<'_>) -> Self {
        Self { since: UNIX_EPOCH, ..Self::now(program) }
    }

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let ["natlet", version, "id", content_id, "since", since] = words.as_slice() else { return None };
        let (seconds, nanos) = since.split_once('.').unwrap_or((since, "0"));
        let since = UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))?;
        Some(Self { version: (*version).into(), content_id: (*content_id).into(), since })
    }

    /// What the kernel is to keep with a program, where it keeps this now: the same if that is the program already.
    fn after(about: Option<Self>, program: &Program<'_>) -> Self {
        let new = Self::now(program);
        about.filter(|old| old.content_id == new.content_id && old.version == new.version).unwrap_or(new)
    }

    /// What loaded tables say.
    pub(crate) fn of(loaded: &Loaded) -> Option<Self> {
        let table = loaded.tables.first()?;
        let set = table.sets.iter().find(|s| s.set.name == ABOUT)?;
        set.set.elements.iter().find_map(|e| Self::from_text(e.comment))
    }
}

impl fmt::Display for About {
    /// The comment in which the kernel keeps it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        write!(f, "natlet {} id {} since {seconds}", self.version, self.content_id)?;
        if nanos == 0 { Ok(()) } else { write!(f, ".{nanos:09}") }
    }
}

/// What is loaded.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the tables say about themselves; `None` if they are not natlet's or were damaged.
    pub about: Option<About>,
    /// Whose the tables are; `None` if anyone with CAP_NET_ADMIN may change them.
    pub owner: Option<Owner>,
    /// The tables, `ip` first.
    pub tables: Vec<TableStatus>,
}

/// A table in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// `ip` or `ip6`.
    pub family: &'static str,
    /// Chains.
    pub chains: usize,
    /// Rules in all chains.
    pub rules: usize,
    /// Sets and maps.
    pub sets: usize,
    /// Elements in all sets and maps; ranges count once.
    pub elements: usize,
}

impl TableStatus {
    fn of(table: &LoadedTable) -> Self {
        Self {
            family: table.family.name(),
            chains: table.chains.len(),
            rules: table.chains.iter().map(|c| c.rules.len()).sum(),
            sets: table.sets.len(),
            elements: table.sets.iter().filter(|s| s.set.memory.is_none()).map(|s| s.count() as usize).sum(),
        }
    }
}

/// Lets packets with loopback addresses be routed, which NodePorts on loopback need.
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// Whether the frontends count connections. At 44,125 services that is 0.1 s of a processor's time at the first load, 2.4 MB of the
/// kernel's memory (on two processors) and nothing to be measured at a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// As the loaded tables do; they do where none are loaded. To begin or to end it the tables are replaced.
    #[default]
    AsLoaded,
    /// They do.
    On,
    /// They do not.
    Off,
}

/// How tables are to be, beside what their program says. By default anybody may change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Whose they are.
    pub ownership: Ownership,
    /// Whether frontends count connections.
    pub counting: Counting,
}

impl Terms {
    /// A ruleset on these terms, where this is loaded now.
    fn shape(self, ruleset: Ruleset, loaded: &Loaded) -> Ruleset {
        let counts = match self.counting {
            Counting::AsLoaded => counts(loaded).unwrap_or(true),
            Counting::On => true,
            Counting::Off => false,
        };
        let ruleset = if counts { ruleset } else { ruleset.without_counters() };
        Ruleset { ownership: self.ownership, ..ruleset }
    }
}

/// Whether the frontends of loaded tables count; `None` where none are loaded.
fn counts(loaded: &Loaded) -> Option<bool> {
    let maps = loaded.tables.iter().flat_map(|t| &t.sets).filter(|s| FRONTENDS.contains(&s.set.name.as_str()));
    maps.map(|s| s.shape.counter).reduce(|a, b| a && b)
}

/// What loading a program gives the kernel, where this is loaded now.
fn wanted(program: &Program<'_>, loaded: &Loaded, terms: Terms) -> Ruleset {
    let about = About::after(About::of(loaded), program);
    terms.shape(lower(program, &about.to_string()), loaded)
}

/// Puts a program in force. What is loaded already stays; only the difference is sent.
pub fn load(netlink: &mut Netlink, program: &Program<'_>) -> Result<Outcome, LoadError> {
    let loaded = read_matching(netlink, |set| set == ABOUT)?;
    owner::must_be_mine(netlink, &loaded)?;
    let outcome = apply::apply(netlink, &wanted(program, &loaded, Terms::default()))?;
    let_loopback_through(program)?;
    Ok(outcome)
}

/// Switches on what NodePorts on loopback need beside the tables.
fn let_loopback_through(program: &Program<'_>) -> Result<(), LoadError> {
    if program.context().localhost_node_ports() {
        // after the guard is in force
        route_loopback()
            .map_err(|source| LoadError::Socket { doing: "set net.ipv4.conf.all.route_localnet", source })?;
    }
    Ok(())
}

/// Whether [`load`] would let the kernel route loopback addresses for a program.
pub fn lacks_route_localnet(program: &Program<'_>) -> bool {
    program.context().localhost_node_ports() && !std::fs::read(ROUTE_LOCALNET).is_ok_and(|v| v.starts_with(b"1"))
}

fn route_loopback() -> std::io::Result<()> {
    if std::fs::read(ROUTE_LOCALNET)?.starts_with(b"1") { Ok(()) } else { std::fs::write(ROUTE_LOCALNET, "1") }
}

/// Removes natlet's tables and nothing else. `false` if there were none.
pub fn unload(netlink: &mut Netlink) -> Result<bool, LoadError> {
    let loaded = read_matching(netlink, |_| false)?;
    owner::must_be_mine(netlink, &loaded)?;
    apply::remove(netlink)
}

/// What the loaded tables say about themselves.
pub fn about(netlink: &mut Netlink) -> Result<Option<About>, LoadError> {
    Ok(About::of(&read_matching(netlink, |set| set == ABOUT)?))
}

/// What is loaded; `None` if nothing is.
pub fn status(netlink: &mut Netlink) -> Result<Option<Status>, LoadError> {
    let loaded = read_counts(netlink, |set| set == ABOUT)?;
    if loaded.tables.is_empty() {
        return Ok(None);
    }
    Ok(Some(Status {
        about: About::of(&loaded),
        owner: owner(&loaded),
        tables: loaded.tables.iter().map(TableStatus::of).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_keeps_reads_back() {
        let since = UNIX_EPOCH + Duration::new(1_790_000_000, 12_345);
        let about = About { version: "0.1.0".into(), content_id: "ab".repeat(16), since };
        assert!(about.to_string().len() <= 120, "fits an element's comment");
        assert_eq!(About::from_text(&about.to_string()), Some(about));
        assert_eq!(About::from_text("somebody else's words"), None);
    }
}
