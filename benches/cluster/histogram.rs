//! A latency histogram of fixed size: 64 buckets to each power of two, so a quantile is at most 1.6% off, whatever its size.

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) * SUB as usize;

/// Counts of durations, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0 }
    }
}

/// Below `2 * SUB` a bucket holds one value; above, the top `SUB_BITS + 1` bits choose it.
fn bucket(value: u64) -> usize {
    let magnitude = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(magnitude) * SUB + (value >> magnitude)) as usize
}

/// The largest value of a bucket: a quantile is never shown better than it was.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB {
        return bucket;
    }
    let magnitude = bucket / SUB - 1;
    let top = bucket - magnitude * SUB;
    (top << magnitude) + ((1 << magnitude) - 1)
}

impl Histogram {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The value, in nanoseconds, that a share `q` of all recorded ones does not exceed; 0 when nothing was recorded.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
        let rank = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return upper(index);
            }
        }
        0
    }
}
