//! What the tests of the command share: the command itself, and three hosts for it.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod site;

use libtest_mimic::{Arguments, Failed, Trial};
use natlet::lab::{self, Namespace, Skip};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};

pub type Test = Result<(), Failed>;
/// A test and its name.
pub type Named = (&'static str, fn() -> Test);

/// Set in the environment of a test binary that shall be the `natlet` command.
pub const AS_COMMAND: &str = "NATLET_AS_COMMAND";

/// The `main` of a test binary: the command where asked for, else the tests, in a private network.
pub fn main(tests: &[Named]) -> ExitCode {
    if let Some(status) = as_command() {
        return status;
    }
    let arguments = Arguments::from_args();
    if let Err(error) = lab::enter() {
        eprintln!("{error}");
        assert!(std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1"), "no laboratory, and NATLET_NO_SKIP=1");
        eprintln!("skipped: every test of this file");
        return ExitCode::SUCCESS;
    }
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, test)).collect();
    let status = libtest_mimic::run(&arguments, trials).exit_code();
    let _ = std::fs::remove_dir_all(runtime_directory());
    status
}

/// Whether `run.sh` found that no compiler for small machines can be had here; says so.
pub fn has_no_cross_compiler() -> bool {
    let left_out = std::env::var_os("NATLET_NO_CROSS").is_some_and(|v| v == "1");
    if left_out {
        eprintln!("skipped: no compiler for small machines can be had here (NATLET_NO_CROSS=1)");
    }
    left_out
}

/// Runs the command and gives its exit status, where this process shall be the command.
pub fn as_command() -> Option<ExitCode> {
    std::env::var_os(AS_COMMAND).is_some().then(natlet::cli::main)
}

/// The command as a process that is not started yet.
pub fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test binary has a path"));
    command.env(AS_COMMAND, "1").env("NATLET_RUNTIME_DIR", runtime_directory());
    command
}

/// Where `natlet load` of this process's tests remembers what it loaded.
pub fn runtime_directory() -> PathBuf {
    std::env::temp_dir().join(format!("natlet-tests-{}", std::process::id()))
}

/// Runs the command in this process's own network and `directory`; it must succeed. Returns what it prints.
pub fn host_natlet(directory: &str, arguments: &[&str]) -> Result<Vec<u8>, Failed> {
    let output = command().args(arguments).current_dir(directory).stdin(Stdio::null()).output()?;
    text(&format!("natlet {}", arguments.join(" ")), &output)?;
    Ok(output.stdout)
}

/// Runs the `natlet` command in a host, with `input` as its standard input.
pub fn natlet_with(host: &Namespace, arguments: &[&str], input: &str) -> Output {
    host.run(|| {
        let mut child = command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the test binary runs again");
        // a command that fails early closes its input; its own message says why
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        child.wait_with_output().expect("the command ends")
    })
}

/// Runs the command, which must succeed, and returns its standard output.
pub fn natlet(host: &Namespace, arguments: &[&str], input: &str) -> Result<String, Failed> {
    text(&format!("natlet {}", arguments.join(" ")), &natlet_with(host, arguments, input))
}

/// Runs another tool in a host; it must succeed. A tool that is missing is a skip.
pub fn tool(host: &Namespace, name: &str, arguments: &[&str], input: &str) -> Result<String, Failed> {
    let output = host.run(|| {
        let mut child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    });
    text(&format!("{name} {}", arguments.join(" ")), &output.map_err(|e| format!("{name}: {e}"))?)
}

fn text(what: &str, output: &Output) -> Result<String, Failed> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{what}: {}\n{err}", output.status).into()) }
}

/// Whether a tool is there; says that the test is skipped where it is not.
pub fn has(name: &str) -> bool {
    lab::need(name).map_err(|Skip(reason)| eprintln!("skipped: {reason}")).is_ok()
}

/// A skipped test is printed, not hidden among the passed.
pub fn or_skip(test: impl FnOnce() -> Result<Test, Skip>) -> Test {
    test().unwrap_or_else(|skip| {
        eprintln!("{skip}");
        Ok(())
    })
}

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, expected: &T) -> Test {
    if is == expected { Ok(()) } else { Err(format!("{what}: {is:?}, expected {expected:?}").into()) }
}

pub fn holds(what: &str, condition: bool) -> Test {
    if condition { Ok(()) } else { Err(what.into()) }
}
