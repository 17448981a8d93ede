//! Reading the input again while packets go on: on a thread of its own, since a large table takes a while.

use crate::image::Image;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Reads the input; it says itself what is wrong.
pub type ReadAgain = Arc<dyn Fn() -> Option<Image> + Send + Sync>;

/// At most one reading at a time.
pub struct Reloader {
    read_again: ReadAgain,
    job: Option<JoinHandle<Option<Image>>>,
    /// Asked for again while one is under way: the files may have changed behind its back.
    again: bool,
    done: PipeReader,
    notify: PipeWriter,
}

impl Reloader {
    pub fn new(read_again: ReadAgain) -> io::Result<Self> {
        let (done, notify) = pipe()?;
        Ok(Self { read_again, job: None, again: false, done, notify })
    }

    /// Starts to read.
    pub fn start(&mut self) {
        if self.job.is_some() {
            self.again = true;
            return;
        }
        let Ok(mut notify) = self.notify.try_clone() else { return };
        let read_again = Arc::clone(&self.read_again);
        self.job = Some(thread::spawn(move || {
            let image = read_again();
            let _ = notify.write_all(&[0]); // the reader lives as long as the process
            image
        }));
    }

    /// The result, once the descriptor is readable.
    pub fn finish(&mut self) -> Option<Image> {
        let _ = self.done.read(&mut [0]);
        let image = self.job.take()?.join().ok().flatten();
        if std::mem::take(&mut self.again) {
            self.start();
        }
        image
    }
}

impl AsFd for Reloader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}
