//! The case files in `tests/cases/`: every flow through `natlet trace`, through the core's decision on the compiled
//! program, as packets through the core's translator, and as real connections through the real kernel after `natlet load`.
//! All must say what the file says.
//!
//! The commands are the real ones: with `NATLET_AS_COMMAND=1` this program is `natlet`.

use libtest_mimic::{Arguments, Failed, Trial};
use natlet::image::Image;
use natlet::lab::{self, Listener, Namespace, Plan, Servers, Skip, Topology};
use natlet_core::{Protocol, Verdict};
use natlet_tests::case::{Case, Line};
use natlet_tests::flow::{self, Flow, Outcome};
use natlet_tests::translated;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

/// Fewer flows than this, and something was left out.
const LEAST_FLOWS: usize = 200;

/// What `natlet trace -o json` prints: DESIGN's contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    verdict: String,
    service: Option<String>,
    frontend: Option<String>,
    endpoints: Vec<AnswerEndpoint>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerEndpoint {
    endpoint: SocketAddr,
    probability: f64,
    masquerade: bool,
}

/// What all files together came to.
#[derive(Debug, Default)]
struct Tally {
    /// As the files have them.
    written: usize,
    /// Run again in IPv6.
    moved: usize,
    by_section: BTreeMap<u8, usize>,
    unsent: BTreeMap<String, usize>,
}

fn main() -> ExitCode {
    if std::env::var_os("NATLET_AS_COMMAND").is_some() {
        return natlet::cli::main();
    }
    let arguments = Arguments::from_args();
    let laboratory = lab::enter();
    if let Err(error) = &laboratory {
        eprintln!("{error}");
        assert!(std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1"), "no laboratory, and NATLET_NO_SKIP=1");
        eprintln!("skipped: the kernel's part of every case file");
    }
    let kernel = laboratory.is_ok();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut trials = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a file of tests/cases can be read");
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let twice = Case::read(&text, false).is_ok_and(|case| case.ipv6);
        for ipv6 in [false, true].into_iter().take(if twice { 2 } else { 1 }) {
            let (text, tally) = (text.clone(), Arc::clone(&tally));
            let name = if ipv6 { format!("{name}::ipv6") } else { name.clone() };
            trials.push(Trial::test(name, move || run(&text, ipv6, kernel, &tally)));
        }
    }
    let whole = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    let tally = tally.lock().expect("no trial panicked while counting");
    if whole {
        let Tally { written, moved, by_section, unsent } = &*tally;
        eprintln!("{written} flows and {moved} of them moved to IPv6; by section, as written: {by_section:?}");
        eprintln!("not sent to the kernel: {unsent:?}");
        assert!(*written >= LEAST_FLOWS || conclusion.has_failed(), "the case files hold too few flows");
    }
    if conclusion.has_failed() { ExitCode::from(101) } else { ExitCode::SUCCESS }
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = std::fs::read_dir(directory).expect("tests/cases is there");
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    files.sort();
    files
}

/// Runs a file, and complains about everything in it that is not as it says.
fn run(text: &str, ipv6: bool, kernel: bool, tally: &Mutex<Tally>) -> Result<(), Failed> {
    let case = Case::read(text, ipv6)?;
    let mut expected = Vec::new();
    for line in &case.flows {
        let outcome = line.protocol().and_then(|protocol| Ok((protocol, line.expected()?)));
        expected.push(outcome.map_err(|e| format!("{}: {e}", line.name))?);
    }
    let mut complaints = Vec::new();
    let named = Image::from_bytes(compile(&case, &[])?)?;
    let stripped = Image::from_bytes(compile(&case, &["--strip-names"])?)?;
    for (line, (protocol, outcome)) in case.flows.iter().zip(&expected) {
        let mut complain = |engine: &str, got: String| complaints.push(complaint(line, engine, outcome, &got));
        if let Err(got) = trace(&case, line, *protocol, outcome) {
            complain("trace", got);
        }
        for (engine, image) in [("core", &named), ("core, without names", &stripped)] {
            let program = image.program();
            let packet = program.packet(line.from, line.to.ip(), *protocol, line.to.port());
            let got = Outcome::of(&program.decide(&packet));
            if got != *outcome {
                complain(engine, got.to_string());
            }
        }
        if let Err(got) = translated::check(named.program(), *protocol, line.from, line.to, outcome) {
            complain("translator", got);
        }
    }
    let mut unsent = BTreeMap::new();
    if kernel {
        complaints.extend(through_the_kernel(&case, &named, &expected, &mut unsent)?);
    }
    let mut tally = tally.lock().map_err(|_| "poisoned")?;
    *(if ipv6 { &mut tally.moved } else { &mut tally.written }) += case.flows.len();
    for section in case.sections.iter().filter(|_| !ipv6) {
        *tally.by_section.entry(*section).or_default() += case.flows.len();
    }
    for (why, count) in unsent {
        *tally.unsent.entry(why).or_default() += count;
    }
    if complaints.is_empty() { Ok(()) } else { Err(format!("{}\n{}", case.title, complaints.join("\n")).into()) }
}

fn complaint(line: &Line, engine: &str, expected: &Outcome, got: &str) -> String {
    format!(
        "  {:?}: {} {} -> {}\n    expected {expected}\n    {engine}: {got}",
        line.name, line.proto, line.from, line.to
    )
}

/// Asks the real `natlet trace`; `Err` is what it said instead.
fn trace(case: &Case, line: &Line, protocol: Protocol, expected: &Outcome) -> Result<(), String> {
    let (from, to) = (line.from.to_string(), line.to.to_string());
    let arguments = ["trace", "-o", "json", "--from", &from, "--to", &to, "--proto", protocol.name(), "-"];
    let output = natlet(None, case, &arguments)?;
    let answer: Answer = serde_json::from_slice(&output).map_err(|e| e.to_string())?;
    let endpoints: BTreeMap<_, _> = answer.endpoints.iter().map(|e| (e.endpoint, e.masquerade)).collect();
    let verdicts = [Verdict::Dnat, Verdict::Reject, Verdict::Drop, Verdict::Accept];
    let verdict = verdicts.into_iter().find(|v| v.name() == answer.verdict);
    let sum: f64 = answer.endpoints.iter().map(|e| e.probability).sum();
    let others = [
        (line.service.as_ref().is_none_or(|s| answer.service.as_ref() == Some(s)), "another service"),
        (line.frontend.as_ref().is_none_or(|f| answer.frontend.as_ref() == Some(f)), "another frontend"),
        (line.reason.as_ref().is_none_or(|r| answer.reason.contains(r.as_str())), "another reason"),
        (answer.endpoints.len() == endpoints.len(), "an endpoint twice"),
        (answer.endpoints.is_empty() || (sum - 1.0).abs() < 1e-9, "probabilities that do not add up"),
    ];
    let wrong: Vec<&str> = others.iter().filter(|(right, _)| !right).map(|(_, what)| *what).collect();
    if verdict == Some(expected.verdict) && endpoints == expected.endpoints && wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{} {}", String::from_utf8_lossy(&output).trim(), wrong.join(", ")))
}

fn compile(case: &Case, more: &[&str]) -> Result<Vec<u8>, String> {
    natlet(None, case, &[&["compile", "-", "-o", "-"], more].concat())
}

/// Runs the command with the case's table as its standard input, in a host of the laboratory or outside.
fn natlet(host: Option<&Namespace>, case: &Case, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let start = || -> std::io::Result<std::process::Output> {
        let mut command = Command::new("/proc/self/exe");
        command.env("NATLET_AS_COMMAND", "1").args(arguments).args(case.flags.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(case.table.as_bytes()); // one that ends without reading says why on its own
        }
        child.wait_with_output()
    };
    let output = host.map_or_else(start, |host| host.run(start)).map_err(|e| format!("cannot run natlet: {e}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("natlet {}: {}\n{}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Loads the table into a node of the laboratory and sends the flows.
fn through_the_kernel(
    case: &Case,
    image: &Image,
    expected: &[(Protocol, Outcome)],
    unsent: &mut BTreeMap<String, usize>,
) -> Result<Vec<String>, Failed> {
    let program = image.program();
    let mut sent: Vec<&Line> = Vec::new();
    let mut flows = Vec::new();
    for (line, (protocol, outcome)) in case.flows.iter().zip(expected) {
        let why = match &line.unsendable {
            Some(why) => Some(why.clone()),
            None if *protocol == Protocol::Sctp && !has_sctp() => Some("this kernel has no SCTP sockets".to_owned()),
            None => None,
        };
        if let Some(why) = why {
            *unsent.entry(why).or_default() += 1;
            continue;
        }
        let decision = program.decide(&program.packet(line.from, line.to.ip(), *protocol, line.to.port()));
        sent.push(line);
        flows.push(Flow {
            protocol: *protocol,
            source: line.from,
            destination: line.to,
            expected: outcome.clone(),
            slots: decision.endpoints().map_or(1, |list| list.slots()),
            sticky: false,
        });
    }
    let topology = Topology::build(&plan(case, image, &flows)?)?;
    let _servers = topology.serve(&listeners(&topology, &flows))?;
    let load = || natlet(Some(&topology.node), case, &["load", "-"]);
    load()?;
    let complaints = flow::send(&topology, &flows)?;
    let again = String::from_utf8_lossy(&load()?).into_owned();
    if !again.starts_with("nothing to change") {
        return Err(format!("the same table loaded again: {again}").into());
    }
    or_skip(|| listed(&topology.node))?;
    let told = sent.iter().zip(flows).zip(complaints);
    Ok(told.filter_map(|((line, flow), got)| Some(complaint(line, "kernel", &flow.expected, &got?))).collect())
}

/// The hosts: destinations that are nobody's are given to `backends`, so that what nothing translates is answered there.
fn plan(case: &Case, image: &Image, flows: &[Flow]) -> Result<Plan, String> {
    let program = image.program();
    let mut node: Vec<IpAddr> = program.context().addresses().filter(|a| !a.is_loopback()).collect();
    node.extend(Case::addresses(&case.node_also)?);
    let pods = Case::addresses(&case.pods)?;
    let endpoints: BTreeSet<IpAddr> =
        flows.iter().flat_map(|f| f.expected.endpoints.keys()).map(SocketAddr::ip).collect();
    let elsewhere = |a: &IpAddr| !node.contains(a) && !pods.contains(a) && !a.is_loopback();
    let mut clients: Vec<IpAddr> = flows.iter().map(|f| f.source).filter(|a| !endpoints.contains(a)).collect();
    clients.retain(elsewhere);
    // a host cannot send to an address of its own, so an endpoint's way to its own service must not end at home
    let from_backends: BTreeSet<IpAddr> = flows
        .iter()
        .filter(|f| endpoints.contains(&f.source) && elsewhere(&f.source))
        .map(|f| f.destination.ip())
        .collect();
    let mut hosted: Vec<IpAddr> = flows.iter().map(|f| f.destination.ip()).collect();
    hosted.retain(|a| !from_backends.contains(a) && !clients.contains(a));
    hosted.extend(&endpoints);
    Ok(Plan { node, clients, endpoints: hosted, pods: pods.iter().map(|p| vec![*p]).collect(), avoid: Vec::new() })
}

/// Every endpoint and every destination that some host has.
fn listeners(topology: &Topology, flows: &[Flow]) -> Vec<Listener> {
    let mut all = BTreeSet::new();
    for flow in flows {
        let ends = flow.expected.endpoints.keys().chain([&flow.destination]);
        all.extend(ends.map(|address| (flow.protocol, *address)));
    }
    all.retain(|(_, address)| topology.host_of(address.ip()).is_some());
    all.into_iter().map(|(protocol, address)| Listener { protocol, address }).collect()
}

fn has_sctp() -> bool {
    static SCTP: OnceLock<bool> = OnceLock::new();
    *SCTP.get_or_init(|| {
        let listener = Listener { protocol: Protocol::Sctp, address: SocketAddr::from(([127, 0, 0, 1], 80)) };
        Namespace::new("sctp").and_then(|n| Servers::start(&n, &[listener]).map(drop)).is_ok()
    })
}

/// `nft` survives what is loaded, and prints it.
fn listed(node: &Namespace) -> Result<Result<(), Failed>, Skip> {
    lab::need("nft")?;
    let list = || Command::new("nft").args(["list", "ruleset"]).stdin(File::open("/dev/null")?).output();
    Ok(node.run(list).map_err(Failed::from).and_then(|output| {
        let printed = String::from_utf8_lossy(&output.stdout).contains(" natlet {");
        if output.status.success() && printed {
            Ok(())
        } else {
            Err(format!("nft list ruleset: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
        }
    }))
}

/// A skipped part is printed, not hidden among the passed.
fn or_skip(test: impl FnOnce() -> Result<Result<(), Failed>, Skip>) -> Result<(), Failed> {
    test().unwrap_or_else(|skip| {
        eprintln!("{skip}");
        Ok(())
    })
}
