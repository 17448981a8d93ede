//! A laboratory of network namespaces: three hosts on virtual cables, servers, and probes through the real kernel.
//!
//! It needs no root where user namespaces are allowed, and nothing of it is visible on the host: namespaces are held by
//! file descriptors only and vanish with them. `natlet try` and the tests that need a kernel use it.
//!
//! ```no_run
//! use natlet::lab::{self, Listener, Plan, Servers, Topology, tcp_probe};
//! use std::net::SocketAddr;
//! use std::time::Duration;
//!
//! lab::enter()?; // first thing in main(): before any thread is started
//! let endpoint = SocketAddr::from(([10, 82, 0, 10], 80));
//! let topology = Topology::build(&Plan { endpoints: vec![endpoint.ip()], ..Plan::default() })?;
//! let _servers = topology.serve(&[Listener::tcp(endpoint)])?;
//! let result = topology.client.run(|| tcp_probe(None, endpoint, Duration::from_secs(1)))?;
//! # Ok::<(), lab::LabError>(())
//! ```

mod link;
mod namespace;
mod probe;
mod servers;
mod skip;
mod socket;
mod topology;

pub use link::{Links, Route};
pub use namespace::{Namespace, sysctl};
pub use probe::{Probe, ProbeResult, probes, tcp_probe, udp_probe};
pub use servers::{Listener, Servers};
pub use skip::{Skip, need};
pub use topology::{Plan, Topology};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::net::IpAddr;

/// What the laboratory could not do. The fault is the environment's or the plan's, never a packet's: those are
/// [`ProbeResult`]s.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel or the container does not let this process have a network of its own.
    #[error("cannot make a private network namespace: {step}: {errno}\n  way out: {way_out}")]
    NotAllowed {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        errno: Errno,
        /// What the user can do.
        way_out: String,
    },
    /// A link, address, route or socket.
    #[error("cannot {what}: {errno}")]
    Kernel {
        /// What was tried, with the object's name.
        what: String,
        /// Why it failed.
        errno: Errno,
    },
    /// A kernel setting.
    #[error("cannot set {name} to {value}: {errno}\n  way out: {way_out}")]
    Sysctl {
        /// Its path below `/proc/sys`.
        name: String,
        /// The value.
        value: String,
        /// Why it failed.
        errno: Errno,
        /// What the user can do.
        way_out: &'static str,
    },
    /// The documentation ranges hold no address that the plan leaves free.
    #[error(
        "no address is left for the hosts of the private network: the table, with its CIDRs, covers {0}\n  \
         way out: give narrower CIDRs"
    )]
    NoAddress(&'static str),
    /// Two hosts are to have the same address.
    #[error("{address} cannot belong to both {first} and {second}")]
    Shared {
        /// The address.
        address: IpAddr,
        /// Its host.
        first: String,
        /// The other.
        second: String,
    },
}

impl LabError {
    fn kernel(what: impl Into<String>, errno: Errno) -> Self {
        Self::Kernel { what: what.into(), errno }
    }

    fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self::kernel(what, errno_of(error))
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::NotAllowed { errno, .. } | Self::Kernel { errno, .. } | Self::Sysctl { errno, .. } => Some(*errno),
            Self::NoAddress(_) | Self::Shared { .. } => None,
        }
    }
}

/// The error number of an I/O error; `EIO` for the few that the standard library makes itself.
fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// By what right this process has its own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Its own capabilities: usually root.
    Capabilities,
    /// A user namespace in which it is root.
    UserNamespace,
}

/// Moves the process into a network of its own, with the right to make more of them.
///
/// Call it once, first thing in `main`: the kernel refuses it to a process with several threads. Capabilities are used
/// where the process has them, else a user namespace is made and the caller becomes its root. The host's network is out
/// of reach afterwards, which is the point.
pub fn enter() -> Result<Privilege, LabError> {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() && loopback_up().is_ok() {
        return Ok(Privilege::Capabilities);
    }
    let (uid, gid) = (geteuid(), getegid());
    let failed = |step, errno| LabError::NotAllowed { step, errno, way_out: way_out(errno, read_sysctl) };
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("unshare(CLONE_NEWUSER | CLONE_NEWNET)", errno))?;
    // A process without privilege may map its own ids only, and its group only once setgroups is off (user_namespaces(7)).
    for (path, step, text) in [
        ("/proc/self/setgroups", "write setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", "write uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", "write gid_map", format!("0 {gid} 1")),
    ] {
        std::fs::write(path, text).map_err(|error| failed(step, errno_of(&error)))?;
    }
    loopback_up().map_err(|error| failed("set lo up", error.errno().unwrap_or(Errno::EPERM)))?;
    Ok(Privilege::UserNamespace)
}

/// What lets a container have networks of its own: the calls (seccomp) and a writable `/proc/sys` (systempaths).
const CONTAINER: &str = "in a container: `docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined`, \
                         or `--privileged`";

fn loopback_up() -> Result<(), LabError> {
    Links::open()?.up("lo")
}

fn read_sysctl(name: &str) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().to_owned())
}

/// What a user can do about a refused namespace, from the settings that are known to refuse it.
fn way_out(errno: Errno, setting: impl Fn(&str) -> Option<String>) -> String {
    let is = |name: &str, value: &str| setting(name).as_deref() == Some(value);
    let advice = if errno == Errno::EINVAL {
        return "the process has several threads: lab::enter() must come before the first of them".to_owned();
    } else if is("user/max_user_namespaces", "0") || is("user/max_net_namespaces", "0") {
        "`sysctl -w user.max_user_namespaces=10000 user.max_net_namespaces=10000`"
    } else if errno == Errno::ENOSPC || errno == Errno::EUSERS {
        "raise user.max_user_namespaces and user.max_net_namespaces, or close programs that hold namespaces"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "`sysctl -w kernel.unprivileged_userns_clone=1`"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu's AppArmor restriction)"
    } else {
        CONTAINER
    };
    format!("{advice}; or run as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_names_the_setting_that_refuses() {
        let with = |name: &'static str, value: &'static str| move |n: &str| (n == name).then(|| value.to_owned());
        for (name, value, expected) in [
            ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
            ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
            ("user/max_user_namespaces", "100", "seccomp=unconfined"),
        ] {
            let text = way_out(Errno::EPERM, with(name, value));
            assert!(text.contains(expected) && text.ends_with("or run as root"), "{name}={value}: {text}");
        }
        assert!(way_out(Errno::EINVAL, |_| None).contains("several threads"));
        assert!(way_out(Errno::ENOSPC, |_| None).contains("raise user.max_user_namespaces"));
    }
}
