//! The library on other processors, with this machine's kernel: an emulated program that inherits a netfilter socket gives
//! the kernel the same tables as the command here does, and takes them away again.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;

use common::{Test, has, holds, natlet, same, tool};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const EXAMPLES: [&str; 2] = ["runtime-linux/examples/workshop", "runtime-linux/examples/services.toml"];

fn main() -> ExitCode {
    if common::has_no_cross_compiler() {
        return ExitCode::SUCCESS;
    }
    common::main(&[
        ("aarch64_gives_the_kernel_the_same_tables", || {
            same_tables("aarch64-unknown-linux-musl", "qemu-aarch64-static")
        }),
        ("armv7_gives_the_kernel_the_same_tables", || same_tables("armv7-unknown-linux-musleabihf", "qemu-arm-static")),
    ])
}

/// Builds the example; `None`, which is a skip, where a tool is missing.
fn program(target: &str) -> Result<Option<PathBuf>, Failed> {
    const NO_TOOL: i32 = 3;
    let build = Command::new(format!("{ROOT}/tests/cross.sh"))
        .args(["--cargo", target, "build", "--profile", "small", "--locked", "--quiet"])
        .args(["-p", "natlet", "--example", "inherited"])
        .env("NATLET_NO_INSTALL", "1")
        .stdin(Stdio::null())
        .status()?;
    if build.code() == Some(NO_TOOL) && std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1") {
        eprintln!("skipped: {target} cannot be built here");
        return Ok(None);
    }
    holds("cross.sh builds the example", build.success())?;
    Ok(Some(format!("{ROOT}/target/cross/{target}/small/examples/inherited").into()))
}

/// A netfilter socket of a host.
fn netfilter(host: &Namespace) -> Result<OwnedFd, Failed> {
    Ok(host.run(|| {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        // 0: the kernel gives the socket a number
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok::<_, nix::Error>(fd)
    })?)
}

/// What the kernel of a host holds, without the moment at which it was loaded.
fn ruleset(host: &Namespace) -> Result<String, Failed> {
    let text = tool(host, "nft", &["list", "ruleset"], "")?;
    let lines = text.lines().map(|line| match line.split_once(" since ") {
        Some((before, after)) => {
            format!("{before} since -{}", after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'))
        }
        None => line.to_owned(),
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn same_tables(target: &str, runner: &str) -> Test {
    if !has(runner) || !has("nft") {
        return Ok(());
    }
    let Some(program) = program(target)? else { return Ok(()) };
    let (emulated, native) = (Namespace::new("emulated")?, Namespace::new("native")?);
    for host in [&emulated, &native] {
        tool(host, "nft", &["add table ip foreign"], "")?;
    }
    let foreign = ruleset(&native)?;
    // this process is outside of the host whose kernel it talks to
    let run = |words: &[&str]| {
        let mut command = Command::new(runner);
        command.arg(&program).args(words).current_dir(ROOT).stdin(netfilter(&emulated)?);
        let output = command.output()?;
        let err = String::from_utf8_lossy(&output.stderr);
        holds(&format!("{words:?}: {}\n{err}", output.status), output.status.success())?;
        Ok::<_, Failed>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // the second is a change of what the first has put there
    for example in EXAMPLES {
        let said = run(&["load", example])?;
        holds(&format!("elements were added: {said}"), !said.starts_with("0 elements") && said.contains("added"))?;
        natlet(&native, &["load", &format!("{ROOT}/{example}")], "")?;
        same("the tables", &ruleset(&emulated)?, &ruleset(&native)?)?;
        same("loaded again", &run(&["load", example])?.as_str(), &"nothing to change\n")?;
    }
    same("what unload says", &run(&["unload"])?.as_str(), &"removed: true\n")?;
    same("what is left", &ruleset(&emulated)?, &foreign)
}
