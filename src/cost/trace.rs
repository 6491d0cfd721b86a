//! A timeline in Chrome's trace format (JSON, "Trace Event Format"), which Perfetto and `chrome://tracing` open.
//!
//! One process, a thread for each track. Every slice is a complete event (`"ph": "X"`) with start `ts` and length `dur` in
//! microseconds; metadata events (`"ph": "M"`) give the tracks names and order. Launches carry shapes, FLOPs and bytes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::timeline::{Shows, Slice, TRACKS, Timeline, layer};
use crate::plan::Plan;

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    cat: &'a str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: usize,
    args: Map<String, Json>,
}

/// Writes the timeline; `device` becomes the name of the process.
///
/// # Errors
/// Those of `out`.
pub fn write(timeline: &Timeline, device: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{{\"displayTimeUnit\": \"ns\", \"traceEvents\": [")?;
    let name =
        json!({"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": format!("tlm, {device}")}});
    write!(out, "{name}")?;
    for (tid, track) in TRACKS.into_iter().enumerate() {
        for (what, args) in [
            ("thread_name", json!({"name": track.name()})),
            ("thread_sort_index", json!({"sort_index": tid})),
        ] {
            let event = json!({"name": what, "ph": "M", "pid": 1, "tid": tid, "args": args});
            write!(out, ",\n{event}")?;
        }
    }
    let mut slices: Vec<&Slice> = timeline.slices.iter().collect();
    slices.sort_by_key(|slice| slice.start);
    for slice in slices {
        out.write_all(b",\n")?;
        serde_json::to_writer(&mut *out, &event(slice))?;
    }
    writeln!(out, "\n]}}")
}

fn event(slice: &Slice) -> Event<'_> {
    let tid = TRACKS.iter().position(|track| *track == slice.track);
    let (name, args) = match &slice.shows {
        Shows::Step(step) => ("step", number("step", *step)),
        Shows::Batch(step) => ("batch", number("step", *step)),
        Shows::Host(work) => (work.name(), Map::new()),
        Shows::Launch { plan, index, cost } => {
            let launch = &plan.launches[*index];
            let mut args = Map::new();
            args.insert("plan".to_owned(), plan.name.clone().into());
            args.insert("layer".to_owned(), layer(launch).into());
            args.insert("shapes".to_owned(), shapes(plan, *index).into());
            args.insert("flops".to_owned(), cost.flops.into());
            args.insert("bytes_read".to_owned(), cost.read.into());
            args.insert("bytes_written".to_owned(), cost.written.into());
            (launch.kernel.name, args)
        }
    };
    Event {
        name,
        cat: slice.track.name(),
        ph: "X",
        ts: microseconds(slice.start),
        dur: microseconds(slice.length),
        pid: 1,
        tid: tid.unwrap_or(0),
        args,
    }
}

fn number(name: &str, value: u64) -> Map<String, Json> {
    Map::from_iter([(name.to_owned(), value.into())])
}

/// The tensors of a launch at capacity: `x [4096, 128] w [512, 128]`.
fn shapes(plan: &Plan, index: usize) -> String {
    let launch = &plan.launches[index];
    let tensors = launch.kernel.args.iter().zip(&launch.values).map(|(arg, &value)| {
        let info = plan.value(value);
        format!("{} [{}, {}]", arg.name, info.rows, info.width)
    });
    tensors.collect::<Vec<_>>().join(" ")
}

/// To the nanosecond.
fn microseconds(time: std::time::Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}
