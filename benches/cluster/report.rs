//! The table.

use crate::figures::{Figures, median};
use crate::histogram::Histogram;
use crate::load::{Outcome, Row};
use crate::process::Product;
use std::fmt::Write;

/// Everything that was measured.
pub(crate) struct Report {
    rows: Vec<Row>,
    versions: Vec<(Product, String)>,
    outcomes: Vec<(Row, Product, Outcome)>,
    /// What is not requests per second.
    pub(crate) figures: Figures,
    /// The disk's own times, from before each round.
    pub(crate) fsync: Histogram,
}

/// Under which conditions.
pub(crate) struct Setting {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) members: usize,
    pub(crate) keys: u32,
    pub(crate) value_size: u32,
    pub(crate) machine: String,
    pub(crate) date: String,
}

/// One side of one row over all rounds.
struct Summary {
    median: f64,
    low: f64,
    high: f64,
    p50: u64,
    p99: u64,
    failed: u64,
    generator_share: f64,
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>, versions: Vec<(Product, String)>) -> Self {
        Self {
            rows,
            versions,
            outcomes: Vec::new(),
            figures: Figures::default(),
            fsync: Histogram::default(),
        }
    }

    pub(crate) fn add(&mut self, row: Row, product: Product, outcome: Outcome) {
        self.outcomes.push((row, product, outcome));
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.clone()
    }

    pub(crate) fn failed_requests(&self) -> u64 {
        self.outcomes.iter().map(|(_, _, outcome)| outcome.failed).sum()
    }

    fn summary(&self, row: Row, product: Product) -> Option<Summary> {
        let outcomes: Vec<&Outcome> =
            self.outcomes.iter().filter(|(r, p, _)| *r == row && *p == product).map(|(_, _, o)| o).collect();
        let mut rates: Vec<f64> = outcomes.iter().map(|outcome| outcome.per_second()).collect();
        rates.sort_by(f64::total_cmp);
        let mut latencies = Histogram::default();
        for outcome in &outcomes {
            latencies.merge(&outcome.latencies);
        }
        Some(Summary {
            median: median(&rates)?,
            low: *rates.first()?,
            high: *rates.last()?,
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            failed: outcomes.iter().map(|outcome| outcome.failed).sum(),
            generator_share: outcomes.iter().map(|o| o.generator_share).sum::<f64>() / outcomes.len() as f64,
        })
    }

    pub(crate) fn render(&self, setting: &Setting) -> String {
        let mut text = String::new();
        let Setting { rounds, seconds, members, keys, value_size, machine, date } = setting;
        line(&mut text, &format!("# {members} member{}, {date}", if *members == 1 { "" } else { "s" }));
        line(&mut text, "");
        line(&mut text, &format!("Machine: {machine}."));
        for (product, version) in &self.versions {
            line(&mut text, &format!("{}: {version}.", product.name()));
        }
        line(
            &mut text,
            &format!(
                "Disk, append of 256 bytes + fdatasync, measured beforehand: p50 {}, p99 {}.",
                duration(self.fsync.quantile(0.5)),
                duration(self.fsync.quantile(0.99))
            ),
        );
        if !self.rows.is_empty() {
            line(
                &mut text,
                &format!(
                    "{rounds} alternating round{} of {seconds} s a row on fresh data; {keys} keys, values of {value_size} bytes; closed \
                     loop over keep-alive connections spread over the members (a single one goes to the leader). \
                     Requests per second: median (lowest to highest round). Latencies: over all rounds. Generator: share of \
                     one core that the load generator took.",
                    if *rounds == 1 { "" } else { "s" },
                ),
            );
            line(&mut text, "");
            line(&mut text, "| | side | requests/s | ratio | p50 | p99 | generator |");
            line(&mut text, "| --- | --- | ---: | ---: | ---: | ---: | ---: |");
            for &row in &self.rows {
                self.render_row(&mut text, row);
            }
        }
        if !self.figures.is_empty() {
            line(&mut text, "");
            text.push_str(&self.figures.render());
        }
        text
    }

    fn render_row(&self, text: &mut String, row: Row) {
        let etcd = self.summary(row, Product::Etcd).map(|summary| summary.median);
        for (index, (product, _)) in self.versions.iter().enumerate() {
            let Some(summary) = self.summary(row, *product) else { continue };
            let ratio = match (product, etcd) {
                (Product::Quorate, Some(etcd)) => format!("{:.2}", summary.median / etcd),
                _ => String::new(),
            };
            line(
                text,
                &format!(
                    "| {} | {} | {:.0} ({:.0} to {:.0}){} | {ratio} | {} | {} | {:.0}% |",
                    if index == 0 { row.title } else { "" },
                    product.name(),
                    summary.median,
                    summary.low,
                    summary.high,
                    if summary.failed == 0 { String::new() } else { format!(", {} FAILED", summary.failed) },
                    duration(summary.p50),
                    duration(summary.p99),
                    summary.generator_share * 100.0,
                ),
            );
        }
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Nanoseconds, for people.
pub(crate) fn duration(nanos: u64) -> String {
    let millis = nanos as f64 / 1e6;
    match millis {
        _ if millis < 1.0 => format!("{millis:.3} ms"),
        _ if millis < 10.0 => format!("{millis:.2} ms"),
        _ if millis < 1000.0 => format!("{millis:.1} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}
