//! The agent as a process of a test.

use crate::common::{AS_COMMAND, Test, natlet_with, tool};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Names a binary to test in place of this one: figures of a release build.
pub const BINARY: &str = "NATLET_BINARY";

/// How long to wait for what should take a second: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(3);

/// A directory for a source, a state and a log.
pub struct Place {
    directory: PathBuf,
    source: String,
}

impl Place {
    pub fn new(name: &str) -> Result<Self, Failed> {
        let directory = std::env::temp_dir().join(format!("natlet-agent-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let source = directory.join("services.toml").to_str().ok_or("a path that is text")?.to_owned();
        Ok(Self { directory, source })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Puts a table in place, as editors and `kubectl` do.
    pub fn write(&self, text: &str) -> Result<(), Failed> {
        let new = self.path("services.toml.new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, &self.source)?)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A running agent; it is killed when this is dropped.
pub struct Daemon(Child);

impl Daemon {
    pub fn start(host: &Namespace, place: &Place, flags: &[&str]) -> Result<Self, Failed> {
        Self::start_with(host, place, place.source(), flags)
    }

    pub fn start_with(host: &Namespace, place: &Place, source: &str, flags: &[&str]) -> Result<Self, Failed> {
        Self::start_env(host, place, source, flags, &[])
    }

    /// The server is off unless a flag asks for it: two agents of a test may be in one namespace for a moment.
    pub fn start_env(
        host: &Namespace,
        place: &Place,
        source: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        Self::start_under(host, place, &[], source, flags, environment)
    }

    /// As `start_env`, by a command that runs another one in its own place: `strace -D …`, `sh -c 'ulimit …; exec "$@"' sh`.
    pub fn start_under(
        host: &Namespace,
        place: &Place,
        wrapper: &[&str],
        source: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        let log = fs::File::options().create(true).append(true).open(place.path("log"))?;
        let state = place.path("state");
        let child = host.run(|| {
            let binary = std::env::var_os(BINARY).map_or_else(std::env::current_exe, |path| Ok(path.into()))?;
            let mut command = match wrapper {
                [] => Command::new(binary),
                [first, rest @ ..] => {
                    let mut command = Command::new(first);
                    command.args(rest).arg(binary);
                    command
                }
            };
            command
                .env(AS_COMMAND, "1")
                .args(["run", source, "--state-dir"])
                .arg(state)
                .args(if flags.contains(&"--listen") { &[][..] } else { &["--listen", "off"] })
                .args(if flags.contains(&"--min-sync-period") { &[][..] } else { &["--min-sync-period", "10ms"] })
                .args(flags)
                .envs(environment.iter().copied())
                .stdin(Stdio::null())
                .stderr(log)
                .spawn()
        })?;
        Ok(Self(child))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until the kernel holds what the source says.
    pub fn in_force(&self, host: &Namespace, place: &Place) -> Test {
        self.holds(host, place.source())
    }

    pub fn holds(&self, host: &Namespace, source: &str) -> Test {
        let no_difference = || Ok(natlet_with(host, &["diff", source], "").status.code() == Some(0));
        within(&format!("the kernel does not hold {source}"), 3 * LIMIT, no_difference).map(|_| ())
    }

    pub fn signal(&self, signal: Signal) -> Test {
        Ok(kill(Pid::from_raw(self.0.id().cast_signed()), signal)?)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failed> {
        Ok(self.0.try_wait()?)
    }

    /// kill -9.
    pub fn kill(mut self) -> Test {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// SIGTERM, after which it must end by itself and well.
    pub fn stop(mut self) -> Test {
        self.signal(Signal::SIGTERM)?;
        let mut ended = None;
        within("SIGTERM does not end it", 3 * LIMIT, || {
            ended = self.ended()?;
            Ok(ended.is_some())
        })?;
        if ended.is_some_and(|e| e.success()) { Ok(()) } else { Err(format!("it ended with {ended:?}").into()) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds, and says how long that took.
pub fn within(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool, Failed>,
) -> Result<Duration, Failed> {
    let started = Instant::now();
    loop {
        if holds()? {
            return Ok(started.elapsed());
        }
        if started.elapsed() > limit {
            return Err(format!("{what} after {limit:?}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The lines of the ruleset without the one that says since when, and without the order of elements.
pub fn listed(host: &Namespace) -> Result<Vec<String>, Failed> {
    let text = tool(host, "nft", &["list", "ruleset"], "")?;
    let line = |l: &str| l.trim().trim_end_matches([',', '}', ' ']).replace("elements = { ", "");
    let mut lines: Vec<String> = text.lines().filter(|l| !l.contains(" since ")).map(line).collect();
    lines.sort();
    Ok(lines)
}
