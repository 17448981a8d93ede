//! Files and directories that are watched with inotify.
//!
//! Directories are watched, never files: a rename into place gives a path another file, and a ConfigMap swaps the link
//! `..data` under links that never change. Where a path leads through links, the directory of its target is watched too.
//!
//! A file that is open for writing is not read: from its creation or first write until its writer closes it (or a rename
//! replaces it) it is half written. One that nobody touches for [`PATIENCE`] while it is open counts as written.

use crate::source::outline::Touched;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file may stay open without a write before it is read all the same.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The link that a mounted ConfigMap or Secret swaps.
const CONFIG_MAP: &str = "..data";

/// What of a directory matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interest {
    /// Every visible file.
    all: bool,
    /// These names.
    names: BTreeSet<OsString>,
}

impl Interest {
    fn in_name(&self, name: &OsStr) -> bool {
        let hidden = name.as_encoded_bytes().starts_with(b".");
        name == CONFIG_MAP || self.names.contains(name) || (self.all && !hidden)
    }
}

/// The watched paths.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    paths: Vec<PathBuf>,
    watched: HashMap<WatchDescriptor, (PathBuf, Interest)>,
    /// Files with an open writer, and when it last wrote.
    written: HashMap<(WatchDescriptor, OsString), Instant>,
    /// What events were about since that was asked last.
    touched: Touched,
}

impl Watch {
    /// Watches paths; they need not be there yet.
    ///
    /// # Errors
    /// The kernel has no more inotify instances (`fs.inotify.max_user_instances`).
    pub fn new(paths: &[PathBuf]) -> Result<Self, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let (paths, touched) = (paths.to_vec(), Touched::default());
        let mut watch = Self { inotify, paths, watched: HashMap::new(), written: HashMap::new(), touched };
        watch.rescan();
        Ok(watch)
    }

    /// Follows links and directories that changed. Call it before every read, so that no change falls in between.
    pub fn rescan(&mut self) {
        let wanted = interests(&self.paths);
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut watched: HashMap<WatchDescriptor, (PathBuf, Interest)> = HashMap::new();
        for (directory, interest) in wanted {
            // One directory by two names has one descriptor.
            if let Ok(descriptor) = self.inotify.add_watch(&directory, flags) {
                let (_, known) = watched.entry(descriptor).or_insert_with(|| (directory, Interest::default()));
                known.all |= interest.all;
                known.names.extend(interest.names);
            }
        }
        for old in self.watched.keys().filter(|d| !watched.contains_key(d)) {
            // A directory that is gone took its watch with it.
            let _ = self.inotify.rm_watch(*old);
        }
        self.written.retain(|(descriptor, _), _| watched.contains_key(descriptor));
        self.watched = watched;
    }

    /// Takes all events that wait. Whether any of them concerns the paths.
    pub fn drain(&mut self, now: Instant) -> bool {
        let mut changed = false;
        // A writer that is faster than this loop is seen at the next poll.
        for _ in 0..1000 {
            let Ok(events) = self.inotify.read_events() else { break };
            for event in events {
                changed |= self.event(event.wd, event.mask, event.name.as_deref(), now);
            }
        }
        changed
    }

    /// The files that events were about since the last call.
    pub fn touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    fn event(&mut self, from: WatchDescriptor, mask: AddWatchFlags, name: Option<&OsStr>, now: Instant) -> bool {
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            // What was lost is not known: everything is read again, and nobody is waited for.
            self.written.clear();
            self.touched.unclear = true;
            return true;
        }
        let Some((directory, interest)) = self.watched.get(&from) else { return false };
        let Some(name) = name else {
            self.touched.unclear = true;
            return true;
        };
        if !interest.in_name(name) {
            return false;
        }
        let key = (from, name.to_owned());
        let path = directory.join(name);
        // as the paths of inputs are written
        let shown = path.strip_prefix(".").ok().filter(|_| !interest.all).unwrap_or(&path);
        self.touched.paths.insert(shown.to_owned());
        if mask.intersects(AddWatchFlags::IN_CREATE) {
            // A link or a second name of a file is complete; a new file is followed by its writer's close.
            if fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.nlink() == 1) {
                self.written.insert(key, now);
            }
        } else if mask.intersects(AddWatchFlags::IN_MODIFY) {
            self.written.insert(key, now);
        } else if !mask.intersects(AddWatchFlags::IN_ATTRIB) {
            self.written.remove(&key);
        }
        true
    }

    /// A file that somebody is writing; the sources are not to be read yet.
    pub fn half_written(&self, now: Instant) -> Option<PathBuf> {
        let busy = self.written.iter().find(|(_, since)| now.saturating_duration_since(**since) < PATIENCE);
        busy.and_then(|((descriptor, name), _)| Some(self.watched.get(descriptor)?.0.join(name)))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The directories to watch, and what matters in each.
fn interests(paths: &[PathBuf]) -> BTreeMap<PathBuf, Interest> {
    let mut wanted: BTreeMap<PathBuf, Interest> = BTreeMap::new();
    for path in paths {
        name_of(path, &mut wanted);
        if path.is_dir() {
            wanted.entry(path.clone()).or_default().all = true;
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_symlink())) {
                target_of(&entry.path(), &mut wanted);
            }
        } else {
            target_of(path, &mut wanted);
        }
    }
    wanted
}

/// Watches for a name in its directory, or for the first missing directory on the way there.
fn name_of(path: &Path, wanted: &mut BTreeMap<PathBuf, Interest>) {
    let mut path = path;
    while let (Some(name), Some(parent)) = (path.file_name(), path.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        wanted.entry(parent.to_owned()).or_default().names.insert(name.to_owned());
        if parent.is_dir() {
            return;
        }
        path = parent;
    }
}

/// Watches for the file that a link leads to in the end.
fn target_of(path: &Path, wanted: &mut BTreeMap<PathBuf, Interest>) {
    if let Ok(target) = path.canonicalize() {
        name_of(&target, wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("natlet-watch-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_that_is_open_for_writing_is_not_complete() {
        let at = directory("open");
        let path = at.join("services.toml");
        let mut watch = Watch::new(std::slice::from_ref(&path)).unwrap();
        let now = Instant::now();
        assert!(!watch.drain(now));
        let mut file = fs::File::create(&path).unwrap();
        assert!(watch.drain(now) && watch.half_written(now) == Some(path.clone()));
        file.write_all(b"[node]\n").unwrap();
        assert!(watch.drain(now) && watch.half_written(now).is_some());
        assert_eq!(watch.half_written(now + PATIENCE), None, "nobody waits for ever");
        drop(file);
        assert!(watch.drain(now) && watch.half_written(now).is_none());
        fs::write(at.join("other"), "x").unwrap();
        assert!(!watch.drain(now), "another file of the directory");
        fs::write(at.join("new"), "[node]\n").unwrap();
        fs::rename(at.join("new"), &path).unwrap();
        assert!(watch.drain(now) && watch.half_written(now).is_none(), "a rename into place is complete");
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_swapped_link_is_a_change_and_so_is_its_target() {
        let at = directory("links");
        for version in ["..1", "..2"] {
            fs::create_dir(at.join(version)).unwrap();
            fs::write(at.join(version).join("services.toml"), "[node]\n").unwrap();
        }
        symlink("..1", at.join(CONFIG_MAP)).unwrap();
        symlink("..data/services.toml", at.join("services.toml")).unwrap();
        let now = Instant::now();
        for path in [at.clone(), at.join("services.toml")] {
            let mut watch = Watch::new(&[path]).unwrap();
            symlink("..2", at.join("..tmp")).unwrap();
            fs::rename(at.join("..tmp"), at.join(CONFIG_MAP)).unwrap();
            assert!(watch.drain(now) && watch.half_written(now).is_none());
            watch.rescan();
            fs::write(at.join("..2/services.toml"), "[node]\n\n").unwrap();
            assert!(watch.drain(now), "a write to the link's target");
            symlink("..1", at.join("..tmp")).unwrap();
            fs::rename(at.join("..tmp"), at.join(CONFIG_MAP)).unwrap();
        }
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_path_may_appear_later() {
        let at = directory("later");
        let mut watch = Watch::new(&[at.join("a/b/services.toml")]).unwrap();
        let now = Instant::now();
        fs::create_dir_all(at.join("a/b")).unwrap();
        assert!(watch.drain(now));
        watch.rescan();
        fs::write(at.join("a/b/services.toml"), "[node]\n").unwrap();
        assert!(watch.drain(now));
        fs::remove_dir_all(at).unwrap();
    }
}
