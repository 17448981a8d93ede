//! `natlet diff`: what `natlet load` would change in the kernel. Exit status 0 nothing, 1 something, 2 error.

use super::args::{DiffArgs, Output};
use super::failure::{Failure, print, print_document, remark};
use super::input;
use super::kernel::loader;
use crate::difference::{Difference, ServiceChange, ServiceKind};
use crate::kernel::{self, About};
use crate::nft::diff::plan;
use serde_json::{Value, json};
use std::fmt::Write as _;

pub fn run(args: &DiffArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let program = image.program();
    // an error is no difference: its status is 2 here
    let failed = |e| Failure::input(format!("reading the kernel's tables: {e}"));
    let (mut loader, _) = loader(&args.memory).map_err(failed)?;
    let (loaded, wanted) = loader.difference(&image).map_err(failed)?;
    let plan = plan(&loaded, &wanted);
    let mut difference = Difference::of(&loaded, &wanted, &plan);
    if kernel::lacks_route_localnet(&program) {
        difference.other.push("net.ipv4.conf.all.route_localnet is set to 1".into());
    }
    let (have, want) = (About::of(&loaded).map(|a| a.content_id), program.content_id().to_string());
    match args.output {
        Output::Json | Output::Yaml => {
            print_document(&document(&difference, have.as_deref(), &want), args.output)?;
        }
        Output::Table | Output::Wide => print(&text(&difference, have.as_deref(), &want))?,
    }
    if let Some(owner) = kernel::owner(&loaded).filter(|_| !difference.is_empty()) {
        remark(&format!("note: natlet's tables belong to {owner}, which alone can change them"));
    }
    if difference.is_empty() { Ok(()) } else { Err(Failure::Differs) }
}

fn text(difference: &Difference, have: Option<&str>, want: &str) -> String {
    let mut out = String::new();
    if difference.is_empty() {
        let _ = writeln!(out, "no difference; content id {want}");
        return out;
    }
    for service in &difference.services {
        write_service(&mut out, service);
    }
    if !difference.settings.is_empty() {
        out.push_str("~ the node\n");
        for setting in &difference.settings {
            lines(&mut out, &format!("+ {} ", setting.setting), &setting.added);
            lines(&mut out, &format!("- {} ", setting.setting), &setting.removed);
        }
    }
    if !difference.other.is_empty() {
        out.push_str("~ belonging to no service\n");
        lines(&mut out, "", &difference.other);
    }
    let count = |kind| difference.services.iter().filter(|s| s.kind == kind).count();
    let (new, gone) = (count(ServiceKind::New), count(ServiceKind::Gone));
    let changed = count(ServiceKind::Changed);
    let s = &difference.summary;
    let _ = writeln!(
        out,
        "\nservice ports: {new} new, {gone} gone, {changed} changed; elements: {} to add, {} to remove, {} to change",
        s.added, s.removed, s.changed
    );
    let _ = writeln!(out, "content id: {} is loaded, {want} is wanted", have.unwrap_or("nothing natlet knows"));
    out
}

fn lines(out: &mut String, prefix: &str, items: &[String]) {
    for item in items {
        let _ = writeln!(out, "    {prefix}{item}");
    }
}

fn write_service(out: &mut String, service: &ServiceChange) {
    let sign = match service.kind {
        ServiceKind::New => '+',
        ServiceKind::Gone => '-',
        ServiceKind::Changed => '~',
    };
    let _ = write!(out, "{sign} {} ({})", service.name, service.protocol);
    if service.kind == ServiceKind::Changed {
        out.push('\n');
        lines(out, "+ frontend ", &service.frontends_added);
        lines(out, "- frontend ", &service.frontends_removed);
        lines(out, "+ endpoint ", &service.endpoints_added);
        lines(out, "- endpoint ", &service.endpoints_removed);
        lines(out, "", &service.details);
        return;
    }
    let (frontends, endpoints) = match service.kind {
        ServiceKind::New => (&service.frontends_added, &service.endpoints_added),
        _ => (&service.frontends_removed, &service.endpoints_removed),
    };
    let _ = writeln!(out, ": {} -> {}", few(frontends, "no frontend"), few(endpoints, "no endpoint"));
}

fn few(items: &[String], none: &str) -> String {
    const FEW: usize = 4;
    match items.len() {
        0 => none.to_owned(),
        n if n > FEW => format!("{} and {} more", items[..FEW].join(", "), n - FEW),
        _ => items.join(", "),
    }
}

fn document(difference: &Difference, have: Option<&str>, want: &str) -> Value {
    let service = |s: &ServiceChange| {
        json!({
            "service": s.name,
            "protocol": s.protocol.name(),
            "change": s.kind.name(),
            "frontends_added": s.frontends_added,
            "frontends_removed": s.frontends_removed,
            "endpoints_added": s.endpoints_added,
            "endpoints_removed": s.endpoints_removed,
            "details": s.details,
        })
    };
    let settings = difference.settings.iter();
    let settings = settings.map(|s| json!({ "setting": s.setting, "added": s.added, "removed": s.removed }));
    let s = &difference.summary;
    json!({
        "different": !difference.is_empty(),
        "loaded_content_id": have,
        "wanted_content_id": want,
        "services": difference.services.iter().map(service).collect::<Vec<_>>(),
        "node": settings.collect::<Vec<_>>(),
        "other": difference.other,
        "elements": { "added": s.added, "removed": s.removed, "changed": s.changed },
    })
}
