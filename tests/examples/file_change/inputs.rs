//! Inputs of many services in two versions, which differ in one endpoint.

use crate::generate::{self, Plan};
use crate::large;
use natlet::image::Image;
use natlet::source::{Input, Loaded, NodeFlags, load_inputs};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Files of a directory.
const FILES: usize = 200;

/// A source on disk.
pub struct Source {
    /// What the agent is given.
    pub path: PathBuf,
    /// The file that changes.
    pub changing: PathBuf,
    /// What it says before and after a change.
    pub versions: [Vec<u8>; 2],
    /// Bytes of all files.
    pub bytes: usize,
}

impl Source {
    /// Writes a source of this kind: `toml`, `yaml`, `json`, `directory` (of services.toml files) or `program`.
    pub fn new(kind: &str, place: &Path, services: usize, endpoints: usize) -> Result<Self, Box<dyn Error>> {
        let toml = || [200, 201].map(|moved| large::table(services, endpoints, moved));
        let plan =
            Plan { services: u32::try_from(services)?, endpoints: u32::try_from(endpoints)?, managed_fields: false };
        let versions = match kind {
            "toml" => toml().map(String::into_bytes),
            "yaml" => moved(generate::yaml(plan)),
            "json" => moved(generate::json(plan)),
            "program" => {
                let [before, after] = toml().map(program);
                [before?, after?]
            }
            "directory" => return directory(place, &toml()),
            _ => return Err("give toml, yaml, json, directory or program".into()),
        };
        let path = place.join(format!("source.{kind}"));
        std::fs::write(&path, &versions[0])?;
        Ok(Self { changing: path.clone(), path, bytes: versions[0].len(), versions })
    }
}

impl Source {
    /// Puts one of the versions in place; when that was begun.
    pub fn change(&self, version: usize) -> std::io::Result<Instant> {
        let new = self.path.with_extension("new");
        std::fs::write(&new, &self.versions[version])?;
        let started = Instant::now();
        std::fs::rename(new, &self.changing)?;
        Ok(started)
    }
}

/// A manifest, and the same with the first endpoint elsewhere.
fn moved(text: String) -> [Vec<u8>; 2] {
    let after = text.replacen("10.128.0.0", "10.254.0.1", 1);
    [text, after].map(String::into_bytes)
}

fn program(text: String) -> Result<Vec<u8>, Box<dyn Error>> {
    let input = Input { name: "services.toml".into(), bytes: text.into_bytes(), found: false };
    let Loaded::Table { table, .. } = load_inputs(vec![input], &NodeFlags::default())? else {
        return Err("a services.toml is a table".into());
    };
    Ok(Image::compile(&table.as_table())?.as_bytes().to_vec())
}

/// The services of a services.toml in many files; the first one's are in the one that changes.
fn directory(place: &Path, texts: &[String; 2]) -> Result<Source, Box<dyn Error>> {
    let path = place.join("sources");
    std::fs::create_dir_all(&path)?;
    let files = texts.each_ref().map(|text| {
        let mut files = vec![String::new(); FILES];
        for (index, service) in text.split("[[service]]").enumerate() {
            let head = if index == 0 { "" } else { "[[service]]" };
            let file = &mut files[index.saturating_sub(1) % FILES];
            file.extend([head, service]);
        }
        files
    });
    let name = |index: usize| path.join(format!("{index:03}.toml"));
    for (index, text) in files[0].iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        std::fs::write(name(index), text)?;
    }
    let bytes = texts[0].len();
    let versions = files.map(|mut files| files.swap_remove(0).into_bytes());
    Ok(Source { changing: name(0), path, versions, bytes })
}
