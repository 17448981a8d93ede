//! What natlet writes, in the real kernel and through the real `nft`: loads, lists, reloads, reads back, changes.
//!
//! Runs without root: `main` enters a user namespace while the process has one thread, and every test takes a network
//! namespace of its own. `nft` missing: the tests are skipped with the reason; with NATLET_NO_SKIP=1 that is a failure.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};
use natlet::netlink::{LoadError, Netlink};
use natlet::nft::apply::{apply, remove};
use natlet::nft::diff::{PhaseName, plan};
use natlet::nft::model::{
    self, BaseChain, ChainType, Family, Hook, Ownership, Rule, Ruleset, Set, SetData, Table, Verdict,
};
use natlet::nft::read::{Loaded, read};
use natlet::nft::wire::Batch;
use nix::sched::{CloneFlags, unshare};

#[path = "../runtime-linux/src/nft/fixture.rs"]
mod fixture;

type Test = fn() -> Result<(), Failed>;

const TESTS: &[(&str, Test)] = &[
    ("loads_and_reads_back", loads_and_reads_back),
    ("nft_lists_and_reloads", nft_lists_and_reloads),
    ("nft_json_lists", nft_json_lists),
    ("nft_monitor_survives", nft_monitor_survives),
    ("small_changes_are_small", small_changes_are_small),
    ("endpoints_grow_before_services", endpoints_grow_before_services),
    ("foreign_objects_are_removed", foreign_objects_are_removed),
    ("foreign_tables_are_untouched", foreign_tables_are_untouched),
    ("changed_rules_are_written_anew", changed_rules_are_written_anew),
    ("other_shape_is_replaced", other_shape_is_replaced),
    ("sets_grow", sets_grow),
    ("ranges_survive", ranges_survive),
    ("errors_name_the_element", errors_name_the_element),
    ("errors_name_the_rule", errors_name_the_rule),
    ("stale_generation_is_said", stale_generation_is_said),
    ("others_may_change_the_ruleset_meanwhile", others_may_change_the_ruleset_meanwhile),
    ("short_buffers_split_the_load", short_buffers_split_the_load),
    ("table_comment_is_fixed_at_creation", table_comment_is_fixed_at_creation),
    ("removes_only_its_own", removes_only_its_own),
];

fn main() {
    let arguments = Arguments::from_args();
    let skip = enter_namespaces().err().or_else(|| missing_nft().err());
    if let Some(reason) = &skip {
        eprintln!("nft_roundtrip: skipped: {reason}");
        if std::env::var_os("NATLET_NO_SKIP").is_some_and(|v| v == "1") {
            std::process::exit(1);
        }
    }
    let ignored = skip.is_some();
    let mut trials: Vec<Trial> = TESTS
        .iter()
        .map(|&(name, test)| Trial::test(name, move || in_namespace(test)).with_ignored_flag(ignored))
        .collect();
    trials.push(Trial::test("bench_100k", || in_namespace(bench)).with_ignored_flag(true));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Root of a user namespace, with a network namespace, unless the process is root already.
fn enter_namespaces() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|e| format!("cannot enter a user namespace: {e}"))?;
    let write = |path: &str, text: String| std::fs::write(path, text).map_err(|e| format!("cannot write {path}: {e}"));
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn missing_nft() -> Result<(), String> {
    match Command::new("nft").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(format!("no working nft: {other:?}")),
    }
}

fn in_namespace(test: Test) -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    test()
}

fn nft(arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new("nft").args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("nft {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn nft_reads(text: &str) -> Result<(), Failed> {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("stdin is piped").write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("nft -f: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, have: &T, want: &T) -> Result<(), Failed> {
    if have == want { Ok(()) } else { Err(format!("{what}:\nhave {have:?}\nwant {want:?}").into()) }
}

fn check(what: &str, holds: bool) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn load(wanted: &Ruleset) -> Result<Netlink, Failed> {
    let mut netlink = Netlink::open()?;
    apply(&mut netlink, wanted)?;
    Ok(netlink)
}

fn is_in_place(netlink: &mut Netlink, wanted: &Ruleset) -> Result<(), Failed> {
    let loaded = read(netlink)?;
    let plan = plan(&loaded, wanted);
    check(&format!("still differs: {:?}", plan.summary), plan.is_empty())
}

fn set_of<'t>(ruleset: &'t mut Ruleset, name: &str) -> &'t mut Set {
    ruleset.tables[0].sets.iter_mut().find(|s| s.name == name).expect("the fixture has it")
}

/// Key and data of an endpoint slot of 192.168.5.N:443/tcp.
fn slot(n: u8, slot: u32) -> (Vec<u8>, Vec<u8>) {
    let key = [&[192, 168, 5, n, 6, 0, 0, 0, 1, 0xbb, 0, 0][..], &slot.to_ne_bytes()].concat();
    (key, vec![10, 82, 0, n, 1, 0xbb, 0, 0])
}

fn loads_and_reads_back() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = Netlink::open()?;
    let outcome = apply(&mut netlink, &wanted)?;
    same("one transaction", &outcome.phases, &vec![PhaseName::Switch])?;
    let loaded = read(&mut netlink)?;
    for (have, want) in loaded.tables.iter().zip(&wanted.tables) {
        same("comment", &have.comment, &want.comment)?;
        for (have, want) in have.sets.iter().zip(&want.sets) {
            same(&want.name, &sorted(&have.set), &sorted(want))?;
        }
    }
    is_in_place(&mut netlink, &wanted)?;
    let again = apply(&mut netlink, &wanted)?;
    same("a second load sends nothing", &(again.phases.len(), again.bytes), &(0, 0))
}

/// A set's form, and its elements in order and in words.
fn sorted(set: &Set) -> (Set, Vec<[String; 3]>) {
    let mut elements: Vec<_> = set
        .elements
        .iter()
        .map(|e| {
            [natlet::nft::text::key(set, e.key, e.data), natlet::nft::text::data(set, e.data), e.comment.to_owned()]
        })
        .collect();
    elements.sort();
    let data = match &set.data {
        SetData::Verdict(_) => SetData::Verdict(Vec::new()),
        other => other.clone(),
    };
    (Set { data, elements: set.empty_elements(), ..set.clone() }, elements)
}

fn nft_lists_and_reloads() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let text = nft(&["list", "ruleset"])?;
    for expected in [
        "typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport",
        "192.168.5.65 . tcp . 443 comment \"ns/svc:https\" : goto select-2",
        "meta l4proto tcp ct original ip daddr . meta l4proto . ct original proto-dst @masquerade-always masquerade fully-random",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints",
        "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @node-ports",
        "10.82.0.0/16 comment \"pod\"",
        "255.0.0.0/8",
        "192.168.5.65 . tcp . 443 . 10.0.0.0/8 comment \"c\"",
        "comment \"natlet 0.1.0 id 1234\"",
        "meta mark & 0x00004000 == 0x00004000 drop comment \"marked\"",
        "\t\treject\n",
    ] {
        check(&format!("{expected:?} is not in\n{text}"), text.contains(expected))?;
    }
    nft(&["flush", "ruleset"])?;
    nft_reads(&text)?;
    same("listing after a reload of the listing", &nft(&["list", "ruleset"])?, &text)?;
    // What nft made of the text is taken over with the rules it writes otherwise (a byte swap of one byte).
    let outcome = apply(&mut netlink, &wanted)?;
    check(&format!("taken over by small steps: {outcome:?}"), outcome.summary.replaced.is_empty())?;
    same(
        "elements are the same",
        &(outcome.summary.added, outcome.summary.removed, outcome.summary.changed),
        &(0, 0, 0),
    )?;
    is_in_place(&mut netlink, &wanted)?;
    same("listing after that", &nft(&["list", "ruleset"])?, &text)
}

fn nft_json_lists() -> Result<(), Failed> {
    let _netlink = load(&fixture::ruleset())?;
    let json = nft(&["-j", "list", "ruleset"])?;
    for expected in ["\"select-2\"", "\"services\"", "\"masquerade\"", "\"numgen\"", "\"fib\""] {
        check(&format!("{expected} is not in {json}"), json.contains(expected))?;
    }
    nft(&["-a", "list", "ruleset"])?;
    nft(&["list", "sets"])?;
    nft(&["list", "maps"])?;
    nft(&["list", "tables"]).map(|_| ())
}

fn nft_monitor_survives() -> Result<(), Failed> {
    let mut monitor = Command::new("nft").arg("monitor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut netlink = load(&fixture::ruleset())?;
    remove(&mut netlink)?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    check("nft monitor ended by itself", monitor.try_wait()?.is_none())?;
    monitor.kill()?;
    let output = monitor.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(&format!("the monitor saw the load:\n{text}"), text.contains("add element ip natlet services"))
}

fn small_changes_are_small() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    set_of(&mut wanted, "cluster-ips").elements.push(&[192, 168, 5, 90], &[], "new");
    let program = set_of(&mut wanted, "program");
    program.elements = program.empty_elements();
    program.elements.push(&1u32.to_ne_bytes(), &[], "natlet 0.1.0 id 5678");
    let loaded = read(&mut netlink)?;
    let planned = plan(&loaded, &wanted);
    let s = &planned.summary;
    same("counts", &(s.added, s.removed, s.changed, s.changed_chains, s.new_objects), &(1, 0, 1, 0, 0))?;
    let names: Vec<_> = planned.phases.iter().map(|p| p.name).collect();
    same("no verdict changes: one transaction", &names, &vec![PhaseName::Switch])?;
    let changes: Vec<_> =
        planned.element_changes().map(|c| format!("{} {} {}", c.set(), c.key(), c.comment())).collect();
    same(
        "words",
        &changes,
        &vec!["cluster-ips 192.168.5.90 new".into(), "program 0x00000001 natlet 0.1.0 id 5678".into()],
    )?;
    let outcome = apply(&mut netlink, &wanted)?;
    check("a few hundred bytes", outcome.bytes < 600)?;
    is_in_place(&mut netlink, &wanted)
}

fn endpoints_grow_before_services() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let before = wanted.clone();
    let mut select = wanted.tables[0].chains[1].clone();
    select.name = "select-3".into();
    wanted.tables[0].chains.push(select);
    for i in 0..3 {
        let (key, data) = slot(77, i);
        set_of(&mut wanted, "endpoints").elements.push(&key, &data, "");
    }
    let services = set_of(&mut wanted, "services");
    services.data =
        SetData::Verdict(vec![Verdict::Goto("select-3".into()), Verdict::Drop, Verdict::Goto("refuse".into())]);
    services.elements = services.empty_elements();
    let key = |n: u8| [192, 168, 5, n, 6, 0, 0, 0, 1, 0xbb, 0, 0];
    services.elements.push(&key(77), &0u16.to_le_bytes(), "ns/new:https");
    services.elements.push(&key(66), &2u16.to_le_bytes(), "");
    services.elements.push(&key(65), &1u16.to_le_bytes(), "ns/svc:https");
    let names = |loaded: &Loaded| plan(loaded, &wanted).phases.iter().map(|p| p.name).collect::<Vec<_>>();
    same("grow", &names(&read(&mut netlink)?), &vec![PhaseName::Prepare, PhaseName::Switch])?;
    let outcome = apply(&mut netlink, &wanted)?;
    let s = outcome.summary;
    same("added, removed, changed", &(s.added, s.removed, s.changed, s.new_objects), &(4, 1, 1, 1))?;
    is_in_place(&mut netlink, &wanted)?;
    let outcome = apply(&mut netlink, &before)?;
    same("and back", &outcome.phases, &vec![PhaseName::Switch, PhaseName::Clean])?;
    is_in_place(&mut netlink, &before)
}

fn foreign_objects_are_removed() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let text = nft(&["list", "ruleset"])?;
    nft_reads(
        "add chain ip natlet mine { type filter hook input priority 0; }
         add chain ip natlet other
         add rule ip natlet mine tcp dport 22 jump other
         add rule ip natlet prerouting counter accept
         add map ip natlet strange { type ipv4_addr : verdict; elements = { 192.0.2.1 : goto other } }
         add set ip natlet weird { type ether_addr; elements = { 00:00:5e:00:53:01 } }
         add element ip natlet cluster-ips { 192.0.2.9 }
         add element ip natlet pods { 192.0.2.128/25 }
         add element ip natlet services { 192.0.2.9 . udp . 53 : jump other }
         delete element ip natlet services { 192.168.5.66 . tcp . 443 }",
    )?;
    let outcome = apply(&mut netlink, &wanted)?;
    let s = &outcome.summary;
    check(&format!("by small steps: {s:?}"), s.replaced.is_empty())?;
    same("objects", &(s.gone_objects, s.changed_chains, s.added), &(4, 1, 1))?;
    is_in_place(&mut netlink, &wanted)?;
    same("listing", &nft(&["list", "ruleset"])?, &text)
}

fn foreign_tables_are_untouched() -> Result<(), Failed> {
    nft_reads(
        "table inet natlet { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }
         table ip other { chain c { type nat hook prerouting priority -100; tcp dport 80 counter dnat to 192.0.2.2; }; }
         table ip6 natlet2 { map m { type ipv6_addr : verdict; elements = { 2001:db8::1 : drop }; }; }",
    )?;
    let listing = || -> Result<String, Failed> {
        Ok([
            nft(&["-a", "list", "table", "inet", "natlet"])?,
            nft(&["-a", "list", "table", "ip", "other"])?,
            nft(&["-a", "list", "table", "ip6", "natlet2"])?,
        ]
        .concat())
    };
    let before = listing()?;
    let whole = nft(&["-a", "list", "ruleset"])?;
    let mut netlink = load(&fixture::ruleset())?;
    same("after load", &listing()?, &before)?;
    let mut less = fixture::ruleset();
    less.tables.pop();
    apply(&mut netlink, &less)?;
    same("after a change", &listing()?, &before)?;
    check("ip6 natlet is gone", !nft(&["list", "tables"])?.contains("ip6 natlet\n"))?;
    check("there was something to remove", remove(&mut netlink)?)?;
    same("after unload", &nft(&["-a", "list", "ruleset"])?, &whole)
}

fn changed_rules_are_written_anew() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let postrouting = &mut wanted.tables[1].base_chains[1].chain;
    postrouting.rules.swap(1, 2);
    postrouting.rules[0].comment = "untranslated".into();
    let outcome = apply(&mut netlink, &wanted)?;
    same("one chain", &outcome.summary.changed_chains, &1)?;
    is_in_place(&mut netlink, &wanted)?;
    nft(&["flush", "chain", "ip", "natlet", "refuse"])?;
    same("a flushed chain is filled", &apply(&mut netlink, &wanted)?.summary.changed_chains, &1)?;
    is_in_place(&mut netlink, &wanted)
}

fn other_shape_is_replaced() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let listing = nft(&["list", "ruleset"])?;
    for text in [
        "delete table ip natlet; add table ip natlet; add set ip natlet pods { type ether_addr; };",
        "delete table ip natlet; table ip natlet { chain prerouting { type filter hook input priority 3; }; }",
        "delete table ip natlet; table ip natlet { chain refuse { type filter hook input priority 3; }; }",
        "add table ip natlet { flags dormant; }",
        "add element ip natlet services { * : drop }",
    ] {
        nft_reads(text)?;
        let outcome = apply(&mut netlink, &wanted)?;
        same(text, &outcome.summary.replaced.len(), &1)?;
        same("in one transaction", &outcome.phases, &vec![PhaseName::Switch])?;
        is_in_place(&mut netlink, &wanted)?;
        // nft lists tables in the order of their creation.
        let tables = |text: &str| {
            let mut parts: Vec<String> = text.split("\n}\n").map(str::to_owned).collect();
            parts.sort();
            parts
        };
        same(text, &tables(&nft(&["list", "ruleset"])?), &tables(&listing))?;
    }
    Ok(())
}

fn sets_grow() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let endpoints = set_of(&mut wanted, "endpoints");
    endpoints.size = Some(5000);
    for i in 0..4000 {
        let (key, data) = slot(80, i);
        endpoints.elements.push(&key, &data, "");
    }
    let outcome = apply(&mut netlink, &wanted)?;
    check(&format!("by small steps: {outcome:?}"), outcome.summary.replaced.is_empty())?;
    same("phases", &outcome.phases, &vec![PhaseName::Grow, PhaseName::Prepare])?;
    is_in_place(&mut netlink, &wanted)?;
    check("nft sees the size", nft(&["list", "map", "ip", "natlet", "endpoints"])?.contains("size 5000"))?;
    // A full set whose elements all change needs room for both at once.
    let endpoints = set_of(&mut wanted, "endpoints");
    endpoints.elements = endpoints.empty_elements();
    for i in 0..5000 {
        let (key, data) = slot(81, i);
        endpoints.elements.push(&key, &data, "");
    }
    apply(&mut netlink, &wanted)?;
    is_in_place(&mut netlink, &wanted)
}

fn ranges_survive() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    for ranges in [
        // Neighbours, single addresses, the whole space, both its ends.
        &[[0, 0, 0, 0, 9, 255, 255, 255], [10, 0, 0, 0, 10, 0, 0, 255], [10, 0, 1, 0, 10, 0, 1, 7]][..],
        &[[10, 0, 0, 9, 10, 0, 0, 9], [10, 0, 0, 10, 10, 0, 0, 10], [255, 255, 255, 255, 255, 255, 255, 255]],
        &[[0, 0, 0, 0, 255, 255, 255, 255]],
        &[[128, 0, 0, 0, 255, 255, 255, 255], [0, 0, 0, 0, 0, 0, 0, 0]],
        &[],
        &[[10, 0, 0, 0, 10, 255, 255, 255]],
    ] {
        let pods = set_of(&mut wanted, "pods");
        pods.elements = pods.empty_elements();
        for r in ranges {
            pods.elements.push(&r[..4], &r[4..], "range");
        }
        let outcome = apply(&mut netlink, &wanted)?;
        check(&format!("{ranges:?} by small steps: {outcome:?}"), outcome.summary.replaced.is_empty())?;
        is_in_place(&mut netlink, &wanted)?;
        let listing = nft(&["list", "set", "ip", "natlet", "pods"])?;
        same(&listing, &listing.matches("comment \"range\"").count(), &ranges.len())?;
    }
    Ok(())
}

fn refused(result: Result<(), LoadError>) -> Result<String, Failed> {
    match result {
        Err(e @ LoadError::Refused(_)) => Ok(e.to_string()),
        other => Err(format!("not refused: {other:?}").into()),
    }
}

fn errors_name_the_element() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let table = &wanted.tables[0];
    let services = table.sets.iter().find(|s| s.name == "services").expect("the fixture has it");
    let mut other = Set { data: SetData::Verdict(vec![Verdict::Accept]), ..services.clone() };
    other.elements = services.empty_elements();
    let key = |n: u8| [192, 168, 5, n, 6, 0, 0, 0, 1, 0xbb, 0, 0];
    for n in [90, 91, 66, 92] {
        other.elements.push(&key(n), &[0, 0], "x");
    }
    let mut batch = Batch::new(None);
    batch.add_elements(table.place(), &other, &mut other.elements.iter().peekable(), usize::MAX);
    batch.end();
    let text = refused(netlink.send_batch(&batch))?;
    check(&text, text.contains("element 192.168.5.66 . tcp . 443 of map services") && text.contains("EEXIST"))?;
    is_in_place(&mut netlink, &wanted)
}

fn errors_name_the_rule() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    // A rule that names a set that is not there.
    wanted.tables[0].base_chains[1].chain.rules.push(Rule {
        expressions: vec![
            model::Expression::Meta { dreg: model::Register::word(0), key: 16 },
            model::Expression::Lookup {
                set: "nowhere".into(),
                sreg: model::Register::word(0),
                dreg: None,
                inverted: false,
            },
        ],
        comment: String::new(),
    });
    let mut netlink = Netlink::open()?;
    let text = refused(apply(&mut netlink, &wanted).map(|_| ()))?;
    check(&text, text.contains("rule 7 of chain postrouting") && text.contains("ENOENT"))?;
    check(&text, !text.contains("CONFIG"))?;
    same("nothing is left", &nft(&["list", "ruleset"])?, &String::new())?;
    // Masquerade in a filter chain is found at commit, without an offset.
    let mut wanted = fixture::ruleset();
    wanted.tables[0].base_chains.push(BaseChain {
        chain: model::Chain {
            name: "wrong".into(),
            rules: vec![Rule { expressions: vec![model::Expression::Masquerade], comment: String::new() }],
        },
        kind: ChainType::Filter,
        hook: Hook::Forward,
        priority: 0,
    });
    let text = refused(apply(&mut netlink, &wanted).map(|_| ()))?;
    check(&text, text.contains("rule 1 of chain wrong") && text.contains("EOPNOTSUPP"))
}

fn stale_generation_is_said() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let mut batch = Batch::new(Some(1));
    batch.delete_table(wanted.tables[0].place());
    batch.end();
    let result = netlink.send_batch(&batch);
    check(&format!("{result:?}"), matches!(result, Err(LoadError::Stale)))?;
    // With the generation as it is, the same batch goes through; without its end it is a dry run, answered with silence.
    let now = netlink.generation()?;
    batch.insist_on(now);
    netlink.send_batch(&batch)?;
    same("generation", &netlink.generation()?, &(now + 1))?;
    let mut unfinished = Batch::new(None);
    unfinished.delete_table(wanted.tables[1].place());
    let result = netlink.send_batch(&unfinished);
    check(&format!("without an end nothing happens: {result:?}"), matches!(result, Err(LoadError::NoAnswer)))
}

fn others_may_change_the_ruleset_meanwhile() -> Result<(), Failed> {
    nft_reads("add table ip other; add set ip other s { type ipv4_addr; }")?;
    let script = "while :; do nft add element ip other s '{ 192.0.2.1 }'; nft flush set ip other s; done";
    let mut writer = Command::new("sh").args(["-c", script]).spawn()?;
    let (full, mut less) = (fixture::ruleset(), fixture::ruleset());
    let services = set_of(&mut less, "services");
    fixture::without(services, &|e| e.comment.is_empty());
    let result = (|| {
        let mut netlink = Netlink::open()?;
        for _ in 0..100 {
            apply(&mut netlink, &full)?;
            apply(&mut netlink, &less)?;
        }
        is_in_place(&mut netlink, &less)
    })();
    writer.kill()?;
    writer.wait()?;
    result
}

fn short_buffers_split_the_load() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    let endpoints = set_of(&mut wanted, "endpoints");
    endpoints.size = Some(40_000);
    for i in 0..20_000 {
        let (key, data) = slot(80, i);
        endpoints.elements.push(&key, &data, "");
    }
    let mut netlink = Netlink::open()?;
    let current = read(&mut netlink)?;
    let planned = plan(&current, &wanted);
    let batches = planned.phases[0].batches(200_000);
    check(&format!("{} batches", batches.len()), batches.len() > 4)?;
    for batch in &batches {
        check("none is longer", batch.len() <= 200_000)?;
        let mut batch = batch.clone();
        batch.insist_on(netlink.generation()?);
        netlink.send_batch(&batch)?;
    }
    is_in_place(&mut netlink, &wanted)
}

fn table_comment_is_fixed_at_creation() -> Result<(), Failed> {
    let wanted = fixture::ruleset();
    let mut netlink = load(&wanted)?;
    let mut batch = Batch::new(None);
    batch.new_table(&Table { comment: "another".into(), ..wanted.tables[0].clone() }, Ownership::Anyone);
    batch.end();
    // The kernel takes it and changes nothing, so that the generation stays.
    netlink.send_batch(&batch)?;
    same("comment", &read(&mut netlink)?.tables[0].comment, &"natlet".to_owned())?;
    let mut renamed = wanted.clone();
    renamed.tables[0].comment = "another".into();
    is_in_place(&mut netlink, &renamed)
}

fn removes_only_its_own() -> Result<(), Failed> {
    nft_reads("add table ip other; add chain ip other c")?;
    let before = nft(&["list", "ruleset"])?;
    let mut netlink = Netlink::open()?;
    check("nothing to remove", !remove(&mut netlink)?)?;
    let mut only6 = fixture::ruleset();
    only6.tables.remove(0);
    same("family", &only6.tables[0].family, &Family::Ip6)?;
    apply(&mut netlink, &only6)?;
    check("something to remove", remove(&mut netlink)?)?;
    same("listing", &nft(&["list", "ruleset"])?, &before)
}

/// 100,000 endpoints of 33,334 services: how long encoding takes and how long the kernel.
fn bench() -> Result<(), Failed> {
    let mut wanted = fixture::ruleset();
    wanted.tables.pop();
    let endpoints = set_of(&mut wanted, "endpoints");
    endpoints.size = Some(200_000);
    endpoints.elements = endpoints.empty_elements();
    endpoints.elements.reserve(100_000);
    for i in 0..100_000u32 {
        let [_, a, b, c] = (i / 2).to_be_bytes();
        let key = [&[10, a, b, c, 6, 0, 0, 0, 1, 0xbb, 0, 0][..], &(i % 2).to_ne_bytes()].concat();
        endpoints.elements.push(&key, &[172, 16, b, c, 1, 0xbb, 0, 0], "");
    }
    let mut netlink = Netlink::open()?;
    let current = Loaded::default();
    let started = Instant::now();
    let planned = plan(&current, &wanted);
    let plan_time = started.elapsed();
    for _ in 0..5 {
        let started = Instant::now();
        let mut batches = planned.phases[0].batches(netlink.max_batch_len());
        let encode = started.elapsed();
        check("one batch", batches.len() == 1)?;
        let batch = &mut batches[0];
        batch.insist_on(netlink.generation()?);
        let started = Instant::now();
        netlink.send_batch(batch)?;
        let send = started.elapsed();
        let started = Instant::now();
        let loaded = read(&mut netlink)?;
        let read_time = started.elapsed();
        let started = Instant::now();
        let empty = plan(&loaded, &wanted).is_empty();
        let diff = started.elapsed();
        check("in place", empty)?;
        println!(
            "100,000 elements, {} bytes: plan {plan_time:?}, encode {encode:?}, kernel {send:?}, read back {read_time:?}, \
             diff {diff:?}",
            batch.len()
        );
        remove(&mut netlink)?;
    }
    Ok(())
}
