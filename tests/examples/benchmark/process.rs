//! Runs a command in a namespace and says what it took.

use crate::Result;
use natlet::lab::Namespace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From start to end.
    pub wall: Duration,
    /// In its own code.
    pub user: Duration,
    /// In the kernel, on its behalf.
    pub kernel: Duration,
    /// Most memory resident at a time, in kB.
    pub memory: u64,
}

/// Nobody waits longer for a table to load.
pub const LIMIT: Duration = Duration::from_secs(60);

/// First argument of the process that stands between: `getrusage` tells a child's share only to its parent, and the most
/// memory of all children only, so that each measured command has a parent of its own.
pub const MEASURE: &str = "--measured";

/// The process between: runs `command`, and prints what it took.
pub fn measured(command: &[String]) -> ExitCode {
    let start = Instant::now();
    let child = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::inherit()).stdout(Stdio::null()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{}: {error}", command[0]);
            return ExitCode::FAILURE;
        }
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    let (ended, end) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
        // it is a child of this process that nobody has waited for: its number is no other's
        late && kill(pid, Signal::SIGKILL).is_ok()
    });
    let status = child.wait();
    let wall = start.elapsed();
    drop(ended);
    let (Ok(status), Ok(false)) = (status, watch.join()) else {
        println!("late");
        return ExitCode::SUCCESS;
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it exists everywhere");
    let micros = |t: TimeVal| t.tv_sec() * 1_000_000 + t.tv_usec();
    println!("{} {} {} {}", wall.as_micros(), micros(usage.user_time()), micros(usage.system_time()), usage.max_rss());
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs `command` in `host`, with `input` as its standard input; `None` if it was not done within [`LIMIT`].
pub fn run(host: &Namespace, command: &[&str], input: Option<&Path>) -> Result<Option<Took>> {
    let output = host.run(|| -> std::io::Result<_> {
        let stdin = match input {
            Some(path) => Stdio::from(std::fs::File::open(path)?),
            None => Stdio::null(),
        };
        Command::new(std::env::current_exe()?).arg(MEASURE).args(command).stdin(stdin).output()
    })?;
    if !output.status.success() {
        return Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    if text.trim() == "late" {
        return Ok(None);
    }
    let numbers = text.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
    let [wall, user, kernel, memory] = numbers[..] else { return Err(format!("not four numbers: {text}").into()) };
    let micros = Duration::from_micros;
    Ok(Some(Took { wall: micros(wall), user: micros(user), kernel: micros(kernel), memory }))
}
