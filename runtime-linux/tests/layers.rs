//! The way of the data through the modules, held: which module may use which, and who may know what.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module, and the modules of this crate that it may use. `cli`, `agent` and `gateway` stand above all others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("source", &["export"]), // the placeholder for endpoints that a program does not keep
    ("image", &[]),
    ("view", &[]),
    ("yaml", &[]),
    ("lab", &[]),
    ("lower", &["nft"]),
    ("nft", &["netlink"]),
    ("netlink", &["nft"]),
    ("kernel", &["image", "lower", "netlink", "nft"]), // the program that was loaded is kept as bytes
    ("conntrack", &["netlink", "nft"]),
    ("counters", &["conntrack", "kernel", "lower", "netlink", "nft", "view"]),
    ("difference", &["kernel", "lower", "nft"]),
    ("export", &["image", "kernel", "lower", "nft", "source", "view", "yaml"]), // what is written is read back and compared
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    files
}

/// The module that a file belongs to, and its code without tests and comments.
fn code(path: &Path, text: &str) -> Option<(String, String)> {
    let is_test = path
        .components()
        .any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "tests.rs" | "fixture.rs" | "golden.rs" | "golden")));
    if is_test {
        return None;
    }
    let module = path.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
    let code = text.split("#[cfg(test)]\nmod tests {").next()?;
    let code = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    Some((module, code))
}

fn words_after(code: &str, prefix: &str) -> BTreeSet<String> {
    code.match_indices(prefix)
        .map(|(at, _)| code[at + prefix.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        let Some((module, code)) = code(&path, &text) else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else { continue };
        for used in words_after(&code, "crate::") {
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{}: {module} may not use {used}",
                path.display()
            );
        }
        seen.insert(module);
    }
    assert_eq!(seen.len(), MAY_USE.len(), "each module is there: {seen:?}");
}

/// Nothing behind the program knows a service table, and nothing of nf_tables knows a program.
#[test]
fn each_side_knows_its_own_types() {
    for (path, text) in sources() {
        let Some((module, code)) = code(&path, &text) else { continue };
        let forbidden: &[&str] = match module.as_str() {
            "nft" | "netlink" => &["natlet_core", "Image"],
            "lower" | "kernel" | "view" | "difference" => &["ServiceTable", "TableBuf"],
            "source" => &["Program<", "Image", "nft::"],
            _ => &[],
        };
        for word in forbidden {
            assert!(!code.contains(word), "{} may not know {word}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file_at_most() {
    let files: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|(path, text)| code(path, text).is_some_and(|(_, code)| code.contains("unsafe ")))
        .map(|(path, _)| path)
        .collect();
    assert!(files.len() <= 1, "{files:?}");
}

/// What follows the API server is behind a feature, in one folder; nothing else may come to need it.
#[test]
fn one_folder_knows_the_kubernetes_client() {
    let folder = Path::new("agent/kubernetes");
    let mut inside = 0;
    for (path, text) in sources() {
        let Some((_, code)) = code(&path, &text) else { continue };
        let knows = ["kube::", "tokio::"].iter().any(|name| {
            code.match_indices(name)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == ':' || c == '_'))
        });
        assert!(!knows || path.starts_with(folder), "{} may not know the client", path.display());
        inside += usize::from(knows);
    }
    assert!(inside >= 3, "the client is found where it is: {inside}");
}
