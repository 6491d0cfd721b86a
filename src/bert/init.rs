//! Initial values of the parameters.
//!
//! Every tensor draws from its own stream (seed, INIT, place of its name in the canonical order of
//! [`names::all`]), so that neither the layout in memory nor the other tensors' sizes change its numbers.

use crate::hub::{BertConfig, names};
use crate::plan::{Init, ParamTable};
use crate::rng::{Stream, purpose};

/// Values of all tensors for which `wanted` holds, written into the flat buffer; the others stay as they are.
///
/// # Panics
/// If `flat` is shorter than the table.
pub fn initial_values(
    config: &BertConfig,
    params: &ParamTable,
    seed: u64,
    flat: &mut [f32],
    wanted: impl Fn(&str) -> bool,
) {
    for (index, (name, _)) in (0u64..).zip(names::all(config)) {
        let Some((spec, offset)) = params.find(&name).filter(|_| wanted(&name)) else {
            continue;
        };
        let mut stream = Stream::new(seed, purpose::INIT, index);
        let values = &mut flat[offset..offset + spec.len()];
        match spec.init {
            Init::Zeros => values.fill(0.0),
            Init::Ones => values.fill(1.0),
            Init::Normal(sigma) => values.fill_with(|| sigma * stream.normal_f32()),
            Init::NormalZeroFirstRow(sigma) => {
                values.fill_with(|| sigma * stream.normal_f32());
                values[..spec.width as usize].fill(0.0);
            }
            Init::Uniform { inputs } => {
                let bound = 1.0 / (inputs as f32).sqrt();
                values.fill_with(|| stream.uniform_f32(-bound, bound));
            }
        }
    }
}
