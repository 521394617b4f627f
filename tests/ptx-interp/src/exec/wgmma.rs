//! `wgmma`: products of four warps with matrices in shared memory. Each warp computes 16 of the 64 rows.

use crate::exec::block::{Block, Touch};
use crate::exec::products::{element, gather, multiply, scatter, spread_a};
use crate::exec::warp::PendingProduct;
use crate::ir::{Instruction, Op, Reg, Wgmma, WgmmaA};
use crate::options::Completion;
use crate::report::{Finding, Step, problem};
use crate::tensor_map::Swizzle;
use crate::types::Type;

/// A matrix in shared memory, as a descriptor names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SharedMatrix {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle: Swizzle,
    /// Whether k is the outer dim.
    transposed: bool,
}

impl SharedMatrix {
    fn of(descriptor: u64, transposed: bool) -> Step<Self> {
        let field = |shift: u32| (descriptor >> shift & 0x3fff) << 4;
        if descriptor >> 49 & 7 != 0 {
            return problem(
                Finding::Operand,
                "a descriptor with a base offset is not supported",
            );
        }
        Ok(Self {
            start: field(0),
            leading: field(16),
            stride: field(32),
            swizzle: match descriptor >> 62 {
                0 => Swizzle::None,
                1 => Swizzle::Bytes128,
                2 => Swizzle::Bytes64,
                _ => Swizzle::Bytes32,
            },
            transposed,
        })
    }

    /// The address of 16 bytes: of 8 rows at one k if the matrix is transposed, else of `16 / size` ks in one row. `row` and
    /// `k` are the first of them.
    fn piece(&self, row: usize, k: usize, size: usize) -> u64 {
        let span = self.swizzle.span() as u64;
        let plain = self.swizzle == Swizzle::None;
        let offset = if self.transposed {
            let (piece, k) = (row as u64 / 8, k as u64);
            if plain {
                piece * self.stride + k % 8 * 16 + k / 8 * self.leading
            } else {
                let wide = span / 16;
                piece % wide * 16 + piece / wide * self.leading + k % 8 * span + k / 8 * self.stride
            }
        } else {
            let (row, piece) = (row as u64, (k * size) as u64 / 16);
            row % 8 * span + row / 8 * self.stride + piece * if plain { self.leading } else { 16 }
        };
        self.swizzle.place(self.start + offset)
    }
}

impl SharedMatrix {
    /// The pieces of `rows` rows from `first` on: the row within the part, k and the address of each.
    fn pieces(
        self,
        (first, rows, k): (usize, usize, usize),
        size: usize,
    ) -> impl Iterator<Item = (usize, usize, u64)> {
        let (row_step, k_step) = if self.transposed {
            (8, 1)
        } else {
            (1, 16 / size)
        };
        let places = (0..rows)
            .step_by(row_step)
            .flat_map(move |row| (0..k).step_by(k_step).map(move |i| (row, i)));
        places.map(move |(row, i)| (row, i, self.piece(first + row, i, size)))
    }
}

impl Block<'_> {
    /// Issues a product.
    pub(super) fn issue_product(&mut self, w: usize, pc: usize, wgmma: &Wgmma) -> Step<()> {
        if w / 4 * 4 + 4 > self.warps.len() {
            return problem(
                Finding::Divergence,
                "wgmma needs the four warps of a warpgroup",
            );
        }
        if !self.warps[w].products.fenced {
            return problem(
                Finding::Race,
                "wgmma.fence is missing before the first wgmma: its registers may not be written yet",
            );
        }
        let all = u32::MAX;
        let a = match &wgmma.a {
            WgmmaA::Descriptor(operand) => self.uniform(w, all, *operand, "the descriptor of a")?,
            WgmmaA::Registers(_) => 0,
        };
        let b = self.uniform(w, all, wgmma.b, "the descriptor of b")?;
        let adds = self.holds(w, wgmma.scale_d);
        if adds != 0 && adds != all {
            return problem(
                Finding::Operand,
                "scale-d differs between the lanes of a warp",
            );
        }
        let products = &mut self.warps[w].products;
        products.issued += 1;
        let pending = PendingProduct {
            instruction: pc,
            a,
            b,
            adds: adds != 0,
            number: products.issued,
        };
        products.in_flight.push_back((products.issued, pc));
        products.busy.extend(held(wgmma));
        let k = columns(wgmma.element);
        if let WgmmaA::Descriptor(_) = wgmma.a {
            let matrix = SharedMatrix::of(a, wgmma.transposed[0])?;
            self.touch_matrix(
                w,
                pending.number,
                matrix,
                (w % 4 * 16, 16, k),
                wgmma.element,
            )?;
        }
        let matrix = SharedMatrix::of(b, wgmma.transposed[1])?;
        self.touch_matrix(w, pending.number, matrix, (0, wgmma.n, k), wgmma.element)?;
        if self.context.options.completion == Completion::Early {
            return self.run_product(w, pending);
        }
        self.warps[w].products.pending.push_back(pending);
        Ok(())
    }

    pub(super) fn commit_products(&mut self, w: usize) {
        let products = &mut self.warps[w].products;
        products.groups.push_back(products.issued);
    }

    pub(super) fn wait_products(&mut self, w: usize, groups: usize) -> Step<()> {
        let products = &mut self.warps[w].products;
        let mut last = 0;
        while products.groups.len() > groups {
            last = products.groups.pop_front().unwrap_or(0);
        }
        while let Some(next) = self.warps[w]
            .products
            .pending
            .front()
            .copied()
            .filter(|p| p.number <= last)
        {
            self.warps[w].products.pending.pop_front();
            self.run_product(w, next)?;
        }
        let (products, code) = (&mut self.warps[w].products, &self.context.entry.code);
        products.in_flight.retain(|(number, _)| *number > last);
        let ops = products.in_flight.iter().map(|(_, pc)| &code[*pc].op);
        products.busy = ops
            .filter_map(|op| match op {
                Op::Wgmma(wgmma) => Some(held(wgmma)),
                _ => None,
            })
            .flatten()
            .collect();
        if self.context.options.races {
            let agent = self.context.agents.wgmma(w);
            for lane in 0..32 {
                self.clocks.learn(w * 32 + lane, agent, last);
            }
        }
        Ok(())
    }

    /// Checks that an instruction leaves the registers of products in flight alone. Products may share their sums.
    pub(super) fn spares_products(&self, w: usize, instruction: &Instruction) -> Step<()> {
        let busy = &self.warps[w].products.busy;
        let touched: &[Reg] = match &instruction.op {
            Op::Wgmma(wgmma) => match &wgmma.a {
                WgmmaA::Registers(registers) => registers,
                WgmmaA::Descriptor(_) => &[],
            },
            _ => &instruction.registers,
        };
        if busy.is_empty() || !touched.iter().any(|reg| busy.contains(reg)) {
            return Ok(());
        }
        problem(
            Finding::Race,
            "it uses a register of a wgmma in flight: wgmma.wait_group is missing before it",
        )
    }

    fn run_product(&mut self, w: usize, pending: PendingProduct) -> Step<()> {
        let context = self.context;
        let Op::Wgmma(wgmma) = &context.entry.code[pending.instruction].op else {
            return Ok(());
        };
        let Wgmma {
            n,
            element: ty,
            accumulator,
            ..
        } = **wgmma;
        let k = columns(ty);
        let mut a = vec![0.0; 16 * k];
        match &wgmma.a {
            WgmmaA::Registers(registers) => {
                for (i, reg) in registers.iter().enumerate() {
                    spread_a(ty, k, i, &self.warps[w].registers[*reg as usize], &mut a);
                }
            }
            WgmmaA::Descriptor(_) => {
                let matrix = SharedMatrix::of(pending.a, wgmma.transposed[0])?;
                let first = w % 4 * 16;
                self.read_matrix(matrix, (first, 16, k), ty, |row, i, x| a[row * k + i] = x)?;
            }
        }
        let mut b = vec![0.0; k * n];
        let matrix = SharedMatrix::of(pending.b, wgmma.transposed[1])?;
        self.read_matrix(matrix, (0, n, k), ty, |column, i, x| b[i * n + column] = x)?;
        if wgmma.negate[0] != wgmma.negate[1] {
            a.iter_mut().for_each(|x| *x = -*x);
        }
        let mut sums = vec![0.0; 16 * n];
        if pending.adds {
            let registers: Vec<[u64; 32]> = wgmma
                .d
                .iter()
                .map(|reg| self.warps[w].registers[*reg as usize])
                .collect();
            gather(accumulator, n, &registers, &mut sums);
        }
        multiply(k, n, &a, &b, &mut sums);
        for (i, reg) in wgmma.d.iter().enumerate() {
            self.put(w, u32::MAX, *reg, &scatter(accumulator, n, i, &sums));
        }
        Ok(())
    }

    /// Checks what a product will read: whatever happens to these bytes before the product is complete is a race.
    fn touch_matrix(
        &mut self,
        w: usize,
        number: u32,
        matrix: SharedMatrix,
        part: (usize, usize, usize),
        ty: Type,
    ) -> Step<()> {
        if !self.context.options.races {
            return Ok(());
        }
        for (_, _, address) in matrix.pieces(part, ty.size()) {
            self.shared.check(address, 16, "read")?;
            let touch = Touch {
                thread: w * 32,
                others: 0,
                agent: self.context.agents.wgmma(w),
                clock: number,
                atomic: false,
                writes: false,
                address,
                size: 16,
            };
            self.touch_shared(&touch)?;
            self.needs_proxy_fence(&touch)?;
        }
        Ok(())
    }

    /// Reads rows of a matrix: hands out row, k and value.
    fn read_matrix(
        &self,
        matrix: SharedMatrix,
        part: (usize, usize, usize),
        ty: Type,
        mut put: impl FnMut(usize, usize, f32),
    ) -> Step<()> {
        let size = ty.size();
        for (row, i, address) in matrix.pieces(part, size) {
            for (j, value) in self
                .shared
                .read(address, 16)?
                .chunks_exact(size)
                .enumerate()
            {
                let bits = value
                    .iter()
                    .rev()
                    .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
                let (row, i) = if matrix.transposed {
                    (row + j, i)
                } else {
                    (row, i + j)
                };
                put(row, i, element(ty, bits));
            }
        }
        Ok(())
    }
}

/// The registers that a product reads and writes.
fn held(wgmma: &Wgmma) -> impl Iterator<Item = Reg> {
    let a: &[Reg] = match &wgmma.a {
        WgmmaA::Registers(registers) => registers,
        WgmmaA::Descriptor(_) => &[],
    };
    wgmma.d.iter().chain(a).copied()
}

/// The length of k: 32 bytes.
fn columns(ty: Type) -> usize {
    32 / ty.size()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(start: u64, leading: u64, stride: u64, mode: u64) -> u64 {
        start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62
    }

    #[test]
    fn rows_of_128_bytes() {
        let matrix = SharedMatrix::of(descriptor(1024, 16, 1024, 1), false).unwrap();
        assert_eq!(matrix.piece(0, 0, 2), 1024);
        assert_eq!(matrix.piece(0, 8, 2), 1024 + 16);
        // Row 3 exchanges pieces by 3, row 9 lies in the second group of eight rows.
        assert_eq!(matrix.piece(3, 0, 2), 1024 + 3 * 128 + 3 * 16);
        assert_eq!(matrix.piece(9, 8, 2), 1024 + 1024 + 128);
    }

    #[test]
    fn columns_of_128_bytes() {
        let matrix = SharedMatrix::of(descriptor(0, 4096, 1024, 1), true).unwrap();
        assert_eq!(matrix.piece(8, 0, 2), 16);
        assert_eq!(matrix.piece(64, 0, 2), 4096);
        assert_eq!(matrix.piece(0, 1, 2), 128 + 16);
        assert_eq!(matrix.piece(0, 8, 2), 1024);
    }

    #[test]
    fn without_a_swizzle() {
        let matrix = SharedMatrix::of(descriptor(0, 128, 256, 0), false).unwrap();
        assert_eq!(matrix.piece(1, 8, 2), 16 + 128);
        assert_eq!(matrix.piece(8, 0, 2), 256);
        let matrix = SharedMatrix::of(descriptor(0, 128, 256, 0), true).unwrap();
        assert_eq!(matrix.piece(8, 9, 2), 256 + 16 + 128);
    }
}
