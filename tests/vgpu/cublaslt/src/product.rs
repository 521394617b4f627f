//! The product itself: `d = activation(alpha op(a) op(b) + beta c + bias)`, by columns, with sums in f32, k after k.

use crate::problem::{Activation, Problem};

/// Rows and columns that are computed at a time.
const ROWS: usize = 16;
const COLUMNS: usize = 4;

/// A matrix whose columns lie one behind the other.
#[derive(Clone, Copy)]
struct Dense<'d> {
    numbers: &'d [f32],
    rows: usize,
    transposed: bool,
    tf32: bool,
}

impl Dense<'_> {
    fn at(&self, row: usize, column: usize) -> f32 {
        let (row, column) = if self.transposed {
            (column, row)
        } else {
            (row, column)
        };
        let number = self.numbers[column * self.rows + row];
        if self.tf32 { tf32(number) } else { number }
    }

    /// For each k, `N` numbers from `first` on of the other dim, which has `count`; zeros behind the end.
    fn panel<const N: usize>(
        &self,
        k: usize,
        first: usize,
        count: usize,
        by_rows: bool,
    ) -> Vec<[f32; N]> {
        let wanted = N.min(count - first);
        let mut out = vec![[0.0; N]; k];
        for (step, numbers) in out.iter_mut().enumerate() {
            for (offset, number) in numbers[..wanted].iter_mut().enumerate() {
                *number = if by_rows {
                    self.at(first + offset, step)
                } else {
                    self.at(step, first + offset)
                };
            }
        }
        out
    }
}

/// The nearest number with 10 bits after the point; of two, the one that is farther from zero.
fn tf32(number: f32) -> f32 {
    match number.is_finite() {
        true => f32::from_bits((number.to_bits() + (1 << 12)) & !0x1fff),
        false => number,
    }
}

/// Computes one matrix of a batch.
pub(crate) fn multiply(
    problem: &Problem,
    a: &[f32],
    b: &[f32],
    c: &[f32],
    bias: &[f32],
) -> Vec<f32> {
    let Problem { m, n, k, .. } = *problem;
    let mut d = vec![0.0; m * n];
    let a = Dense {
        numbers: a,
        rows: problem.a.rows,
        transposed: problem.description.transposed[0],
        tf32: problem.description.tf32,
    };
    let b = Dense {
        numbers: b,
        rows: problem.b.rows,
        transposed: problem.description.transposed[1],
        tf32: problem.description.tf32,
    };
    let panels: Vec<Vec<[f32; COLUMNS]>> = (0..n)
        .step_by(COLUMNS)
        .map(|column| b.panel(k, column, n, false))
        .collect();
    for row in (0..m).step_by(ROWS) {
        let rows: Vec<[f32; ROWS]> = a.panel(k, row, m, true);
        for (panel, columns) in panels.iter().enumerate() {
            let sums = tile(&rows, columns);
            let width = COLUMNS.min(n - panel * COLUMNS);
            for (column, sums) in sums.iter().enumerate().take(width) {
                let start = (panel * COLUMNS + column) * m + row;
                let height = ROWS.min(m - row);
                d[start..start + height].copy_from_slice(&sums[..height]);
            }
        }
    }
    finish(problem, &mut d, c, bias);
    d
}

/// The sums of a tile, which the compiler keeps in registers.
fn tile(a: &[[f32; ROWS]], b: &[[f32; COLUMNS]]) -> [[f32; ROWS]; COLUMNS] {
    let mut sums = [[0.0; ROWS]; COLUMNS];
    for (a, b) in a.iter().zip(b) {
        for column in 0..COLUMNS {
            for row in 0..ROWS {
                sums[column][row] += a[row] * b[column];
            }
        }
    }
    sums
}

/// `alpha`, `beta`, the bias of each row, and the activation.
fn finish(problem: &Problem, d: &mut [f32], c: &[f32], bias: &[f32]) {
    for (column, d) in d.chunks_mut(problem.m.max(1)).enumerate() {
        for (row, d) in d.iter_mut().enumerate() {
            let mut x = *d * problem.alpha;
            if problem.beta != 0.0 {
                x += problem.beta * c[column * problem.m + row];
            }
            if let Some(bias) = bias.get(row) {
                x += bias;
            }
            *d = match problem.activation {
                Activation::None => x,
                Activation::Relu => x.max(0.0),
                Activation::Gelu => {
                    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
                    0.5 * x * (1.0 + inner.tanh())
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Description, Layout};
    use crate::status::Number;

    fn layout(rows: usize, columns: usize) -> Layout {
        Layout {
            number: Number::F32,
            rows,
            columns,
            leading: rows,
            batch: 1,
            stride: 0,
        }
    }

    /// Small integers, whose sums are exact in any order.
    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| (i * step % 7) as f32 - 3.0).collect()
    }

    fn description(transposed: [bool; 2], epilogue: u32) -> Description {
        Description {
            tf32: false,
            transposed,
            epilogue,
            bias: 0,
            bias_number: None,
            bias_stride: 0,
        }
    }

    #[test]
    fn operands_are_rounded_to_tf32() {
        let one = 1.0;
        for (number, rounded) in [
            (one + f32::EPSILON, one),
            (one + 2f32.powi(-11), one + 2f32.powi(-10)),
            (-one - 2f32.powi(-12), -one),
            (f32::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(tf32(number), rounded, "{number}");
            let mut problem = problem_of_one();
            let product = multiply(&problem, &[number], &[one], &[], &[]);
            assert_eq!(product, [number]);
            problem.description.tf32 = true;
            let product = multiply(&problem, &[number], &[one], &[], &[]);
            assert_eq!(product, [rounded]);
        }
    }

    fn problem_of_one() -> Problem {
        let description = description([false; 2], 1);
        Problem::new(description, [layout(1, 1); 4]).unwrap()
    }

    #[test]
    fn odd_sizes_and_all_transpositions() {
        for (m, n, k) in [(1, 1, 1), (17, 5, 3), (33, 9, 20), (16, 4, 0)] {
            for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                let of = |rows, columns, swapped: bool| {
                    if swapped {
                        layout(columns, rows)
                    } else {
                        layout(rows, columns)
                    }
                };
                let layouts = [
                    of(m, k, transposed[0]),
                    of(k, n, transposed[1]),
                    layout(m, n),
                    layout(m, n),
                ];
                // ReLU and a bias.
                let mut problem = Problem::new(description(transposed, 6), layouts).unwrap();
                (problem.alpha, problem.beta) = (2.0, -1.0);
                let (a, b) = (numbers(m * k, 5), numbers(k * n, 3));
                let (c, bias) = (numbers(m * n, 2), numbers(m, 4));
                let got = multiply(&problem, &a, &b, &c, &bias);
                for column in 0..n {
                    for row in 0..m {
                        let at_a = |t: usize| {
                            if transposed[0] {
                                a[row * k + t]
                            } else {
                                a[t * m + row]
                            }
                        };
                        let at_b = |t: usize| {
                            if transposed[1] {
                                b[t * n + column]
                            } else {
                                b[column * k + t]
                            }
                        };
                        let sum: f32 = (0..k).map(|t| at_a(t) * at_b(t)).sum();
                        let want = 2.0 * sum - c[column * m + row] + bias[row];
                        assert_eq!(
                            got[column * m + row],
                            want.max(0.0),
                            "{m} {n} {k} {transposed:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let good = [layout(3, 4), layout(4, 5), layout(3, 5), layout(3, 5)];
        let new = |layouts| Problem::new(description([false; 2], 1), layouts);
        assert!(new(good).is_ok());
        assert!(new([layout(4, 3), good[1], good[2], good[3]]).is_err());
        assert!(new([good[0], good[1], good[2], layout(5, 3)]).is_err());
        let narrow = Layout {
            leading: 2,
            ..good[0]
        };
        assert!(new([narrow, good[1], good[2], good[3]]).is_err());
        let batch = Layout {
            batch: 2,
            ..good[0]
        };
        assert!(new([batch, good[1], good[2], good[3]]).is_err());
        assert!(Problem::new(description([false; 2], 160), good).is_err());
    }
}
