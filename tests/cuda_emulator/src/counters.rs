//! Counters by line of source: the performance evidence that can be had without a device.
//!
//! * **sectors**: pieces of 32 bytes that a warp's request to device memory touches, beside the fewest that its distinct
//!   bytes would need
//! * **wavefronts**: passes that a request to shared memory takes, beside the fewest. Memory has 32 banks of 4 bytes; a
//!   pass serves one word of each bank. Requests of 8 bytes a lane are served half a warp at a time, of 16 bytes a
//!   quarter, `ldmatrix` a matrix of eight rows; each such part is at least one pass.
//!
//! Both are counted per request of a warp, which is what profilers of devices count, too.

use serde_json::{Map, Value, json};

use crate::ptx::{Class, Kernel};
use crate::rows::{Row, lanes};

/// Counters of a memory instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests to device memory.
    pub global_requests: u64,
    /// Sectors of device memory.
    pub sectors: u64,
    /// The fewest possible.
    pub ideal_sectors: u64,
    /// Requests to shared memory.
    pub shared_requests: u64,
    /// Passes.
    pub wavefronts: u64,
    /// The fewest possible.
    pub ideal_wavefronts: u64,
}

impl Requests {
    fn add(&mut self, other: &Requests) {
        self.global_requests += other.global_requests;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.shared_requests += other.shared_requests;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
    }
}

/// Counters of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Launches.
    pub launches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Instructions of threads, by class.
    pub classes: [u64; Class::ALL.len()],
    /// Instructions of threads, by instruction; counted on request.
    pub executed: Vec<u64>,
    /// Requests, by memory instruction; counted on request.
    pub sites: Vec<Requests>,
}

impl Counts {
    /// Nothing yet.
    pub fn new(kernel: &Kernel) -> Counts {
        Counts {
            executed: vec![0; kernel.code.len()],
            sites: vec![Requests::default(); kernel.sites.len()],
            ..Counts::default()
        }
    }

    /// Adds the counters of another run.
    pub fn add(&mut self, other: &Counts) {
        self.launches += other.launches;
        self.blocks += other.blocks;
        for (sum, count) in self.classes.iter_mut().zip(other.classes) {
            *sum += count;
        }
        for (sum, count) in self.executed.iter_mut().zip(&other.executed) {
            *sum += count;
        }
        for (sum, count) in self.sites.iter_mut().zip(&other.sites) {
            sum.add(count);
        }
    }

    /// A request to device memory.
    pub fn global(&mut self, site: u16, addresses: &Row, bytes: u32, active: u32, counting: bool) {
        if !counting || active == 0 {
            return;
        }
        let bytes = u64::from(bytes);
        let mut starts: Vec<u64> = lanes(active).map(|lane| addresses[lane]).collect();
        let sectors = starts.iter().flat_map(|start| start / 32..=(start + bytes - 1) / 32);
        let sectors = distinct(sectors.collect());
        starts = distinct(starts);
        let requests = &mut self.sites[site as usize];
        requests.global_requests += 1;
        requests.sectors += sectors.len() as u64;
        requests.ideal_sectors += (starts.len() as u64 * bytes).div_ceil(32);
    }

    /// A request to shared memory.
    pub fn shared(&mut self, site: u16, addresses: &Row, bytes: u32, active: u32, counting: bool) {
        if !counting || active == 0 {
            return;
        }
        let part = match bytes {
            16 => 8,
            8 => 16,
            _ => 32,
        };
        let requests = &mut self.sites[site as usize];
        requests.shared_requests += 1;
        for first in (0..32).step_by(part) {
            let mask = (u32::MAX >> (32 - part)) << first & active;
            if mask != 0 {
                requests.wavefronts += passes(lanes(mask).map(|lane| addresses[lane]), bytes);
                requests.ideal_wavefronts += 1;
            }
        }
    }

    /// `ldmatrix` of some matrices.
    pub fn matrix(&mut self, site: u16, addresses: &Row, matrices: usize, counting: bool) {
        if !counting {
            return;
        }
        let requests = &mut self.sites[site as usize];
        requests.shared_requests += 1;
        for rows in addresses.chunks(8).take(matrices) {
            requests.wavefronts += passes(rows.iter().copied(), 16);
            requests.ideal_wavefronts += 1;
        }
    }

    /// All of it, with places in the sources.
    pub fn to_json(&self, kernel: &Kernel) -> Value {
        let mut lines: Map<String, Value> = Map::new();
        let mut add = |place: u32, name: &str, count: u64| {
            if count > 0 {
                let location = &kernel.locations[place as usize];
                let line = format!("{}:{}", location.file, location.line);
                let line = lines.entry(line).or_insert_with(|| json!({}));
                line[name] = json!(line[name].as_u64().unwrap_or(0) + count);
            }
        };
        for (place, requests) in kernel.sites.iter().zip(&self.sites) {
            add(*place, "global_requests", requests.global_requests);
            add(*place, "sectors", requests.sectors);
            add(*place, "ideal_sectors", requests.ideal_sectors);
            add(*place, "shared_requests", requests.shared_requests);
            add(*place, "wavefronts", requests.wavefronts);
            add(*place, "ideal_wavefronts", requests.ideal_wavefronts);
        }
        for (instruction, count) in kernel.code.iter().zip(&self.executed) {
            let name = Class::ALL[instruction.class as usize].1;
            add(instruction.place, &format!("{name}_instructions"), *count);
        }
        let classes = Class::ALL
            .iter()
            .map(|(class, name)| (*name, self.classes[*class as usize]));
        let instructions: Map<String, Value> = classes.map(|(name, count)| (name.to_string(), json!(count))).collect();
        json!({
            "launches": self.launches,
            "blocks": self.blocks,
            "instructions": instructions,
            "lines": lines,
        })
    }
}

fn distinct(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values.dedup();
    values
}

/// The largest number of different words that one bank must serve.
fn passes(addresses: impl Iterator<Item = u64>, bytes: u32) -> u64 {
    let last = u64::from(bytes) - 1;
    let words = addresses.flat_map(|start| start / 4..=(start + last) / 4);
    let mut banks = [0u64; 32];
    for word in distinct(words.collect()) {
        banks[word as usize % 32] += 1;
    }
    banks.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(bytes: u32, address: impl Fn(u64) -> u64) -> (u64, u64) {
        let mut counts = Counts {
            sites: vec![Requests::default()],
            ..Counts::default()
        };
        let row = std::array::from_fn(|lane| address(lane as u64));
        counts.shared(0, &row, bytes, u32::MAX, true);
        (counts.sites[0].wavefronts, counts.sites[0].ideal_wavefronts)
    }

    #[test]
    fn bank_conflicts_of_simple_strides() {
        assert_eq!(shared(4, |lane| 4 * lane), (1, 1));
        assert_eq!(shared(4, |lane| 8 * lane), (2, 1));
        assert_eq!(shared(4, |lane| 128 * lane), (32, 1));
        assert_eq!(shared(4, |lane| 132 * lane), (1, 1));
        assert_eq!(shared(4, |_| 64), (1, 1));
        assert_eq!(shared(2, |lane| 2 * lane), (1, 1));
        assert_eq!(shared(8, |lane| 8 * lane), (2, 2));
        assert_eq!(shared(16, |lane| 16 * lane), (4, 4));
        assert_eq!(shared(16, |lane| 32 * lane), (8, 4));
    }

    #[test]
    fn sectors_of_simple_strides() {
        let global = |bytes, active, address: &dyn Fn(u64) -> u64| {
            let mut counts = Counts {
                sites: vec![Requests::default()],
                ..Counts::default()
            };
            let row = std::array::from_fn(|lane| 4096 + address(lane as u64));
            counts.global(0, &row, bytes, active, true);
            (counts.sites[0].sectors, counts.sites[0].ideal_sectors)
        };
        assert_eq!(global(4, u32::MAX, &|lane| 4 * lane), (4, 4));
        assert_eq!(global(4, u32::MAX, &|lane| 4 * lane + 4), (5, 4));
        assert_eq!(global(4, u32::MAX, &|lane| 8 * lane), (8, 4));
        assert_eq!(global(4, u32::MAX, &|lane| 128 * lane), (32, 4));
        assert_eq!(global(4, u32::MAX, &|_| 0), (1, 1));
        assert_eq!(global(16, u32::MAX, &|lane| 16 * lane), (16, 16));
        assert_eq!(global(4, 0xf, &|lane| 4 * lane), (1, 1));
    }
}
