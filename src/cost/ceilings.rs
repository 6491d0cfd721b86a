//! What a device can do at most, measured on the device itself: no table of names knows a new one.
//!
//! ```text
//! write, copy, read    fill.zero, copy.forward, grad_norm.partial over 64 MiB
//! fma                  probe.fma: f32 multiply-adds in registers
//! product              gemm.forward of 1024^3 in f32; on matrix units, in 16 bits, of 4096^3
//! launch               the growth of a replay's time with the number of its smallest launches
//! ```
//!
//! The best of several runs counts, and of measurings before and after work where both are made: what else the machine does
//! lowers a rate, nothing lifts it. A kernel's *floor* is the longer of two times: its FLOPs at the highest rate for them,
//! its bytes at the highest bandwidth. Floor by time is its share of the ceiling. A tensor that fits a cache can move
//! faster than the memory does; shares above 100 % say so and are not cut.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::device::choice::PrecisionChoice;
use crate::device::open::Target;
use crate::device::{Device, DeviceError, Program, Sizes};
use crate::kernel::{Cost, Extent, Kernel, Precision};
use crate::ops::{copy, fill, gemm, grad_norm, probe};
use crate::plan::{Limits, ParamTable, Plan, PlanError, Recorder, Space};

/// What the rates are measured over.
#[derive(Clone, Copy)]
struct Trial {
    /// Words that the bandwidths are measured over, where a tensor can be so large.
    words: usize,
    /// Elements and rounds of the multiply-adds.
    fma: (u32, u32),
    /// Rows and columns of the product, and those of one on matrix units.
    product: [u32; 2],
}

/// From small to large: the largest counts that a device reaches, each one only where the one before it was quick.
const TRIALS: [Trial; 3] = [
    Trial {
        words: 1 << 16,
        fma: (1 << 12, 256),
        product: [128, 128],
    },
    Trial {
        words: 1 << 20,
        fma: (1 << 16, 1024),
        product: [512, 1024],
    },
    Trial {
        words: 1 << 24,
        fma: (1 << 20, 2048),
        product: [1024, 4096],
    },
];
/// Seconds of a quick trial: the next one is at most 64 times as much work. A software driver and an interpreter stop here.
const QUICK: f64 = 0.05;
/// Replays of which the shortest gives the launch time.
const REPLAYS: usize = 25;
/// Launches of the longer plan that the launch time is measured with.
const LAUNCHES: usize = 257;

/// The ceilings of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes per second read, where little is written.
    pub read: f64,
    /// Bytes per second written, where nothing is read.
    pub write: f64,
    /// Bytes per second of a copy, both directions together.
    pub copy: f64,
    /// FLOP per second of f32 multiply-adds.
    pub fma: f64,
    /// FLOP per second of the crate's own matrix product at its best, in the plan's precision.
    pub product: f64,
    /// Whether products run on matrix units, which the multiply-adds say nothing about.
    pub matrix_units: bool,
    /// Seconds of a launch that does nothing.
    pub launch: f64,
}

impl Ceilings {
    /// Measures a device in a precision, with buffers of its own that are freed again; the best of `rounds` runs counts.
    ///
    /// # Errors
    /// Failures of the device; [`DeviceError::Backend`] for one that cannot time its launches.
    pub fn measure(target: &Target, precision: PrecisionChoice, rounds: usize) -> Result<Ceilings, DeviceError> {
        if target.is_null() {
            return Err(DeviceError::Backend {
                backend: "null",
                what: "runs nothing, so that nothing can be measured on it".to_owned(),
            });
        }
        let params = ParamTable::new(Vec::new());
        let refused = |error: PlanError| DeviceError::Backend {
            backend: "ceilings",
            what: error.to_string(),
        };
        let (limits, precision) = (target.limits(), target.precision(precision)?);
        let mut trials = TRIALS.into_iter().peekable();
        let (mut device, rates, probes, program, seconds) = loop {
            let trial = trials.next().expect("the last trial ends the loop");
            let (rates, probes) = rates(&params, trial, limits, precision).map_err(refused)?;
            let longest = smallest(&params, LAUNCHES).map_err(refused)?;
            let sizes = Sizes::of(params.words(), false, &[&rates, &longest]);
            let mut device = target.open(sizes)?.device;
            let program = device.load(&rates)?;
            let seconds = best(device.as_mut(), program, rates.launches.len(), 1)?;
            if trials.peek().is_none() || seconds.iter().sum::<f64>() > QUICK {
                break (device, rates, probes, program, seconds);
            }
        };
        let again = best(device.as_mut(), program, rates.launches.len(), rounds)?;
        let seconds: Vec<f64> = seconds.iter().zip(again).map(|(a, b)| a.min(b)).collect();
        let (one, many) = (
            device.load(&smallest(&params, 1).map_err(refused)?)?,
            device.load(&smallest(&params, LAUNCHES).map_err(refused)?)?,
        );
        let rate = |probe: usize, of: fn(&Cost) -> u64| of(&rates.launches[probe].cost(None)) as f64 / seconds[probe];
        let bytes = |cost: &Cost| cost.read + cost.written;
        let flops = |cost: &Cost| cost.flops;
        let device = device.as_mut();
        let launch = (replay(device, many)? - replay(device, one)?) / (LAUNCHES - 1) as f64;
        Ok(Ceilings {
            read: rate(probes.read, bytes),
            write: rate(probes.write, bytes),
            copy: rate(probes.copy, bytes),
            fma: rate(probes.fma, flops),
            product: rate(probes.product, flops),
            matrix_units: precision.has_shadow(),
            launch: launch.max(0.0),
        })
    }

    /// The better of two measurings of one device. What else the machine does makes a rate lower, never higher.
    #[must_use]
    pub fn or_better(self, other: &Ceilings) -> Ceilings {
        Ceilings {
            read: self.read.max(other.read),
            write: self.write.max(other.write),
            copy: self.copy.max(other.copy),
            fma: self.fma.max(other.fma),
            product: self.product.max(other.product),
            matrix_units: self.matrix_units,
            // A difference of two times: where noise made it vanish, it says nothing.
            launch: match self.launch.min(other.launch) {
                shorter if shorter > 0.0 => shorter,
                _ => self.launch.max(other.launch),
            },
        }
    }

    /// The highest bandwidth, bytes per second.
    pub fn bandwidth(&self) -> f64 {
        self.read.max(self.write).max(self.copy)
    }

    /// The highest rate of products, FLOP per second: what MFU is a share of.
    pub fn peak(&self) -> f64 {
        self.product.max(self.fma)
    }

    /// The highest rate of multiply-adds, which products without matrix units are as well.
    fn multiply_adds(&self) -> f64 {
        match self.matrix_units {
            true => self.fma,
            false => self.peak(),
        }
    }

    /// The rate that bounds a kernel's arithmetic.
    pub fn rate(&self, kernel: &Kernel) -> f64 {
        let products = kernel.cuda.is_some_and(|source| source.half.is_some());
        if products { self.peak() } else { self.multiply_adds() }
    }

    /// Seconds below which a launch of this cost cannot come.
    pub fn floor(&self, kernel: &Kernel, cost: &Cost) -> f64 {
        let bytes = (cost.read + cost.written) as f64;
        (cost.flops as f64 / self.rate(kernel)).max(bytes / self.bandwidth())
    }

    /// Whether the arithmetic or the memory bounds a launch.
    pub fn is_bound_by_arithmetic(&self, kernel: &Kernel, cost: &Cost) -> bool {
        cost.flops as f64 / self.rate(kernel) > (cost.read + cost.written) as f64 / self.bandwidth()
    }
}

/// Launches of the plan of [`rates`] that are measured.
struct Probes {
    write: usize,
    copy: usize,
    read: usize,
    fma: usize,
    product: usize,
}

/// A launch for each rate, and those that write what it reads.
fn rates(params: &ParamTable, trial: Trial, limits: Limits, precision: Precision) -> Result<(Plan, Probes), PlanError> {
    let mut r = Recorder::new("ceilings", params).within(limits).storing(precision);
    let words = trial.words.min(limits.tensor) as u32;
    let large = r.exact("large", Extent::fixed(1), words);
    fill::zero(&mut r, large)?;
    copy::copy(&mut r, large)?;
    let norm = r.exact("norm", Extent::fixed(1), 1);
    grad_norm::record(&mut r, &[large], norm)?;
    let (elements, rounds) = trial.fma;
    let chains = r.exact("chains", Extent::fixed(1), elements);
    fill::zero(&mut r, chains)?;
    probe::record(&mut r, chains, rounds)?;
    let n = trial.product[usize::from(precision.has_shadow())];
    let [x, w, y] = ["x", "w", "y"].map(|name| r.value(name, Extent::fixed(n), n));
    let bias = r.exact("bias", Extent::fixed(1), n);
    for operand in [x, w, bias] {
        fill::zero(&mut r, operand)?;
    }
    r.launch(&gemm::FORWARD, &[x, w, bias, y], &[])?;
    let plan = r.finish();
    let first = |kernel: &Kernel| {
        let found = plan
            .launches
            .iter()
            .position(|launch| launch.kernel.name == kernel.name);
        found.expect("recorded above")
    };
    let probes = Probes {
        write: first(&fill::ZERO),
        copy: first(&copy::COPY),
        read: first(&grad_norm::PARTIAL),
        fma: first(&probe::FMA),
        product: first(&gemm::FORWARD),
    };
    Ok((plan, probes))
}

/// So many launches of 64 words.
fn smallest(params: &ParamTable, launches: usize) -> Result<Plan, PlanError> {
    let mut r = Recorder::new("launches", params);
    let value = r.exact("value", Extent::fixed(1), 64);
    for _ in 0..launches {
        fill::zero(&mut r, value)?;
    }
    Ok(r.finish())
}

/// The shortest time of each launch.
fn best(device: &mut dyn Device, program: Program, launches: usize, rounds: usize) -> Result<Vec<f64>, DeviceError> {
    let mut best = vec![f64::INFINITY; launches];
    for _ in 0..rounds {
        let mut times = vec![Duration::ZERO; launches];
        device.run_timed(program, &mut times)?;
        for (best, time) in best.iter_mut().zip(&times) {
            *best = best.min(time.as_secs_f64().max(1e-9));
        }
    }
    Ok(best)
}

/// The shortest time of a replay to the end of its work.
fn replay(device: &mut dyn Device, program: Program) -> Result<f64, DeviceError> {
    let mut best = f64::INFINITY;
    for _ in 0..REPLAYS {
        let start = Instant::now();
        device.run(program)?;
        device.read(Space::Arena, 0, &mut [0])?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::choice::DeviceChoice;

    const CEILINGS: Ceilings = Ceilings {
        read: 100.0,
        write: 50.0,
        copy: 80.0,
        fma: 1000.0,
        product: 4000.0,
        matrix_units: true,
        launch: 1e-6,
    };

    // 2,000 FLOPs at 4,000 a second on matrix units and 1,000 elsewhere; 100 bytes at 100 a second.
    #[test]
    fn a_floor_is_the_longer_of_arithmetic_and_memory() {
        let cost = |flops, bytes| Cost {
            flops,
            read: bytes,
            written: 0,
        };
        assert_eq!(CEILINGS.floor(&gemm::FORWARD, &cost(2000, 10)), 0.5);
        assert_eq!(CEILINGS.floor(&copy::COPY, &cost(2000, 10)), 2.0);
        assert_eq!(CEILINGS.floor(&copy::COPY, &cost(20, 100)), 1.0);
        assert!(CEILINGS.is_bound_by_arithmetic(&copy::COPY, &cost(2000, 10)));
        assert!(!CEILINGS.is_bound_by_arithmetic(&copy::COPY, &cost(20, 100)));
        // Without matrix units a product that was faster than the probe shows what multiply-adds can do.
        let plain = |product| Ceilings {
            product,
            matrix_units: false,
            ..CEILINGS
        };
        for kernel in [&gemm::FORWARD, &copy::COPY] {
            assert_eq!(plain(900.0).floor(kernel, &cost(2000, 10)), 2.0);
            assert_eq!(plain(1250.0).floor(kernel, &cost(2000, 10)), 1.6);
        }
    }

    #[test]
    fn of_two_measurings_the_better_rates_and_the_shorter_launch_are_kept() {
        let other = Ceilings {
            read: 90.0,
            write: 60.0,
            launch: 5e-7,
            ..CEILINGS
        };
        let both = Ceilings {
            write: 60.0,
            launch: 5e-7,
            ..CEILINGS
        };
        assert_eq!(CEILINGS.or_better(&other), both);
        assert_eq!(other.or_better(&CEILINGS), both);
        let vanished = Ceilings { launch: 0.0, ..other };
        assert_eq!(vanished.or_better(&CEILINGS).launch, CEILINGS.launch);
    }

    #[test]
    fn a_device_that_runs_nothing_has_no_ceilings() {
        let error = Ceilings::measure(&Target::of(DeviceChoice::Null).unwrap(), PrecisionChoice::Auto, 3).unwrap_err();
        assert!(error.to_string().contains("null"), "{error}");
    }
}
