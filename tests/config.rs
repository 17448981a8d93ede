//! Settings of `natlet run`: a flag wins over the environment, the environment over the file, and SIGHUP reads the file again.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

#[path = "agent/daemon.rs"]
#[allow(dead_code, reason = "the agent's tests use more of it")]
mod daemon;

mod common;

use common::{AS_COMMAND, Test, holds, natlet, same};
use daemon::{LIMIT, Place, within};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Command, ExitCode, Output, Stdio};

fn main() -> ExitCode {
    common::main(&[
        ("flags_win_over_the_environment_and_both_over_the_file", flags_win),
        ("what_a_file_cannot_say_is_refused_with_its_place", what_a_file_cannot_say),
        ("the_example_names_every_flag_and_is_accepted", the_example),
        ("sighup_reads_the_file_again", sighup_reads_the_file_again),
    ])
}

const EXAMPLE: &str = include_str!("../runtime-linux/examples/agent.toml");

const TABLE: &str =
    "[[service]]\nname = \"shop/web\"\nport = 80\ncluster-ip = \"10.96.0.7\"\nendpoints = [\"10.0.0.1:8080\"]\n";

/// `natlet run` with these arguments and environment, in a host; killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(
        host: &Namespace,
        place: &Place,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        let log = fs::File::options().create(true).append(true).open(place.path("log"))?;
        let mut command = command(arguments, environment);
        Ok(Self(host.run(|| command.stderr(log).spawn())?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test binary has a path"));
    command.env(AS_COMMAND, "1").arg("run").args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// The same, for one that is to refuse its settings.
fn refused(host: &Namespace, arguments: &[&str]) -> Result<Output, Failed> {
    let mut command = command(arguments, &[]);
    Ok(host.run(|| command.output())?)
}

fn text(place: &Place, name: &str) -> String {
    place.path(name).to_str().expect("a path that is text").to_owned()
}

fn flags_win() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("precedence")?);
    place.write(TABLE)?;
    let path = |name: &str| text(&place, name);
    let settings = |directory: &str| {
        format!(
            "files = [\"{}\"]\nlisten = \"off\"\nnode-name = \"edge-7\"\nstate-dir = \"{directory}\"\n",
            place.source()
        )
    };
    fs::write(path("agent.toml"), settings(&path("file")))?;
    let (file, flag, variable) = (path("agent.toml"), path("flag"), path("variable"));
    let environment = [("NATLET_STATE_DIR", variable.as_str()), ("NATLET_CONFIG", file.as_str())];
    for (arguments, environment, kept) in [
        (&["--config", &file][..], &[][..], "file"),
        (&[], &environment, "variable"),
        (&["--state-dir", &flag], &environment, "flag"),
    ] {
        let agent = Agent::start(&host, &place, arguments, environment)?;
        within(&format!("nothing is kept in {kept}"), 3 * LIMIT, || Ok(place.path(kept).join("program.0").exists()))?;
        drop(agent);
        fs::remove_dir_all(place.path(kept))?;
        for other in ["file", "variable", "flag"] {
            holds(&format!("{other} is not used"), !place.path(other).exists())?;
        }
    }
    // what the file says of the node is in the program: the same table without it differs
    same("as the file says", &natlet(&host, &["diff", "--node-name", "edge-7", place.source()], "").is_ok(), &true)
}

fn what_a_file_cannot_say() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("refused")?);
    place.write(TABLE)?;
    let file = text(&place, "agent.toml");
    for (settings, said) in [
        ("state-dri = \"/tmp\"\n", &["state-dri", "agent.toml:1:1", "did you mean state-dir"][..]),
        ("\nlisten = \"here\"\n", &["agent.toml:2:10", "give an address and a port"]),
        ("sync-period = 5\n", &["agent.toml:1:15", "sync-period"]),
        ("reset-removed = \"yes\"\n", &["agent.toml:1:17", "true or false"]),
        ("cluster-cidr = [\"10.0.0.0/8\", \"10.0.0.0/99\"]\n", &["agent.toml:1:16", "cluster-cidr"]),
        ("config = \"x\"\n", &["agent.toml:1:1"]),
        ("listen = \n", &["agent.toml:1:", "TOML syntax"]),
    ] {
        fs::write(&file, settings)?;
        let output = refused(&host, &["--config", &file, place.source()])?;
        let errors = String::from_utf8_lossy(&output.stderr);
        same(&format!("exit status for {settings}{errors}"), &output.status.code(), &Some(2))?;
        for words in said {
            holds(&format!("{words} in:\n{errors}"), errors.contains(words))?;
        }
    }
    let output = refused(&host, &["--config", "/nowhere/agent.toml", place.source()])?;
    holds("a missing file is told", String::from_utf8_lossy(&output.stderr).contains("/nowhere/agent.toml"))?;
    same("its exit status", &output.status.code(), &Some(2))
}

fn the_example() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("example")?);
    let help = natlet(&host, &["run", "--help"], "")?;
    let flags = help.split_whitespace().filter_map(|word| word.trim_end_matches([',', ':', '.']).strip_prefix("--"));
    let names: Vec<&str> = flags.filter(|n| !["help", "version", ""].contains(n)).collect();
    holds("there are flags", names.len() > 10)?;
    for name in names {
        let line = |l: &str| l.trim_start_matches("# ").starts_with(&format!("{name} = "));
        holds(&format!("the example tells of {name}"), EXAMPLE.lines().any(line))?;
    }
    // all of it, but for this machine
    place.write(TABLE)?;
    let whole = EXAMPLE.replace("# config", "#config").replace("# api-server", "#api-server").replace("\n# ", "\n");
    let settings: Vec<&str> = whole.lines().filter(|l| l.contains(" = ") && !l.starts_with('#')).collect();
    holds("the commented ones are there", settings.len() > 15)?;
    fs::write(place.path("agent.toml"), settings.join("\n"))?;
    let (file, state) = (text(&place, "agent.toml"), text(&place, "state"));
    let _agent = Agent::start(
        &host,
        &place,
        &["--config", &file, "--state-dir", &state, "--listen", "off", place.source()],
        &[],
    )?;
    let in_force = within("not in force", 3 * LIMIT, || Ok(place.path("state/program.0").exists()));
    in_force.map_err(|e| format!("{e:?}\n{}", place.log()))?;
    Ok(())
}

fn sighup_reads_the_file_again() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("sighup")?);
    place.write(TABLE)?;
    let other = text(&place, "other.toml");
    fs::write(&other, TABLE.replace("10.96.0.7", "10.96.0.8"))?;
    let (file, state) = (text(&place, "agent.toml"), text(&place, "state"));
    let settings = |source: &str, more: &str| {
        let text = format!(
            "files = \"{source}\"\nlisten = \"off\"\nmin-sync-period = \"10ms\"\nstate-dir = \"{state}\"\n{more}"
        );
        fs::write(&file, text)
    };
    settings(place.source(), "")?;
    let agent = Agent::start(&host, &place, &["--config", &file], &[])?;
    let holds_table = |source: &str| {
        let no_difference = || Ok(common::natlet_with(&host, &["diff", source], "").status.code() == Some(0));
        within(&format!("the kernel does not hold {source}\n{}", place.log()), 3 * LIMIT, no_difference)
    };
    holds_table(place.source())?;
    let hangup = || kill(Pid::from_raw(agent.0.id().cast_signed()), Signal::SIGHUP);

    settings(&other, "")?;
    hangup()?;
    holds_table(&other)?;
    fs::write(&other, TABLE.replace("10.96.0.7", "10.96.0.9"))?;
    holds_table(&other)?; // the new file is watched

    settings(place.source(), "node-nmae = \"x\"\n")?;
    hangup()?;
    within("wrong settings are not told", LIMIT, || Ok(place.log().contains("node-nmae")))?;
    holds_table(&other)?;

    settings(place.source(), "log-level = \"debug\"\n")?;
    hangup()?;
    within("a setting that waits is not told", LIMIT, || {
        Ok(place.log().lines().any(|l| l.contains("started again") && l.contains("log-level")))
    })?;
    holds_table(place.source())?;
    Ok(())
}
