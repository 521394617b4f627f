//! The order in which a copy on a GPU takes the dims, and which kernel fits.

/// A dim of a copy: its size, and the strides of source and destination in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedDim {
    pub(super) n: usize,
    pub(super) x: usize,
    pub(super) out: usize,
}

/// The dims of a copy in the order of the destination's memory, merged where both sides allow it. There is at least one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CopyPlan {
    dims: Vec<PlannedDim>,
}

/// Fewest elements along each of the two dims of a transposition by tiles.
const LEAST_TURNED: usize = 8;

impl CopyPlan {
    /// Shape and strides of a copy of at least one element.
    pub(super) fn new(shape: &[usize], x: &[usize], out: &[usize]) -> Self {
        let dims = shape.iter().zip(x).zip(out);
        let mut dims: Vec<PlannedDim> = (dims.map(|((&n, &x), &out)| PlannedDim { n, x, out }))
            .filter(|dim| dim.n != 1)
            .collect();
        dims.sort_by_key(|dim| std::cmp::Reverse(dim.out));
        let mut merged: Vec<PlannedDim> = Vec::with_capacity(dims.len());
        for dim in dims {
            match merged.last_mut() {
                Some(outer) if outer.x == dim.n * dim.x && outer.out == dim.n * dim.out => {
                    *outer = PlannedDim {
                        n: outer.n * dim.n,
                        ..dim
                    };
                }
                _ => merged.push(dim),
            }
        }
        if merged.is_empty() {
            merged.push(PlannedDim { n: 1, x: 1, out: 1 });
        }
        Self { dims: merged }
    }

    /// The dim along which the destination's neighbours lie.
    pub(super) fn last(&self) -> PlannedDim {
        self.dims[self.dims.len() - 1]
    }

    /// The dims before the last.
    pub(super) fn outer(&self) -> &[PlannedDim] {
        &self.dims[..self.dims.len() - 1]
    }

    /// Whether both sides are adjacent elements in the same order.
    pub(super) fn is_contiguous(&self) -> bool {
        self.dims.len() == 1 && self.last().x == 1 && self.last().out == 1
    }

    /// Where the source is adjacent along another dim than the destination, and both are long enough for tiles of elements of
    /// `size` bytes: that dim, and the dims but these two.
    pub(super) fn turned(&self, size: usize) -> Option<(PlannedDim, Vec<PlannedDim>)> {
        let at = self.outer().iter().position(|dim| dim.x == 1)?;
        let (turned, last) = (self.dims[at], self.last());
        let counted = [turned.n, last.n]
            .iter()
            .all(|&n| n >= LEAST_TURNED && u32::try_from(n).is_ok());
        if last.out != 1 || last.x == 1 || !counted || size > 4 {
            return None;
        }
        let rest = self.outer().iter().enumerate().filter(|&(d, _)| d != at);
        Some((turned, rest.map(|(_, dim)| *dim).collect()))
    }

    /// Shape, and strides of both sides, in words of `each` elements, which are whole. The last dim's strides stay in elements.
    pub(super) fn in_words(&self, each: usize) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let last = self.dims.len() - 1;
        let of = |d: usize, n: usize| if d == last { n } else { n / each };
        let dims = || self.dims.iter().enumerate();
        (
            dims()
                .map(|(d, dim)| if d == last { dim.n / each } else { dim.n })
                .collect(),
            dims().map(|(d, dim)| of(d, dim.x)).collect(),
            dims().map(|(d, dim)| of(d, dim.out)).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dim(n: usize, x: usize, out: usize) -> PlannedDim {
        PlannedDim { n, x, out }
    }

    #[test]
    fn dims_are_in_the_order_of_the_destination_and_merge() {
        // Part of a longer tensor, and dims of size 1.
        let plan = CopyPlan::new(&[2, 1, 3, 4], &[24, 7, 4, 1], &[12, 12, 4, 1]);
        assert_eq!(plan.dims, [dim(2, 24, 12), dim(12, 1, 1)]);
        assert!(CopyPlan::new(&[2, 3], &[3, 1], &[3, 1]).is_contiguous());
        // One order on both sides, which is not row-major.
        assert!(CopyPlan::new(&[2, 3], &[1, 2], &[1, 2]).is_contiguous());
        assert!(CopyPlan::new(&[1, 1], &[1, 1], &[1, 1]).is_contiguous());
        // Rows that are repeated.
        let plan = CopyPlan::new(&[5, 4], &[0, 1], &[4, 1]);
        assert_eq!(plan.dims, [dim(5, 0, 4), dim(4, 1, 1)]);
        let (shape, x, out) = plan.in_words(2);
        assert_eq!((shape, x, out), (vec![5, 2], vec![0, 1], vec![2, 1]));
    }

    #[test]
    fn long_dims_that_change_places_are_turned() {
        // [2, 9, 10] whose last dims change places.
        let plan = CopyPlan::new(&[2, 10, 9], &[90, 1, 10], &[90, 9, 1]);
        let (turned, rest) = plan.turned(2).unwrap();
        assert_eq!((turned, rest), (dim(10, 1, 9), vec![dim(2, 90, 90)]));
        assert!(plan.turned(8).is_none());
        assert!(
            CopyPlan::new(&[10, 3], &[1, 10], &[3, 1])
                .turned(2)
                .is_none()
        );
        assert!(
            CopyPlan::new(&[10, 9], &[18, 2], &[9, 1])
                .turned(2)
                .is_none()
        );
    }
}
