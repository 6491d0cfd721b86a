//! Measurements of kernels as they are kept, and what has moved between two of them.
//!
//! A median of n runs is uncertain by the notch of a box plot, 1.57 IQR / sqrt(n) (McGill, Tukey, Larsen 1978): where the notches
//! of two medians do not meet, they differ with 95 % confidence. A kernel has *moved* if they do not and the medians differ by
//! more than [`SMALLEST`], because two processes on one machine differ by more than one of them shows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Ceilings;

/// Differences below this share are never news.
pub const SMALLEST: f64 = 0.05;

/// One measuring of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// Device and driver.
    pub device: String,
    /// Processor or GPU, where the device's name does not say it.
    pub hardware: String,
    /// Version of the crate.
    pub version: String,
    /// How activations were stored.
    pub precision: String,
    /// Runs of each launch.
    pub rounds: usize,
    /// What the device can do at most, measured in the same process.
    pub ceilings: Ceilings,
    /// Every kernel, shape and variant.
    pub kernels: Vec<Measurement>,
    /// Kernels of the registry that no plan of this precision launches.
    pub not_launched: Vec<String>,
}

/// One kernel at one shape in one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Kernel.
    pub kernel: String,
    /// Model whose step has this shape.
    pub class: String,
    /// Sizes: `rows=4096 n=384 k=128`.
    pub sizes: String,
    /// Variant.
    pub variant: String,
    /// Launches of this kernel and shape in a step.
    pub launches: u64,
    /// Median, microseconds.
    pub microseconds: f64,
    /// Half the width of the median's notch, microseconds.
    pub notch: f64,
    /// FLOPs.
    pub flops: u64,
    /// Bytes read and written, every tensor once.
    pub bytes: u64,
    /// FLOPs per second by 1e9.
    pub gflops: f64,
    /// Bytes per second by 1e9.
    pub gbytes: f64,
    /// Floor by time; not cut at 1.
    pub of_ceiling: f64,
    /// Whether arithmetic bounds it, and not memory.
    pub arithmetic: bool,
}

/// A kernel in two measurings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Kernel, class, sizes, variant.
    pub what: [String; 4],
    /// Median before, microseconds.
    pub before: f64,
    /// Median now.
    pub now: f64,
}

/// A measuring against an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// What the two measurings do not share: device, version, precision.
    pub differences: Vec<String>,
    /// Beyond noise and slower.
    pub slower: Vec<Moved>,
    /// Beyond noise and faster.
    pub faster: Vec<Moved>,
    /// Within noise.
    pub unmoved: usize,
    /// In one of them only.
    pub unmatched: usize,
}

/// Median and notch of samples, in their unit.
pub fn median_and_notch(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (samples.len() - 1) as f64;
        let (low, high) = (samples[place.floor() as usize], samples[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    if samples.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    (at(0.5), 1.57 * (at(0.75) - at(0.25)) / (samples.len() as f64).sqrt())
}

/// GFLOP/s or GB/s as a table shows them: three figures of a small rate.
pub fn rate(giga: f64) -> String {
    let decimals = match giga {
        giga if giga >= 10.0 => 1,
        giga if giga >= 1.0 => 2,
        _ => 3,
    };
    format!("{giga:.decimals$}")
}

impl Measurement {
    fn key(&self) -> [String; 4] {
        [&self.kernel, &self.class, &self.sizes, &self.variant].map(Clone::clone)
    }
}

impl Bench {
    /// Reads a kept measuring.
    ///
    /// # Errors
    /// Path, what is wrong and what to do.
    pub fn read(path: &Path) -> Result<Bench, String> {
        let at = path.display();
        let bytes = std::fs::read(path).map_err(|error| format!("cannot read {at}: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            format!("{at}: {error}; it is no file of `tlm bench`, or of another version: measure again")
        })
    }

    /// What has moved since `before`.
    pub fn against(&self, before: &Bench) -> Comparison {
        let mut comparison = Comparison::default();
        for (what, now, then) in [
            ("device", &self.device, &before.device),
            ("hardware", &self.hardware, &before.hardware),
            ("version", &self.version, &before.version),
            ("precision", &self.precision, &before.precision),
        ] {
            if now != then {
                comparison.differences.push(format!("{what} was {then}, is {now}"));
            }
        }
        let mut earlier: BTreeMap<[String; 4], &Measurement> = before
            .kernels
            .iter()
            .map(|measurement| (measurement.key(), measurement))
            .collect();
        for now in &self.kernels {
            let Some(then) = earlier.remove(&now.key()) else {
                comparison.unmatched += 1;
                continue;
            };
            let difference = now.microseconds - then.microseconds;
            let noise = (now.notch + then.notch).max(SMALLEST * then.microseconds);
            let moved = Moved {
                what: now.key(),
                before: then.microseconds,
                now: now.microseconds,
            };
            match difference {
                difference if difference > noise => comparison.slower.push(moved),
                difference if difference < -noise => comparison.faster.push(moved),
                _ => comparison.unmoved += 1,
            }
        }
        comparison.unmatched += earlier.len();
        let by_factor = |moved: &Moved| (moved.now / moved.before).ln().abs();
        for list in [&mut comparison.slower, &mut comparison.faster] {
            list.sort_by(|a, b| by_factor(b).total_cmp(&by_factor(a)));
        }
        comparison
    }

    /// The table for a terminal.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let heads = ["kernel", "class", "sizes", "variant"];
        let mut widths = heads.map(str::len);
        for line in &self.kernels {
            let texts = [&line.kernel, &line.class, &line.sizes, &line.variant];
            for (width, text) in widths.iter_mut().zip(texts) {
                *width = text.len().max(*width);
            }
        }
        let names = |texts: [&str; 4]| -> String {
            let cells = texts.iter().zip(widths);
            cells.map(|(text, width)| format!("{text:<width$} ")).collect()
        };
        // Writing into a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "{}{:>5} {:>12} {:>7} {:>9} {:>8} {:>10}",
            names(heads),
            "calls",
            "µs",
            "±",
            "GFLOP/s",
            "GB/s",
            "ceiling"
        );
        for line in &self.kernels {
            let bound = if line.arithmetic { 'F' } else { 'B' };
            let _ = writeln!(
                out,
                "{}{:>5} {:>12.2} {:>6.1}% {:>9} {:>8} {:>7.0}% {bound}",
                names([&line.kernel, &line.class, &line.sizes, &line.variant]),
                line.launches,
                line.microseconds,
                100.0 * line.notch / line.microseconds,
                rate(line.gflops),
                rate(line.gbytes),
                100.0 * line.of_ceiling
            );
        }
        if !self.not_launched.is_empty() {
            let _ = writeln!(
                out,
                "\nlaunched by no plan in {}: {}",
                self.precision,
                self.not_launched.join(", ")
            );
        }
        out
    }
}

impl Comparison {
    /// The comparison for a terminal.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for difference in &self.differences {
            let _ = writeln!(out, "not the same: {difference}");
        }
        for (what, list) in [("slower", &self.slower), ("faster", &self.faster)] {
            for moved in list {
                let [kernel, class, sizes, variant] = &moved.what;
                let _ = writeln!(
                    out,
                    "{what}: {kernel} {class} {sizes} {variant}: {:.2} to {:.2} µs ({:+.0} %)",
                    moved.before,
                    moved.now,
                    100.0 * (moved.now / moved.before - 1.0)
                );
            }
        }
        let _ = writeln!(
            out,
            "{} slower, {} faster, {} within noise, {} in one of the two only",
            self.slower.len(),
            self.faster.len(),
            self.unmoved,
            self.unmatched
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of 1 .. 9: median 5, quartiles 3 and 7, notch 1.57 x 4 / 3. Of 1 .. 4: median 2.5, quartiles 1.75 and 3.25.
    #[test]
    fn median_and_notch_are_those_of_a_box_plot() {
        let mut nine: Vec<f64> = (1..=9).rev().map(f64::from).collect();
        let (median, notch) = median_and_notch(&mut nine);
        assert_eq!(median, 5.0);
        assert!((notch - 1.57 * 4.0 / 3.0).abs() < 1e-12);
        let (median, notch) = median_and_notch(&mut [4.0, 2.0, 1.0, 3.0]);
        assert_eq!(median, 2.5);
        assert!((notch - 1.57 * 1.5 / 2.0).abs() < 1e-12);
        assert!(median_and_notch(&mut []).0.is_nan());
    }

    fn bench(times: &[(&str, f64, f64)]) -> Bench {
        let measurement = |&(kernel, microseconds, notch): &(&str, f64, f64)| Measurement {
            kernel: kernel.to_owned(),
            class: "tiny".to_owned(),
            sizes: "rows=1".to_owned(),
            variant: "cpu".to_owned(),
            launches: 1,
            microseconds,
            notch,
            flops: 1,
            bytes: 1,
            gflops: 1.0,
            gbytes: 1.0,
            of_ceiling: 1.2,
            arithmetic: true,
        };
        Bench {
            device: "cpu".to_owned(),
            hardware: "one".to_owned(),
            version: "0".to_owned(),
            precision: "f32".to_owned(),
            rounds: 9,
            ceilings: Ceilings {
                read: 1.0,
                write: 1.0,
                copy: 1.0,
                fma: 1.0,
                product: 1.0,
                matrix_units: false,
                launch: 0.0,
            },
            kernels: times.iter().map(measurement).collect(),
            not_launched: Vec::new(),
        }
    }

    #[test]
    fn only_what_moved_beyond_noise_is_named() {
        let before = bench(&[
            ("a", 100.0, 5.0),
            ("b", 100.0, 1.0),
            ("c", 100.0, 1.0),
            ("d", 100.0, 0.1),
            ("e", 1.0, 0.0),
        ]);
        // a: 9 apart, notches 10; b: slower by 20; c: faster by half; d: 4 % is below what counts; f is new.
        let now = bench(&[
            ("a", 109.0, 5.0),
            ("b", 120.0, 1.0),
            ("c", 50.0, 1.0),
            ("d", 104.0, 0.1),
            ("f", 1.0, 0.0),
        ]);
        let found = now.against(&before);
        let names = |list: &[Moved]| list.iter().map(|moved| moved.what[0].clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&found.slower), names(&found.faster)),
            (vec!["b".to_owned()], vec!["c".to_owned()])
        );
        assert_eq!((found.unmoved, found.unmatched), (2, 2));
        assert!(
            found
                .to_text()
                .contains("slower: b tiny rows=1 cpu: 100.00 to 120.00 µs (+20 %)")
        );
        assert!(now.to_text().contains("120% F"), "{}", now.to_text());
        let other = Bench {
            version: "1".to_owned(),
            ..bench(&[])
        };
        assert_eq!(other.against(&before).differences, ["version was 0, is 1"]);
    }

    #[test]
    fn a_kept_measuring_comes_back_and_a_foreign_file_is_refused_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bench.json");
        let kept = bench(&[("a", 0.1 + 0.2, 5.0)]);
        std::fs::write(&path, serde_json::to_vec(&kept).unwrap()).unwrap();
        assert_eq!(Bench::read(&path).unwrap(), kept);
        std::fs::write(&path, "{}").unwrap();
        let error = Bench::read(&path).unwrap_err();
        assert!(
            error.contains("bench.json") && error.contains("measure again"),
            "{error}"
        );
    }
}
