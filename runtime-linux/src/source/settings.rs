//! A settings file: flags of a command as TOML, `node-name = "edge-7"` for `--node-name edge-7`.
//!
//! What a value means is the command's affair; here a file becomes names with the texts of their values, each with its
//! place, and unknown names are refused.

use super::diagnostic::{Diagnostic, Place, Problems, Sink, SourceFile};
use super::document::{Node, Value, Walker};
use super::services_toml::parse;
use std::path::Path;
use std::sync::Arc;

/// A flag's value in a file.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The flag's name without its dashes.
    pub name: String,
    /// The value, or those of a list, as text.
    pub values: Vec<String>,
    place: Place,
}

impl Setting {
    /// What is wrong with its value.
    pub fn problem(&self, why: &str) -> Diagnostic {
        let title = format!("{} cannot be {}", self.name, self.values.join(", "));
        Diagnostic::error(title)
            .at(self.place.clone(), why)
            .help("the values are those of the flag; see natlet run --help")
    }
}

/// Reads a file; only these names may be in it.
///
/// # Errors
/// All that is wrong, with places; values are checked by the caller.
pub fn read(path: &Path, names: &[&str]) -> Result<Vec<Setting>, Problems> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        Problems::one(Diagnostic::error(format!("cannot read the settings in {shown}: {e}")).help("see --config"))
    })?;
    let file = Arc::new(SourceFile::new(shown, text));
    let mut sink = Sink::default();
    let mut settings = Vec::new();
    if let Some(document) = parse(&file, &mut sink) {
        let mut walker = Walker { file: &file, sink: &mut sink, quoted_text: false };
        walker.only_keys(&document, "the settings", names);
        for entry in document.entries().iter().filter(|e| names.contains(&&*e.key)) {
            let values = texts(&entry.value, &entry.key, &mut walker);
            let place = walker.place(entry.value.span);
            settings.push(Setting { name: entry.key.clone().into_owned(), values, place });
        }
    }
    match Problems::new(sink.problems) {
        Some(problems) => Err(problems),
        None => Ok(settings),
    }
}

fn texts(node: &Node, name: &str, walker: &mut Walker<'_>) -> Vec<String> {
    let items = match &node.value {
        Value::Seq(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    items.iter().filter_map(|item| walker.text(item, name)).map(str::to_owned).collect()
}
