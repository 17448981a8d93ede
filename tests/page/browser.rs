//! The status page in Chromium without a screen, led over WebDriver (W3C).

use crate::common::{Test, has, holds, same};
use crate::daemon::within;
use crate::{LISTEN, Lab, at};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DRIVER: &str = "127.0.0.1:9515";
/// How long the browser may take for a step: it starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser in a host; it ends when this is dropped.
struct Browser<'h> {
    host: &'h Namespace,
    driver: Child,
    session: String,
}

impl<'h> Browser<'h> {
    /// Starts one whose window is a telephone's, or of a computer.
    fn start(host: &'h Namespace, profile: &Path, width: u32, telephone: bool) -> Result<Self, Failed> {
        let mut command = Command::new("chromedriver");
        command
            .arg("--port=9515")
            .env("HOME", profile)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let driver = host.run(|| command.spawn())?;
        let mut browser = Self { host, driver, session: String::new() };
        let ready = || Ok(host.run(|| TcpStream::connect(DRIVER)).is_ok());
        within("chromedriver does not answer", PATIENCE, ready)?;
        let window = format!("--window-size={width},900");
        let data = format!("--user-data-dir={}", profile.join(width.to_string()).display());
        let mut options = json!({ "binary": "/usr/bin/chromium", "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", window, data,
        ]});
        if telephone {
            let metrics = json!({ "width": width, "height": 800, "pixelRatio": 2.0, "touch": true });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let capabilities = json!({ "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } });
        let session = browser.post("/session", &json!({ "capabilities": capabilities }))?;
        browser.session = session["sessionId"].as_str().ok_or_else(|| format!("no session: {session}"))?.to_owned();
        Ok(browser)
    }

    fn open(&self, url: &str) -> Test {
        self.post(&format!("/session/{}/url", self.session), &json!({ "url": url })).map(|_| ())
    }

    /// The value of a JavaScript expression on the page.
    fn value(&self, expression: &str) -> Result<Value, Failed> {
        let script = json!({ "script": format!("return {expression}"), "args": [] });
        self.post(&format!("/session/{}/execute/sync", self.session), &script)
    }

    /// The text of the cell under a heading in a service's row.
    fn cell(&self, service: &str, heading: &str) -> Result<String, Failed> {
        let row = format!(
            "[...document.querySelectorAll('tbody tr')].find(r => r.querySelector('b').textContent == '{service}')"
        );
        let value = self.value(&format!("{row}.querySelector('[data-label=\"{heading}\"]').textContent"))?;
        Ok(value.as_str().ok_or_else(|| format!("no text: {value}"))?.trim().to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.request("POST", path, &body.to_string())
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<Value, Failed> {
        let mut stream = self.host.run(|| TcpStream::connect_timeout(&at(DRIVER), PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {DRIVER}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        let mut document: Value = serde_json::from_slice(&body)?;
        match document["value"].get("error") {
            Some(error) => Err(format!("{path}: {error}: {}", document["value"]["message"]).into()),
            None => Ok(document["value"].take()),
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // the browser is the driver's child: asked to, it ends it
        let _ = self.request("DELETE", &format!("/session/{}", self.session), "");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

pub fn a_browser_shows_it() -> Test {
    // where apt brings no Chromium (Ubuntu's is a snap), run.sh says so and the page is tested as text only
    if std::env::var_os("NATLET_NO_BROWSER").is_some_and(|v| v == "1") {
        eprintln!("skipped: no Chromium can be had here (NATLET_NO_BROWSER=1)");
        return Ok(());
    }
    if !has("chromium") || !has("chromedriver") {
        return Ok(());
    }
    let lab = Lab::start("browser")?;
    lab.connect(23)?;
    let profile = lab.place.path("chromium");
    std::fs::create_dir(&profile)?;
    let url = format!("http://{LISTEN}/");

    let browser = Browser::start(lab.node(), &profile, 1280, false)?;
    browser.open(&url)?;
    same("what is shown", &browser.cell("shop/web:https", "Connections")?.as_str(), &"23")?;
    same(
        "the style holds under the policy",
        &browser.value("getComputedStyle(document.querySelector('dl')).display")?,
        &json!("grid"),
    )?;
    // the script runs under the policy too: what happens while the page is open comes up by itself
    browser.value("document.querySelector('details').setAttribute('open', '')")?;
    lab.connect(7)?;
    let fresh = || Ok(browser.cell("shop/web:https", "Connections")? == "30");
    let took = within("the count stays old", PATIENCE, fresh)?;
    println!("30 connections are on the open page {took:.1?} later");
    same("what was open is open", &browser.value("document.querySelectorAll('details[open]').length")?, &json!(1))?;
    wide_enough(&browser, 1280)?;
    drop(browser);

    for width in [360, 320] {
        let browser = Browser::start(lab.node(), &profile, width, true)?;
        browser.open(&url)?;
        browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")?;
        wide_enough(&browser, width)?;
        let spilled =
            "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth)";
        same(
            "nothing ends outside",
            &browser.value(&format!("{spilled}.map(e => e.outerHTML.slice(0, 80)).join()"))?,
            &json!(""),
        )?;
    }
    lab.daemon.stop()
}

/// The page is as wide as the window and scrolls downwards only.
fn wide_enough(browser: &Browser<'_>, width: u32) -> Test {
    let scroll = browser.value("document.documentElement.scrollWidth")?.as_u64();
    let inner = browser.value("innerWidth")?.as_u64();
    println!("{width}: the page is {scroll:?} wide in {inner:?}");
    same("the window", &inner, &Some(u64::from(width)))?;
    holds("the page fits", scroll <= inner)
}
