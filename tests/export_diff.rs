//! What `natlet export --format nft` gives `nft`, and what `natlet diff` finds in the kernel.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;

use common::{Test, has, holds, natlet, natlet_with, same, tool};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::main(&[
        ("nft_text_loads_to_what_load_loads", nft_text_loads_to_what_load_loads),
        ("nft_text_can_be_loaded_again_and_taken_over", nft_text_can_be_loaded_again_and_taken_over),
        ("nft_text_of_source_ranges_is_no_difference", nft_text_of_source_ranges_is_no_difference),
        ("dot_draws_the_picture", dot_draws_the_picture),
        ("diff_tells_what_load_then_does", diff_tells_what_load_then_does),
        ("diff_tells_what_others_did", diff_tells_what_others_did),
        ("diff_changes_nothing", diff_changes_nothing),
    ])
}

/// Both families, every kind of frontend, both policies, ranges, weights, hash, refusals, settings of the node.
const TABLE: &str = r#"
[node]
name = "gw-1"
ip = ["192.0.2.1", "2001:db8:ffff::1"]
cluster-cidr = ["10.0.0.0/8", "2001:db8:1::/48"]
service-cidr = ["172.16.0.0/16", "2001:db8:2::/112"]
node-port-address = ["192.0.2.0/24", "198.51.100.128/25"]

[[service]]
name = "shop/web:https"
port = 443
cluster-ip = ["172.16.0.1", "2001:db8:2::1"]
node-port = 31512
load-balancer = ["198.51.100.1", "2001:db8:3::1"]
external-ip = ["198.51.100.7"]
endpoints = ["10.0.0.1:443", { address = "10.0.0.2:443", weight = 2, local = true }, "[2001:db8:1::1]:443"]
external-policy = "local"
source-ranges = ["203.0.113.0/24", "192.0.2.0/24", "2001:db8:9::/64"]

[[service]]
name = "shop/dns"
protocol = "udp"
port = 53
cluster-ip = ["172.16.0.2", "2001:db8:2::2"]
node-port = 30053
external-ip = ["198.51.100.8"]
endpoints = ["10.0.0.5:53", "10.0.0.6:53", "[2001:db8:1::5]:53", "[2001:db8:1::6]:53"]
choice = "source-hash"

[[service]]
name = "shop/none"
port = 80
cluster-ip = "172.16.0.3"
node-port = 30080

[[service]]
name = "shop/elsewhere"
protocol = "sctp"
port = 9000
cluster-ip = "172.16.0.4"
internal-policy = "local"
endpoints = ["10.0.0.9:9000"]
"#;

/// Listings of the ruleset say when it was loaded.
fn undated(listing: &str) -> String {
    let mut out = String::new();
    for line in listing.lines() {
        let end = line.find(" since ").unwrap_or(line.len());
        out.push_str(&line[..end]);
        out.push('\n');
    }
    out
}

fn host() -> Result<Namespace, Failed> {
    Ok(Namespace::new("host")?)
}

/// The variants of the table that the lowering treats otherwise.
fn variants() -> Vec<String> {
    let set = |line: &str| TABLE.replace("[node]\n", &format!("[node]\n{line}\n"));
    vec![
        TABLE.into(),
        set("masquerade-all = true"),
        set("localhost-node-ports = true"),
        TABLE.replace("cluster-cidr", "# cluster-cidr"),
        TABLE.replace("192.0.2.0/24\", \"198.51.100.128/25", "0.0.0.0/0"),
        TABLE.replace("external-policy = \"local\"\n", ""),
        "service = []\n".into(),
    ]
}

fn nft_text_loads_to_what_load_loads() -> Test {
    if !has("nft") {
        return Ok(());
    }
    for table in variants() {
        let host = host()?;
        let text = natlet(&host, &["export", "--format", "nft", "-"], &table)?;
        natlet(&host, &["load", "-"], &table)?;
        let loaded = tool(&host, "nft", &["list", "ruleset"], "")?;
        tool(&host, "nft", &["flush", "ruleset"], "")?;
        tool(&host, "nft", &["-f", "-"], &text)?;
        let listed = tool(&host, "nft", &["list", "ruleset"], "")?;
        if undated(&loaded) != undated(&listed) {
            return Err(format!("loaded by natlet:\n{loaded}\nby nft:\n{listed}").into());
        }
    }
    Ok(())
}

/// nft turns the protocol's one byte around before it looks a packet up in a set of ranges; natlet does not.
fn nft_text_of_source_ranges_is_no_difference() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let table = r#"
[[service]]
name = "shop/web"
port = 443
load-balancer = ["198.51.100.1", "2001:db8:3::1"]
endpoints = ["10.0.0.1:443", "[2001:db8:1::1]:443"]
source-ranges = ["203.0.113.0/24", "2001:db8:9::/64"]
"#;
    let host = host()?;
    let text = natlet(&host, &["export", "--format", "nft", "-"], table)?;
    tool(&host, "nft", &["-f", "-"], &text)?;
    let diff = natlet_with(&host, &["diff", "-"], table);
    same("what differs", &String::from_utf8_lossy(&diff.stdout).contains("written anew"), &false)?;
    same("exit status of diff", &diff.status.code(), &Some(0))?;
    // what does not match what natlet loads is still told
    let rule = tool(&host, "nft", &["-a", "list", "chain", "ip", "natlet", "filter-output"], "")?;
    let handle = rule.lines().find_map(|l| l.contains("@restricted").then(|| l.rsplit(' ').next())?);
    let handle = handle.ok_or("no rule of source ranges")?;
    tool(&host, "nft", &["delete", "rule", "ip", "natlet", "filter-output", "handle", handle], "")?;
    same("exit status of diff", &natlet_with(&host, &["diff", "-"], table).status.code(), &Some(1))
}

fn nft_text_can_be_loaded_again_and_taken_over() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = host()?;
    tool(&host, "nft", &["add", "table", "ip", "other"], "")?;
    let text = natlet(&host, &["export", "--format", "nft", "-"], TABLE)?;
    tool(&host, "nft", &["-f", "-"], &text)?;
    let first = tool(&host, "nft", &["list", "ruleset"], "")?;
    tool(&host, "nft", &["-f", "-"], &text)?;
    same("listing after the second time", &tool(&host, "nft", &["list", "ruleset"], "")?, &first)?;
    holds("other tables stay", first.contains("table ip other"))?;
    let status = natlet(&host, &["status"], "")?;
    holds("status knows where it is from", status.contains("nobody knows when"))?;
    // no element differs, so that flows go on while natlet takes it over
    let json = natlet_with(&host, &["diff", "-o", "json", "-"], TABLE);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    same("elements", &json["elements"], &serde_json::json!({ "added": 0, "changed": 0, "removed": 0 }))?;
    same("services", &json["services"], &serde_json::json!([]))?;
    natlet(&host, &["load", "-"], TABLE)?;
    same("exit status of diff", &natlet_with(&host, &["diff", "-"], TABLE).status.code(), &Some(0))
}

fn dot_draws_the_picture() -> Test {
    if !has("dot") {
        return Ok(());
    }
    let host = host()?;
    let text = natlet(&host, &["export", "--format", "dot", "-"], TABLE)?;
    let svg = tool(&host, "dot", &["-Tsvg"], &text)?;
    for expected in ["web:https", "10.0.0.2:443", "none on this node", "no endpoints", "weight 2"] {
        // Graphviz writes spaces as such or as no-break spaces
        holds(&format!("{expected} is drawn"), svg.replace("&#160;", " ").contains(expected))?;
    }
    Ok(())
}

/// Exit status and what was said.
fn diff(host: &Namespace, table: &str) -> Result<(Option<i32>, String), Failed> {
    let output = natlet_with(host, &["diff", "-"], table);
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

fn diff_tells_what_load_then_does() -> Test {
    let host = host()?;
    let (status, text) = diff(&host, TABLE)?;
    same("exit status on an empty kernel", &status, &Some(1))?;
    holds(&text, text.contains("+ shop/web:https (tcp)") && text.contains("table ip natlet is created"))?;
    natlet(&host, &["load", "-"], TABLE)?;
    let (status, text) = diff(&host, TABLE)?;
    holds(&format!("no difference after load: {text}"), status == Some(0) && text.starts_with("no difference"))?;

    let next = TABLE
        .replace("\"10.0.0.1:443\"", "\"10.0.0.3:443\"")
        .replace("shop/none", "shop/nothing")
        .replace("30053", "30054");
    let (status, text) = diff(&host, &next)?;
    same("exit status", &status, &Some(1))?;
    for expected in [
        "~ shop/web:https (tcp)\n    + endpoint 10.0.0.3:443\n    - endpoint 10.0.0.1:443\n",
        "+ shop/nothing (tcp): node port 30080/tcp, 172.16.0.3:80/tcp -> no endpoint\n",
        "- shop/none (tcp): node port 30080/tcp, 172.16.0.3:80/tcp -> no endpoint\n",
        "    + frontend node port 30054/udp\n",
        "    - frontend node port 30053/udp\n",
    ] {
        holds(&format!("{expected:?} is not in\n{text}"), text.contains(expected))?;
    }
    holds(&format!("nothing else: {text}"), !text.contains("no service"))?;
    natlet(&host, &["load", "-"], &next)?;
    same("exit status after loading it", &diff(&host, &next)?.0, &Some(0))
}

fn diff_tells_what_others_did() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = host()?;
    natlet(&host, &["load", "-"], TABLE)?;
    for command in [
        "delete element ip natlet hairpin { 10.0.0.1 . 10.0.0.1 }",
        "delete element ip natlet services { 172.16.0.3 . tcp . 80 }",
        "delete element ip natlet endpoints { 172.16.0.2 . udp . 53 . 1 }",
        "add element ip natlet cluster-ips { 172.16.7.7 }",
        "delete element ip natlet pods { 10.0.0.0/8 }",
        "add chain ip natlet evil",
        "add rule ip natlet output counter",
    ] {
        tool(&host, "nft", &[command], "")?;
    }
    let (status, text) = diff(&host, TABLE)?;
    same("exit status", &status, &Some(1))?;
    for expected in [
        "    + frontend 172.16.0.3:80/tcp\n",
        "    + endpoint 10.0.0.6:53 (at 172.16.0.2:53/udp)\n",
        "    + cluster-cidr 10.0.0.0/8\n",
        "    set cluster-ips (ip) has too much 172.16.7.7\n",
        "    set hairpin (ip) lacks 10.0.0.1 . 10.0.0.1\n",
        "    the rules of chain output (ip) are written anew\n",
        "    chain evil (ip) is removed\n",
    ] {
        holds(&format!("{expected:?} is not in\n{text}"), text.contains(expected))?;
    }
    natlet(&host, &["load", "-"], TABLE)?;
    same("exit status after load", &diff(&host, TABLE)?.0, &Some(0))
}

fn diff_changes_nothing() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = host()?;
    diff(&host, TABLE)?;
    same("ruleset", &tool(&host, "nft", &["list", "ruleset"], "")?, &String::new())?;
    natlet(&host, &["load", "-"], TABLE)?;
    let before = tool(&host, "nft", &["list", "ruleset"], "")?;
    diff(&host, &TABLE.replace("10.0.0.", "10.0.1."))?;
    same("ruleset", &tool(&host, "nft", &["list", "ruleset"], "")?, &before)
}
