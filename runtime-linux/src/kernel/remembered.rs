//! What `natlet load` left in the kernel, kept in a file for the next one, so that it need not read the tables back.
//!
//! A file for each network namespace, four parts: the XXH3-64 of the rest in hexadecimal, a line; the machine's boot and the
//! ruleset's generation after the load, a line; what the tables say about themselves, a line; the program. It is believed
//! only if all of it fits: the boot, the generation (so nobody has changed any table since) and, read from the kernel, what
//! the tables say. Else it is as if it were not there, and the tables are read. The hash shows what was written half or has
//! rotted; against forgery there is the directory's mode.

use super::About;
use super::loader::Left;
use crate::image::Image;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

/// The file of the calling thread's network namespace.
#[derive(Clone, Debug)]
pub struct Remembered {
    path: PathBuf,
    boot: String,
}

impl Remembered {
    /// In a directory that is empty after a boot; it is made when something is kept. `None` where the namespace has no
    /// number or the machine no boot id: then nothing is remembered.
    pub fn in_directory(directory: &Path) -> Option<Self> {
        let namespace = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { path: directory.join(format!("loaded-in-net-{namespace}")), boot })
    }

    /// What was left, as far as the file can tell, if the ruleset is of this generation still.
    pub fn read(&self, generation: u32) -> Option<Left> {
        let bytes = fs::read(&self.path).ok()?;
        let (digest, covered) = line(&bytes)?;
        let (head, rest) = line(covered)?;
        // most often it is of a namespace that is gone
        if head != self.head(generation) || digest != hex(covered) {
            return None;
        }
        let (about, program) = line(rest)?;
        let about = About::from_text(about).filter(|a| a.version == env!("CARGO_PKG_VERSION"))?;
        let image = Image::from_bytes(program.to_vec()).ok()?;
        let same = image.program().content_id().to_string() == about.content_id;
        same.then_some(Left::new(image, about, generation))
    }

    fn head(&self, generation: u32) -> String {
        format!("{} {generation}", self.boot)
    }

    /// Keeps what a load left; with nothing, what was kept is forgotten.
    ///
    /// # Errors
    /// The file system's. Nothing depends on it but the time of the next load.
    pub fn write(&self, left: Option<&Left>) -> io::Result<()> {
        let Some(left) = left else { return self.forget() };
        let mut rest = format!("{}\n{}\n", self.head(left.generation), left.about).into_bytes();
        rest.extend_from_slice(left.image.as_bytes());
        let mut bytes = hex(&rest).into_bytes();
        bytes.push(b'\n');
        bytes.append(&mut rest);
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        let temporary = self.path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &self.path)).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Forgets what was kept.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// The text up to the first end of line, and what follows.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

fn hex(bytes: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytes))
}
