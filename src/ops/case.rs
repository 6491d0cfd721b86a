//! Test cases that every op carries: inputs, a reference that is generic in the number type, what to compare.
//!
//! The reference is written once over [`Real`]: in f64 it is the truth (and central differences of its forward check its
//! backward), in the precision under test it is the naive algorithm whose error sets the tolerance of the kernels. That of
//! 16-bit storage is [`Mixed`]: arithmetic in f32, rounded wherever a plan would store a tensor or a product unit reads an
//! operand; the reference says where with [`Real::stored`]. [`Mixed`] also counts what is done with it ([`operations`]): the
//! kernels' cost functions are held against that.

use std::cell::Cell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::kernel::{Count, DType, Extent, Precision, StepParams};
use crate::plan::{PlanError, Recorder, Value};

/// f32, f64 or [`Mixed`].
pub trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + std::iter::Sum
{
    /// Nearest value.
    fn from_f64(x: f64) -> Self;
    /// Exact value.
    fn to_f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Exponential.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// What remains of it in a tensor of the plan's precision.
    fn stored(self) -> Self {
        self
    }
}

impl Real for f32 {
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn exp(self) -> f32 {
        libm::expf(self)
    }
    fn ln(self) -> f32 {
        libm::logf(self)
    }
    fn erf(self) -> f32 {
        libm::erff(self)
    }
}

impl Real for f64 {
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn ln(self) -> f64 {
        libm::log(self)
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
}

thread_local! {
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The floating-point operations that `body` does on [`Mixed`] numbers: sums, differences, products, quotients and elementary
/// functions count one each, a sum of n terms n. Comparisons, changes of sign and rounding count nothing.
pub fn operations<T>(body: impl FnOnce() -> T) -> (T, u64) {
    OPERATIONS.set(0);
    let result = body();
    (result, OPERATIONS.get())
}

fn counted_operation(x: f32) -> f32 {
    OPERATIONS.set(OPERATIONS.get() + 1);
    x
}

/// An f32 of a plan that stores 16 bits: bf16, or else f16.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Mixed<const BF16: bool>(f32);

impl<const BF16: bool> Add for Mixed<BF16> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Mixed(counted_operation(self.0 + other.0))
    }
}

impl<const BF16: bool> Sub for Mixed<BF16> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Mixed(counted_operation(self.0 - other.0))
    }
}

impl<const BF16: bool> Mul for Mixed<BF16> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Mixed(counted_operation(self.0 * other.0))
    }
}

impl<const BF16: bool> Div for Mixed<BF16> {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Mixed(counted_operation(self.0 / other.0))
    }
}

impl<const BF16: bool> Neg for Mixed<BF16> {
    type Output = Self;
    fn neg(self) -> Self {
        Mixed(-self.0)
    }
}

impl<const BF16: bool> std::iter::Sum for Mixed<BF16> {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        Mixed(terms.map(|term| counted_operation(term.0)).sum())
    }
}

impl<const BF16: bool> Real for Mixed<BF16> {
    fn from_f64(x: f64) -> Self {
        Mixed(x as f32)
    }
    fn to_f64(self) -> f64 {
        f64::from(self.0)
    }
    fn sqrt(self) -> Self {
        Mixed(counted_operation(self.0.sqrt()))
    }
    fn exp(self) -> Self {
        Mixed(counted_operation(Real::exp(self.0)))
    }
    fn ln(self) -> Self {
        Mixed(counted_operation(Real::ln(self.0)))
    }
    fn erf(self) -> Self {
        Mixed(counted_operation(Real::erf(self.0)))
    }
    fn stored(self) -> Self {
        let precision = if BF16 { Precision::Bf16 } else { Precision::F16 };
        Mixed(precision.round(self.0))
    }
}

/// What a tensor of a case is to the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Input in the plan's precision that gradients flow to.
    Input,
    /// Input in the plan's precision without a gradient: activations.
    Stored,
    /// f32 input without a gradient: weights of a loss, moments.
    Constant,
    /// u32 input: ids, offsets, labels.
    Index,
    /// Parameter.
    Param,
}

/// An input tensor of a case, filled at capacity.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name.
    pub name: &'static str,
    /// Role.
    pub role: Role,
    /// Rows.
    pub rows: Extent,
    /// Elements per row.
    pub width: u32,
    /// Elements (indices as whole numbers).
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor with numbers in about [-2, 2], different for every case and name, exactly representable in f32.
    pub fn random(name: &'static str, role: Role, rows: Extent, width: u32) -> Tensor {
        let salt = name
            .bytes()
            .fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let draw = |index: u32| {
            let [a, b, c, d] = crate::rng::philox4x32_10([index, salt, rows.capacity, width], [17, 4]);
            // The sum of four uniform numbers: nearly normal, bounded.
            let sum = [a, b, c, d]
                .iter()
                .map(|word| f64::from(word >> 8) / f64::from(1u32 << 24) - 0.5)
                .sum::<f64>();
            f64::from((sum * 1.5) as f32)
        };
        let data = (0..rows.capacity * width).map(draw).collect();
        Tensor {
            name,
            role,
            rows,
            width,
            data,
        }
    }

    /// An index tensor.
    pub fn index(name: &'static str, rows: Extent, width: u32, data: &[u32]) -> Tensor {
        let mut data: Vec<f64> = data.iter().map(|&word| f64::from(word)).collect();
        data.resize(rows.capacity as usize * width as usize, 0.0);
        Tensor {
            name,
            role: Role::Index,
            rows,
            width,
            data,
        }
    }

    /// Type of the elements in a plan of this precision.
    pub fn dtype(&self, precision: Precision) -> DType {
        match self.role {
            Role::Index => DType::U32,
            Role::Constant | Role::Param => DType::F32,
            Role::Input | Role::Stored => precision.dtype(),
        }
    }
}

/// Inputs of a reference: tensors in the case's order, the live counts, the dropout key.
pub struct Given<'a, R> {
    /// Tensors.
    pub tensors: &'a [Vec<R>],
    /// Counts, step and seed.
    pub step: StepParams,
}

impl<R: Real> Given<'_, R> {
    /// An index tensor's element.
    pub fn index(&self, tensor: usize, element: usize) -> usize {
        self.tensors[tensor][element].to_f64() as usize
    }
}

/// A reference's results; rows beyond the live count are left out.
pub struct Expected<R> {
    /// Outputs in the order that the case's `record` returns them. Where no output takes an upstream gradient (losses),
    /// the last tensor here is the scalar that `gradients` differentiate, cut into terms; a case whose outputs are not
    /// these terms adds them as one more tensor.
    pub outputs: Vec<Vec<R>>,
    /// Gradients of the inputs and parameters in the order of the case's tensors (others empty), of the sum over the
    /// outputs' elements times the upstream gradients, or of the op's own loss.
    pub gradients: Vec<Vec<R>>,
}

/// The reference for one number type: tensors and upstream gradients (one per output, live rows) to results.
pub type Reference<R> = Box<dyn Fn(&Given<R>, &[Vec<R>]) -> Expected<R>>;

/// Records a case's op over its tensors; returns the outputs.
pub type Record = Box<dyn Fn(&mut Recorder, &[Value]) -> Result<Vec<Value>, PlanError>>;

/// One test of an op.
pub struct Case {
    /// Op and what is special about the case.
    pub name: String,
    /// Input tensors.
    pub tensors: Vec<Tensor>,
    /// Live counts and random key.
    pub step: StepParams,
    /// Records the op; returns its outputs.
    pub record: Record,
    /// Which outputs take an upstream gradient; a loss op takes none.
    pub upstream: Vec<bool>,
    /// Truth.
    pub truth: Reference<f64>,
    /// The same algorithm in f32.
    pub naive: Reference<f32>,
    /// The same in f32 with f16 storage.
    pub naive_f16: Reference<Mixed<false>>,
    /// The same in f32 with bf16 storage.
    pub naive_bf16: Reference<Mixed<true>>,
}

/// Counts of a case: `live` rows of a kind in a plan of `capacity` rows.
pub fn counted(count: Count, live: u32, capacity: u32, step: &mut StepParams) -> Extent {
    match count {
        Count::Fixed => {}
        Count::Tokens => step.tokens = live,
        Count::Sequences => step.sequences = live,
        Count::Masked => step.masked = live,
        Count::Buckets => step.buckets = live,
    }
    Extent::counted(count, capacity)
}

/// Whether dropout keeps an element: the definition that all kernels share.
pub fn keeps(step: &StepParams, op: u32, threshold: u32, element: usize) -> bool {
    let element = element as u32;
    crate::rng::philox4x32_10([element / 4, op, step.step, 0], step.seed)[element as usize % 4] >= threshold
}
