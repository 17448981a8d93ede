//! How fast manifests become a program, and in how much memory:
//!
//! ```sh
//! cargo run --release -p natlet --example manifest_speed            # 10,000 services of 10 endpoints
//! cargo run --release -p natlet --example manifest_speed -- 1000 10
//! ```
//!
//! Each form is read in a process of its own, whose peak memory is then known. Times are of the processor, not of the
//! clock: other programs on the machine do not count.

mod generate;

use generate::Plan;
use natlet::image::Image;
use natlet::source::{self, Loaded, NodeFlags};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Writes a plan out.
type Form = fn(Plan) -> String;

/// First argument of a process that measures one file.
const MEASURE: &str = "measure";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, file] = &arguments[..]
        && first == MEASURE
    {
        return measure(Path::new(file));
    }
    let number = |index: usize, default: u32| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let plan = Plan { services: number(0, 10_000)?, endpoints: number(1, 10)?, managed_fields: false };
    let noisy = Plan { managed_fields: true, ..plan };
    println!("{} services of {} endpoints", plan.services, plan.endpoints);
    let directory = std::env::temp_dir().join(format!("natlet-manifest-speed-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let forms: [(&str, Form, Plan); 6] = [
        ("kubectl get -o json", generate::json, plan),
        ("  with managedFields", generate::json, noisy),
        ("JSON without blanks", generate::compact_json, plan),
        ("  with managedFields", generate::compact_json, noisy),
        ("kubectl get -o yaml", generate::yaml, plan),
        ("  with managedFields", generate::yaml, noisy),
    ];
    let result = forms.into_iter().try_for_each(|(name, generate, plan)| {
        let file = directory.join("manifests");
        fs::write(&file, generate(plan))?;
        let output = Command::new(std::env::current_exe()?).arg(MEASURE).arg(&file).output()?;
        print!("{name:<22}{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(())
    });
    fs::remove_dir_all(&directory)?;
    result
}

fn measure(file: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::metadata(file)?.len();
    let start = processor_time()?;
    let Loaded::Table { table, .. } = source::load(&[PathBuf::from(file)], &NodeFlags::default())? else {
        return Err("manifests are no program".into());
    };
    let read = processor_time()?;
    let image = Image::compile(&table.as_table()).map_err(|e| format!("{e:?}"))?;
    let end = processor_time()?;
    let peak = peak_memory()?;
    let (reading, compiling) = (read.saturating_sub(start), end.saturating_sub(read));
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let (mb, ratio) = (bytes as f64 / 1e6, peak as f64 / bytes as f64);
    println!(
        "{mb:>7.1} MB  read {:>4.0} ms, {:>5.1} MB/s  compiled {:>3.0} ms  whole {:>5.1} MB/s  peak {:>5.1} MB, {ratio:.2} x  {} bytes",
        milliseconds(reading),
        mb / reading.as_secs_f64(),
        milliseconds(compiling),
        mb / (reading + compiling).as_secs_f64(),
        ratio * mb,
        image.as_bytes().len(),
    );
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long this process has run on a processor (`schedstat`, first field, in nanoseconds).
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let first = text.split(' ').next().ok_or("schedstat is empty")?;
    Ok(Duration::from_nanos(first.parse()?))
}

/// The most memory that this process had in use (`VmHWM`), in bytes.
fn peak_memory() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("status has no VmHWM")?;
    Ok(line.trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
