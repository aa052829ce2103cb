//! What is measured beside requests per second: a number with its unit, for each side and round.

use crate::process::Product;
use crate::report::duration;
use std::fmt::Write;

/// What a number counts, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    /// Nanoseconds.
    Time,
    Bytes,
    /// Shares of one core.
    Cores,
    /// A ratio of two numbers of the same side.
    Ratio,
}

/// One number of one side in one round.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    title: String,
    unit: Unit,
    product: Product,
    value: f64,
}

/// All of them, in the order in which they first came.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(&mut self, product: Product, title: impl Into<String>, unit: Unit, value: f64) {
        let title = title.into();
        eprintln!("  {:8} {title}: {}", product.name(), show(unit, value));
        self.0.push(Figure { title, unit, product, value });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A table: the median of the rounds, lowest and highest if there were several, and the ratio of the two sides.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from("| | etcd | Quorate | ratio |\n| --- | ---: | ---: | ---: |\n");
        let mut titles: Vec<(&str, Unit)> = Vec::new();
        for figure in &self.0 {
            if !titles.contains(&(figure.title.as_str(), figure.unit)) {
                titles.push((&figure.title, figure.unit));
            }
        }
        for (title, unit) in titles {
            let (etcd, ours) = (self.values(title, Product::Etcd), self.values(title, Product::Quorate));
            let ratio = match (median(&etcd), median(&ours)) {
                (Some(etcd), Some(ours)) if etcd > 0.0 => format!("{:.2}", ours / etcd),
                _ => String::new(),
            };
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "| {title} | {} | {} | {ratio} |", summary(unit, &etcd), summary(unit, &ours));
        }
        text
    }

    fn values(&self, title: &str, product: Product) -> Vec<f64> {
        let of = self.0.iter().filter(|figure| figure.title == title && figure.product == product);
        let mut values: Vec<f64> = of.map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

fn summary(unit: Unit, sorted: &[f64]) -> String {
    let Some(middle) = median(sorted) else { return String::new() };
    match sorted {
        [low, .., high] => format!("{} ({} to {})", show(unit, middle), show(unit, *low), show(unit, *high)),
        _ => show(unit, middle),
    }
}

/// Of sorted numbers.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[expect(clippy::cast_sign_loss, reason = "no time is negative")]
fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Time => duration(value as u64),
        Unit::Bytes if value < 1e6 => format!("{:.1} KiB", value / 1024.0),
        Unit::Bytes => format!("{:.0} MiB", value / 1024.0 / 1024.0),
        Unit::Cores => format!("{:.1} %", value * 100.0),
        Unit::Ratio => format!("{value:.2}"),
    }
}
