//! The recorder: ops call it, it checks every launch and derives the backward program.
//!
//! An op's record function launches its forward kernels and registers one closure for its backward. When
//! [`Recorder::differentiate`] runs, the closures are called once, last op first. Each asks for the gradient that has
//! arrived at its outputs ([`Recorder::incoming`]) and for the places of its inputs' gradients
//! ([`Recorder::outgoing`]), where the recorder decides between `=` (first contribution) and `+=` (every further one).
//!
//! | file | holds |
//! |---|---|
//! | `values` | parameters, inputs, outputs, intermediate values, views |
//! | `launches` | a launch and its checks |
//! | `gradients` | the tape and the backward |
//! | `recompute` | regions that are computed again instead of kept |
//! | `placement` | lifetimes and the finished plan |

mod gradients;
mod launches;
mod placement;
mod recompute;
mod values;

use std::collections::{HashMap, HashSet};

use crate::kernel::Precision;

use super::{Launch, Limits, ParamTable, PlanError, Port, Space, Value, ValueInfo};

pub use gradients::Gradient;

/// Records one plan.
pub struct Recorder<'p> {
    plan: String,
    params: &'p ParamTable,
    values: Vec<ValueInfo>,
    launches: Vec<Launch>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    by_place: HashMap<(Space, usize), Value>,
    tape: Vec<gradients::Entry>,
    gradients: HashMap<Value, Value>,
    frozen: HashSet<String>,
    accumulate: bool,
    scope: Vec<String>,
    ops: u32,
    /// While a backward is recorded: how many launches there were when its op registered it.
    registered: Option<usize>,
    /// What the device can hold in one piece.
    limits: Limits,
    /// How activations are stored.
    precision: Precision,
    /// The first value of the recomputed region that is being recorded.
    region: Option<Value>,
    /// What stands for the values of the region whose backward is being recorded.
    copies: HashMap<Value, Value>,
}

impl<'p> Recorder<'p> {
    /// A recorder for a plan over these parameters.
    pub fn new(plan: &str, params: &'p ParamTable) -> Recorder<'p> {
        Recorder {
            plan: plan.to_string(),
            params,
            values: Vec::new(),
            launches: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            by_place: HashMap::new(),
            tape: Vec::new(),
            gradients: HashMap::new(),
            frozen: HashSet::new(),
            accumulate: false,
            scope: vec![plan.to_string()],
            ops: 0,
            limits: Limits::default(),
            precision: Precision::F32,
            registered: None,
            region: None,
            copies: HashMap::new(),
        }
    }

    /// The plan is for a device with these limits.
    pub fn within(self, limits: Limits) -> Recorder<'p> {
        Recorder { limits, ..self }
    }

    /// Activations, their gradients and the weights of products are stored like this.
    pub fn storing(self, precision: Precision) -> Recorder<'p> {
        Recorder { precision, ..self }
    }

    /// How activations are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Every parameter gradient is added to what earlier plans left: gradient accumulation over micro-batches.
    pub fn accumulate_gradients(&mut self) {
        self.accumulate = true;
    }

    /// The parameters.
    pub fn params(&self) -> &'p ParamTable {
        self.params
    }

    /// Runs `body` inside a named scope; errors and profiles show `plan/scope/...`.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn scope<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Recorder<'p>) -> Result<T, PlanError>,
    ) -> Result<T, PlanError> {
        self.scope.push(name.to_string());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// The scope as one string.
    pub fn path(&self) -> String {
        self.scope.join("/")
    }

    /// A new op id: the word of the Philox counter that keeps two ops' random numbers apart.
    pub fn op_id(&mut self) -> u32 {
        self.ops += 1;
        self.ops
    }

    /// An error for a size that an op does not support.
    pub fn unsupported(&self, what: String) -> PlanError {
        PlanError::Unsupported {
            scope: self.path(),
            what,
        }
    }
}
