//! The `natlet` of small machines: built by `cross.sh` for each target, within its budget, and run under user-mode emulation.
//! The same input must give the same program, byte for byte, and the same answers as here.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;

use common::{Test, has, holds, host_natlet, same};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const EXAMPLES: [&str; 2] = ["runtime-linux/examples/workshop", "runtime-linux/examples/services.toml"];

/// A target, what runs its programs here, and the machine that an ELF header names (elf(5), e_machine).
const TARGETS: [(&str, Option<&str>, u8); 3] = [
    ("aarch64-unknown-linux-musl", Some("qemu-aarch64-static"), 183),
    ("armv7-unknown-linux-musleabihf", Some("qemu-arm-static"), 40),
    ("x86_64-unknown-linux-musl", None, 62),
];

fn main() -> ExitCode {
    if let Some(status) = common::as_command() {
        return status;
    }
    if common::has_no_cross_compiler() {
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // the targets are built before the tests, once; one after the other leaves their messages readable
    arguments.test_threads = Some(1);
    if !arguments.list && !build() {
        return ExitCode::FAILURE;
    }
    let trials = TARGETS.iter().flat_map(|&(target, runner, machine)| {
        [
            Trial::test(format!("{target}_is_static_and_stripped"), move || elf(target, machine)),
            Trial::test(format!("{target}_compiles_the_same_programs"), move || programs(target, runner)),
            Trial::test(format!("{target}_gives_the_same_answers"), move || answers(target, runner)),
        ]
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Builds every target. A missing tool is a skip, and each test says so by itself; anything else is a failure.
fn build() -> bool {
    /// `cross.sh` has no tool for it.
    const NO_TOOL: i32 = 3;
    let script = Command::new(format!("{ROOT}/tests/cross.sh"))
        .env("NATLET_NO_INSTALL", "1")
        .stdin(Stdio::null())
        .status()
        .expect("the script starts");
    let strict = std::env::var_os("NATLET_NO_SKIP").is_some_and(|v| v == "1");
    script.success() || (script.code() == Some(NO_TOOL) && !strict)
}

/// The program of a target, if it could be built here.
fn program(target: &str) -> Option<PathBuf> {
    let path = Path::new(ROOT).join("target/cross").join(target).join("small/natlet");
    if !path.exists() {
        eprintln!("skipped: {target} was not built");
    }
    path.exists().then_some(path)
}

/// What `natlet` prints for `target`, run by `runner`.
fn run(program: &Path, runner: Option<&str>, arguments: &[&str]) -> Result<Vec<u8>, Failed> {
    let mut command = match runner {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    let output = command.args(arguments).current_dir(ROOT).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let err = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} {}: {}\n{err}", program.display(), arguments.join(" "), output.status).into())
}

fn elf(target: &str, machine: u8) -> Test {
    let Some(path) = program(target) else { return Ok(()) };
    let bytes = std::fs::read(path)?;
    holds("an ELF file", bytes.starts_with(b"\x7fELF"))?;
    same("its machine", &bytes[18], &machine)?;
    let wide = bytes[4] == 2;
    // e_phoff, e_phentsize and e_phnum; the first word of a program header is its type
    let (offset, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
    let number = |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |n, b| n << 8 | *b as usize);
    let first = number(offset, if wide { 8 } else { 4 });
    const PT_INTERP: usize = 3;
    let kinds: Vec<_> = (0..number(count, 2)).map(|i| number(first + i * number(size, 2), 4)).collect();
    holds("a static program names no interpreter", !kinds.is_empty() && !kinds.contains(&PT_INTERP))?;
    holds("no symbol table", !bytes.windows(8).any(|w| w == b".symtab\0"))
}

fn programs(target: &str, runner: Option<&str>) -> Test {
    let Some(path) = program(target).filter(|_| runner.is_none_or(has)) else { return Ok(()) };
    for example in EXAMPLES {
        let arguments = ["compile", example, "-o", "-"];
        let (there, here) = (run(&path, runner, &arguments)?, host_natlet(ROOT, &arguments)?);
        holds(&format!("{example}: the program differs"), there == here && !here.is_empty())?;
    }
    Ok(())
}

fn answers(target: &str, runner: Option<&str>) -> Test {
    let Some(path) = program(target).filter(|_| runner.is_none_or(has)) else { return Ok(()) };
    for example in EXAMPLES {
        let trace = |to| vec!["trace", "--from", "203.0.113.9", "--to", to, "-o", "json", example];
        for arguments in [
            vec!["show", "-o", "json", example],
            vec!["show", example],
            vec!["export", "--format", "iptables-save", example],
            trace("10.82.0.97:443"),
            trace("192.168.5.65:81"),
            trace("192.0.2.10:443"),
        ] {
            let (there, here) = (run(&path, runner, &arguments)?, host_natlet(ROOT, &arguments)?);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            same(&arguments.join(" "), &text(&there), &text(&here))?;
        }
    }
    let shown: serde_json::Value = serde_json::from_slice(&run(&path, runner, &["show", "-o", "json", EXAMPLES[0]])?)?;
    holds("a content id is shown", shown["content_id"].as_str().is_some_and(|id| id.len() == 32))
}
