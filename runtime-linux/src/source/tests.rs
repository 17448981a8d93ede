use super::*;
use std::fs;
use std::os::unix::fs::symlink;

const SERVICE: &str = include_str!("../../examples/workshop/service.yaml");
const SLICE: &str = include_str!("../../examples/workshop/endpointslice.yaml");
const TOML: &str = include_str!("../../examples/services.toml");
const PROSE: &str = include_str!("iptables/testdata/prose.txt");
const MODERN: &str = include_str!("iptables/testdata/modern.txt");
const JSON: &str = include_str!("manifest/testdata/kubectl.json");

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("natlet-source-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a scratch file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn input(name: &str, content: impl AsRef<[u8]>) -> Input {
    Input { name: name.into(), bytes: content.as_ref().to_vec(), found: false }
}

fn table(loaded: Result<Loaded, Problems>) -> (TableBuf, Report) {
    match loaded {
        Ok(Loaded::Table { table, report }) => (table, report),
        Ok(Loaded::Program { path, .. }) => panic!("{path} is no program"),
        Err(problems) => panic!("{problems}"),
    }
}

fn titles(loaded: Result<Loaded, Problems>) -> Vec<String> {
    loaded.expect_err("a faulty input").iter().map(|p| p.title().to_owned()).collect()
}

#[test]
fn a_directory_is_every_visible_file_in_it() {
    let scratch = Scratch::new("directory");
    scratch.file("b.yaml", SERVICE);
    scratch.file(".hidden.yaml", "{{{");
    scratch.file("readme", "Hello there\n");
    // as kubelet mounts a ConfigMap
    let version = scratch.0.join("..2024_01_01");
    fs::create_dir(&version).expect("a directory");
    fs::write(version.join("a.yaml"), SLICE).expect("a file");
    symlink("..2024_01_01", scratch.0.join("..data")).expect("a link");
    symlink("..data/a.yaml", scratch.0.join("a.yaml")).expect("a link");
    let (table, report) = table(load(std::slice::from_ref(&scratch.0), &NodeFlags::default()));
    assert_eq!((table.services().len(), table.as_table().endpoints.len()), (2, 4));
    assert_eq!(report.warnings.len(), 1);
    assert!(report.warnings[0].title().ends_with("readme is no input of natlet's and is left out"));
}

#[test]
fn what_cannot_be_read_is_told_at_once() {
    let scratch = Scratch::new("missing");
    let missing = scratch.0.join("missing.yaml");
    let paths = [missing.clone(), scratch.0.clone(), missing.clone()];
    let found = titles(load(&paths, &NodeFlags::default()));
    assert_eq!(found.len(), 3);
    assert!(found[0].starts_with(&format!("cannot read {}: ", missing.display())), "{found:?}");
    assert_eq!(found[1], format!("there is no file in {}", scratch.0.display()));
    assert_eq!(found[2], format!("{} is given twice", missing.display()));
}

#[test]
fn a_program_is_returned_as_it_is() {
    let scratch = Scratch::new("program");
    let path = scratch.file("p.natp", b"NATP\x00\xff");
    match load(std::slice::from_ref(&path), &NodeFlags::default()) {
        Ok(Loaded::Program { bytes, path: name }) => {
            assert_eq!((&bytes[..], name), (&b"NATP\x00\xff"[..], path.display().to_string()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_takes_neither_company_nor_flags() {
    let flags = NodeFlags { node_name: Some("n".into()), masquerade_all: true, ..NodeFlags::default() };
    let inputs = || vec![input("a.yaml", SERVICE), input("p.natp", "NATP")];
    let problems = load_inputs(inputs(), &flags).expect_err("both");
    let found: Vec<_> = problems.iter().map(|p| (p.title(), p.way_out())).collect();
    let expected = [
        (
            "p.natp is a compiled program and cannot be combined with other inputs",
            "give the program alone, or compile all the sources together",
        ),
        (
            "p.natp is a compiled program: it already carries its node's settings",
            "leave out --node-name, --masquerade-all, or compile again with it",
        ),
    ];
    assert_eq!(found, expected);
    assert_eq!(titles(load_inputs(inputs(), &NodeFlags::default())).len(), 1);
}

#[test]
fn kinds_combine_to_one_table() {
    let inputs = vec![input("a.yaml", SERVICE), input("b.yaml", SLICE), input("c.toml", TOML), input("d.txt", MODERN)];
    let (table, report) = table(load_inputs(inputs, &NodeFlags::default()));
    assert_eq!(table.services().len(), 2 + 4 + 6);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(table.node.name, "gw-1");
}

#[test]
fn claims_clash_across_kinds() {
    let toml = "[[service]]\nname = \"x\"\nport = 443\nexternal-ip = \"192.168.5.65\"\n";
    let problems =
        load_inputs(vec![input("a.yaml", SERVICE), input("c.toml", toml)], &NodeFlags::default()).expect_err("a clash");
    let places: Vec<_> = problems.iter().next().expect("one").places().map(ToString::to_string).collect();
    assert_eq!(places, ["c.toml:4:15", "a.yaml:13:5"]);
    let twice = load_inputs(vec![input("c.toml", "[node]\n"), input("d.toml", "[node]\n")], &NodeFlags::default());
    assert_eq!(titles(twice), ["[node] is given twice"]);
}

#[test]
fn what_is_no_input_is_refused() {
    let refused = |content: &[u8]| titles(load_inputs(vec![input("x", content)], &NodeFlags::default()));
    assert_eq!(refused(b"Hello there\n"), ["x is no input that natlet knows"]);
    assert_eq!(refused(b"kind: \0"), ["x is not text: it holds a NUL byte"]);
    let problems =
        load_inputs(vec![input("x", b"kind: Service\nname: \xff\n")], &NodeFlags::default()).expect_err("not UTF-8");
    let problem = problems.iter().next().expect("one");
    assert_eq!(
        (problem.title(), problem.places().next().expect("a place").to_string().as_str()),
        ("x is not UTF-8", "x:2:7")
    );
}

#[test]
fn nothing_makes_an_empty_table() {
    let (table, report) = table(load_inputs(vec![input("x", "\u{feff}# nothing\n")], &NodeFlags::default()));
    assert_eq!(table, TableBuf::default());
    assert_eq!(report.warnings[0].title(), "x is empty");
}

/// xorshift64*: the same inputs on every run.
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap_or(0) % limit.max(1)
    }
}

/// Reads what may be anything, and draws every complaint: neither may panic.
fn survives(bytes: &[u8]) {
    match load_inputs(vec![input("x", bytes)], &NodeFlags::default()) {
        Ok(Loaded::Table { report, .. }) => drop(render_all(&report.warnings, true)),
        Ok(Loaded::Program { .. }) => {}
        Err(problems) => drop(problems.render(false)),
    }
}

#[test]
fn truncated_inputs_never_panic() {
    for (sample, step) in [(SERVICE, 1), (SLICE, 1), (TOML, 3), (PROSE, 5), (JSON, 3), (MODERN, 13)] {
        for end in (0..sample.len()).step_by(step) {
            survives(&sample.as_bytes()[..end]);
        }
    }
}

#[test]
fn damaged_inputs_never_panic() {
    const PIECES: [&[u8]; 12] =
        [b"\n", b"{", b"}", b"[", b"]", b": ", b"- ", b"\"", b"&a ", b"*a", "é".as_bytes(), b"99999999999999999999999"];
    let mut random = Random(0x6E61_746C_6574);
    for sample in [SERVICE, SLICE, TOML, PROSE, MODERN, JSON] {
        for _ in 0..300 {
            let mut bytes = sample.as_bytes().to_vec();
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => drop(bytes.drain(at..(at + random.below(40)).min(bytes.len()))),
                    2 => {
                        let from = random.below(bytes.len());
                        let piece = bytes[from..(from + random.below(80)).min(bytes.len())].to_vec();
                        bytes.splice(at..at, piece);
                    }
                    _ => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
                }
            }
            survives(&bytes);
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    const ALPHABET: &[u8] = b"ab1:-[]{}\"'\\,#&*!|>%@ \n\t=.~?/\xc3\xa9";
    let mut random = Random(1);
    for _ in 0..5_000 {
        let length = random.below(60);
        let bytes: Vec<u8> = (0..length).map(|_| ALPHABET[random.below(ALPHABET.len())]).collect();
        survives(&bytes);
        survives(&[b"---\n", &bytes[..]].concat());
        survives(&[b"[[service]]\n", &bytes[..]].concat());
    }
}
