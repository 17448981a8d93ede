//! `natlet run`: what it takes for its sources, and what it says where it cannot.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

use std::process::{Command, Output};

/// Runs the command with these variables alone, so that the caller's kubeconfig is not found.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natlet"));
    let Output { status, stderr, .. } = command.env_clear().arg("run").args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_build_without_the_kubernetes_api_says_so() {
    if cfg!(feature = "kubernetes") {
        return; // the whole workspace is built with it for its tests; `cargo test -p natlet` is without
    }
    let (code, text) = run(&["--kubernetes", "--node-name", "edge-7"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("without the Kubernetes API") && text.contains("--features kubernetes"), "{text}");
}

#[test]
fn sources_are_files_or_a_cluster() {
    for (arguments, what) in [
        (&["--kubernetes"][..], "--node-name"),
        (&["--kubernetes", "--node-name", "a", "services.toml"], "cannot be used with"),
        (&["--api-server", "https://192.0.2.1", "services.toml"], "--kubernetes"),
        (&["--kubernetes", "--node-name", "a", "--api-server", "192.0.2.1:6443"], "give a URL such as https://"),
        (&[], "FILE"),
    ] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(what), "{arguments:?}: {text}");
    }
}

#[test]
fn the_nodes_cidrs_and_the_clusters_exclude_each_other() {
    if cfg!(not(feature = "kubernetes")) {
        return; // nothing follows the API there
    }
    let node = ["--kubernetes", "--node-name", "a", "--detect-local-mode", "node-cidr"];
    let both = [&node[..], &["--cluster-cidr", "10.0.0.0/8"]].concat();
    let (code, text) = run(&both);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("leave out --cluster-cidr"), "{text}");
}
