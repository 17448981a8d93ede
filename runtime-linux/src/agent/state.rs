//! The last good program on disk, so that a node without network, or with a broken table, boots with what it had.
//!
//! Two slots, `program.0` and `program.1`, written in turn: a new file, synced, renamed into place, its directory synced.
//! Whatever byte a power cut hits, one slot is whole. A slot is a 56-byte header and the program:
//!
//! | bytes | |
//! | --- | --- |
//! | 0..8 | `natstate` |
//! | 8..16 | sequence number, little-endian: the higher one is newer |
//! | 16..24 | length of the program, little-endian |
//! | 24..56 | SHA-256 of bytes 0..24 and the program |

use crate::image::Image;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"natstate";
const HEADER: usize = 56;
const SLOTS: [&str; 2] = ["program.0", "program.1"];
/// The largest program that is kept.
const LARGEST: u64 = 256 << 20;

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    directory: PathBuf,
    /// Sequence numbers of the slots' whole programs, once they were read: nobody else writes them.
    sequences: Option<[Option<u64>; 2]>,
}

impl State {
    /// A state directory; it is made at the first [`save`](Self::save).
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), sequences: None }
    }

    /// Makes sure that no other agent keeps its programs here, for as long as the result lives. A read-only directory can be
    /// locked too.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if another agent does; else the file system's.
    pub fn lock(&self) -> Result<File, TryLockError> {
        let directory = File::open(&self.directory).map_err(TryLockError::Error)?;
        directory.try_lock()?;
        Ok(directory)
    }

    /// The newest whole program; `None` if there is none. Slots that are damaged, or that a newer natlet wrote in a
    /// format unknown here, are passed over.
    pub fn load(&mut self) -> Option<Image> {
        let slots = self.slots();
        self.sequences = Some(slots.each_ref().map(|slot| slot.as_ref().map(|(sequence, _)| *sequence)));
        slots.into_iter().flatten().max_by_key(|(sequence, _)| *sequence).map(|(_, image)| image)
    }

    /// Sequence numbers of the slots' whole programs, as far as they were read or written by this process.
    pub fn sequences(&self) -> [Option<u64>; 2] {
        self.sequences.unwrap_or_default()
    }

    /// Keeps a program. The slot with the newest whole program is not touched.
    ///
    /// # Errors
    /// The file system's: full, read-only, not allowed. What was kept before is still there.
    pub fn save(&mut self, image: &Image) -> io::Result<()> {
        // Until this one is whole, the next attempt reads again what is there.
        let known = self.sequences.take();
        let sequences = known.unwrap_or_else(|| self.slots().map(|slot| slot.map(|(sequence, _)| sequence)));
        let next = sequences.iter().flatten().max().map_or(1, |s| s.saturating_add(1));
        let [first, second] = sequences;
        let index = usize::from(first.is_some() && first >= second);
        let slot = SLOTS[index];
        fs::create_dir_all(&self.directory)?;
        let temporary = self.directory.join(format!("{slot}.new"));
        let written = write_synced(&temporary, &encode(next, image.as_bytes()))
            .and_then(|()| fs::rename(&temporary, self.directory.join(slot)));
        if let Err(error) = written {
            // On a full disk its bytes are needed.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()?;
        self.sequences = Some(if index == 0 { [Some(next), second] } else { [first, Some(next)] });
        Ok(())
    }

    fn slots(&self) -> [Option<(u64, Image)>; 2] {
        SLOTS.map(|slot| decode(&read(&self.directory.join(slot)).ok()?))
    }
}

/// The bytes of a slot.
pub fn encode(sequence: u64, program: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + program.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(program.len() as u64).to_le_bytes());
    let digest = digest(&bytes, program);
    bytes.extend_from_slice(&digest);
    bytes.extend_from_slice(program);
    bytes
}

/// The sequence number and the program of a slot; `None` if it is not whole.
pub fn decode(bytes: &[u8]) -> Option<(u64, Image)> {
    let (header, program) = bytes.split_at_checked(HEADER)?;
    let (head, sum) = header.split_at_checked(24)?;
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let whole = head.starts_with(MAGIC) && number(16)? == program.len() as u64 && digest(head, program) == *sum;
    if !whole {
        return None;
    }
    Some((number(8)?, Image::from_bytes(program.to_vec()).ok()?))
}

fn digest(head: &[u8], program: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(head).chain_update(program).finalize().into()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let no_wait = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Made anew: what stands there is left over from a crash, or a link to who knows where.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use natlet_core::ServiceTable;
    use natlet_core::table::{Cidr, Node};

    /// A program that differs from others by a CIDR.
    fn image(n: u8) -> Image {
        let cidrs = [Cidr { address: [10, n, 0, 0].into(), prefix: 16 }];
        let node = Node { cluster_cidrs: &cidrs, ..Node::default() };
        Image::compile(&ServiceTable { node, ..ServiceTable::default() }).unwrap()
    }

    fn state(name: &str) -> State {
        let path = std::env::temp_dir().join(format!("natlet-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        State::new(path)
    }

    #[test]
    fn the_newest_is_loaded_and_slots_take_turns() {
        let mut state = state("turns");
        assert_eq!(state.load(), None);
        for n in 0..5 {
            state.save(&image(n)).unwrap();
            assert_eq!(state.load(), Some(image(n)));
            let kept: Vec<Image> = state.slots().into_iter().flatten().map(|(_, image)| image).collect();
            assert!(kept.contains(&image(n.saturating_sub(1))), "the one before is still there");
        }
        fs::remove_dir_all(state.directory).unwrap();
    }

    /// A power cut while the third program is written, with the file cut at every byte, its rest as it was, or zeros:
    /// also where the file system renamed before it wrote the data.
    #[test]
    fn a_power_cut_at_any_byte_leaves_the_old_or_the_new_program() {
        let mut state = state("cut");
        state.save(&image(1)).unwrap();
        state.save(&image(2)).unwrap();
        let slot = SLOTS.iter().find(|s| decode(&read(&state.directory.join(s)).unwrap()).unwrap().0 == 1).unwrap();
        let before = read(&state.directory.join(slot)).unwrap();
        let after = encode(3, image(3).as_bytes());
        for (name, complete) in [(format!("{slot}.new"), false), ((*slot).to_owned(), true)] {
            for cut in 0..=after.len() {
                let mut over_old = after[..cut].to_vec();
                over_old.extend(before.iter().skip(cut));
                let mut zeros = after[..cut].to_vec();
                zeros.resize(after.len(), 0);
                for bytes in [after[..cut].to_vec(), over_old, zeros] {
                    fs::write(state.directory.join(&name), bytes).unwrap();
                    let found = state.load().expect("a program is there");
                    let new = cut == after.len() && complete;
                    assert!(found == image(2) || found == image(3), "cut at {cut} of {name}");
                    assert!(!new || found == image(3), "a complete one is taken");
                }
            }
        }
        state.save(&image(4)).unwrap();
        assert_eq!(state.load(), Some(image(4)), "and it goes on");
        fs::remove_dir_all(state.directory).unwrap();
    }

    #[test]
    fn one_agent_at_a_time() {
        let state = state("lock");
        assert!(matches!(state.lock(), Err(TryLockError::Error(_))), "there is no directory yet");
        fs::create_dir(&state.directory).unwrap();
        let lock = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        state.lock().unwrap();
        fs::remove_dir_all(state.directory).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let good = encode(7, image(1).as_bytes());
        assert!(decode(&good).is_some());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_kept() {
        let mut state = state("refused");
        state.save(&image(1)).unwrap();
        // directories in the way of both temporary files
        for slot in SLOTS {
            fs::create_dir(state.directory.join(format!("{slot}.new"))).unwrap();
        }
        assert!(state.save(&image(2)).is_err());
        assert_eq!(state.load(), Some(image(1)));
        fs::remove_dir_all(state.directory).unwrap();
    }
}
