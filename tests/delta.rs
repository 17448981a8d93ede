//! One program after another: only the difference is sent, nothing is read back while nobody else changed anything, and
//! whatever somebody did change is found.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;
#[path = "common/large.rs"]
mod large;

use common::{Test, has, holds, natlet, natlet_with, runtime_directory, same, tool};
use libtest_mimic::Failed;
use natlet::image::Image;
use natlet::kernel::{self, Loader, Terms, Trust};
use natlet::lab::Namespace;
use natlet::lower::lower;
use natlet::netlink::{LoadError, Netlink, Traffic};
use natlet::nft::diff::plan;
use natlet::nft::model::{Family, Ownership, Table};
use natlet::nft::read::{read, read_expecting};
use natlet::nft::wire::{Batch, Place};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::main(&[
        ("each_program_after_each_other_is_as_if_loaded_alone", each_after_each_other),
        ("some_services_ahead_of_their_program_are_as_the_whole_says", some_services_ahead),
        ("a_change_among_10_000_services_is_a_few_hundred_bytes", a_change_is_small),
        ("what_others_change_between_two_loads_is_repaired", what_others_change_is_repaired),
        ("a_memory_that_does_not_fit_is_ignored", a_memory_that_does_not_fit_is_ignored),
        ("verify_reads_everything", verify_reads_everything),
        ("a_race_with_another_program_is_tried_again", a_race_is_tried_again),
        ("who_hears_of_a_change_reads_everything", who_hears_of_a_change_reads_everything),
        ("a_set_grows_step_by_step", a_set_grows_step_by_step),
        ("a_large_set_is_compared_by_key", a_large_set_is_compared_by_key),
        ("status_counts_what_is_there", status_counts_what_is_there),
    ])
}

/// What differs between the kernel and a program, all read back: nothing, after a load.
fn differences(loader: &mut Loader, image: &Image) -> Result<Vec<String>, LoadError> {
    let loaded = read(loader.netlink())?;
    let about = kernel::about(loader.netlink())?.map(|a| a.to_string()).unwrap_or_default();
    let wanted = lower(&image.program(), &about);
    let plan = plan(&loaded, &wanted);
    let elements =
        plan.element_changes().map(|c| format!("{} {}: {:?}, {:?}", c.set(), c.key(), c.old_data(), c.new_data()));
    Ok(elements.chain(plan.phases.iter().map(|p| format!("{:?}", p.name))).collect())
}

/// A table of services with everything that a service can have, by a number.
fn variant(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut text = String::from("[node]\nip = [\"192.0.2.1\", \"2001:db8::1\"]\n");
    if random(2) == 0 {
        text += "cluster-cidr = [\"10.0.0.0/8\", \"2001:db8:1::/48\"]\n";
    }
    if random(3) == 0 {
        text += "service-cidr = [\"172.30.0.0/16\"]\nmasquerade-all = true\n";
    }
    let ipv6 = random(2) == 0;
    for i in 0..24 {
        if random(4) == 0 {
            continue;
        }
        let protocol = ["tcp", "udp", "sctp"][random(3) as usize];
        let _ = write!(text, "[[service]]\nname = \"n/s{i}\"\nprotocol = \"{protocol}\"\nport = 80\n");
        let second = if ipv6 && random(3) == 0 { format!(", \"2001:db8:2::{i}\"") } else { String::new() };
        // two service ports may share a ClusterIP, and endpoints an address
        let _ = writeln!(text, "cluster-ip = [\"172.30.0.{}\"{second}]", i + 1);
        if random(3) == 0 {
            let _ = writeln!(text, "node-port = {}", 30000 + i);
        }
        if random(3) == 0 {
            let _ = writeln!(text, "load-balancer = [\"198.51.100.{}\"]", i + 1);
            if random(2) == 0 {
                text += "source-ranges = [\"192.0.2.0/24\", \"203.0.113.0/25\"]\n";
            }
        }
        text += ["", "", "affinity = \"90s\"\n", "affinity = true\n", "choice = \"source-hash\"\n"][random(5) as usize];
        text += ["", "external-policy = \"local\"\n", "internal-policy = \"local\"\n"][random(3) as usize];
        text += "endpoints = [";
        for e in 0..random(5) {
            let (host, weight, local) = (1 + e + 5 * random(8), 1 + random(2), random(2) == 0);
            let _ = write!(text, "{{ address = \"10.0.0.{host}:8{i:02}\", weight = {weight}, local = {local} }}, ");
        }
        if !second.is_empty() {
            let _ = write!(text, "\"[2001:db8:1::{}]:80\", ", 1 + random(9));
        }
        text += "]\n";
    }
    text
}

/// Bytes from the kernel below which not everything was read back: that takes more than 60,000 here.
const ALL: usize = 10_000;

fn each_after_each_other() -> Test {
    let host = Namespace::new("node")?;
    let images = (0..9).map(|n| large::image(&variant(n))).collect::<Result<Vec<_>, _>>()?;
    host.run(|| {
        let mut loader = Loader::open()?;
        loader.load(&images[0], Terms::default(), Trust::Nothing)?;
        let mut quickly = 0;
        for (i, before) in images.iter().enumerate() {
            for (j, image) in images.iter().enumerate() {
                for image in [before, image] {
                    let sent = loader.netlink().traffic();
                    let outcome = loader.load(image, Terms::default(), Trust::Generation)?;
                    quickly += usize::from(received(&mut loader, sent) < ALL && !outcome.phases.is_empty());
                    same(&format!("{i} then {j}: {outcome}"), &differences(&mut loader, image)?, &Vec::new())?;
                    loader.load(image, Terms::default(), Trust::Generation)?;
                }
            }
        }
        // those after which objects were the same: else they are read once more
        holds(&format!("{quickly} of them without reading back"), quickly > 0)
    })
}

fn received(loader: &mut Loader, before: Traffic) -> usize {
    loader.netlink().traffic().received - before.received
}

/// A table's services with other endpoints, from the number of one on; the other services alone are the third text.
fn endpoints_changed(text: &str, from: usize) -> [String; 2] {
    let (mut whole, mut some) = (String::new(), String::new());
    for (index, part) in text.split_inclusive("\n[[service]]").enumerate() {
        let part = part.strip_suffix("[[service]]").unwrap_or(part);
        let moved = part.replace("\"10.0.0.", "\"10.0.1.").replace("[2001:db8:1::", "[2001:db8:1::1:");
        if index == 0 {
            (whole.push_str(part), some.push_str(part));
        } else {
            whole += &format!("[[service]]{}", if index >= from { &moved } else { part });
            some += &if index >= from { format!("[[service]]{moved}") } else { String::new() };
        }
    }
    [whole, some]
}

/// The names of a table's services.
fn names(text: &str) -> Vec<String> {
    text.split("name = \"").skip(1).filter_map(|rest| Some(rest.split('"').next()?.to_owned())).collect()
}

/// Services with other endpoints are put in force alone, then their whole program, or the one before again: each time the
/// kernel holds what it is to hold.
fn some_services_ahead() -> Test {
    let host = Namespace::new("node")?;
    let mut in_force = 0;
    for number in 0..12_u64 {
        let text = variant(number).replace("affinity = \"90s\"\n", "").replace("affinity = true\n", "");
        let count = names(&text).len();
        let [whole, some] = endpoints_changed(&text, 1 + count / 2);
        let (old, new, some_image) = (large::image(&text)?, large::image(&whole)?, large::image(&some)?);
        let concerned = names(&some);
        let is_one = |name: &str| concerned.iter().any(|c| c == name);
        host.run(|| {
            let mut loader = Loader::open()?;
            for last in [&new, &old] {
                // the second time objects are known
                for _ in 0..2 {
                    loader.load(&old, Terms::default(), Trust::Nothing)?;
                }
                let ahead = loader.load_ahead(&some_image, &is_one, Terms::default(), Trust::Generation)?;
                let done = ahead.as_ref().is_some_and(|outcome| !outcome.phases.is_empty());
                in_force += usize::from(done);
                if ahead.is_some() {
                    let loaded = read(loader.netlink())?;
                    let about = kernel::about(loader.netlink())?.map(|a| a.to_string()).unwrap_or_default();
                    let wanted = lower(&new.program(), &about);
                    let plan = plan(&loaded, &wanted);
                    let elements: Vec<String> =
                        plan.element_changes().map(|c| format!("{} {}", c.set(), c.key())).collect();
                    same(&format!("{number}: elements ahead"), &elements, &Vec::new())?;
                }
                let before = loader.netlink().traffic();
                let trust = if std::ptr::eq(last, &new) { Trust::Generation } else { Trust::Nothing };
                let outcome = loader.load(last, Terms::default(), trust)?;
                if done && std::ptr::eq(last, &new) {
                    holds(&format!("{number}: {outcome}"), received(&mut loader, before) < ALL)?;
                    let ahead = ahead.unwrap_or_default().summary;
                    holds("what was done ahead is told", outcome.summary.changed > ahead.changed)?;
                }
                same(&format!("{number}: {outcome}"), &differences(&mut loader, last)?, &Vec::new())?;
            }
            Ok::<(), Failed>(())
        })?;
    }
    holds(&format!("{in_force} ahead"), in_force >= 12)
}

fn a_change_is_small() -> Test {
    let host = Namespace::new("node")?;
    let images = [large::program(10_000, 5, 200)?, large::program(10_000, 5, 201)?];
    host.run(|| {
        let mut loader = Loader::open()?;
        let first = loader.load(&images[0], Terms::default(), Trust::Generation)?;
        same("elements of the first load", &first.summary.added, &(10_000 * (5 + 1 + 1 + 5) + 3))?;
        for turn in 1..=4 {
            let before = loader.netlink().traffic();
            let outcome = loader.load(&images[turn % 2], Terms::default(), Trust::Generation)?;
            let (sent, received) = (loader.netlink().traffic().sent - before.sent, received(&mut loader, before));
            // the endpoint's slot and the note of what is loaded are changed, and its hairpin pair is another one
            let summary = &outcome.summary;
            same("elements", &(summary.added, summary.changed, summary.removed), &(1, 2, 1))?;
            same("transactions", &outcome.transactions, &2)?;
            holds(&format!("{} bytes in transactions", outcome.bytes), outcome.bytes < 700)?;
            // the first time the objects are read, but no elements
            let limit = if turn == 1 { 32_768 } else { 1024 };
            holds(&format!("turn {turn}: {sent} bytes sent, {received} received"), sent < 2048 && received < limit)?;
        }
        same("differences", &differences(&mut loader, &images[0])?, &Vec::new())
    })
}

const TABLE: &str = "[[service]]\nname = \"shop/web\"\nport = 80\ncluster-ip = \"172.30.0.1\"\n\
                     endpoints = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n\
                     [[service]]\nname = \"shop/log\"\nport = 81\ncluster-ip = \"172.30.0.2\"\nendpoints = [\"10.0.0.3:80\"]\n";

fn moved(table: &str) -> String {
    table.replace("10.0.0.3", "10.0.0.4")
}

/// The kernel holds exactly what a table says.
fn is_in_force(host: &Namespace, table: &str) -> Test {
    let output = natlet_with(host, &["diff", "--verify", "-"], table);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    holds(&text, output.status.code() == Some(0))
}

fn what_others_change_is_repaired() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = Namespace::new("node")?;
    natlet(&host, &["load", "-"], TABLE)?;
    for damage in [
        "delete element ip natlet endpoints { 172.30.0.1 . tcp . 80 . 0 }",
        // as many elements as before, and none that the next load changes
        "delete element ip natlet endpoints { 172.30.0.1 . tcp . 80 . 0 }; \
         add element ip natlet endpoints { 172.30.0.1 . tcp . 80 . 0 : 192.0.2.66 . 666 }",
        "add element ip natlet cluster-ips { 192.0.2.77 }",
        "flush chain ip natlet prerouting",
        "insert rule ip natlet prerouting accept",
        "delete table ip natlet",
    ] {
        for table in [moved(TABLE), TABLE.into()] {
            tool(&host, "nft", &["-f", "-"], damage)?;
            natlet(&host, &["load", "-"], &table)?;
            is_in_force(&host, &table).map_err(|e| format!("{damage}: {}", e.message().unwrap_or_default()))?;
        }
    }
    // what is no change of natlet's tables changes nothing
    tool(&host, "nft", &["add", "table", "ip", "other"], "")?;
    let said = natlet(&host, &["load", "-"], TABLE)?;
    holds(&said, said.starts_with("nothing to change"))
}

/// The file in which `natlet load` remembers what is in a host.
fn memory(host: &Namespace) -> Result<PathBuf, Failed> {
    let number =
        host.run(|| fs::metadata("/proc/thread-self/ns/net").map(|m| std::os::unix::fs::MetadataExt::ino(&m)))?;
    Ok(runtime_directory().join(format!("loaded-in-net-{number}")))
}

fn a_memory_that_does_not_fit_is_ignored() -> Test {
    let host = Namespace::new("node")?;
    let other = moved(TABLE);
    natlet(&host, &["load", "-"], TABLE)?;
    let path = memory(&host)?;
    let old = fs::read(&path)?;
    natlet(&host, &["load", "-"], &other)?;
    let new = fs::read(&path)?;
    let changed = |at: usize| {
        let mut bytes = new.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        ("of an earlier load", old.clone()),
        ("cut off", new[..new.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("no text", vec![0xff; 4096]),
        ("with a digit of its digest changed", changed(3)),
        ("with its head changed", changed(70)),
        ("with its program changed", changed(new.len() - 9)),
    ];
    for (what, bytes) in damaged {
        fs::write(&path, &bytes)?;
        // believed, the first would say that nothing has to be changed
        let said = natlet(&host, &["load", "-"], TABLE)?;
        holds(&format!("a memory {what}: {said}"), said.starts_with("1 elements added, 2 changed, 1 removed"))?;
        is_in_force(&host, TABLE)?;
        natlet(&host, &["load", "-"], &other)?;
        is_in_force(&host, &other)?;
    }
    fs::remove_file(&path)?;
    natlet(&host, &["load", "-"], TABLE)?;
    is_in_force(&host, TABLE)?;
    // a directory that cannot be written to
    let said = natlet(&host, &["load", "--runtime-dir", "/proc/natlet", "-"], &other)?;
    holds(&said, said.starts_with("1 elements added"))?;
    is_in_force(&host, &other)
}

fn verify_reads_everything() -> Test {
    let host = Namespace::new("node")?;
    let big = large::table(1000, 5, 200);
    natlet(&host, &["load", "-"], &big)?;
    let images = [large::image(&big)?, large::program(1000, 5, 201)?];
    host.run(|| {
        let mut loader = Loader::open()?;
        for (trust, read_back) in [(Trust::Nothing, true), (Trust::Generation, false), (Trust::Nothing, true)] {
            let before = loader.netlink().traffic();
            loader.load(&images[usize::from(!read_back)], Terms::default(), trust)?;
            let received = received(&mut loader, before);
            holds(&format!("{received} bytes were read"), (received > 100_000) == read_back)?;
        }
        Ok(())
    })
}

/// Adds or deletes a table that is not natlet's.
fn disturb(netlink: &mut Netlink, there: bool) -> Result<(), LoadError> {
    let (family, name) = (Family::Ip, "other");
    let mut batch = Batch::new(None);
    if there {
        batch.delete_table(Place { family, table: name });
    } else {
        batch.new_table(
            &Table {
                family,
                name: name.into(),
                comment: String::new(),
                sets: Vec::new(),
                chains: Vec::new(),
                base_chains: Vec::new(),
            },
            Ownership::Anyone,
        );
    }
    batch.end();
    netlink.send_batch(&batch)
}

fn a_race_is_tried_again() -> Test {
    let host = Namespace::new("node")?;
    let images = [large::program(1000, 5, 200)?, large::program(1000, 5, 201)?];
    host.run(|| {
        let (mut loader, mut other) = (Loader::open()?, Netlink::open()?);
        loader.load(&images[0], Terms::default(), Trust::Nothing)?;
        let (mut asked, mut there) = (0, false);
        let before = loader.netlink().traffic();
        // the generation was read when this is asked: the first two transactions that follow are refused
        let mut hears_nothing = || {
            asked += 1;
            if asked <= 2 {
                disturb(&mut other, there).expect("another program may change its table");
                there = !there;
            }
            true
        };
        let outcome = loader.load(&images[1], Terms::default(), Trust::Hearing(&mut hears_nothing))?;
        same("times asked", &asked, &3)?;
        holds(&format!("{outcome}"), outcome.summary.changed == 2)?;
        let received = received(&mut loader, before);
        holds(&format!("{received} bytes were read"), received < 40_000)?;
        same("differences", &differences(&mut loader, &images[1])?, &Vec::new())?;
        // somebody who never stops: everything is read, and that is tried again too
        let mut hears_nothing = || {
            disturb(&mut other, there).expect("another program may change its table");
            there = !there;
            true
        };
        loader.load(&images[0], Terms::default(), Trust::Hearing(&mut hears_nothing))?;
        same("differences", &differences(&mut loader, &images[0])?, &Vec::new())
    })
}

fn who_hears_of_a_change_reads_everything() -> Test {
    let host = Namespace::new("node")?;
    let (first, second) = (large::image(TABLE)?, large::image(&moved(TABLE))?);
    host.run(|| {
        let mut loader = Loader::open()?;
        loader.load(&first, Terms::default(), Trust::Nothing)?;
        // somebody deletes an element that the change does not touch
        let wanted = lower(&first.program(), "");
        let table = &wanted.tables[0];
        let set = table.sets.iter().find(|s| s.name == "endpoints").ok_or("no endpoints")?;
        let victim = (0..set.elements.len()).map(|i| set.elements.get(i)).find(|e| e.key.starts_with(&[172, 30, 0, 1]));
        let mut batch = Batch::new(None);
        batch.delete_elements(table.place(), set, &mut victim.into_iter().peekable(), usize::MAX);
        batch.end();
        Netlink::open()?.send_batch(&batch)?;
        loader.load(&second, Terms::default(), Trust::Hearing(&mut || false))?;
        same("differences", &differences(&mut loader, &second)?, &Vec::new())
    })
}

/// More and more services: sets are made larger on the way, and nothing is read back but after that.
fn a_set_grows_step_by_step() -> Test {
    let host = Namespace::new("node")?;
    let images = (1..=14).map(|n| large::program(n * 60, 3, 200)).collect::<Result<Vec<_>, _>>()?;
    host.run(|| {
        let mut loader = Loader::open()?;
        loader.load(&images[0], Terms::default(), Trust::Nothing)?;
        let mut grown = 0;
        for image in images.iter().chain(images.iter().rev()) {
            let outcome = loader.load(image, Terms::default(), Trust::Generation)?;
            grown += usize::from(outcome.phases.contains(&natlet::nft::diff::PhaseName::Grow));
            same("replaced", &outcome.summary.replaced, &Vec::new())?;
            same("differences", &differences(&mut loader, image)?, &Vec::new())?;
        }
        holds(&format!("sets grew {grown} times"), (1..=6).contains(&grown))
    })
}

fn a_large_set_is_compared_by_key() -> Test {
    let host = Namespace::new("node")?;
    let image = large::program(3200, 50, 200)?;
    host.run(|| {
        let mut loader = Loader::open()?;
        loader.load(&image, Terms::default(), Trust::Nothing)?;
        let about = kernel::about(loader.netlink())?.map(|a| a.to_string()).unwrap_or_default();
        let wanted = lower(&image.program(), &about);
        let table = &wanted.tables[0];
        let set = table.sets.iter().find(|s| s.name == "endpoints").ok_or("no endpoints")?;
        holds("a large set", set.elements.len() == 160_000)?;
        let by_key = read_expecting(loader.netlink(), &wanted)?;
        holds("as it is wanted", plan(&by_key, &wanted).is_empty())?;
        let mut netlink = Netlink::open()?;
        let mut damage = |delete: &[usize], add: &[(usize, usize)]| {
            let mut batch = Batch::new(None);
            let mut gone = delete.iter().map(|&i| set.elements.get(i)).peekable();
            batch.delete_elements(table.place(), set, &mut gone, usize::MAX);
            let mut other = set.empty_elements();
            for &(key, data) in add {
                other.push(set.elements.get(key).key, set.elements.get(data).data, "");
            }
            batch.add_elements(table.place(), set, &mut other.iter().peekable(), usize::MAX);
            batch.end();
            netlink.send_batch(&batch)
        };
        // some that are gone, in the middle and at the end; one that leads elsewhere
        damage(&[5, 6, 70_000, 159_999], &[])?;
        same("missing", &loader.load(&image, Terms::default(), Trust::Nothing)?.summary.added, &4)?;
        damage(&[1234], &[(1234, 99_999)])?;
        let read = read_expecting(loader.netlink(), &wanted)?;
        let found: Vec<_> = plan(&read, &wanted).element_changes().map(|c| c.old_data() != c.new_data()).collect();
        same("changed", &found, &vec![true])?;
        same("changed", &loader.load(&image, Terms::default(), Trust::Nothing)?.summary.changed, &1)?;
        same("differences", &differences(&mut loader, &image)?, &Vec::new())
    })
}

fn status_counts_what_is_there() -> Test {
    let host = Namespace::new("node")?;
    for number in 0..6 {
        let image = large::image(&variant(number))?;
        host.run(|| {
            let mut loader = Loader::open()?;
            loader.load(&image, Terms::default(), Trust::Nothing)?;
            let status = kernel::status(loader.netlink())?.ok_or("nothing is loaded")?;
            let counted: Vec<usize> = status.tables.iter().map(|t| t.elements).collect();
            let wanted = lower(&image.program(), "");
            let lens = |t: &Table| t.sets.iter().map(|s| s.elements.len()).sum();
            same("elements", &counted, &wanted.tables.iter().map(lens).collect::<Vec<usize>>())
        })?;
    }
    Ok(())
}
