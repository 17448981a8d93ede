//! A ruleset as text that `nft -f` loads: the same objects in the same order as over netlink.
//!
//! The text replaces natlet's tables whole (`table`, `delete table`, `table { … }`), so it can be loaded again and again. It
//! leaves out what `nft` finds out by itself: the numbers of types, the values of counters.

mod rule;

use super::model::{BaseChain, Chain, Field, Hook, Ruleset, Set, SetData, Table};
use super::text;
use super::wire::userdata::comment_text;
use std::fmt::Write as _;

/// A rule that has no form in `nft`'s language: natlet's lowering writes none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {number} of chain {chain} cannot be written as nft text: {why}")]
pub struct Unwritable {
    /// The chain.
    pub chain: String,
    /// The rule, from 1.
    pub number: usize,
    /// What `nft` has no word for.
    pub why: String,
}

/// The text.
pub fn write(ruleset: &Ruleset) -> Result<String, Unwritable> {
    let mut out = String::new();
    for table in &ruleset.tables {
        let (family, name) = (table.family.name(), &table.name);
        let _ = writeln!(out, "table {family} {name}\ndelete table {family} {name}");
        write_table(&mut out, table)?;
    }
    Ok(out)
}

fn write_table(out: &mut String, table: &Table) -> Result<(), Unwritable> {
    let Table { family, name, comment, sets, chains, base_chains } = table;
    let _ = writeln!(out, "table {} {name} {{", family.name());
    write_comment(out, "\t", comment);
    for set in sets {
        write_set(out, set);
    }
    for chain in chains {
        let _ = writeln!(out, "\n\tchain {} {{", chain.name);
        write_rules(out, table, chain)?;
    }
    for BaseChain { chain, kind, hook, priority } in base_chains {
        let _ = writeln!(out, "\n\tchain {} {{", chain.name);
        let (kind, hook) = (kind.name(), hook_name(*hook));
        let _ = writeln!(out, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;");
        write_rules(out, table, chain)?;
    }
    out.push_str("}\n");
    Ok(())
}

fn write_rules(out: &mut String, table: &Table, chain: &Chain) -> Result<(), Unwritable> {
    for (number, rule) in (1..).zip(&chain.rules) {
        let text = rule::text(table, rule).map_err(|why| Unwritable { chain: chain.name.clone(), number, why })?;
        let _ = write!(out, "\t\t{text}");
        if !rule.comment.is_empty() {
            let _ = write!(out, " comment \"{}\"", comment_text(&rule.comment));
        }
        out.push('\n');
    }
    out.push_str("\t}\n");
    Ok(())
}

fn write_comment(out: &mut String, indent: &str, comment: &str) {
    if !comment.is_empty() {
        let _ = writeln!(out, "{indent}comment \"{}\"", comment_text(comment));
    }
}

fn write_set(out: &mut String, set: &Set) {
    let Set { name, key, data, interval, size, memory, counter, comment, elements } = set;
    let _ = writeln!(out, "\n\t{} {name} {{", set.noun());
    let _ = write!(out, "\t\ttypeof {}", concatenation(key));
    match data {
        SetData::None => {}
        SetData::Value(fields) => _ = write!(out, " : {}", concatenation(fields)),
        SetData::Verdict(_) => out.push_str(" : verdict"),
    }
    out.push('\n');
    if let Some(size) = size {
        let _ = writeln!(out, "\t\tsize {size}");
    }
    if *interval {
        out.push_str("\t\tflags interval\n");
    }
    if memory.is_some() {
        out.push_str("\t\tflags dynamic,timeout\n");
    }
    if *counter {
        out.push_str("\t\tcounter\n");
    }
    write_comment(out, "\t\t", comment);
    let mut separator = "\t\telements = {\n";
    for element in elements.iter() {
        let _ = write!(out, "{separator}\t\t\t{}", text::key(set, element.key, element.data));
        if !element.comment.is_empty() {
            let _ = write!(out, " comment \"{}\"", comment_text(element.comment));
        }
        if *data != SetData::None {
            let _ = write!(out, " : {}", text::data(set, element.data));
        }
        separator = ",\n";
    }
    if !elements.is_empty() {
        out.push_str("\n\t\t}\n");
    }
    out.push_str("\t}\n");
}

fn concatenation(fields: &[Field]) -> String {
    fields.iter().map(|&f| field_name(f)).collect::<Vec<_>>().join(" . ")
}

/// The expression that a field stands for. The modulus of a slot is of no account.
const fn field_name(field: Field) -> &'static str {
    match field {
        Field::Ip4Daddr => "ip daddr",
        Field::Ip4Saddr => "ip saddr",
        Field::Ip6Daddr => "ip6 daddr",
        Field::Ip6Saddr => "ip6 saddr",
        Field::L4Proto => "meta l4proto",
        Field::Dport => "th dport",
        Field::Slot => "numgen random mod 2",
        Field::Mark => "meta mark",
        Field::Priority => "meta priority",
    }
}

const fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::model::{Expression, Register, Rule};
    use super::*;

    #[test]
    fn the_fixture_is_written_as_nft_lists_it() {
        let text = write(&fixture::ruleset()).unwrap();
        for expected in [
            "table ip natlet\ndelete table ip natlet\ntable ip natlet {\n\tcomment \"natlet\"\n",
            "\t\ttypeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport\n\t\tsize 64\n",
            "\t\t\t192.168.5.65 . tcp . 443 comment \"ns/svc:https\" : goto select-2",
            "\t\treject\n",
            "table ip6 natlet {\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_rule_that_nft_has_no_words_for_is_refused() {
        let mut ruleset = fixture::ruleset();
        let expressions = vec![Expression::Meta { dreg: Register::word(0), key: 9999 }];
        ruleset.tables[0].chains[0].rules.push(Rule { expressions, comment: String::new() });
        let error = write(&ruleset).unwrap_err();
        assert_eq!((error.chain.as_str(), error.number), ("refuse", 2));
    }
}
