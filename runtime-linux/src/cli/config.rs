//! `natlet run --config FILE`: the file's settings become the flags that were not given otherwise.
//!
//! Names, values and their checks are those of the flags, because that is what they become: `natlet run` with what the file
//! says is the same command line as one that says it itself. Flags win over the environment, and both over the file.

use super::args::Cli;
use super::failure::{Failure, colour};
use crate::source::Problems;
use crate::source::settings::{Setting, read};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory};
use std::ffi::OsString;
use std::path::PathBuf;

/// The command that has settings, and what the file calls its operands.
const COMMAND: &str = "run";
const FILES: &str = "files";
/// What a file cannot say.
const NOT_IN_A_FILE: [&str; 3] = ["config", "help", "version"];

/// The process's arguments with what its settings file adds.
pub fn arguments() -> Result<Vec<OsString>, Failure> {
    complete(std::env::args_os().collect())
}

fn complete(mut arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    if arguments.get(1).is_none_or(|word| word != COMMAND) {
        return Ok(arguments);
    }
    // What is missing may be in the file; what is wrong is said when the whole is read.
    let lenient = Cli::command().ignore_errors(true).try_get_matches_from(&arguments);
    let Some(given) = lenient.ok().and_then(|mut m| m.remove_subcommand()).map(|(_, given)| given) else {
        return Ok(arguments);
    };
    let Some(path) = given.get_one::<PathBuf>("config") else { return Ok(arguments) };
    let mut cli = Cli::command();
    cli.build();
    let Some(command) = cli.find_subcommand(COMMAND) else { return Ok(arguments) };
    let names: Vec<&str> =
        command.get_arguments().filter_map(|a| a.get_long()).filter(|n| !NOT_IN_A_FILE.contains(n)).collect();
    let settings = read(path, &[&names[..], &[FILES]].concat()).map_err(|p| Failure::Input(p.render(colour())))?;
    let mut added = Vec::new();
    let mut wrong = Vec::new();
    for setting in &settings {
        match flags(setting, command) {
            Err(why) => wrong.push(setting.problem(&why)),
            Ok(flags) if !is_given(setting, command, &given) => added.extend(flags),
            Ok(_) => {}
        }
    }
    if let Some(problems) = Problems::new(wrong) {
        return Err(Failure::Input(problems.render(colour())));
    }
    arguments.splice(2..2, added);
    Ok(arguments)
}

/// Whether the command line or the environment says it.
fn is_given(setting: &Setting, command: &Command, given: &ArgMatches) -> bool {
    let id = match setting.name.as_str() {
        FILES => Some(FILES),
        name => command.get_arguments().find(|a| a.get_long() == Some(name)).map(|a| a.get_id().as_str()),
    };
    let source = id.and_then(|id| given.value_source(id));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// A setting as words of the command line, tried on their own; else why it cannot be.
fn flags(setting: &Setting, command: &Command) -> Result<Vec<OsString>, String> {
    let values = &setting.values;
    if setting.name == FILES {
        return match values.iter().find(|v| v.starts_with('-')) {
            Some(_) => Err("a path cannot begin with a dash here".into()),
            None => Ok(values.iter().map(Into::into).collect()),
        };
    }
    let named = |a: &&clap::Arg| a.get_long() == Some(&setting.name);
    let is_switch = command.get_arguments().find(named).is_some_and(|a| matches!(a.get_action(), ArgAction::SetTrue));
    let words: Vec<String> = match values.as_slice() {
        [on] if is_switch && on == "true" => vec![format!("--{}", setting.name)],
        [off] if is_switch && off == "false" => Vec::new(),
        _ if is_switch => return Err("this is true or false".into()),
        values => values.iter().map(|value| format!("--{}={value}", setting.name)).collect(),
    };
    let trial = ["natlet".to_owned(), "a-file".to_owned()].into_iter().chain(words.clone());
    match command.clone().try_get_matches_from(trial) {
        Ok(_) => Ok(words.into_iter().map(Into::into).collect()),
        // How it goes with the others is seen when all are there.
        Err(error) if [ErrorKind::ArgumentConflict, ErrorKind::MissingRequiredArgument].contains(&error.kind()) => {
            Ok(words.into_iter().map(Into::into).collect())
        }
        Err(error) => Err(reason(&error.to_string())),
    }
}

/// The end of clap's first line, which says why: `error: invalid value 'x' for '--listen <IP:PORT>': give an address …`.
fn reason(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
    line.rsplit_once("': ").map_or(line, |(_, why)| why).to_owned()
}
