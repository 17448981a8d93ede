//! Sockets of the three transport protocols, non-blocking, for servers and probes alike.

use natlet_core::table::Protocol;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket for `protocol` in the family of `address`. SCTP's is of the one-to-one style, which behaves like TCP's.
pub fn open(protocol: Protocol, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, number)
}

/// Binds to `address`, also where an earlier connection still lingers.
pub fn bind_to(socket: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    setsockopt(socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // A local route makes an IPv4 address bindable; IPv6 wants the address itself, or this (ip(7), IP_FREEBIND).
        setsockopt(socket, sockopt::IpFreebind, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
}

/// Binds a probe to its source. A port of the kernel's choice is one that this destination does not know yet: with
/// `SO_REUSEADDR` two probes to it could get the same one, and an answer would find only one of them.
pub fn bind_source(socket: &OwnedFd, source: SocketAddr) -> Result<(), Errno> {
    if source.port() != 0 {
        return bind_to(socket, source);
    }
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?; // TCP: the port is chosen by connect
    if source.is_ipv6() {
        setsockopt(socket, sockopt::IpFreebind, &true)?; // as in `bind_to`
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source))
}

/// Starts to connect; a connection under way is no error.
pub fn connect_to(socket: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    // An ICMP error comes back so fast that it meets a socket still busy with this connect, which notes it for SO_ERROR and
    // forgets to wake anyone. An error queue wakes (ip(7), IP_RECVERR); without it a refusal over IPv6 takes a second.
    if address.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Err(Errno::EINPROGRESS) => Ok(()),
        other => other,
    }
}

/// Raises the number of files this process may have open, as far as it may raise it itself.
pub fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused, the old limit holds, and the socket that does not fit says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
