//! A network namespace without a name: it lives as long as its descriptor, and leaves nothing on the host.

use super::link::Links;
use super::{CONTAINER, LabError, errno_of};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

/// A network namespace with its loopback up.
///
/// No `/run/netns`, no thread that waits: dropped, it is gone as soon as the last socket in it is closed.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    net: OwnedFd,
}

impl Namespace {
    /// A new, empty one. `name` is for messages.
    pub fn new(name: impl Into<String>) -> Result<Self, LabError> {
        let name = name.into();
        // unshare moves one thread; a thread made for it ends with its move, and the caller stays where it is.
        let net = thread::scope(|scope| scope.spawn(make).join()).unwrap_or(Err(Errno::ECANCELED));
        let net = net.map_err(|errno| LabError::kernel(format!("make a network namespace for {name}"), errno))?;
        let namespace = Self { name, net };
        namespace.links()?.up("lo")?;
        Ok(namespace)
    }

    /// What it was called when made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets opened there belong to the namespace wherever
    /// they are used later; processes started there stay in it.
    ///
    /// # Panics
    /// When `work` panics, and when the kernel takes back the right to enter the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                if let Err(errno) = setns(&self.net, CloneFlags::CLONE_NEWNET) {
                    panic!("cannot enter the network namespace of {}: {errno}", self.name);
                }
                work()
            });
            worker.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Its links, addresses and routes.
    pub fn links(&self) -> Result<Links, LabError> {
        self.run(Links::open)
    }

    /// Writes a kernel setting of this namespace, named by its path below `/proc/sys`, as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.run(|| sysctl(name, value))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }
}

fn make() -> Result<OwnedFd, Errno> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let net = File::open("/proc/thread-self/ns/net").map_err(|error| errno_of(&error))?;
    setns(&net, CloneFlags::CLONE_NEWNET)?; // whoever may do this now may do it in `run`
    Ok(net.into())
}

/// Writes a kernel setting of the namespace that the calling thread is in, named by its path below `/proc/sys`. One that
/// has the value already is left alone, so that a read-only `/proc/sys` (containers) is an error only where it matters.
pub fn sysctl(name: &str, value: &str) -> Result<(), LabError> {
    if std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(format!("/proc/sys/{name}"), value).map_err(|error| {
        let errno = errno_of(&error);
        let way_out = match errno {
            Errno::EROFS | Errno::EACCES | Errno::EPERM => CONTAINER,
            Errno::ENOENT => "the kernel lacks this setting: is IPv6 switched off, or a module not loaded?",
            _ => "see `man 7 ip` and the kernel's Documentation/networking/ip-sysctl.rst for its values",
        };
        LabError::Sysctl { name: name.to_owned(), value: value.to_owned(), errno, way_out }
    })
}
