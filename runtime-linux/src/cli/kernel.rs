//! `natlet load`, `unload` and `status`.

use super::args::{LoadArgs, Memory, Output, StatusArgs};
use super::failure::{Failure, print};
use super::input;
use crate::kernel::{self, Loader, Remembered, Status, Trust};
use crate::netlink::{LoadError, Netlink};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn load(args: &LoadArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let program = image.program();
    let failed = |e| Failure::operation("loading into the kernel", e);
    let (mut loader, remembered) = loader(&args.memory).map_err(failed)?;
    let outcome = loader.load(&image, Trust::Generation);
    // A directory that cannot be written to costs the next load the time to read back, and nothing else.
    let _ = remembered.map(|r| r.write(loader.left()));
    let outcome = outcome.map_err(failed)?;
    print(&format!("{outcome}; content id {}\n", program.content_id()))
}

/// A loader that knows what the last `natlet load` left, and where that is kept.
pub fn loader(memory: &Memory) -> Result<(Loader, Option<Remembered>), LoadError> {
    let mut loader = Loader::open()?;
    let remembered = Remembered::in_directory(&memory.runtime_dir);
    if !memory.verify {
        loader.take_up(remembered.as_ref().and_then(Remembered::read));
    }
    Ok((loader, remembered))
}

pub fn unload() -> Result<(), Failure> {
    let failed = |e| Failure::operation("unloading from the kernel", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let removed = kernel::unload(&mut netlink).map_err(failed)?;
    print(if removed { "unloaded\n" } else { "nothing was loaded\n" })
}

pub fn status(args: &StatusArgs) -> Result<(), Failure> {
    let failed = |e| Failure::operation("reading the kernel's tables", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let status = kernel::status(&mut netlink).map_err(failed)?;
    match args.output {
        Output::Table | Output::Wide => print(&text(status.as_ref())),
        Output::Json | Output::Yaml => {
            let json = serde_json::to_string_pretty(&document(status.as_ref()));
            print(&format!("{}\n", json.map_err(|e| Failure::operation("writing JSON", e))?))
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn text(status: Option<&Status>) -> String {
    let Some(status) = status else { return "nothing is loaded\n".into() };
    let mut out = String::new();
    match &status.about {
        Some(about) if about.since == UNIX_EPOCH => {
            let _ = writeln!(out, "loaded      nobody knows when, from natlet {}'s nft text", about.version);
            let _ = writeln!(out, "content id  {}", about.content_id);
        }
        Some(about) => {
            let age = SystemTime::now().duration_since(about.since).unwrap_or_default().as_secs();
            let age = humantime::format_duration(Duration::from_secs(age));
            let _ = writeln!(out, "loaded      {} ({age} ago) by natlet {}", utc(about.since), about.version);
            let _ = writeln!(out, "content id  {}", about.content_id);
        }
        None => out.push_str("loaded      a table named natlet that does not say what it holds\n"),
    }
    for t in &status.tables {
        let _ = writeln!(
            out,
            "table       {} natlet: {} chains, {} rules, {} sets, {} elements",
            t.family, t.chains, t.rules, t.sets, t.elements
        );
    }
    out
}

/// `2026-11-23T01:21:58Z`.
fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn document(status: Option<&Status>) -> Value {
    let Some(status) = status else { return json!({ "loaded": false }) };
    let about = status.about.as_ref();
    let since = about.map(|a| a.since).filter(|since| *since != UNIX_EPOCH);
    json!({
        "loaded": true,
        "content_id": about.map(|a| &a.content_id),
        "version": about.map(|a| &a.version),
        "since": since.map(utc),
        "since_unix": since.map(unix),
        "tables": status.tables.iter().map(|t| json!({
            "family": t.family, "chains": t.chains, "rules": t.rules, "sets": t.sets, "elements": t.elements,
        })).collect::<Vec<_>>(),
    })
}
