//! Which chains of endpoints a frontend leads to, and what it meets on the way.

use super::super::parse::Line;
use super::{Lifter, warning};
use natlet_core::table::Cidr;

/// Where a jump of a frontend ends.
#[derive(Default)]
pub(super) struct Way {
    pub cluster_chain: Option<String>,
    pub local_chain: Option<String>,
    pub external_local: bool,
    pub ranges: Vec<Cidr>,
}

impl Lifter<'_> {
    /// The chains behind a frontend's jump; `None`, with a warning, if the listing lacks one.
    pub(super) fn follow(&mut self, chain: &str, line: &Line) -> Option<Way> {
        let mut way = Way::default();
        if self.part.chains.get(chain).is_none_or(Vec::is_empty) {
            let warning = warning(line, format!("the listing lacks the chain {chain}: this frontend is left out"));
            self.sink.push(warning.help("give the whole output of iptables-save"));
            return None;
        }
        let rules = self.rules_of(chain);
        let jumps = || rules.iter().filter_map(|(rule, line)| Some((rule, *line, rule.target?)));
        match prefix(chain) {
            "KUBE-SVC-" => way.cluster_chain = Some(chain.to_owned()),
            "KUBE-SVL-" => way.local_chain = Some(chain.to_owned()),
            "KUBE-FW-" => {
                let mut inner = None;
                let mut open = false;
                for (rule, line, target) in jumps().filter(|(_, _, target)| is_jump(target)) {
                    match rule.source {
                        Some(range) => way.ranges.push(range),
                        None => open = true,
                    }
                    if inner.is_none() && prefix(target) != "KUBE-FW-" {
                        inner = Some(self.follow(target, line)?);
                    }
                }
                if open {
                    way.ranges.clear();
                }
                way = Way { ranges: way.ranges, ..inner? };
            }
            _ => {
                for (rule, line, target) in jumps() {
                    match prefix(target) {
                        "KUBE-SVC-" => {
                            way.external_local |= rule.source.is_some() || rule.from_node;
                            way.cluster_chain = self.follow(target, line)?.cluster_chain;
                        }
                        "KUBE-SVL-" => {
                            way.external_local = true;
                            way.local_chain = self.follow(target, line)?.local_chain;
                        }
                        "KUBE-SEP-" => {
                            way.external_local = true;
                            way.local_chain = Some(chain.to_owned());
                        }
                        _ => {}
                    }
                }
            }
        }
        Some(way)
    }
}

/// `KUBE-SVC-` of `KUBE-SVC-JLRSZDR3OXJ4SUA2`; nothing for other names.
pub(super) fn prefix(chain: &str) -> &str {
    const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-SEP-"];
    PREFIXES.into_iter().find(|prefix| chain.starts_with(prefix)).unwrap_or("")
}

/// Whether a chain is one that a frontend jumps to.
pub(super) fn is_jump(chain: &str) -> bool {
    !matches!(prefix(chain), "" | "KUBE-SEP-")
}
