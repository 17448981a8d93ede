//! The TUN device: packets of the kernel's routes in, translated packets out.

use super::offload;
use nix::errno::Errno;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use tun_rs::{DeviceBuilder, SyncDevice};

/// The longest frame: the header of the offloads and the longest IP packet.
pub const MAX_FRAME: usize = offload::LEN + 65_535;

/// A layer-3 TUN device with `IFF_VNET_HDR`: each frame is an [offload header](offload) and an IP packet. The kernel hands
/// over TCP (and since Linux 6.2 UDP) segments unsplit, up to 64 KiB at once, with the checksum still to be done.
pub struct Tun {
    device: SyncDevice,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[error("cannot attach to the TUN device {name}: {source}\n  way out: {}", way_out(source))]
pub struct TunError {
    /// Its name.
    pub name: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl Tun {
    /// Attaches to the device of this name, or makes it, in the calling thread's network namespace. One that is made here
    /// is gone with this value; one that `ip tuntap add` made stays, with its addresses and routes. Whether it is up, and
    /// its MTU, are left as they are.
    pub fn open(name: &str) -> Result<Self, TunError> {
        let open = || {
            let device = DeviceBuilder::new().name(name).offload(true).inherit_enable_state().build_sync()?;
            device.set_nonblocking(true)?;
            Ok(Self { device })
        };
        open().map_err(|source| TunError { name: name.to_owned(), source })
    }

    /// Reads one frame into `buffer`, which holds [`MAX_FRAME`]; `None`: there is none now.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.device.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            // the device is down: packets come when it is up again
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one frame. An error concerns this frame only.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.device.send(frame).map(drop)
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun").field("fd", &self.as_fd()).finish()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn way_out(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            "it takes CAP_NET_ADMIN, and a readable and writable /dev/net/tun; in a container: `--cap-add NET_ADMIN --device /dev/net/tun`"
        }
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => "`modprobe tun`; the kernel needs CONFIG_TUN",
        Some(Errno::EBUSY) => {
            "another program, perhaps another `natlet gateway`, has the device; end it or choose another name"
        }
        Some(Errno::EINVAL) => "a device of that name exists and is no TUN device; choose another name",
        _ => "a name has up to 15 characters; see `ip -d link show`",
    }
}
