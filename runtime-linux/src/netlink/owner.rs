//! Which process has a netlink socket, from its port.

use netlink_sys::protocols::NETLINK_NETFILTER;
use std::fmt;
use std::fs;

/// Who owns a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Port of the netlink socket, which is what the kernel knows of it.
    pub port: u32,
    /// The process that has the socket, where it can be seen from here (another PID namespace, `hidepid`).
    pub process: Option<(u32, String)>,
}

impl Owner {
    /// The owner of a table that belongs to the socket with this port, of the calling thread's network namespace.
    pub fn of(port: u32) -> Self {
        Self { port, process: process(port) }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "process {pid} ({name})"),
            None => write!(f, "a process that cannot be seen from here (netlink port {})", self.port),
        }
    }
}

fn process(port: u32) -> Option<(u32, String)> {
    let inode = inode(&fs::read_to_string("/proc/thread-self/net/netlink").ok()?, port)?;
    let link = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // A process may end meanwhile, or be another user's.
        let Ok(mut descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        if descriptors.any(|d| d.is_ok_and(|d| fs::read_link(d.path()).is_ok_and(|l| l.as_os_str() == link.as_str()))) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some((pid, name.trim_end().to_owned()));
        }
    }
    None
}

/// The inode of a netfilter netlink socket. Columns are `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`, where `Eth`
/// is the protocol and `Pid` the port.
fn inode(sockets: &str, port: u32) -> Option<u64> {
    sockets.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = columns.get(1)?.parse() == Ok(NETLINK_NETFILTER) && columns.get(2)?.parse() == Ok(port);
        columns.last().filter(|_| is_it)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_its_socket() {
        let sockets = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            00000000ab12cd34 0   4711       00000440 0        0        0     2        0        101     \n\
            00000000ab12cd35 12  4711       00000000 0        0        0     2        0        102     \n\
            00000000ab12cd36 12  3719204593 00000000 0        0        0     2        0        103     \n";
        assert_eq!(inode(sockets, 4711), Some(102), "the port is of one protocol");
        assert_eq!(inode(sockets, 3_719_204_593), Some(103));
        assert_eq!(inode(sockets, 1), None);
    }
}
