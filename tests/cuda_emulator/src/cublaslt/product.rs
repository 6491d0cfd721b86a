//! What a product of cuBLASLt is: descriptors, which of them go together, and the computation.

use super::{INVALID_VALUE, NOT_SUPPORTED, Status};
use crate::ptx::Type;
use crate::semantics::{Rounding, decode, encode};

/// A product's operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operation {
    /// Whether A and B are transposed.
    pub transposed: [bool; 2],
    /// Whether the epilogue adds a bias.
    pub adds_bias: bool,
    /// Address of the bias.
    pub bias: u64,
}

/// A matrix in column order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    data: Type,
    rows: usize,
    columns: usize,
    leading: usize,
}

/// A product with its operands: A, B, C, D.
#[derive(Clone, Debug)]
pub struct Product {
    /// Operation.
    pub operation: Operation,
    /// Layouts.
    pub layouts: [Layout; 4],
    /// Device addresses.
    pub addresses: [u64; 4],
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
    /// Address and length of the workspace.
    pub workspace: (u64, usize),
}

/// A `cudaDataType`.
fn data(number: u32) -> Option<Type> {
    match number {
        0 => Some(Type::F32),
        2 => Some(Type::F16),
        14 => Some(Type::Bf16),
        _ => None,
    }
}

/// A `cublasOperation_t` of real numbers.
pub fn transposed(number: u32) -> Option<bool> {
    match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// A `cublasLtEpilogue_t`: none, or a bias.
pub fn adds_bias(number: u32) -> Option<bool> {
    match number {
        1 => Some(false),
        4 => Some(true),
        _ => None,
    }
}

impl Operation {
    /// With f32 as compute and scale type.
    pub fn new(compute: u32, scale: u32) -> Option<Operation> {
        const COMPUTE_32F: u32 = 68;
        (compute == COMPUTE_32F && data(scale) == Some(Type::F32)).then_some(Operation {
            transposed: [false; 2],
            adds_bias: false,
            bias: 0,
        })
    }

    /// Rows and columns of `op(X)`, X being A or B.
    fn shape(&self, layouts: &[Layout; 4], which: usize) -> (usize, usize) {
        let Layout { rows, columns, .. } = layouts[which];
        match self.transposed[which] {
            true => (columns, rows),
            false => (rows, columns),
        }
    }

    /// Whether sizes and types go together.
    pub fn check(&self, layouts: &[Layout; 4]) -> Result<(), Status> {
        let ((m, k), (k_of_b, n)) = (self.shape(layouts, 0), self.shape(layouts, 1));
        let [a, b, c, d] = *layouts;
        if k != k_of_b || [c, d].iter().any(|to| (to.rows, to.columns) != (m, n)) {
            return Err(INVALID_VALUE);
        }
        // A and B of one type; C and D of that type, or f32.
        let types = a.data == b.data && c.data == d.data && (d.data == a.data || d.data == Type::F32);
        if !types {
            return Err(NOT_SUPPORTED);
        }
        if self.adds_bias && self.bias == 0 {
            return Err(INVALID_VALUE);
        }
        Ok(())
    }
}

impl Layout {
    /// Of a `cudaDataType`.
    pub fn new(number: u32, rows: u64, columns: u64, leading: i64) -> Result<Layout, Status> {
        let data = data(number).ok_or(NOT_SUPPORTED)?;
        if rows == 0 || columns == 0 || leading < rows as i64 {
            return Err(INVALID_VALUE);
        }
        Ok(Layout {
            data,
            rows: rows as usize,
            columns: columns as usize,
            leading: leading as usize,
        })
    }

    /// Bytes from the first element to the end of the last.
    fn bytes(&self) -> usize {
        ((self.columns - 1) * self.leading + self.rows) * width(self.data)
    }
}

fn width(data: Type) -> usize {
    if data == Type::F32 { 4 } else { 2 }
}

/// An element of a matrix or vector.
///
/// # Safety
/// It lies in allocated memory.
unsafe fn read(start: u64, index: usize, data: Type) -> f32 {
    let address = start + (index * width(data)) as u64;
    // SAFETY: as the caller promises; the bytes of any element are a number.
    let pattern = unsafe {
        match data {
            Type::F32 => u64::from((address as *const u32).read_unaligned()),
            _ => u64::from((address as *const u16).read_unaligned()),
        }
    };
    decode(data, pattern) as f32
}

impl Product {
    /// The ranges that it touches, with what they are.
    pub fn ranges(&self) -> Vec<(u64, usize, &'static str)> {
        let names = ["A", "B", "C", "D"];
        let matrices = self.addresses.iter().zip(&self.layouts).zip(names);
        let mut ranges: Vec<_> = matrices
            .filter(|(_, name)| *name != "C" || self.beta != 0.0)
            .map(|((&address, layout), name)| (address, layout.bytes(), name))
            .collect();
        if self.operation.adds_bias {
            let [.., d] = self.layouts;
            ranges.push((self.operation.bias, d.rows * width(d.data), "the bias"));
        }
        if self.workspace.1 > 0 {
            ranges.push((self.workspace.0, self.workspace.1, "the workspace"));
        }
        ranges
    }

    /// Computes it; sums are f32, one after the other.
    ///
    /// # Safety
    /// All [`Product::ranges`] are allocated, and nobody else uses them.
    pub unsafe fn compute(&self) {
        let [a, b, c, d] = self.layouts;
        let [at_a, at_b, at_c, at_d] = self.addresses;
        let ((m, k), (_, n)) = (
            self.operation.shape(&self.layouts, 0),
            self.operation.shape(&self.layouts, 1),
        );
        // SAFETY: as the caller promises; every index is within its layout.
        unsafe {
            let element = |start: u64, layout: Layout, transposed: bool, row: usize, column: usize| {
                let (row, column) = if transposed { (column, row) } else { (row, column) };
                read(start, column * layout.leading + row, layout.data)
            };
            let [transpose_a, transpose_b] = self.operation.transposed;
            let rows_of_a: Vec<f32> = (0..m * k)
                .map(|at| element(at_a, a, transpose_a, at / k, at % k))
                .collect();
            let mut column_of_b = vec![0.0f32; k];
            for column in 0..n {
                for (row, x) in column_of_b.iter_mut().enumerate() {
                    *x = element(at_b, b, transpose_b, row, column);
                }
                for row in 0..m {
                    let pairs = rows_of_a[row * k..(row + 1) * k].iter().zip(&column_of_b);
                    let mut sum = self.alpha * pairs.fold(0.0f32, |sum, (x, y)| x.mul_add(*y, sum));
                    if self.beta != 0.0 {
                        sum += self.beta * element(at_c, c, false, row, column);
                    }
                    if self.operation.adds_bias {
                        sum += read(self.operation.bias, row, d.data);
                    }
                    let pattern = encode(d.data, f64::from(sum), Rounding::Nearest);
                    let address = at_d + ((column * d.leading + row) * width(d.data)) as u64;
                    match d.data {
                        Type::F32 => (address as *mut u32).write_unaligned(pattern as u32),
                        _ => (address as *mut u16).write_unaligned(pattern as u16),
                    }
                }
            }
            let (workspace, bytes) = self.workspace;
            if bytes > 0 {
                (workspace as *mut u8).write_bytes(0xff, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F32: u32 = 0;
    const BF16: u32 = 14;

    /// Of f32 matrices that lie without gaps, each given with its rows and columns.
    fn product(
        operation: Operation,
        [a, b]: [(&[f32], u64, u64); 2],
        (d, rows, columns): (&mut [f32], u64, u64),
        beta: f32,
    ) -> Result<(), Status> {
        let layout = |rows: u64, columns| Layout::new(F32, rows, columns, rows as i64);
        let at_d = d.as_ptr() as u64;
        let product = Product {
            operation,
            layouts: [
                layout(a.1, a.2)?,
                layout(b.1, b.2)?,
                layout(rows, columns)?,
                layout(rows, columns)?,
            ],
            addresses: [a.0.as_ptr() as u64, b.0.as_ptr() as u64, at_d, at_d],
            alpha: 1.0,
            beta,
            workspace: (0, 0),
        };
        operation.check(&product.layouts)?;
        // SAFETY: the slices are as long as their layouts say.
        unsafe { product.compute() };
        Ok(())
    }

    fn plain() -> Operation {
        Operation::new(68, F32).unwrap()
    }

    /// By hand: [1 2 3; 4 5 6] [1 4; 2 5; 3 6] = [14 32; 32 77], all in column order.
    #[test]
    fn products_are_those_worked_out_by_hand() {
        let (a, b) = ([1.0, 4.0, 2.0, 5.0, 3.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut d = [9.0f32; 4];
        product(plain(), [(&a, 2, 3), (&b, 3, 2)], (&mut d, 2, 2), 0.0).unwrap();
        assert_eq!(d, [14.0, 32.0, 32.0, 77.0]);
        // b is a's transpose: A^T from b, B^T from a.
        let both = Operation {
            transposed: [true, true],
            ..plain()
        };
        product(both, [(&b, 3, 2), (&a, 2, 3)], (&mut d, 2, 2), 1.0).unwrap();
        assert_eq!(d, [28.0, 64.0, 64.0, 154.0]);
        // [1 2 3; 4 5 6] times itself does not go; with one of them transposed it does, one way or the other.
        assert_eq!(
            product(plain(), [(&a, 2, 3), (&a, 2, 3)], (&mut d, 2, 2), 0.0),
            Err(INVALID_VALUE)
        );
        let second = Operation {
            transposed: [false, true],
            ..plain()
        };
        product(second, [(&a, 2, 3), (&a, 2, 3)], (&mut d, 2, 2), 0.0).unwrap();
        assert_eq!(d, [14.0, 32.0, 32.0, 77.0]);
        let first = Operation {
            transposed: [true, false],
            ..plain()
        };
        let mut square = [0.0f32; 9];
        product(first, [(&a, 2, 3), (&a, 2, 3)], (&mut square, 3, 3), 0.0).unwrap();
        assert_eq!(square, [17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]);
    }

    /// One number for each row of D, which stands beside each other in a column.
    #[test]
    fn a_bias_is_added_along_the_rows() {
        let bias = [100.0f32, 200.0];
        let operation = Operation {
            adds_bias: adds_bias(4).unwrap(),
            bias: bias.as_ptr() as u64,
            ..plain()
        };
        let (a, b) = ([1.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0]);
        let mut d = [0.0f32; 4];
        product(operation, [(&a, 2, 2), (&b, 2, 2)], (&mut d, 2, 2), 0.0).unwrap();
        assert_eq!(d, [101.0, 202.0, 103.0, 204.0]);
        let without = Operation { bias: 0, ..operation };
        let refused = product(without, [(&a, 2, 2), (&b, 2, 2)], (&mut d, 2, 2), 0.0);
        assert_eq!(refused, Err(INVALID_VALUE));
    }

    #[test]
    fn what_the_documentation_does_not_list_is_refused() {
        let layout = |data| Layout::new(data, 4, 4, 4).unwrap();
        let check = |a, b, c, d| plain().check(&[a, b, c, d].map(layout));
        assert_eq!(check(BF16, BF16, BF16, BF16), Ok(()));
        assert_eq!(check(BF16, BF16, F32, F32), Ok(()));
        assert_eq!(check(F32, F32, BF16, BF16), Err(NOT_SUPPORTED));
        assert_eq!(check(BF16, F32, F32, F32), Err(NOT_SUPPORTED));
        assert_eq!(check(BF16, BF16, F32, BF16), Err(NOT_SUPPORTED));
        assert_eq!(Layout::new(F32, 4, 4, 3), Err(INVALID_VALUE));
        assert_eq!((transposed(2), adds_bias(32)), (None, None));
    }
}
