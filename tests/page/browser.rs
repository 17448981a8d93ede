//! The status page in Chromium, without a screen.

use crate::common::{Test, has, holds, same};
use crate::{LISTEN, Lab, get, number};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where screenshots go, to be looked at; nowhere if it is not set.
const PICTURES: &str = "NATLET_PICTURES";

/// Runs Chromium in a host; returns what it prints. `timeout` ends one that hangs.
fn chromium(host: &Namespace, profile: &Path, arguments: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("timeout");
    command.args(["90", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--disable-dev-shm-usage", "--hide-scrollbars"]);
    command.arg(format!("--user-data-dir={}", profile.display())).args(arguments);
    command.env("HOME", profile).stdin(Stdio::null()).stderr(Stdio::null());
    let output = host.run(|| command.output())?;
    holds(&format!("chromium {arguments:?}: {}", output.status), output.status.success())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn a_browser_shows_it() -> Test {
    // no snap, and no download: where apt cannot bring it, the page is tested as text only
    if std::env::var_os("NATLET_NO_BROWSER").is_some_and(|v| v == "1") {
        eprintln!("skipped: no Chromium can be had here (NATLET_NO_BROWSER=1)");
        return Ok(());
    }
    if !has("chromium") {
        return Ok(());
    }
    let lab = Lab::start("browser")?;
    lab.connect(23)?;
    let profile = lab.place.path("chromium");
    std::fs::create_dir(&profile)?;
    let url = format!("http://{LISTEN}/");
    let shown = chromium(lab.node(), &profile, &["--dump-dom", &url])?;
    same("what is shown", &number(&shown, "shop/web:https", "Connections").as_deref(), &Some("23"))?;

    // the script may run under the page's own policy: what happens while the page is open comes up by itself
    let shown = std::thread::scope(|scope| {
        let later = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(4));
            lab.connect(7)
        });
        let shown = chromium(lab.node(), &profile, &["--timeout=15000", "--dump-dom", &url]);
        later.join().map_err(|_| "connections are made")??;
        shown
    })?;
    let now = get(lab.node(), "/")?;
    same("connections", &number(&now, "shop/web:https", "Connections").as_deref(), &Some("30"))?;
    same("a fresh count", &number(&shown, "shop/web:https", "Connections").as_deref(), &Some("30"))?;

    // the same page with a script that measures it: no wider than a telephone
    let (_, page) = now.split_once("\r\n\r\n").ok_or("a body")?;
    let measure = "<script>for (const d of document.querySelectorAll('details')) d.open = true;\
                   document.title = [document.documentElement.scrollWidth, innerWidth].join(' of ')</script></body>";
    let file = lab.place.path("page.html");
    std::fs::write(&file, page.replace("</body>", measure))?;
    let file = format!("file://{}", file.display());
    for (width, name) in [(1280, "desktop"), (500, "small"), (360, "telephone"), (320, "narrow")] {
        // Chromium's own window is no narrower than 500: a narrower page is one inside a frame
        let target = if width < 500 { framed(&lab, width, &file)? } else { file.clone() };
        let shown = chromium(lab.node(), &profile, &[&format!("--window-size={width},800"), "--dump-dom", &target])?;
        let title = shown.split("<title>").nth(1).and_then(|t| t.split("</title>").next()).unwrap_or_default();
        let (scroll, inner) = title.split_once(" of ").ok_or_else(|| format!("no measure in {shown}"))?;
        println!("{name}: {scroll} wide in {inner}");
        holds(&format!("{name}: {title}"), scroll.parse::<u32>()? <= inner.parse::<u32>()? && inner == width.to_string())?;
        if let Some(directory) = std::env::var_os(PICTURES) {
            let picture = format!("--screenshot={}", Path::new(&directory).join(format!("{name}.png")).display());
            let size = format!("--window-size={},1400", width.max(500));
            chromium(lab.node(), &profile, &[&size, &picture, "--virtual-time-budget=1000", &target])?;
        }
    }
    lab.daemon.stop()
}

/// A page that holds the other in a frame of this width, and tells its title.
fn framed(lab: &Lab, width: u32, file: &str) -> Result<String, Failed> {
    let path = lab.place.path(&format!("frame-{width}.html"));
    let page = std::fs::read_to_string(file.trim_start_matches("file://"))?;
    let page = page.replace("document.title =", "parent.document.title =").replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!("<!DOCTYPE html><title></title><iframe width={width} height=1300 style=\"border:0\" srcdoc=\"{page}\"></iframe>");
    std::fs::write(&path, frame)?;
    Ok(format!("file://{}", path.display()))
}
