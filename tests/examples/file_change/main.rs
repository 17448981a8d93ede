//! How long the agent takes from a file's change to the kernel's, and its parts, in a network namespace of its own.
//!
//! `cargo build --release -p natlet && cargo run --release -p natlet-tests --example file_change -- SERVICES ENDPOINTS [CHANGES [KIND...]]`:
//! so many services with so many endpoints each; the first endpoint moves to and fro, each time by a rename of a new file into
//! place. A KIND is what the file is: `toml`, `yaml` and `json` (a list of Services and EndpointSlices), `directory` (200
//! services.toml files, one of which changes) or `program`; all of them if none is given. Printed are percentiles, in
//! microseconds, of
//!
//! - `whole`: from before the rename to the kernel's first notification of the change by an agent with
//!   `--min-sync-period 0ms`, a process of its own; 1 ms of it the agent waits for more changes;
//! - `parts` that are not the kernel's: `read`, the sources are read, their table is checked ([`source::load_outlined`]);
//!   `changed`, only what has changed is ([`Outline::changed`](source::outline::Outline::changed)); `compile`, the table
//!   becomes a program; `services`, what conntrack is cleaned by; `load`, the program is put in force ([`Loader::load`]).
//!
//! With the agent's resident memory at its end, and the most that it had.

mod inputs;

#[path = "../../../runtime-linux/examples/manifest_speed/generate.rs"]
#[allow(dead_code, reason = "the example that it belongs to uses the rest")]
mod generate;
#[path = "../../common/large.rs"]
mod large;
#[path = "../../common/percentiles.rs"]
mod percentiles;

use inputs::Source;
use natlet::agent::conntrack::{Cleaned, Services};
use natlet::image::Image;
use natlet::kernel::{Loader, Terms, Trust};
use natlet::lab;
use natlet::source::outline::{Outline, Touched};
use natlet::source::{self, Loaded, NodeFlags, TableBuf};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use percentiles::report;
use std::error::Error;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    lab::enter()?;
    let mut arguments = std::env::args().skip(1);
    let mut next = |default| arguments.next().map_or(Ok(default), |a| a.parse::<usize>());
    let (services, endpoints, changes) = (next(1000)?, next(5)?, next(50)?);
    let kinds: Vec<String> = arguments.collect();
    let all = ["toml", "yaml", "json", "directory", "program"].map(str::to_owned);
    for kind in if kinds.is_empty() { &all } else { &kinds[..] } {
        let place = Place(std::env::temp_dir().join(format!("natlet-file-change-{}", std::process::id())));
        std::fs::create_dir_all(&place.0)?;
        let source = Source::new(kind, &place.0, services, endpoints)?;
        println!("{kind}: {services} services with {endpoints} endpoints each, {} bytes", source.bytes);
        report("whole", whole(&place.0, &source, changes)?);
        for (name, times) in parts(&source, changes)? {
            report(name, times);
        }
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

fn whole(place: &Path, source: &Source, changes: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let hears = listen()?;
    // examples are built beside the binary
    let binary = std::env::current_exe()?.parent().and_then(Path::parent).ok_or("no directory")?.join("natlet");
    let state = place.join("state");
    let mut agent = Command::new(binary);
    agent.arg("run").arg(&source.path).arg("--state-dir").arg(&state);
    agent.args(["--listen", "off", "--min-sync-period", "0ms"]).stdin(Stdio::null()).stderr(Stdio::null());
    let agent = Agent(agent.spawn()?);
    while !state.join("program.0").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut times = Vec::new();
    for i in 0..=changes {
        // the agent has done what follows a change
        std::thread::sleep(Duration::from_millis(500));
        while recv(hears.as_raw_fd(), &mut vec![0; 1 << 16], MsgFlags::MSG_DONTWAIT).is_ok_and(|n| n > 0) {}
        let started = source.change((i + 1) % 2)?;
        recv(hears.as_raw_fd(), &mut vec![0; 1 << 16], MsgFlags::empty())?;
        // the first change reads tables, sets and rules once
        times.extend((i > 0).then(|| started.elapsed()));
    }
    std::thread::sleep(Duration::from_secs(1));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.0.id()))?;
    let memory = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    println!(
        "memory   {}",
        memory.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
    );
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

type Parts = [(&'static str, Vec<Duration>); 5];

fn parts(source: &Source, changes: usize) -> Result<Parts, Box<dyn Error>> {
    let paths = std::slice::from_ref(&source.path);
    let mut loader = Loader::open()?;
    let mut parts = ["read", "changed", "compile", "services", "load"].map(|name| (name, Vec::new()));
    let mut last: Option<(TableBuf, Outline)> = None;
    for i in 0..changes + 2 {
        source.change(i % 2)?;
        let touched = Touched { paths: [source.changing.clone()].into(), unclear: false };
        let mut at = vec![Instant::now()];
        let _changed = last.take().and_then(|(table, outline)| outline.changed(&table, paths, &touched));
        at.push(Instant::now());
        let (loaded, outline) = source::load_outlined(paths, &NodeFlags::default())?;
        at.push(Instant::now());
        let (image, services) = match loaded {
            Loaded::Table { table, .. } => {
                let image = Image::compile(&table.as_table())?;
                at.push(Instant::now());
                let services = Services::of_table(&table.as_table(), Cleaned::Udp);
                last = outline.map(|outline| (table, outline));
                (image, services)
            }
            Loaded::Program { bytes, .. } => {
                let image = Image::from_bytes(bytes)?;
                at.push(Instant::now());
                let services = Services::of_program(&image.program(), Cleaned::Udp);
                (image, services)
            }
        };
        drop(services);
        at.push(Instant::now());
        let trust = if i == 0 { Trust::Nothing } else { Trust::Generation };
        loader.load(&image, Terms::default(), trust)?;
        at.push(Instant::now());
        // the first load is of everything, and the one after it reads tables, sets and rules
        if i > 1 {
            let order = [1, 0, 2, 3, 4];
            order.into_iter().zip(at.windows(2)).for_each(|(part, at)| parts[part].1.push(at[1] - at[0]));
        }
    }
    Ok(parts)
}
