//! The `natlet` command: arguments in, text or JSON out, exit status 0 done, 1 failed, 2 bad usage or input.

mod args;
mod ask;
mod compile;
mod config;
mod diff;
mod export;
mod failure;
mod flows;
mod gateway;
mod input;
mod kernel;
mod run;
mod show;
mod status;
mod top;
mod trace;
mod try_;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let cli = match config::arguments() {
        Ok(arguments) => Cli::parse_from(arguments),
        Err(failure) => return failure.report(),
    };
    let result = match cli.command {
        Command::Try(args) => try_::run(&args),
        Command::Load(args) => kernel::load(&args),
        Command::Unload => kernel::unload(),
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Gateway(args) => gateway::run(args),
        Command::Export(args) => export::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
