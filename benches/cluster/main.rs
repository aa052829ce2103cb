//! The side-by-side comparison: three members of a real etcd 3.4 with its v2 API, three members of Quorate, the same
//! machine, the same run, the same load, alternating rounds.
//!
//! `cargo bench --bench cluster -- --help` lists the options. The result is a Markdown table, printed and kept under
//! `benches/results/`, with the disk's own fsync times beside it, because that is what a durable write waits for.
//!
//! Only one side runs at a time, on fresh data, and the side that goes first changes with every round. What this does
//! not show: members on machines of their own. Generator and members share the cores here, for both sides alike; the
//! table says how much of one core the generator took.

mod histogram;
mod http;
mod load;
mod machine;
mod process;
mod report;

use clap::Parser;
use load::{Outcome, ROWS, Row};
use process::{Cluster, Product};
use report::Report;
use std::error::Error;
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
    /// Rows to run, by name, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_parser = load::row_by_name)]
    rows: Vec<Row>,
    /// Members on each side: 1 or 3
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
    /// One round of one second a row: shows that everything works, measures little
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
        _ => Err("1 or 3".into()),
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
        (options.rounds, options.seconds) = (1, 1.0);
    }
    if options.rows.is_empty() {
        options.rows = ROWS.to_vec();
    }
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
    let mut report = Report::new(options.rows.clone(), versions);
    for round in 1..=options.rounds {
        report.fsync.merge(&machine::measure_fsync(&data_root)?);
        for &product in &products {
            measure_side(options, product, &data_root, round, &mut report).await?;
        }
        products.reverse();
    }
    let setting = report::Setting {
        rounds: options.rounds,
        seconds: options.seconds,
        members: options.members,
        keys: options.keys,
        value_size: options.value_size,
        machine: machine::describe(),
        date: machine::today(),
    };
    let text = report.render(&setting);
    println!("\n{text}");
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join("results"));
    std::fs::create_dir_all(&out)?;
    let file = out.join(format!("{}-cluster.md", setting.date));
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
    let mut cluster = Cluster::start(product, options.program(product), options.members, data_root).await?;
    let work = load::Workload { keys: options.keys, value_size: options.value_size as usize };
    let result = async {
        load::fill(product, cluster.members(), work).await?;
        for &row in &options.rows {
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
        Ok::<(), Failure>(())
    }
    .await;
    result.map_err(|error| format!("{}: {error}\n{}", product.name(), cluster.evidence()).into())
}
