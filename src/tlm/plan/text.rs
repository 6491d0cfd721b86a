//! The report as people read it.

use std::fmt::Write as _;

use super::{Memory, ModelSize, PlanReport, mib};

impl PlanReport {
    /// The report as a table; `launches`: followed by every launch of every plan.
    pub fn to_text(&self, launches: bool) -> String {
        // Writing into a String cannot fail.
        let mut out = String::new();
        let ModelSize {
            parameters,
            layers,
            hidden,
            heads,
            vocab_size,
            labels,
        } = self.model;
        let _ = writeln!(
            out,
            "model   {parameters} parameters: {layers} layers of {hidden}, {heads} heads, vocabulary {vocab_size}, \
             {labels} classes"
        );
        let can = if self.device.runs { "runs" } else { "does not run" };
        let _ = writeln!(out, "device  {} {can}: {}", self.device.asked, self.device.message);
        for assumption in &self.assumptions {
            let _ = writeln!(out, "assumed {assumption}");
        }
        let _ = writeln!(
            out,
            "\n{:<20} {:>8} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>10}",
            "plan", "tokens", "masked", "launches", "GFLOP", "MiB moved", "arena MiB", "bound MiB", "replays"
        );
        for plan in &self.plans {
            let [tokens, masked] = plan
                .capacity
                .map_or([String::new(), String::new()], |[tokens, _, masked, _]| {
                    [tokens.to_string(), masked.to_string()]
                });
            let _ = writeln!(
                out,
                "{:<20} {tokens:>8} {masked:>9} {:>8} {:>8.3} {:>9} {:>9} {:>9} {:>10}",
                plan.name,
                plan.launches,
                plan.flops as f64 / 1e9,
                mib(plan.read_bytes + plan.written_bytes),
                mib(plan.arena_bytes),
                mib(plan.lower_bound_bytes),
                plan.replays
                    .map_or_else(|| "per text".to_owned(), |replays| replays.to_string()),
            );
        }
        let Memory {
            params,
            copies,
            grads,
            moments,
            arena,
            inputs,
            readback,
            total,
        } = self.memory;
        let _ = writeln!(
            out,
            "\nmemory  {} MiB: parameters {}, 16-bit copies {}, gradients {}, moments {}, arena {}, inputs {}, readback {}",
            mib(total),
            mib(params),
            mib(copies),
            mib(grads),
            mib(moments),
            mib(arena),
            mib(inputs),
            mib(readback)
        );
        let _ = writeln!(
            out,
            "work    at most {:.3} TFLOP for the whole training, if every text had its greatest length",
            self.flops as f64 / 1e12
        );
        if self.recomputed_flops > 0 {
            let dropped = self.plans.iter().map(|plan| plan.recomputed_bytes).max().unwrap_or(0);
            let _ = writeln!(
                out,
                "again   {:.3} TFLOP of it compute {} MiB a second time that the layers do not keep (model.recompute)",
                self.recomputed_flops as f64 / 1e12,
                mib(dropped)
            );
        }
        if let Some(largest) = self.plans.iter().max_by_key(|plan| plan.arena_bytes) {
            let _ = writeln!(out, "\nlargest values of {} (MiB)", largest.name);
            for (label, bytes) in &largest.largest {
                let _ = writeln!(out, "{:>10}  {label}", mib(*bytes));
            }
        }
        for plan in self.plans.iter().filter(|_| launches) {
            let _ = write!(out, "\n{}", plan.listing);
        }
        out
    }
}
