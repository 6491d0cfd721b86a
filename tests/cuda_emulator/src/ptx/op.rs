//! What instructions do, each with its operands.

use super::{
    Address, Arithmetic, AtomicKind, BarrierKind, Logic, MatrixKind, PredicateOperand, Register, ShuffleKind, Space,
    Special, VoteKind,
};
use crate::rows::{CarryFunction, MaskFunction, RowFunction};

/// What an instruction does. Register fields are destinations first.
pub enum Op {
    /// A function of up to three registers.
    Compute {
        /// The function.
        function: RowFunction,
        /// Where the result goes.
        to: Register,
        /// Operands.
        from: [Register; 3],
    },
    /// Arithmetic with the carry bit.
    Carry {
        /// The function.
        function: CarryFunction,
        /// Whether the carry bit is added.
        reads: bool,
        /// Whether the carry bit is written.
        writes: bool,
        /// Where the result goes.
        to: Register,
        /// Operands.
        from: [Register; 3],
    },
    /// A special register.
    Special {
        /// Which.
        special: Special,
        /// Where it goes.
        to: Register,
    },
    /// A comparison, perhaps combined with a predicate.
    Compare {
        /// The comparison.
        function: MaskFunction,
        /// Predicate of the result.
        to: Option<Register>,
        /// Predicate of the comparison's opposite, combined likewise.
        opposite: Option<Register>,
        /// Operands.
        from: [Register; 2],
        /// What it is combined with.
        combine: Option<(Logic, PredicateOperand)>,
    },
    /// One of two registers.
    Select {
        /// Where it goes.
        to: Register,
        /// Where the predicate is true, where it is false.
        from: [Register; 2],
        /// The predicate.
        predicate: PredicateOperand,
    },
    /// An operation on predicates.
    Predicate {
        /// Which.
        logic: Logic,
        /// Whether the result is negated.
        negated: bool,
        /// Where it goes.
        to: Register,
        /// Operands.
        from: [PredicateOperand; 2],
    },
    /// A register made from parts, lowest first.
    Pack {
        /// Where it goes.
        to: Register,
        /// The parts.
        parts: Vec<Register>,
        /// Bits of a part.
        bits: u32,
    },
    /// The parts of a register.
    Unpack {
        /// Where they go; none where one is dropped.
        parts: Vec<Option<Register>>,
        /// Bits of a part.
        bits: u32,
        /// The register.
        from: Register,
    },
    /// A kernel's parameter.
    Parameter {
        /// Where it goes.
        to: Register,
        /// Where it stands among the parameters.
        offset: u32,
        /// Bytes.
        bytes: u32,
        /// Bits that a negative value is extended to; 0 if it isn't.
        sign_bits: u32,
    },
    /// `ld`
    Load {
        /// Space.
        space: Space,
        /// Address.
        address: Address,
        /// Bytes of an element.
        bytes: u32,
        /// Bits that negative elements are extended to; 0 if they aren't.
        sign_bits: u32,
        /// Where the elements go.
        to: Vec<Option<Register>>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `st`
    Store {
        /// Space.
        space: Space,
        /// Address.
        address: Address,
        /// Bytes of an element.
        bytes: u32,
        /// The elements.
        from: Vec<Register>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `atom` and `red`
    Atomic {
        /// Space.
        space: Space,
        /// Address.
        address: Address,
        /// Bytes.
        bytes: u32,
        /// What is done.
        kind: AtomicKind,
        /// Where the old value goes.
        to: Option<Register>,
        /// Operands.
        from: [Register; 2],
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `cp.async`
    CopyAsync {
        /// Address in shared memory.
        to: Address,
        /// Address in global memory.
        from: Address,
        /// Bytes written.
        bytes: u32,
        /// Bytes read, the rest being zero.
        source_bytes: Option<Register>,
        /// Predicate that, when true, has nothing read.
        ignore: Option<PredicateOperand>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `cp.async.commit_group`
    CopyCommit,
    /// `cp.async.wait_group`: at most this many groups may be under way.
    CopyWait {
        /// The groups; none is `wait_all`, which also waits for copies that belong to no group.
        groups: Option<u32>,
    },
    /// `ldmatrix`
    LoadMatrix {
        /// Address of a row, by lane.
        address: Address,
        /// Whether the matrices are transposed.
        transposed: bool,
        /// One register per matrix.
        to: Vec<Register>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `mma.sync`
    Multiply {
        /// Shape and types.
        kind: MatrixKind,
        /// Result.
        d: Vec<Register>,
        /// Left operand.
        a: Vec<Register>,
        /// Right operand.
        b: Vec<Register>,
        /// What the product is added to.
        c: Vec<Register>,
    },
    /// `bar`
    Barrier {
        /// What it does.
        kind: BarrierKind,
        /// Register with the barrier's number.
        number: Register,
        /// Register with the number of threads; none means all of the block.
        threads: Option<Register>,
        /// Whether `destination` of a reduction is a register and not a predicate.
        count: bool,
    },
    /// `bar.warp.sync`
    WarpSync {
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `shfl.sync`
    Shuffle {
        /// Which.
        kind: ShuffleKind,
        /// Where the value goes.
        to: Register,
        /// Predicate: whether it came from a lane in range.
        found: Option<Register>,
        /// Value, lane or distance, clamp and segment.
        from: [Register; 3],
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `vote.sync`
    Vote {
        /// Which.
        kind: VoteKind,
        /// Predicate, or register for a ballot.
        to: Register,
        /// The vote.
        from: PredicateOperand,
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `match.sync`
    Match {
        /// Whether all lanes must have the same value.
        all: bool,
        /// Where the mask goes.
        to: Register,
        /// Predicate: whether all lanes have the same value.
        same: Option<Register>,
        /// The value.
        from: Register,
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `redux.sync`
    Reduce {
        /// Which.
        function: Arithmetic,
        /// Where the result goes.
        to: Register,
        /// The values.
        from: Register,
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `activemask`
    ActiveMask {
        /// Where it goes.
        to: Register,
    },
    /// `bra`
    Branch {
        /// Index of the instruction.
        target: u32,
    },
    /// `brx.idx`
    BranchIndexed {
        /// Register with the index.
        index: Register,
        /// Indices of instructions.
        targets: Vec<u32>,
    },
    /// `exit`, and `ret` of a kernel.
    Exit,
    /// `trap`
    Trap,
    /// Fences, prefetches and hints.
    Nothing,
}
