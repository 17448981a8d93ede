//! How long the agent takes from a file's change to the kernel's, and its parts, in a network namespace of its own.
//!
//! `cargo build --release -p natlet && cargo run --release -p natlet-tests --example file_change -- SERVICES ENDPOINTS [CHANGES]`:
//! so many services with so many endpoints each; the first endpoint moves to and fro, each time by a rename of a new
//! `services.toml` into place. Printed are percentiles, in microseconds, of
//!
//! - `whole`: from before the rename to the kernel's first notification of the change by an agent with
//!   `--min-sync-period 0ms`, a process of its own; 2 ms of it the agent waits for more changes;
//! - `read`: the parts of it that are not the kernel's: the file is read, its table is checked ([`source::load`]),
//! - `compile`: and becomes a program;
//! - `services`: what conntrack is cleaned by;
//! - `load`: the program is put in force ([`Loader::load`]).

#[path = "../common/large.rs"]
mod large;

use natlet::agent::conntrack::{Cleaned, Services};
use natlet::image::Image;
use natlet::kernel::{Loader, Terms, Trust};
use natlet::lab;
use natlet::source::{self, Loaded, NodeFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::error::Error;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    lab::enter()?;
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (services, endpoints, changes) = (next(1000)?, next(5)?, next(50)?);
    let place = Place(std::env::temp_dir().join(format!("natlet-file-change-{}", std::process::id())));
    std::fs::create_dir_all(&place.0)?;
    let texts = [200, 201].map(|moved| large::table(services, endpoints, moved));
    println!("{services} services with {endpoints} endpoints each, {} bytes of services.toml", texts[0].len());
    report("whole", whole(&place.0, &texts, changes)?);
    for (name, times) in parts(&place.0, &texts, changes)? {
        report(name, times);
    }
    Ok(())
}

/// A directory that is removed in the end.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is ended in the end.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn whole(place: &Path, texts: &[String; 2], changes: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let (source, new) = (place.join("services.toml"), place.join("services.toml.new"));
    std::fs::write(&source, &texts[0])?;
    let hears = listen()?;
    // examples are built beside the binary
    let binary = std::env::current_exe()?.parent().and_then(Path::parent).ok_or("no directory")?.join("natlet");
    let mut agent = Command::new(binary);
    agent.arg("run").arg(&source).arg("--state-dir").arg(place.join("state"));
    agent.args(["--listen", "off", "--min-sync-period", "0ms"]).stdin(Stdio::null()).stderr(Stdio::null());
    let _agent = Agent(agent.spawn()?);
    while !place.join("state/program.0").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut times = Vec::new();
    for i in 0..=changes {
        std::thread::sleep(Duration::from_millis(100)); // the agent has done what follows a change
        while recv(hears.as_raw_fd(), &mut vec![0; 1 << 16], MsgFlags::MSG_DONTWAIT).is_ok_and(|n| n > 0) {}
        std::fs::write(&new, &texts[(i + 1) % 2])?;
        let started = Instant::now();
        std::fs::rename(&new, &source)?;
        recv(hears.as_raw_fd(), &mut vec![0; 1 << 16], MsgFlags::empty())?;
        // the first change reads tables, sets and rules once
        times.extend((i > 0).then(|| started.elapsed()));
    }
    Ok(times)
}

/// A socket in nf_tables' group of notifications, number 7.
fn listen() -> Result<OwnedFd, Box<dyn Error>> {
    let kind = (AddressFamily::Netlink, SockType::Raw, SockProtocol::NetlinkNetFilter);
    let socket = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, kind.2)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1 << (7 - 1)))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
    Ok(socket)
}

type Parts = [(&'static str, Vec<Duration>); 4];

fn parts(place: &Path, texts: &[String; 2], changes: usize) -> Result<Parts, Box<dyn Error>> {
    let path = place.join("services.toml");
    let mut loader = Loader::open()?;
    let mut parts = ["read", "compile", "services", "load"].map(|name| (name, Vec::new()));
    for i in 0..changes + 2 {
        std::fs::write(&path, &texts[i % 2])?;
        let mut at = vec![Instant::now()];
        let Loaded::Table { table, .. } = source::load(std::slice::from_ref(&path), &NodeFlags::default())? else {
            return Err("a services.toml is a table".into());
        };
        at.push(Instant::now());
        let image = Image::compile(&table.as_table())?;
        at.push(Instant::now());
        let _services = Services::of_table(&table.as_table(), Cleaned::Udp);
        at.push(Instant::now());
        let trust = if i == 0 { Trust::Nothing } else { Trust::Generation };
        loader.load(&image, Terms::default(), trust)?;
        at.push(Instant::now());
        // the first load is of everything, and the one after it reads tables, sets and rules
        if i > 1 {
            parts.iter_mut().zip(at.windows(2)).for_each(|((_, times), at)| times.push(at[1] - at[0]));
        }
    }
    Ok(parts)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |permille: usize| {
        let time = times[(times.len() * permille / 1000).min(times.len() - 1)];
        format!("{:>9.1}", time.as_secs_f64() * 1e6)
    };
    println!("{what:<8} p50 {} p90 {} p99 {} max {} us", at(500), at(900), at(990), at(1000));
}
