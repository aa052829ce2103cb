//! Latency against load, as an SVG: both axes logarithmic, a line a side for the median and a dashed one for p99.

use crate::process::Product;
use std::fmt::Write;

/// One measured point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) product: Product,
    /// Requests a second that were due.
    pub(crate) per_second: f64,
    /// Nanoseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// A logarithmic axis from whole decade to whole decade, and where it lies on the picture.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).max(1.0).log10().floor();
        let high = values.fold(1.0, f64::max).log10().ceil().max(low + 1.0);
        Self { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.max(1.0).log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        let (mut next, high) = (self.low, self.high);
        std::iter::from_fn(move || {
            (next <= high).then(|| {
                next += 1.0;
                10f64.powf(next - 1.0)
            })
        })
    }
}

fn colour(product: Product) -> &'static str {
    match product {
        Product::Etcd => "#888888",
        Product::Quorate => "#c0392b",
    }
}

/// The picture of one kind of request.
pub(crate) fn render(title: &str, points: &[Point]) -> String {
    let x = Axis::over(points.iter().map(|point| point.per_second), LEFT, WIDTH - RIGHT);
    let latencies = points.iter().flat_map(|point| [point.p50 / 1e3, point.p99 / 1e3]);
    let y = Axis::over(latencies, HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    // Writing to a String cannot fail.
    for decade in x.decades() {
        let at = x.at(decade);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{decade:.0}/s</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0
        );
    }
    for decade in y.decades() {
        let at = y.at(decade);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} ms</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            decade / 1e3
        );
    }
    for (row, (product, quantile, dashes)) in [
        (Product::Quorate, "p50", ""),
        (Product::Quorate, "p99", "6 4"),
        (Product::Etcd, "p50", ""),
        (Product::Etcd, "p99", "6 4"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut line = String::new();
        for point in points.iter().filter(|point| point.product == product) {
            let latency = if quantile == "p50" { point.p50 } else { point.p99 };
            let _ = write!(line, "{:.1},{:.1} ", x.at(point.per_second), y.at(latency / 1e3));
        }
        let (colour, name, legend) = (colour(product), product.name(), TOP + 16.0 * row as f64 + 8.0);
        let _ = writeln!(
            svg,
            "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
             <line x1=\"{0:.1}\" y1=\"{legend:.1}\" x2=\"{1:.1}\" y2=\"{legend:.1}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/><text x=\"{2:.1}\" y=\"{3:.1}\">{name} {quantile}</text>",
            WIDTH - RIGHT + 8.0,
            WIDTH - RIGHT + 36.0,
            WIDTH - RIGHT + 42.0,
            legend + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
