//! `ldmatrix` and `stmatrix`: matrices of 8 rows of 16 bytes in shared memory, spread over the registers of a warp.

use crate::exec::block::Block;
use crate::exec::loads::{check_aligned, in_shared};
use crate::ir::{Address, Operand, Reg};
use crate::report::{Step, at_lane};

/// Eight rows of eight values.
type Matrix = [[u16; 8]; 8];

/// The two values that a lane holds of a matrix, as a register.
fn part(matrix: &Matrix, lane: usize, transposed: bool) -> u64 {
    let (row, column) = (lane / 4, 2 * (lane % 4));
    let [low, high] = if transposed {
        [matrix[column][row], matrix[column + 1][row]]
    } else {
        [matrix[row][column], matrix[row][column + 1]]
    };
    u64::from(low) | u64::from(high) << 16
}

fn set_part(matrix: &mut Matrix, lane: usize, transposed: bool, value: u64) {
    let (row, column) = (lane / 4, 2 * (lane % 4));
    let (low, high) = (value as u16, (value >> 16) as u16);
    if transposed {
        (matrix[column][row], matrix[column + 1][row]) = (low, high);
    } else {
        (matrix[row][column], matrix[row][column + 1]) = (low, high);
    }
}

impl Block<'_> {
    /// Lane `8 j + r` gives the address of row `r` of matrix `j`.
    pub(super) fn load_matrix(
        &mut self,
        w: usize,
        transposed: bool,
        dst: &[Reg],
        from: Address,
    ) -> Step<()> {
        let addresses = self.addresses(w, from);
        for (j, reg) in dst.iter().enumerate() {
            let mut matrix = [[0; 8]; 8];
            for (r, row) in matrix.iter_mut().enumerate() {
                let lane = j * 8 + r;
                let address = in_shared(addresses[lane]);
                at_lane(lane, check_aligned(address, 16, "row of ldmatrix"))?;
                let bytes = at_lane(lane, self.shared.read(address, 16))?;
                for (value, pair) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = u16::from_le_bytes([pair[0], pair[1]]);
                }
                let touch = self.by_thread(w * 32 + lane, address, 16, false);
                at_lane(lane, self.touch_shared(&touch))?;
            }
            let values = std::array::from_fn(|lane| part(&matrix, lane, transposed));
            self.put(w, u32::MAX, *reg, &values);
        }
        Ok(())
    }

    pub(super) fn store_matrix(
        &mut self,
        w: usize,
        transposed: bool,
        src: &[Operand],
        to: Address,
    ) -> Step<()> {
        let addresses = self.addresses(w, to);
        for (j, operand) in src.iter().enumerate() {
            let values = self.fetch(w, *operand);
            let mut matrix = [[0; 8]; 8];
            for (lane, value) in values.iter().enumerate() {
                set_part(&mut matrix, lane, transposed, *value);
            }
            for (r, row) in matrix.iter().enumerate() {
                let lane = j * 8 + r;
                let address = in_shared(addresses[lane]);
                at_lane(lane, check_aligned(address, 16, "row of stmatrix"))?;
                let mut bytes = [0; 16];
                for (pair, value) in bytes.chunks_exact_mut(2).zip(row) {
                    pair.copy_from_slice(&value.to_le_bytes());
                }
                at_lane(lane, self.shared.write(address, &bytes))?;
                let touch = self.by_thread(w * 32 + lane, address, 16, true);
                at_lane(lane, self.touch_shared(&touch))?;
            }
        }
        self.changes += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_their_inverse() {
        let matrix: Matrix = std::array::from_fn(|r| std::array::from_fn(|c| (r * 8 + c) as u16));
        assert_eq!(part(&matrix, 5, false), (8 + 2) | ((8 + 3) << 16));
        assert_eq!(part(&matrix, 5, true), (2 * 8 + 1) | ((3 * 8 + 1) << 16));
        for transposed in [false, true] {
            let mut copy = [[0; 8]; 8];
            for lane in 0..32 {
                set_part(&mut copy, lane, transposed, part(&matrix, lane, transposed));
            }
            assert_eq!(copy, matrix);
        }
    }
}
