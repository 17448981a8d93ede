//! `natlet compile`: table to program file.

use super::args::CompileArgs;
use super::failure::{Failure, print_bytes, remark};
use super::input;
use natlet_core::{Program, strip_names};
use std::io::Write;
use std::path::Path;

pub fn run(args: &CompileArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let program = image.program();
    let mut bytes = image.as_bytes().to_vec();
    if args.strip_names {
        let len = strip_names(&program, &mut bytes).map_err(|e| Failure::operation("stripping names", e))?;
        bytes.truncate(len);
    }
    if args.output.as_os_str() == "-" {
        print_bytes(&bytes)?;
    } else {
        write_whole(&args.output, &bytes)
            .map_err(|e| Failure::operation(&format!("writing {}", args.output.display()), e))?;
    }
    remark(&summary(&program, bytes.len()));
    Ok(())
}

/// Writes to a file beside the target and renames it: a reader sees the old or the new program, whole.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let not_a_file = path.exists() && !path.is_file();
    if not_a_file {
        return std::fs::write(path, bytes);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn summary(program: &Program<'_>, bytes: usize) -> String {
    let services = program.records().count();
    let endpoints: usize = program.records().map(|r| r.endpoints().len()).sum();
    format!(
        "{services} service ports, {} frontends, {endpoints} endpoints; {bytes} bytes; content id {}",
        program.frontend_count(),
        program.content_id()
    )
}
