//! What was aimed at, and how far off it is.

use crate::core::{Instructions, Times};
use crate::process::Took;
use crate::report::{Flow, Inside, Loss, Median};
use crate::table::{Size, thousands};
use std::fmt::Write as _;

/// A table of goals.
struct Goals(String);

impl Goals {
    fn new() -> Self {
        Self("| goal | limit | measured | |\n| --- | ---: | ---: | --- |\n".into())
    }

    /// One that is met at `limit` or below it.
    fn at_most(&mut self, goal: &str, limit: f64, measured: Option<f64>, unit: &str) {
        self.add(goal, &format!("≤ {limit}{unit}"), measured, unit, |m| if m <= limit { 1.0 } else { m / limit });
    }

    /// One that is met at `limit` or above it.
    fn at_least(&mut self, goal: &str, limit: f64, measured: Option<f64>, unit: &str) {
        self.add(goal, &format!("≥ {limit}{unit}"), measured, unit, |m| limit / m);
    }

    /// `excess`: 1 or less if it is met.
    fn add(&mut self, goal: &str, limit: &str, measured: Option<f64>, unit: &str, excess: impl Fn(f64) -> f64) {
        let _ = match measured.map(|m| (m, excess(m))) {
            None => writeln!(self.0, "| {goal} | {limit} | not measured | |"),
            Some((m, excess)) if excess <= 1.0 => writeln!(self.0, "| {goal} | {limit} | {}{unit} | met |", number(m)),
            Some((m, excess)) if excess.is_infinite() => {
                writeln!(self.0, "| {goal} | {limit} | {}{unit} | missed |", number(m))
            }
            Some((m, excess)) => {
                writeln!(self.0, "| {goal} | {limit} | {}{unit} | missed by {excess:.2}× |", number(m))
            }
        };
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => thousands(v as u32),
        v if v >= 100.0 || v == 0.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub fn load(medians: &[Median]) -> String {
    let at = |name: &str, size: Size| medians.iter().find(|m| m.name == name && m.size == size).and_then(|m| m.took);
    let natlet = |size| at("natlet, program", size);
    let wall = |t: Took| t.wall.as_secs_f64();
    let base = natlet(Size::HUNDRED_THOUSAND);
    let each = |size: Size| Some(wall(natlet(size)?) / f64::from(size.elements()));
    let growth = |size| Some(each(size)? / each(Size::HUNDRED_THOUSAND)?);
    let text = at("nft -f, natlet's rules", Size::HUNDRED_THOUSAND);
    let mut goals = Goals::new();
    goals.at_most(
        "100,000 elements from a program: wall, of the kernel's share",
        1.3,
        base.map(|t| wall(t) / t.kernel.as_secs_f64()),
        "×",
    );
    goals.at_least(
        "… faster than `nft -f` of natlet's own rules",
        8.0,
        base.zip(text).map(|(t, text)| wall(text) / wall(t)),
        "×",
    );
    goals.at_most("… time in natlet's own code", 20.0, base.map(|t| t.user.as_secs_f64() * 1e3), " ms");
    for (goal, size) in [
        ("250,011 endpoints, an element, of that", Size::MOST_ENDPOINTS),
        ("44,125 services, an element, of that", Size::MOST_SERVICES),
    ] {
        goals.at_most(goal, 3.0, growth(size), "×");
    }
    goals.0
}

pub fn change(all: &[Inside]) -> String {
    let step = |example: &str, size: Size, name: &str| {
        let of_size = all.iter().find(|i| i.example == example && i.size == size);
        of_size.and_then(|i| i.steps.iter().find(|s| s.name == name))
    };
    let size = Size::new(10_000, 100_000);
    let mut goals = Goals::new();
    let send = step("change_time", size, "send");
    goals.at_most("an endpoint moves among 100,000, prepared: p50", 20.0, send.map(|s| s.p50), " us");
    goals.at_most("… p99", 200.0, send.map(|s| s.p99), " us");
    let switch = step("change_time", size, "switch");
    goals.at_most(
        "an endpoint comes or goes, which changes a verdict map of 10,000: p50",
        1000.0,
        switch.map(|s| s.p50),
        " us",
    );
    for (kind, what) in [("toml", "a services.toml"), ("directory", "one of 200 files"), ("program", "a program")] {
        let goal = format!("the agent, from a change of {what} to the kernel, 100,000 endpoints: p50");
        goals.at_most(&goal, 10_000.0, step(kind, size, "whole").map(|s| s.p50), " us");
    }
    goals.0
}

pub fn flows(flows: &[Flow]) -> String {
    let mut goals = Goals::new();
    for (protocol, what) in [("UDP", "a new flow's first datagram"), ("TCP", "a new TCP connection")] {
        for services in [10, 10_000, 44_125] {
            let natlet = |f: &&Flow| (f.name, f.protocol, f.services) == ("natlet", protocol, services);
            let goal = format!("{what} at {} services, of one without NAT", thousands(services));
            goals.at_most(&goal, 1.15, flows.iter().find(natlet).map(|f| f.ratio), "×");
        }
    }
    goals.0
}

pub fn loss(loss: &Loss) -> String {
    let mut goals = Goals::new();
    goals.at_most("new flows lost in 50,000 service changes", 1.0, Some(loss.lost * 50_000.0 / loss.changes), "");
    goals.at_least("… of so many changes", 100_000.0, Some(loss.changes), "");
    goals.at_least("… at new flows a second", 250_000.0, Some(loss.flows_a_second), "");
    goals.at_most("packets past the guard, or to a wrong endpoint", 0.0, Some(loss.past + loss.wrong), "");
    goals.0
}

pub fn instructions(counted: &Instructions) -> String {
    let mut goals = Goals::new();
    for (goal, limit, operation) in [
        ("a look-up that hits, the key in a word, 10,000 frontends", 36.0, "look-up, packed, hit, 10000 frontends"),
        ("… that misses", 36.0, "look-up, packed, miss, 10000 frontends"),
        ("… that hits, in shards", 50.0, "look-up, packed, hit, 100000 frontends"),
        ("… that misses, in shards", 50.0, "look-up, packed, miss, 100000 frontends"),
        ("from address, protocol and port to the endpoint", 55.0, "key to endpoint, 10000 frontends"),
    ] {
        goals.at_most(goal, limit, counted.of(operation), "");
    }
    let packet = counted.of("established, 64 B, 1,000 flows");
    let around = counted.of("the loop around a packet, in all of these");
    let goal = "a packet of an established flow, without the loop around it";
    goals.at_most(goal, 110.0, packet.zip(around).map(|(packet, around)| packet - around), "");
    goals.0
}

pub fn times(times: &Times) -> String {
    let mut goals = Goals::new();
    let of = |a: &[&str], b: &[&str]| Some(times.each(a)? / times.each(b)?);
    let lookup =
        |kind: &str, size: &str| of(&["lookup", kind, "natlet", size], &["lookup", kind, "hashbrown_fx", size]);
    goals.at_most("look-ups that hit among 10,000, of hashbrown with Fx", 1.25, lookup("hit", "10000"), "×");
    let ahead = lookup("half_miss", "10000").map(|ratio| 1.0 / ratio);
    goals.at_least("… of which half miss, ahead of it", 3.0, ahead, "×");
    let goal = "… that depend on each other among 1,000,000, of hashbrown with Fx";
    goals.at_most(goal, 0.6, lookup("hit_dependent", "1000000"), "×");
    let misses = of(&["lookup", "miss", "natlet", "10000"], &["lookup", "hit", "natlet", "10000"]);
    goals.at_most("look-ups that miss, of those that hit", 1.1, misses, "×");
    for (size, text) in [("1000", "1,000"), ("10000", "10,000"), ("100000", "100,000"), ("1000000", "1,000,000")] {
        let goal = format!("compiling {text} frontends with two endpoints, each");
        goals.at_most(&goal, 100.0, times.each(&["compile", "two_endpoints", size]), " ns");
    }
    for (peer, name, bytes, limit) in
        [("Smoltcp", "smoltcp", 64, 2.5), ("Smoltcp", "smoltcp", 1500, 5.0), ("Etherparse", "etherparse", 64, 1.0)]
    {
        for (flows, text) in [(1000, "1,000"), (65_536, "65,536")] {
            let frame = format!("({bytes}, {flows})");
            let place = |who| ["translate", "established", who, &frame];
            let goal = format!("translating {bytes} bytes of {text} flows, ahead of {name}");
            goals.at_least(&goal, limit, of(&place(peer), &place("Natlet")), "×");
        }
    }
    goals.0
}
