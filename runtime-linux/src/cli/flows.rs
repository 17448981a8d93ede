//! `natlet trace --flows`: a table held against what is expected of it.

use super::args::{Output, TraceArgs};
use super::failure::{Failure, colour, print, print_document};
use super::input;
use super::trace::{Answer, AnswerEndpoint, answer, packet};
use crate::source::flows::{self, Expectation, Flow, Masquerading};
use natlet_core::{Program, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::path::Path;

/// A flow, what becomes of it, and in what that is not what was expected.
struct Outcome<'f> {
    flow: &'f Flow,
    answer: Answer,
    differences: Vec<Difference>,
}

/// An aspect that differs.
struct Difference {
    aspect: &'static str,
    expected: String,
    is: String,
}

pub fn run(path: &Path, args: &TraceArgs) -> Result<(), Failure> {
    let flows = flows::load(path.to_owned()).map_err(|problems| Failure::Input(problems.render(colour())))?;
    let image = input::read(&args.input)?;
    let program = image.program();
    let outcomes: Vec<Outcome<'_>> = flows.iter().map(|flow| outcome(&program, flow)).collect();
    match args.output {
        Output::Json | Output::Yaml => print_document(&document(&program, &outcomes), args.output)?,
        Output::Table | Output::Wide => print(&text(&outcomes))?,
    }
    match outcomes.iter().filter(|o| !o.differences.is_empty()).count() {
        0 => Ok(()),
        differ => Err(Failure::Operation(format!("error: {differ} of {} flows differ", outcomes.len()))),
    }
}

fn outcome<'f>(program: &Program<'_>, flow: &'f Flow) -> Outcome<'f> {
    let (packet, assumed) = packet(program, flow.from, flow.to, flow.protocol);
    let answer = answer(program, &packet, &program.decide(&packet), assumed);
    let differences = differences(&flow.expect, &answer);
    Outcome { flow, answer, differences }
}

fn differences(expect: &Expectation, answer: &Answer) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |aspect, expected: String, is: String| {
        if expected != is {
            found.push(Difference { aspect, expected, is });
        }
    };
    compare("verdict", expect.verdict.name().into(), answer.verdict.into());
    let none = || "none".to_owned();
    if let Some(service) = &expect.service {
        compare("service", service.clone(), answer.service.clone().unwrap_or_else(none));
    }
    if let Some(frontend) = expect.frontend {
        compare("frontend", frontend.name().into(), answer.frontend.map_or_else(none, str::to_owned));
    }
    if answer.verdict != Verdict::Dnat.name() || expect.verdict != Verdict::Dnat {
        return found;
    }
    let those = |wanted: fn(&AnswerEndpoint) -> bool| -> BTreeSet<String> {
        answer.endpoints.iter().filter(|e| wanted(e)).map(|e| e.endpoint.clone()).collect()
    };
    let all = those(|_| true);
    if let Some(endpoints) = &expect.endpoints {
        compare("endpoints", list(endpoints), list(&all));
    }
    if let Some(masquerade) = &expect.masquerade {
        let expected = match masquerade {
            Masquerading::All => list(&all),
            Masquerading::None => none(),
            Masquerading::These(these) => list(these),
        };
        compare("masqueraded", expected, list(&those(|e| e.masquerade)));
    }
    found
}

/// The items in the order of their text.
fn list<T: Display>(items: &BTreeSet<T>) -> String {
    let mut texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.sort();
    if texts.is_empty() { "none".into() } else { texts.join(", ") }
}

fn text(outcomes: &[Outcome<'_>]) -> String {
    let mut out = String::new();
    for Outcome { flow, answer, differences } in outcomes {
        let name = if flow.name.is_empty() { String::new() } else { format!("{}: ", flow.name) };
        let packet = format!("{name}{} {} -> {}", flow.protocol, flow.from, flow.to);
        if differences.is_empty() {
            let _ = writeln!(out, "ok       {packet} {}", answer.verdict);
            continue;
        }
        let words = |d: &Difference| format!("{} {} (expected {})", d.aspect, d.is, d.expected);
        let words: Vec<String> = differences.iter().map(words).collect();
        let _ = writeln!(out, "DIFFERS  {packet} ({}): {}; {}", flow.place, words.join("; "), answer.reason);
    }
    let right = outcomes.iter().filter(|o| o.differences.is_empty()).count();
    let _ = writeln!(out, "{right} of {} flows as expected", outcomes.len());
    out
}

fn document(program: &Program<'_>, outcomes: &[Outcome<'_>]) -> Value {
    let one = |o: &Outcome<'_>| {
        let differences: Vec<Value> =
            o.differences.iter().map(|d| json!({ "aspect": d.aspect, "expected": d.expected, "is": d.is })).collect();
        json!({
            "name": (!o.flow.name.is_empty()).then_some(&o.flow.name),
            "place": o.flow.place.to_string(),
            "from": o.flow.from.to_string(),
            "to": o.flow.to.to_string(),
            "proto": o.flow.protocol.name(),
            "ok": o.differences.is_empty(),
            "differences": differences,
            "answer": o.answer,
        })
    };
    json!({
        "content_id": program.content_id().to_string(),
        "ok": outcomes.iter().all(|o| o.differences.is_empty()),
        "flows": outcomes.iter().map(one).collect::<Vec<_>>(),
    })
}
