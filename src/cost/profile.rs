//! A timeline summed up: by kernel, by layer, as a tree, and against what the device can do.
//!
//! ```text
//! wall            = kernels + launching + waiting + upload + readback + rest
//! launching       = what replays took beyond their kernels' own times
//! speed of light  = sum of the launches' floors / wall
//! MFU             = needed FLOPs / wall / peak                             (Chowdhery et al. 2022)
//! ```

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ceilings;
use super::timeline::{HostWork, Shows, Slice, Timeline, Track, layer};
use crate::kernel::{Cost, Kernel};

/// Where the time of some steps went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The device.
    pub device: String,
    /// Steps.
    pub steps: u64,
    /// Their tokens.
    pub tokens: u64,
    /// FLOPs that their mathematics needs.
    pub needed: u64,
    /// FLOPs of their launches.
    pub executed: u64,
    /// Launches.
    pub launches: u64,
    /// Wall clock of the profiled steps, seconds.
    pub wall: f64,
    /// Where it went.
    pub parts: Parts,
    /// Sum of the launches' floors, seconds; none without ceilings.
    pub floor: Option<f64>,
    /// What the device can do.
    pub ceilings: Option<Ceilings>,
    /// By kernel, the longest first.
    pub kernels: Vec<Line>,
    /// By part of the model, in its order.
    pub layers: Vec<Line>,
    /// The step as a tree: part, layer, sublayer, kernel.
    pub tree: Node,
}

/// Seconds of the profiled steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// In kernels.
    pub kernels: f64,
    /// Replays beyond their kernels: launching, gaps.
    pub launching: f64,
    /// Waiting for a batch.
    pub waiting: f64,
    /// Input blocks to the device.
    pub upload: f64,
    /// Losses and norms to the host.
    pub readback: f64,
    /// Everything else of the wall clock.
    pub rest: f64,
}

/// A line of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Kernel or part of the model.
    pub name: String,
    /// Launches.
    pub calls: u64,
    /// Their time, seconds.
    pub seconds: f64,
    /// Share of all kernels' time.
    pub share: f64,
    /// FLOPs.
    pub flops: u64,
    /// Bytes read and written, every tensor of a launch once.
    pub bytes: u64,
    /// Sum of the launches' floors by their time; not cut at 1.
    pub of_ceiling: Option<f64>,
    /// Whether arithmetic bounds most of the floor, and not memory.
    pub arithmetic: Option<bool>,
}

/// A part of the step's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Seconds, those of the parts among them.
    pub seconds: f64,
    /// Its parts in the order in which they first came.
    pub parts: Vec<Node>,
}

/// What is known of the steps beside their timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Number.
    pub steps: u64,
    /// Tokens.
    pub tokens: u64,
    /// FLOPs that their mathematics needs.
    pub needed: u64,
}

#[derive(Default)]
struct Sums {
    line: Line,
    floor: f64,
    arithmetic: f64,
}

impl Sums {
    fn add(&mut self, kernel: &Kernel, cost: &Cost, seconds: f64, ceilings: Option<&Ceilings>) {
        self.line.calls += 1;
        self.line.seconds += seconds;
        self.line.flops += cost.flops;
        self.line.bytes += cost.read + cost.written;
        if let Some(ceilings) = ceilings {
            let floor = ceilings.floor(kernel, cost);
            self.floor += floor;
            if ceilings.is_bound_by_arithmetic(kernel, cost) {
                self.arithmetic += floor;
            }
        }
    }

    fn line(self, name: String, all: f64, measured: bool) -> Line {
        Line {
            name,
            share: self.line.seconds / all.max(f64::MIN_POSITIVE),
            of_ceiling: (measured && self.line.seconds > 0.0).then(|| self.floor / self.line.seconds),
            arithmetic: measured.then_some(2.0 * self.arithmetic > self.floor),
            ..self.line
        }
    }
}

impl Profile {
    /// Sums up a timeline whose steps took `wall`.
    pub fn of(timeline: &Timeline, device: &str, steps: Steps, wall: Duration, ceilings: Option<Ceilings>) -> Profile {
        let measured = ceilings.as_ref();
        let mut by_kernel: Vec<(String, Sums)> = Vec::new();
        let mut by_layer: Vec<(String, Sums)> = Vec::new();
        let (mut kernel_places, mut layer_places) = (HashMap::new(), HashMap::new());
        let (mut executed, mut launches, mut floor) = (0, 0, 0.0);
        let mut kernels = 0.0;
        for slice in &timeline.slices {
            let Shows::Launch { plan, index, cost } = &slice.shows else {
                continue;
            };
            let launch = &plan.launches[*index];
            let seconds = slice.length.as_secs_f64();
            let names = [launch.kernel.name.to_owned(), layer(launch)];
            let tables = [(&mut by_kernel, &mut kernel_places), (&mut by_layer, &mut layer_places)];
            for (name, (lines, places)) in names.into_iter().zip(tables) {
                let place = *places.entry(name.clone()).or_insert_with(|| {
                    lines.push((name, Sums::default()));
                    lines.len() - 1
                });
                lines[place].1.add(launch.kernel, cost, seconds, measured);
            }
            (executed, launches, kernels) = (executed + cost.flops, launches + 1, kernels + seconds);
            floor += measured.map_or(0.0, |ceilings| ceilings.floor(launch.kernel, cost));
        }
        let host = |work| sum(timeline, |shows| matches!(shows, Shows::Host(found) if *found == work));
        let [waiting, upload, run, readback] =
            [HostWork::Wait, HostWork::Upload, HostWork::Run, HostWork::Readback].map(host);
        let wall = wall.as_secs_f64();
        let parts = Parts {
            kernels,
            launching: run - kernels,
            waiting,
            upload,
            readback,
            rest: wall - run - waiting - upload - readback,
        };
        let lines = |sums: Vec<(String, Sums)>| -> Vec<Line> {
            sums.into_iter()
                .map(|(name, sums)| sums.line(name, kernels, measured.is_some()))
                .collect()
        };
        let mut of_kernels = lines(by_kernel);
        of_kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Profile {
            device: device.to_owned(),
            steps: steps.steps,
            tokens: steps.tokens,
            needed: steps.needed,
            executed,
            launches,
            wall,
            floor: measured.map(|_| floor),
            ceilings,
            kernels: of_kernels,
            layers: lines(by_layer),
            tree: tree(timeline, &parts, wall),
            parts,
        }
    }

    /// Share of the peak that the needed FLOPs reach.
    pub fn mfu(&self) -> Option<f64> {
        Some(self.needed as f64 / self.wall / self.ceilings?.peak())
    }

    /// Share of the wall clock that no kernel could do without.
    pub fn speed_of_light(&self) -> Option<f64> {
        Some(self.floor? / self.wall)
    }
}

fn sum(timeline: &Timeline, of: impl Fn(&Shows) -> bool) -> f64 {
    let chosen = timeline.slices.iter().filter(|slice| of(&slice.shows));
    chosen.map(|slice| slice.length.as_secs_f64()).sum()
}

fn tree(timeline: &Timeline, parts: &Parts, wall: f64) -> Node {
    let mut root = Node {
        name: "steps".to_owned(),
        seconds: wall,
        parts: Vec::new(),
    };
    for slice in &timeline.slices {
        if let Slice {
            track: track @ (Track::Forward | Track::Backward | Track::Update),
            length,
            shows: Shows::Launch { plan, index, .. },
            ..
        } = slice
        {
            let launch = &plan.launches[*index];
            let layer = layer(launch);
            let path = [track.name()]
                .into_iter()
                .chain(layer.split('/'))
                .chain([launch.kernel.name]);
            root.add(path, length.as_secs_f64());
        }
    }
    for (name, seconds) in [
        ("launching", parts.launching),
        ("wait for a batch", parts.waiting),
        ("upload", parts.upload),
        ("read back", parts.readback),
        ("rest", parts.rest),
    ] {
        if seconds > 0.0 {
            root.add([name].into_iter(), seconds);
        }
    }
    root
}

impl Node {
    /// Adds time to the node at the end of a path and to all above it but the root, whose time is the wall clock.
    fn add<'a>(&mut self, path: impl Iterator<Item = &'a str>, seconds: f64) {
        let mut node = self;
        for name in path {
            let place = node.parts.iter().position(|part| part.name == name);
            let place = place.unwrap_or_else(|| {
                node.parts.push(Node {
                    name: name.to_owned(),
                    ..Node::default()
                });
                node.parts.len() - 1
            });
            node = &mut node.parts[place];
            node.seconds += seconds;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_holds_the_time_of_its_parts() {
        let mut root = Node::default();
        for (path, seconds) in [("a/b", 1.0), ("a/c", 2.0), ("a/b", 4.0), ("d", 8.0)] {
            root.add(path.split('/'), seconds);
        }
        let found: Vec<(&str, f64)> = root
            .parts
            .iter()
            .map(|part| (part.name.as_str(), part.seconds))
            .collect();
        assert_eq!(found, [("a", 7.0), ("d", 8.0)]);
        let inner: Vec<(&str, f64)> = root.parts[0]
            .parts
            .iter()
            .map(|part| (part.name.as_str(), part.seconds))
            .collect();
        assert_eq!(inner, [("b", 5.0), ("c", 2.0)]);
    }
}
