//! What goes wrong on a node, done to the agent and to `natlet load`: other programs that flush and delete, kill -9 in the
//! middle of a transaction and of a write, system calls that fail, a kernel or a disk that refuses, a clock that steps.
//! Whatever happens, packets are translated by the old table or by the new one, and the next start ends right.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

#[path = "agent/daemon.rs"]
mod daemon;

#[path = "faults/adversary.rs"]
mod adversary;
#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/chaos.rs"]
mod chaos;
#[path = "faults/hostile.rs"]
mod hostile;
#[path = "faults/owner.rs"]
mod owner;
#[path = "faults/process.rs"]
mod process;

mod common;

use common::{AS_COMMAND, Test, holds};
use daemon::LIMIT;
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    common::main(&[
        ("nobody_else_changes_the_tables_of_an_agent", owner::nobody_else_changes_them),
        ("a_restarted_agent_adopts_its_tables_as_they_are", owner::a_restart_adopts_them_as_they_are),
        ("tables_that_were_anyones_become_the_agents", owner::tables_that_were_anyones),
        ("one_agent_at_a_time", owner::one_agent_at_a_time),
        ("changes_and_kills_break_no_connection", chaos::changes_and_kills_break_no_connection),
        ("single_changes_of_others_are_undone_within_a_second", adversary::single_changes_are_undone),
        ("a_flood_of_flushes_costs_little", adversary::a_flood_of_flushes_costs_little),
        ("without_the_right_nothing_is_changed", hostile::without_the_right),
        ("without_nf_tables_it_says_so", hostile::without_nf_tables),
        ("a_kernel_that_begins_to_refuse", hostile::a_kernel_that_begins_to_refuse),
        ("a_read_only_disk_keeps_nothing_and_stops_nothing", hostile::read_only_disk),
        ("a_full_disk_keeps_the_program_before", hostile::full_disk),
        ("a_clock_that_steps_changes_nothing", hostile::stepping_clock),
        ("a_node_that_was_up_for_long", hostile::late_monotonic_clock),
        ("closed_outputs_do_not_end_it", process::closed_outputs),
        ("few_file_descriptors_are_enough", process::few_file_descriptors),
        ("any_system_call_of_load_may_fail", calls::of_load),
        ("any_system_call_of_the_agent_may_fail", calls::of_the_agent),
    ])
}

/// A service over TCP and one over UDP with these endpoints.
pub fn table(endpoints: &[&str]) -> String {
    let list = |port: u16| endpoints.iter().map(|e| format!("\"{e}:{port}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "[node]\nip = [\"192.0.2.1\"]\ncluster-cidr = [\"10.82.0.0/16\"]\n\n[[service]]\nname = \"shop/web:https\"\nport = 443\n\
         cluster-ip = \"192.168.5.65\"\nnode-port = 31512\nendpoints = [{}]\n\n[[service]]\nname = \"shop/log\"\n\
         protocol = \"udp\"\nport = 514\ncluster-ip = \"192.168.5.66\"\nendpoints = [{}]\n",
        list(8443),
        list(5514)
    )
}

pub const FIRST: &str = "10.82.0.10";
pub const SECOND: &str = "10.82.0.82";
pub const THIRD: &str = "10.82.0.83";

/// How a command ended.
pub struct Ended {
    pub status: Option<i32>,
    pub said: String,
}

impl Ended {
    /// It failed, and its message has these words.
    pub fn failed_with(&self, status: i32, words: &[&str]) -> Test {
        let text = format!("status {:?}, expected {status} and {words:?}: {}", self.status, self.said);
        holds(&text, self.status == Some(status) && words.iter().all(|w| self.said.contains(w)))
    }
}

/// Runs `natlet` in a host by a command that runs another one, which must end within `limit`.
pub fn under(host: &Namespace, wrapper: &[&str], arguments: &[&str], limit: Duration) -> Result<Ended, Failed> {
    let mut child = host.run(|| {
        Command::new(wrapper[0])
            .args(&wrapper[1..])
            .arg(std::env::current_exe()?)
            .env(AS_COMMAND, "1")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    })?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if started.elapsed() > limit => {
                child.kill()?;
                child.wait()?;
                return Err(format!("{wrapper:?} natlet {arguments:?} did not end within {limit:?}").into());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut said = String::new();
    child.stderr.take().map_or(Ok(0), |mut stderr| stderr.read_to_string(&mut said))?;
    Ok(Ended { status: status.code(), said })
}

/// What the agent's server answers.
pub fn get(host: &Namespace, path: &str) -> Result<String, Failed> {
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    let mut stream = host.run(|| TcpStream::connect_timeout(&address, LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub const PORT: u16 = 10249;
pub const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:10249"];

/// Processor time of a process so far, in ticks of 10 ms.
pub fn ticks(pid: u32) -> Result<u64, Failed> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum())
}

/// A small generator: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
