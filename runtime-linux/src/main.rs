//! The `natlet` command.

fn main() -> std::process::ExitCode {
    natlet::cli::main()
}
