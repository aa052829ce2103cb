//! The side-by-side comparison: three members of a real etcd 3.4 with its v2 API, three members of Quorate, the same
//! machine, the same run, the same load, alternating rounds.
//!
//! `cargo bench --bench cluster -- --help` lists the options. The result is a Markdown table, printed and kept under
//! `benches/results/`, with the disk's own fsync times beside it, because that is what a durable write waits for.
//!
//! Only one side runs at a time, on fresh data, and the side that goes first changes with every round. What this does
//! not show: members on machines of their own. Generator and members share the cores here, for both sides alike; the
//! table says how much of one core the generator took.

mod figures;
mod histogram;
mod http;
mod large;
mod load;
mod machine;
mod open_loop;
mod plot;
mod process;
mod report;
mod scenarios;
mod steps;

use clap::Parser;
use load::{Outcome, ROWS, Row};
use process::{Cluster, Product};
use report::Report;
use scenarios::{Found, Scenario, Sizes};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Whatever went wrong, in words for whoever runs the benchmark.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Compare Quorate with a real etcd (v2 API) on this machine.
#[derive(Parser, Debug)]
#[command(name = "cluster")]
struct Options {
    /// How often each side is measured; the table shows the median of the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each row is measured in each round, after a warm-up
    #[arg(long, default_value_t = 8.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Rows to run, by name, separated by commas, and no watchers, listings and memory after them [default: all, and these]
    #[arg(long, value_delimiter = ',', value_parser = load::row_by_name)]
    rows: Vec<Row>,
    /// Leave out the rows and what follows them: scenarios only
    #[arg(long, conflicts_with = "rows", requires = "scenarios")]
    no_rows: bool,
    /// What to measure once a side after the rounds, separated by commas
    #[arg(long, value_delimiter = ',', value_enum)]
    scenarios: Vec<Scenario>,
    /// Members on each side: 1, 3 or 5
    #[arg(long, default_value_t = 3, value_parser = parse_members)]
    members: usize,
    /// Distinct keys, written before the first row; each request picks one uniformly
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    value_size: u32,
    /// Measure Quorate alone
    #[arg(long, conflicts_with = "etcd_only")]
    quorate_only: bool,
    /// Measure etcd alone
    #[arg(long)]
    etcd_only: bool,
    /// One round of half a second a row, and small steps and scenarios: shows that everything works, measures little
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// The server to measure [default: the one that cargo built with this benchmark]
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_quorate"), hide_default_value = true)]
    quorate: PathBuf,
    /// The etcd to measure against
    #[arg(long, value_name = "PATH", default_value = "etcd")]
    etcd: PathBuf,
    /// Where the data directories go: must be on a real disk [default: beside this benchmark, under target/]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the report goes [default: benches/results]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".into()),
    }
}

fn parse_members(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("1, 3 or 5".into()),
    }
}

impl Options {
    fn products(&self) -> Vec<Product> {
        let mut products = Vec::new();
        if !self.quorate_only {
            products.push(Product::Etcd);
        }
        if !self.etcd_only {
            products.push(Product::Quorate);
        }
        products
    }

    fn steps(&self) -> steps::Scale {
        let (watchers, listed_keys) = if self.quick { (200, 1_000) } else { (10_000, 20_000) };
        let length = Duration::from_secs_f64(self.seconds);
        steps::Scale { watchers, listed_keys, value_size: self.value_size as usize, length }
    }

    fn sizes(&self) -> Sizes {
        if self.quick { scenarios::QUICK } else { scenarios::FULL }
    }

    fn program(&self, product: Product) -> &Path {
        match product {
            Product::Etcd => &self.etcd,
            Product::Quorate => &self.quorate,
        }
    }

    /// `target/`, found from where cargo put the benchmark itself: a target directory may be anywhere.
    fn data_root(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.data {
            return Ok(dir.clone());
        }
        let own = std::env::current_exe()?;
        let deps = own.parent().ok_or("this program has no directory")?;
        Ok(deps.parent().unwrap_or(deps).to_owned())
    }
}

fn main() -> ExitCode {
    if std::env::args_os().len() == 1 {
        // `cargo test --all-targets` runs a benchmark without any argument. A comparison of minutes is not a test.
        println!("run by: cargo bench --bench cluster");
        return ExitCode::SUCCESS;
    }
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds) = (1, 0.5);
    }
    machine::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cluster: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Whichever arm ends first, the other is dropped, and with it the members: a `Cluster` kills what it started.
    let result = runtime.block_on(async {
        tokio::select! {
            result = compare(&options) => result,
            result = process::interrupted() => Err(result.map_or_else(Failure::from, |()| "interrupted".into())),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(options: &Options) -> Result<(), Failure> {
    let data_root = options.data_root()?;
    machine::require_real_disk(&data_root)?;
    let mut products = options.products();
    let mut versions = Vec::new();
    for &product in &products {
        versions.push((product, process::version(product, options.program(product))?));
    }
    let rows = if options.rows.is_empty() { ROWS.to_vec() } else { options.rows.clone() };
    let mut report = Report::new(if options.no_rows { Vec::new() } else { rows }, versions);
    for round in 1..=if options.no_rows { 0 } else { options.rounds } {
        report.fsync.merge(&machine::measure_fsync(&data_root)?);
        for &product in &products {
            measure_side(options, product, &data_root, round, &mut report).await?;
        }
        products.reverse();
    }
    if options.no_rows {
        report.fsync.merge(&machine::measure_fsync(&data_root)?);
    }
    let found = measure_scenarios(options, &products, &data_root).await?;
    let setting = report::Setting {
        rounds: options.rounds,
        seconds: options.seconds,
        members: options.members,
        keys: options.keys,
        value_size: options.value_size,
        machine: machine::describe(),
        date: machine::today(),
    };
    let mut text = report.render(&setting);
    if !found.figures.is_empty() {
        text.push_str("\nOnce a side, on a fresh cluster for each:\n\n");
        text.push_str(&found.figures.render());
    }
    for what in &found.unfinished {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nNot done to its end: {what}.\n");
    }
    println!("\n{text}");
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join("results"));
    std::fs::create_dir_all(&out)?;
    for (points, name, title) in [
        (&found.puts, "put", "PUT: latency against load"),
        (&found.gets, "get", "GET linearizable: latency against load"),
    ] {
        if !points.is_empty() {
            std::fs::write(out.join(format!("{}-{name}.svg", setting.date)), plot::render(title, points))?;
        }
    }
    let kind = if options.no_rows { "scenarios" } else { "cluster" };
    let file = out.join(format!("{}-{kind}.md", setting.date));
    std::fs::write(&file, &text)?;
    eprintln!("written to {}", file.display());
    match report.failed_requests() {
        0 => Ok(()),
        failed => Err(format!("{failed} requests were not answered with success").into()),
    }
}

/// One side, one round: a fresh cluster, its keys, then every row.
async fn measure_side(
    options: &Options,
    product: Product,
    data_root: &Path,
    round: u32,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut cluster =
        Cluster::start(product, options.program(product), options.members, &[], data_root).await?;
    let value_size = options.value_size as usize;
    let work = load::Workload { keys: options.keys, value_size, shape: load::Shape::Flat };
    let result = async {
        load::fill(product, cluster.members(), work).await?;
        for &row in &report.rows() {
            let outcome: Outcome =
                load::run(row, product, cluster.members(), work, Duration::from_secs_f64(options.seconds))
                    .await?;
            eprintln!(
                "round {round}/{} {:8} {:12} {:>9.0}/s  p50 {:>8}  p99 {:>8}{}",
                options.rounds,
                product.name(),
                row.name,
                outcome.per_second(),
                report::duration(outcome.latencies.quantile(0.5)),
                report::duration(outcome.latencies.quantile(0.99)),
                if outcome.failed == 0 { String::new() } else { format!("  {} FAILED", outcome.failed) },
            );
            report.add(row, product, outcome);
        }
        if options.rows.is_empty() {
            steps::run(product, &cluster, options.steps(), &mut report.figures).await?;
        }
        Ok::<(), Failure>(())
    }
    .await;
    result.map_err(|error| format!("{}: {error}\n{}", product.name(), cluster.evidence()).into())
}

/// Every scenario, once a side.
async fn measure_scenarios(
    options: &Options,
    products: &[Product],
    data_root: &Path,
) -> Result<Found, Failure> {
    let mut found = Found::default();
    // Each on a cluster of its own, but where nothing is measured anyway.
    let together = if options.quick { options.scenarios.len().max(1) } else { 1 };
    for scenarios in options.scenarios.chunks(together) {
        let flags: Vec<&str> = scenarios.iter().flat_map(|scenario| scenario.flags()).copied().collect();
        for &product in products {
            let program = options.program(product);
            let mut cluster = Cluster::start(product, program, options.members, &flags, data_root).await?;
            for &scenario in scenarios {
                eprintln!("{scenario:?}, {}", product.name());
                let done = scenarios::run(scenario, product, &mut cluster, options.sizes(), &mut found).await;
                let Err(error) = done else { continue };
                let what = format!("{scenario:?}, {}: {error}", product.name());
                if product == Product::Quorate {
                    return Err(format!("{what}\n{}", cluster.evidence()).into());
                }
                // What etcd cannot do is a result, and not ours to mend.
                eprintln!("  {what}");
                found.unfinished.push(what);
                break;
            }
        }
    }
    Ok(found)
}
