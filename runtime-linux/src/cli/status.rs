//! `natlet status`: what is in force in the kernel, and how the agent is that keeps it so.

use super::args::{Output, StatusArgs};
use super::ask;
use super::failure::{Failure, print, print_document};
use crate::kernel::{self, Status};
use crate::netlink::Netlink;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the kernel says, or why it cannot be read.
type Kernel = Result<Option<Status>, String>;
/// What the agent says, or why nothing.
type Agent = Result<Value, String>;

pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    let agent = ask::agent(args.agent, "/status?services=0").and_then(|document| match document.get("healthy") {
        Some(_) => Ok(document),
        None => Err(format!("what answers at {} is no agent of natlet", args.agent)),
    });
    let kernel = Netlink::open().and_then(|mut netlink| kernel::status(&mut netlink));
    let kernel = match (kernel, &agent) {
        (Ok(status), _) => Ok(status),
        // Whoever may not read the kernel's tables still hears what the agent knows.
        (Err(e), Ok(_)) => Err(e.to_string()),
        (Err(e), Err(_)) => return Err(Failure::operation("reading the kernel's tables", e)),
    };
    match args.output {
        Output::Table | Output::Wide => print(&(kernel_text(&kernel) + &agent_text(&agent))),
        Output::Json | Output::Yaml => print_document(&document(&kernel, &agent), args.output),
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `1m 4s`.
fn age(time: SystemTime) -> String {
    let age = SystemTime::now().duration_since(time).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(age)).to_string()
}

fn kernel_text(kernel: &Kernel) -> String {
    let status = match kernel {
        Ok(Some(status)) => status,
        Ok(None) => return "nothing is loaded\n".into(),
        Err(why) => return format!("kernel      {why}\n"),
    };
    let mut out = String::new();
    match &status.about {
        Some(about) if about.since == UNIX_EPOCH => {
            let _ = writeln!(out, "loaded      nobody knows when, from natlet {}'s nft text", about.version);
            let _ = writeln!(out, "content id  {}", about.content_id);
        }
        Some(about) => {
            let (since, age) = (utc(about.since), age(about.since));
            let _ = writeln!(out, "loaded      {since} ({age} ago) by natlet {}", about.version);
            let _ = writeln!(out, "content id  {}", about.content_id);
        }
        None => out.push_str("loaded      a table named natlet that does not say what it holds\n"),
    }
    let _ = match &status.owner {
        Some(owner) => writeln!(out, "owner       {owner}; others cannot change the tables"),
        None => writeln!(out, "owner       none: everybody with CAP_NET_ADMIN can change the tables"),
    };
    for t in &status.tables {
        let _ = writeln!(
            out,
            "table       {} natlet: {} chains, {} rules, {} sets, {} elements",
            t.family, t.chains, t.rules, t.sets, t.elements
        );
    }
    out
}

fn agent_text(agent: &Agent) -> String {
    let agent = match agent {
        Ok(agent) => agent,
        Err(why) => return format!("agent       {why}\n"),
    };
    let text = |at: &str| agent.pointer(at).and_then(Value::as_str);
    let number = |at: &str| agent.pointer(at).and_then(Value::as_u64).unwrap_or_default();
    let since = |at: &str| text(at).and_then(|t| humantime::parse_rfc3339(t).ok()).map_or("?".into(), age);
    let mut out = String::new();
    let health = if agent["healthy"] == true { "in force as wanted" } else { "NOT as wanted" };
    let _ = writeln!(
        out,
        "agent       {health}; natlet {}, process {}, running for {}",
        text("/version").unwrap_or("?"),
        number("/pid"),
        since("/started")
    );
    if agent["wanted_content_id"] != agent["content_id"] {
        let _ = writeln!(out, "wanted      {}", text("/wanted_content_id").unwrap_or("nothing yet"));
    }
    if let (Some(why), Some(outcome)) = (text("/last_sync/why"), text("/last_sync/outcome")) {
        let _ = writeln!(out, "last sync   {} ago, for {why}: {outcome}", since("/last_sync/at"));
    }
    let contested = if agent["drift"]["contested"] == true { "; another program keeps undoing them" } else { "" };
    let _ = writeln!(out, "repairs     {} of what others changed{contested}", number("/drift/repairs"));
    for (name, at) in [("refused", "/refusal"), ("failed", "/failure")] {
        let lines = text(at).unwrap_or_default().lines();
        for (first, line) in std::iter::once(name).chain(std::iter::repeat("")).zip(lines) {
            let _ = writeln!(out, "{first:<12}{line}");
        }
    }
    out
}

/// `2026-11-23T01:21:58Z`.
fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn document(kernel: &Kernel, agent: &Agent) -> Value {
    let mut document = kernel_document(kernel);
    document["agent"] = json!(agent.as_ref().ok());
    document["agent_error"] = json!(agent.as_ref().err());
    document
}

fn kernel_document(kernel: &Kernel) -> Value {
    let status = match kernel {
        Ok(Some(status)) => status,
        Ok(None) => return json!({ "loaded": false }),
        Err(why) => return json!({ "loaded": null, "kernel_error": why }),
    };
    let about = status.about.as_ref();
    let since = about.map(|a| a.since).filter(|since| *since != UNIX_EPOCH);
    json!({
        "loaded": true,
        "content_id": about.map(|a| &a.content_id),
        "version": about.map(|a| &a.version),
        "since": since.map(utc),
        "since_unix": since.map(unix),
        "owner": status.owner.as_ref().map(|o| json!({
            "port": o.port,
            "pid": o.process.as_ref().map(|(pid, _)| pid),
            "name": o.process.as_ref().map(|(_, name)| name),
        })),
        "tables": status.tables.iter().map(|t| json!({
            "family": t.family, "chains": t.chains, "rules": t.rules, "sets": t.sets, "elements": t.elements,
        })).collect::<Vec<_>>(),
    })
}
