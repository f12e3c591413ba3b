//! Latencies in buckets that are about 1.6 % wide, so that a percentile costs no memory per message.

/// 64 buckets for each power of two.
const STEPS: u32 = 6;

/// Counts of durations in nanoseconds.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; bucket(u64::MAX) + 1], total: 0, largest: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.largest = self.largest.max(nanos);
    }

    pub fn count(&self) -> u64 {
        self.total
    }

    pub fn largest_ms(&self) -> f64 {
        self.largest as f64 / 1e6
    }

    /// Return the least duration in milliseconds that `share` of all do not exceed; 0 if there are none.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(bucket).min(self.largest) as f64 / 1e6;
            }
        }
        0.0
    }
}

fn bucket(nanos: u64) -> usize {
    let bits = (u64::BITS - nanos.leading_zeros()).max(STEPS + 1);
    let shift = bits - STEPS - 1;
    ((shift as usize) << STEPS) + (nanos >> shift) as usize
}

/// The largest duration of a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket >> STEPS).saturating_sub(1);
    let top = (bucket - (shift << STEPS)) as u64;
    (top << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        let mut last = 0;
        for nanos in (0..200).chain((1..4000).map(|n| n * n * 997)) {
            let found = bucket(nanos);
            assert!(found >= last);
            assert!(upper(found) >= nanos && upper(found) - nanos <= nanos / 64);
            last = found;
        }
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|ms| histogram.add(ms * 1_000_000));
        assert!((50.0..51.0).contains(&histogram.percentile_ms(0.5)));
        assert!((99.0..=100.0).contains(&histogram.percentile_ms(0.99)));
        assert_eq!(histogram.percentile_ms(1.0), 100.0);
        assert_eq!(Histogram::default().percentile_ms(0.5), 0.0);
    }
}
