//! Large and hostile manifests: memory and time grow with the input and no faster, and what is refused is refused cheaply.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;
#[path = "../runtime-linux/examples/manifest_speed/generate.rs"]
mod generate;

use common::{Test, command};
use generate::Plan;
use std::io::{Read as _, Write as _};
use std::process::{ExitCode, Stdio};
use std::thread;

fn main() -> ExitCode {
    if std::env::var_os(MEASURED).is_some() {
        return measured();
    }
    common::main(&[
        ("time_and_memory_grow_with_the_input", time_and_memory_grow_with_the_input),
        ("all_forms_give_the_same_program", all_forms_give_the_same_program),
        ("bombs_are_refused_cheaply", bombs_are_refused_cheaply),
        ("endless_values_are_refused_while_they_are_read", endless_values_are_refused_while_they_are_read),
    ])
}

/// Set for a command that shall say at its end what it took.
const MEASURED: &str = "NATLET_MEASURED";

/// Runs the command and adds its peak memory in kB and its processor time in nanoseconds to standard error.
fn measured() -> ExitCode {
    let status = natlet::cli::main();
    let of_self = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).expect("a process knows itself");
    let peak = of_self("status").lines().find_map(|l| l.strip_prefix("VmHWM:").map(str::to_owned)).expect("VmHWM");
    let time = of_self("schedstat").split(' ').next().expect("a first field").to_owned();
    eprintln!("\n{} {time}", peak.trim_end_matches("kB").trim());
    status
}

/// What a command took and said.
struct Run {
    status: i32,
    said: String,
    peak: u64,
    seconds: f64,
}

/// `natlet compile -` with this input, repeated.
fn compile(head: &str, repeated: &str, times: usize) -> Run {
    let mut child = command()
        .env(MEASURED, "1")
        .args(["compile", "-", "-o", "/dev/null"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test binary runs again");
    let mut input = child.stdin.take().expect("a pipe");
    let mut errors = child.stderr.take().expect("a pipe");
    let said = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut said = String::new();
            errors.read_to_string(&mut said).map(|_| said)
        });
        // a command that refuses its input closes it early
        let block = repeated.repeat((64 * 1024 / repeated.len().max(1)).clamp(1, times.max(1)));
        let _ = input.write_all(head.as_bytes()).and_then(|()| {
            (0..times * repeated.len() / block.len().max(1)).try_for_each(|_| input.write_all(block.as_bytes()))
        });
        drop(input);
        reader.join().expect("no panic").expect("text")
    });
    let status = child.wait().expect("it ends").code().expect("no signal");
    let (said, took) = said.trim_end().rsplit_once('\n').expect("what it took");
    let (peak, time) = took.split_once(' ').expect("two numbers");
    Run {
        status,
        said: said.trim().to_owned(),
        peak: peak.parse::<u64>().expect("kB") * 1024,
        seconds: time.parse::<f64>().expect("nanoseconds") / 1e9,
    }
}

/// A form of input, by name.
type Form = (&'static str, fn(Plan) -> String);

const FORMS: [Form; 3] = [("json", generate::json), ("compact json", generate::compact_json), ("yaml", generate::yaml)];

fn plan(services: u32) -> Plan {
    Plan { services, endpoints: 10, managed_fields: services % 2 == 1 }
}

fn time_and_memory_grow_with_the_input() -> Test {
    for (name, form) in FORMS {
        let texts = [form(plan(300)), form(plan(3_000))];
        let [small, large] = [compile(&texts[0], "", 0), compile(&texts[1], "", 0)];
        assert_eq!((small.status, large.status), (0, 0), "{name}: {} {}", small.said, large.said);
        let bytes = texts[1].len() as f64;
        let ratio = large.peak as f64 / bytes;
        let grown = (large.peak - small.peak) as f64 / (bytes - texts[0].len() as f64);
        println!(
            "{name}: {bytes} bytes, peak {ratio:.2} x, {grown:.2} bytes a byte, {:.1} MB/s",
            bytes / 1e6 / large.seconds
        );
        assert!(grown < 3.0, "{name}: {grown} bytes of memory for each byte more");
        assert!(large.seconds < 15.0 * small.seconds, "{name}: {} s, then {} s", small.seconds, large.seconds);
    }
    Ok(())
}

fn all_forms_give_the_same_program() -> Test {
    let ids: Vec<String> = FORMS
        .iter()
        .flat_map(|(_, form)| [Plan { managed_fields: true, ..plan(40) }, plan(40)].map(form))
        .map(|text| compile(&text, "", 0).said)
        .collect();
    assert!(ids[0].contains("40 service ports, 40 frontends, 400 endpoints"), "{}", ids[0]);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:#?}");
    Ok(())
}

/// Refused as bad input, with this message, within 64 MB and a second.
fn refused(what: &str, run: &Run, message: &str) {
    println!("{what}: {} MB, {:.3} s", run.peak / 1_000_000, run.seconds);
    assert_eq!(run.status, 2, "{what}: {}", run.said);
    assert!(run.said.contains(message), "{what}: {}", run.said);
    assert!(run.said.len() < 4_000, "{what}: a message of {} bytes", run.said.len());
    assert!(run.peak < 64_000_000, "{what} took {} bytes", run.peak);
    assert!(run.seconds < 1.0, "{what} took {} s", run.seconds);
}

fn bombs_are_refused_cheaply() -> Test {
    let mut laughs = "kind: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{list}]\n");
    }
    refused("a billion laughs", &compile(&laughs, "", 0), "anchors and aliases repeat more than 100000 values");
    let long = format!("kind: x\na: &a \"{}\"\nb: [{}]\n", "x\\n".repeat(500_000), ["*a"; 100_000].join(", "));
    refused("a long text a hundred thousand times", &compile(&long, "", 0), "anchors and aliases repeat more than");
    for depth in [1_000, 100_000] {
        for (what, head, opening, message) in [
            ("lists in YAML", "kind: x\na:\n", "- ", "nested deeper than 64 levels"),
            ("lists in flow", "kind: x\na: ", "[", "recursion limit exceeded"),
            ("maps in flow", "kind: x\na: ", "{a: ", "nested deeper than 64 levels"),
            ("maps in JSON", "", "{\"a\":", "JSON syntax"),
            ("maps in managedFields", "{\"managedFields\":", "{\"a\":", "JSON syntax"),
        ] {
            refused(&format!("{depth} {what}"), &compile(head, opening, depth), message);
        }
    }
    Ok(())
}

fn endless_values_are_refused_while_they_are_read() -> Test {
    let message = "4 MiB of it hold no key or no line break";
    for (what, head, repeated) in [
        ("a plain scalar", "apiVersion: v1\nkind: Service\nspec: ", "a"),
        ("a quoted scalar", "apiVersion: v1\nkind: Service\nspec: \"", "key: value\\n "),
        ("a literal text", "apiVersion: v1\nkind: Service\nspec: |\n", "  aaaaaaaaaaaa\n"),
        ("a JSON string", "{\"apiVersion\": \"v1\", \"kind\": \"", "a:"),
        ("brackets", "kind: ", "["),
        ("blanks", "", " "),
    ] {
        refused(what, &compile(head, repeated, 100_000_000 / repeated.len()), message);
    }
    Ok(())
}
