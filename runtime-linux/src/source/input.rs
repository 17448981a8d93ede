//! From paths to bytes: files, directories and standard input.

use super::detect::PROGRAM_MAGIC;
use super::diagnostic::Diagnostic;
use super::stretch::{self, Stretch};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest input that is read.
const LARGEST: u64 = 256 * 1024 * 1024;

/// An input's bytes and where they came from.
#[derive(Clone, Debug)]
pub struct Input {
    /// What messages call it: its path, or `<stdin>`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Found in a directory, not named by the user: if it is no input it is left out, not an error.
    pub found: bool,
}

/// Reads all paths; `-` is standard input, a directory is every visible file in it, in the order of their names.
pub(super) fn read_all(paths: &[PathBuf], problems: &mut Vec<Diagnostic>) -> Vec<Input> {
    let mut inputs = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        if !seen.insert(path) {
            problems.push(Diagnostic::error(format!("{} is given twice", path.display())).help("name it once"));
            continue;
        }
        if path.as_os_str() == "-" {
            let bytes = read_limited(io::stdin().lock(), 0);
            collect("<stdin>".to_owned(), bytes, false, &mut inputs, problems);
        } else if path.is_dir() {
            read_directory(path, &mut inputs, problems);
        } else {
            collect(path.display().to_string(), read(path), false, &mut inputs, problems);
        }
    }
    inputs
}

/// Every regular file and link to one, but no hidden ones: a mounted ConfigMap keeps its versions in `..data`.
fn read_directory(directory: &Path, inputs: &mut Vec<Input>, problems: &mut Vec<Diagnostic>) {
    let paths = match files_in(directory) {
        Ok(paths) => paths,
        Err(error) => return problems.push(unreadable(&directory.display().to_string(), &error)),
    };
    if paths.is_empty() {
        problems.push(
            Diagnostic::error(format!("there is no file in {}", directory.display())).help(
                "give manifests, a services.toml or an iptables-save listing; directories inside are not entered",
            ),
        );
    }
    for path in paths {
        collect(path.display().to_string(), read(&path), true, inputs, problems);
    }
}

fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let visible = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && fs::metadata(path).is_ok_and(|meta| meta.is_file())
    };
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(visible).collect();
    paths.sort();
    Ok(paths)
}

/// What the files that these paths lead to now are called; `None` where that cannot be told.
pub(super) fn names(paths: &[PathBuf]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for path in paths {
        if path.is_dir() {
            names.extend(files_in(path).ok()?.iter().map(|path| path.display().to_string()));
        } else {
            names.push(path.display().to_string());
        }
    }
    Some(names)
}

/// Reads one file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // a byte more than it has: reading it to its end then needs no more room
    let room = file.metadata().map_or(0, |meta| meta.len().min(LARGEST) + 1);
    read_limited(file, usize::try_from(room).unwrap_or(0))
}

fn collect(
    name: String,
    bytes: io::Result<Vec<u8>>,
    found: bool,
    inputs: &mut Vec<Input>,
    problems: &mut Vec<Diagnostic>,
) {
    match bytes {
        Ok(bytes) if bytes.len() as u64 > LARGEST => problems.push(
            Diagnostic::error(format!("{name} is larger than {} MiB", LARGEST / 1024 / 1024))
                .help("split it into several files"),
        ),
        Ok(bytes) => inputs.push(Input { name, bytes, found }),
        Err(error) => problems.push(unreadable(&name, &error)),
    }
}

/// Up to one byte more than is allowed: a pipe does not say its size. A text that cannot be an input is not read on.
fn read_limited(mut reader: impl Read, room: usize) -> io::Result<Vec<u8>> {
    const CHUNK: u64 = 256 * 1024;
    let mut bytes = Vec::with_capacity(room);
    let mut stretch = Stretch::default();
    loop {
        let before = bytes.len();
        let limit = CHUNK.min(LARGEST + 1 - before as u64);
        reader.by_ref().take(limit).read_to_end(&mut bytes)?;
        let chunk = bytes.get(before..).unwrap_or_default();
        if chunk.is_empty() {
            return Ok(bytes);
        }
        if !bytes.starts_with(PROGRAM_MAGIC) && !stretch.goes_on(chunk) {
            let title = format!("{} MiB of it hold no key or no line break", stretch::LONGEST / 1024 / 1024);
            return Err(io::Error::new(io::ErrorKind::InvalidData, title));
        }
    }
}

fn unreadable(name: &str, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "check the path; - reads standard input",
        io::ErrorKind::PermissionDenied => "check who may read it",
        io::ErrorKind::InvalidData => {
            "give Kubernetes manifests, whose objects are never so large, a services.toml or an iptables-save listing"
        }
        _ => "",
    };
    Diagnostic::error(format!("cannot read {name}: {error}")).help(help)
}
