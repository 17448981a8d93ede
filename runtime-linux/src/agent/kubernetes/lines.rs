//! A body of HTTP as it arrives: whole, or line by line, with limits on time and size.

use super::follow::Failure;
use http_body_util::BodyExt as _;
use kube::client::Body;
use std::time::Duration;
use tokio::time::timeout;

/// The longest event that is read. The API server stores no object of more than some megabytes.
const LONGEST_LINE: usize = 16 << 20;
/// The largest page of a list.
const LARGEST: usize = 256 << 20;

/// Reads a body to its end.
pub async fn whole(body: Body, silence: Duration) -> Result<Vec<u8>, Failure> {
    let mut lines = Lines::new(body, silence);
    while lines.more().await? {
        if lines.buffer.len() > LARGEST {
            return Err(Failure::TooLong);
        }
    }
    Ok(lines.buffer)
}

/// A body's lines.
pub struct Lines {
    body: Body,
    silence: Duration,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out.
    taken: usize,
    /// Bytes of the buffer that hold no end of a line beyond those.
    searched: usize,
}

impl Lines {
    /// Of this body; it fails if nothing comes for `silence`.
    pub fn new(body: Body, silence: Duration) -> Self {
        Self { body, silence, buffer: Vec::new(), taken: 0, searched: 0 }
    }

    /// The next line; `None` at the end. What follows the last end of a line was cut off and is no line.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = self.taken..self.searched + end;
                self.taken = line.end + 1;
                self.searched = self.taken;
                return Ok(self.buffer.get(line));
            }
            self.buffer.drain(..std::mem::take(&mut self.taken));
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST_LINE {
                return Err(Failure::TooLong);
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for bytes; `false` at the end.
    async fn more(&mut self) -> Result<bool, Failure> {
        match timeout(self.silence, self.body.frame()).await {
            Err(_) => Err(Failure::Silence(self.silence)),
            Ok(None) => Ok(false),
            Ok(Some(Err(error))) => Err(Failure::connection(&error)),
            Ok(Some(Ok(frame))) => {
                self.buffer.extend(frame.into_data().unwrap_or_default());
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut lines = Lines::new(Body::from(text.as_bytes().to_vec()), Duration::from_secs(1));
            let mut all = Vec::new();
            while let Some(line) = lines.next().await.expect("a body in memory") {
                all.push(String::from_utf8_lossy(line).into_owned());
            }
            all
        })
    }

    #[test]
    fn a_line_that_is_cut_off_is_none() {
        assert_eq!(lines("a\nbc\n\nd"), ["a", "bc", ""]);
        assert_eq!(lines(""), [""; 0]);
        assert_eq!(lines("a"), [""; 0]);
    }
}
