use super::super::tests::Random;
use super::super::{Loaded, NodeFlags, load_outlined};
use super::*;
use crate::image::Image;
use std::fmt::Write as _;
use std::fs;

/// A service of which everything that changes is a number.
#[derive(Clone, Debug)]
struct Made {
    name: usize,
    ip: usize,
    endpoints: Vec<usize>,
    /// Something is wrong with it.
    faulty: bool,
}

/// How a file is written.
const LAYOUTS: [&str; 4] = ["toml", "documents", "items", "json"];

fn endpoint(number: usize) -> String {
    format!("10.1.{}.{}", number / 200, number % 200 + 1)
}

/// A Service and its slice, as JSON; `kubectl` breaks its lines so.
fn json(made: &Made) -> [serde_json::Value; 2] {
    let Made { name, ip, endpoints, faulty } = made;
    let port = if *faulty { 70_000 } else { 80 };
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|e| serde_json::json!({ "addresses": [endpoint(*e)], "nodeName": format!("n{}", e % 3) }))
        .collect();
    [
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("s{name}"), "namespace": "n" },
            "spec": { "clusterIP": format!("10.96.0.{ip}"), "ports": [{ "port": port }], "internalTrafficPolicy": "Local" },
        }),
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
            "metadata": { "name": format!("s{name}-x"), "namespace": "n", "labels": { "kubernetes.io/service-name": format!("s{name}") } },
            "ports": [{ "port": 8080 }],
        }),
    ]
}

/// Block YAML of a value, its first line unindented.
fn yaml(value: &serde_json::Value, indent: usize, out: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                let pad = if index > 0 { indent } else { 0 };
                let _ = write!(out, "{:pad$}{key}:", "");
                match value {
                    serde_json::Value::Object(_) => {
                        let _ = write!(out, "\n{:width$}", "", width = indent + 2);
                        yaml(value, indent + 2, out);
                    }
                    serde_json::Value::Array(items) if !items.is_empty() => {
                        for item in items {
                            let _ = write!(out, "\n{:indent$}- ", "");
                            yaml(item, indent + 2, out);
                            out.truncate(out.trim_end().len());
                        }
                        out.push('\n');
                    }
                    plain => _ = writeln!(out, " {plain}"),
                }
            }
        }
        plain => _ = writeln!(out, "{plain}"),
    }
}

/// A host that rides on a service.
fn ingress(name: usize) -> serde_json::Value {
    let backend = serde_json::json!({ "service": { "name": format!("s{name}"), "port": { "number": 80 } } });
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "i", "namespace": "n" },
        "spec": { "rules": [{ "host": "www.example.com", "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } }] },
    })
}

fn write(layout: &str, services: &[Made], settings: usize, host: Option<usize>) -> String {
    let objects = || services.iter().flat_map(json).chain(host.map(ingress));
    match layout {
        "toml" => {
            let mut text = format!("# {settings}\n");
            for Made { name, ip, endpoints, faulty } in services {
                let port = if *faulty { 70_000 } else { 80 };
                let list: Vec<String> = endpoints
                    .iter()
                    .map(|e| format!("{{ address = \"{}:8080\", node = \"n{}\" }}", endpoint(*e), e % 3))
                    .collect();
                let _ = writeln!(
                    text,
                    "[[service]]\nname = \"n/s{name}\"\nport = {port}\ncluster-ip = \"10.96.0.{ip}\"\ninternal-policy = \"local\"\nendpoints = [{}]",
                    list.join(", ")
                );
            }
            text
        }
        "documents" => {
            let mut text = format!("# {settings}\n");
            for object in objects() {
                text += "---\n";
                yaml(&object, 0, &mut text);
            }
            text
        }
        "items" => {
            let mut text = "apiVersion: v1\nitems:\n".to_owned();
            for object in objects() {
                text += "- ";
                yaml(&object, 2, &mut text);
            }
            let _ = writeln!(text, "kind: List\nmetadata:\n  resourceVersion: \"{settings}\"");
            text
        }
        _ => {
            let items: Vec<_> = objects().collect();
            let list = serde_json::json!({ "apiVersion": "v1", "items": items, "kind": "List", "metadata": { "x": settings } });
            serde_json::to_string_pretty(&list).expect("a list")
        }
    }
}

fn table(paths: &[PathBuf]) -> Option<(TableBuf, Outline)> {
    let flags = NodeFlags { node_name: Some("n1".into()), ..NodeFlags::default() };
    match load_outlined(paths, &flags).ok()? {
        (Loaded::Table { table, .. }, Some(outline)) => Some((table, outline)),
        _ => None,
    }
}

/// One random change of the services of one file.
fn edit(random: &mut Random, services: &mut Vec<Made>, next: &mut usize) {
    let at = random.below(services.len());
    match random.below(12) {
        0 if services.len() > 1 => drop(services.swap_remove(at)),
        1 => {
            *next += 1;
            services.insert(at, Made { name: *next, ip: *next % 250, endpoints: vec![*next], faulty: false });
        }
        2 => services[at].ip = 250,
        3 => services[at].faulty = true,
        4 => services[at].endpoints.clear(),
        5 => services.rotate_left(at),
        _ => services[at].endpoints.push(random.below(2_000)),
    }
    for service in services {
        service.endpoints.sort_unstable();
        service.endpoints.dedup();
    }
}

/// What is read of a change is what reading everything gives, over a row of changes and of what is kept of them.
#[test]
fn a_change_is_what_the_whole_says() {
    let place = std::env::temp_dir().join(format!("natlet-outline-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let mut random = Random(0x006f_7574_6c69_6e65);
    let (mut few, mut whole_only, mut refused) = ([0; LAYOUTS.len()], 0, 0);
    for round in 0..60 {
        let layout = round % LAYOUTS.len();
        let mut next = 40;
        let mut files: Vec<Vec<Made>> = vec![Vec::new(); 1 + round % 3];
        for name in 0..20 {
            let file = random.below(files.len());
            files[file].push(Made { name, ip: name + 1, endpoints: vec![name, name + 100], faulty: false });
        }
        files.retain(|services| services.len() > 2);
        let host = (round % 5 == 0 && layout > 0).then(|| files[0][0].name);
        let paths: Vec<PathBuf> = (0..files.len()).map(|file| place.join(format!("{round}-{file}"))).collect();
        let put = |file: usize, services: &[Made], settings: usize| {
            let host = host.filter(|_| file == 0);
            fs::write(&paths[file], write(LAYOUTS[layout], services, settings, host)).unwrap();
        };
        files.iter().enumerate().for_each(|(file, services)| put(file, services, 0));
        let (mut before, mut outline) = table(&paths).expect("a table");
        for _ in 0..8 {
            let mut touched = Touched { paths: BTreeSet::new(), unclear: random.below(4) == 0 };
            let mut changed = files.clone();
            for _ in 0..=random.below(2) {
                let file = random.below(files.len());
                edit(&mut random, &mut changed[file], &mut next);
                put(file, &changed[file], random.below(8) / 7);
                touched.paths.insert(paths[file].clone());
            }
            let found = outline.changed(&before, &paths, &touched);
            let Some((after, new)) = table(&paths) else {
                // what one service says is right, and two claim the same
                let compiles = found.is_some_and(|found| Image::compile(&found.table.as_table()).is_ok());
                assert!(!compiles, "{changed:?}");
                refused += 1;
                files.iter().enumerate().for_each(|(file, services)| put(file, services, 0));
                (before, outline) = table(&paths).expect("the table before");
                continue;
            };
            files = changed;
            match found {
                None => {
                    whole_only += 1;
                    (before, outline) = (after, new);
                }
                Some(found) => {
                    few[layout] += 1;
                    before = outline.follow(found);
                    assert_eq!(before, after);
                }
            }
        }
    }
    fs::remove_dir_all(place).unwrap();
    assert!(few.iter().all(|n| *n > 20) && whole_only > 5 && refused > 10, "{few:?} {whole_only} {refused}");
}

#[test]
fn what_is_not_certain_is_read_whole() {
    let place = std::env::temp_dir().join(format!("natlet-outline-doubts-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let path = place.join("services.toml");
    let service = |name: &str, endpoint: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nport = 80\ncluster-ip = \"10.96.0.{}\"\nendpoints = [\"{endpoint}\"]\n",
            name.len()
        )
    };
    let text = service("a", "10.0.0.1:80") + &service("bb", "10.0.0.2:80");
    fs::write(&path, &text).unwrap();
    let paths = [path.clone()];
    let (before, outline) = table(&paths).unwrap();
    let touched = Touched { paths: [path.clone()].into(), unclear: false };
    let changed = |text: &str| {
        fs::write(&path, text).unwrap();
        outline.changed(&before, &paths, &touched)
    };
    let moved = text.replace("10.0.0.2", "10.0.0.3");
    let found = changed(&moved).expect("a moved endpoint");
    assert_eq!(Some(found.table), table(&paths).map(|(table, _)| table));
    let removed = changed(&service("a", "10.0.0.1:80")).expect("a service that is gone");
    assert_eq!(Some(removed.table), table(&paths).map(|(table, _)| table));
    for (why, text) in [
        ("the node", format!("[node]\nname = \"x\"\n{moved}")),
        ("the node behind a service", format!("{moved}[node]\nname = \"x\"\n")),
        ("a syntax error", moved.replace("port = 80\n", "port = \n")),
        ("an unknown key", moved.replace("10.0.0.3:80\"]", "10.0.0.3:80\"]\nnonsense = 1")),
        ("no text", String::new()),
        ("another kind", "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n".into()),
    ] {
        assert!(changed(&text).is_none(), "{why}");
    }
    let elsewhere = Touched { paths: [place.join("other.toml")].into(), unclear: false };
    fs::write(&path, &moved).unwrap();
    assert!(
        outline.changed(&before, &paths, &elsewhere).is_some(),
        "a file that is none of the inputs says nothing against it"
    );
    fs::remove_file(&path).unwrap();
    assert!(outline.changed(&before, &paths, &touched).is_none(), "the file is gone");
    fs::remove_dir_all(place).unwrap();
}

/// A piece of several services says of one of them what its own piece does not.
#[test]
fn a_list_among_documents_has_no_outline() {
    let path = std::env::temp_dir().join(format!("natlet-outline-list-{}.yaml", std::process::id()));
    let made = |name| Made { name, ip: name + 1, endpoints: vec![name], faulty: false };
    let list = write("items", &[made(1), made(2)], 0, None);
    fs::write(&path, write("documents", &[made(0)], 0, None) + "---\n" + &list).unwrap();
    let (loaded, outline) = load_outlined(std::slice::from_ref(&path), &NodeFlags::default()).expect("a table");
    fs::remove_file(&path).unwrap();
    assert!(matches!(loaded, Loaded::Table { table, .. } if table.services().len() == 3) && outline.is_none());
}
