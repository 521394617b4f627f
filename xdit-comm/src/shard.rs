/// A contiguous range of rows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// First row.
    pub start: usize,
    /// Number of rows. It may be 0 if there are fewer rows than parts.
    pub len: usize,
}

impl Shard {
    /// Returns part `index` of `total` rows, divided into `parts` ranges whose lengths differ by at most one. The longer ones come
    /// first.
    ///
    /// # Panics
    /// If `index` is not below `parts`.
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::Shard;
    /// let lens: Vec<usize> = Shard::all(10, 4).iter().map(|s| s.len).collect();
    /// assert_eq!(lens, [3, 3, 2, 2]);
    /// assert_eq!(Shard::of(10, 4, 2), Shard { start: 6, len: 2 });
    /// ```
    pub fn of(total: usize, parts: usize, index: usize) -> Self {
        Self::cut(total, parts as u128, index as u128)
    }

    /// Returns the rows of one rank of a grid: part `outer.1 · inner.0 + inner.1` of `outer.0 · inner.0` parts. Each pair is a number
    /// of parts and an index.
    ///
    /// # Panics
    /// If an index is not below its number of parts.
    ///
    /// # Examples
    /// ```
    /// use xdit_comm::Shard;
    /// assert_eq!(Shard::of_grid(10, (2, 1), (3, 2)), Shard::of(10, 6, 5));
    /// ```
    pub fn of_grid(total: usize, outer: (usize, usize), inner: (usize, usize)) -> Self {
        for (parts, index) in [outer, inner] {
            assert!(index < parts, "part {index} of {parts}");
        }
        let inner_parts = inner.0 as u128;
        let index = outer.1 as u128 * inner_parts + inner.1 as u128;
        Self::cut(total, outer.0 as u128 * inner_parts, index)
    }

    /// In 128 bits, where neither a product of two degrees nor twice one wraps.
    fn cut(total: usize, parts: u128, index: u128) -> Self {
        assert!(index < parts, "part {index} of {parts}");
        let total = total as u128;
        let (short, longer) = (total / parts, total % parts);
        Self {
            // Below the total.
            start: (index * short + index.min(longer)) as usize,
            len: (short + u128::from(index < longer)) as usize,
        }
    }

    /// Returns all parts, in order.
    pub fn all(total: usize, parts: usize) -> Vec<Self> {
        (0..parts).map(|i| Self::of(total, parts, i)).collect()
    }

    /// Returns the row after the last one.
    pub fn end(&self) -> usize {
        self.start.saturating_add(self.len)
    }
}

/// Returns the two ranges of rank `index` in the zigzag order. The rows are divided into 2·`parts` ranges. A rank holds one from the
/// front and its mirror image from the back, so that under a causal mask all ranks see about the same number of keys.
///
/// # Panics
/// If `index` is not below `parts`.
///
/// # Examples
/// ```
/// use xdit_comm::{Shard, zigzag};
/// assert_eq!(zigzag(16, 2, 0), [Shard { start: 0, len: 4 }, Shard { start: 12, len: 4 }]);
/// assert_eq!(zigzag(16, 2, 1), [Shard { start: 4, len: 4 }, Shard { start: 8, len: 4 }]);
/// ```
pub fn zigzag(total: usize, parts: usize, index: usize) -> [Shard; 2] {
    assert!(index < parts, "part {index} of {parts}");
    let (runs, index) = (2 * parts as u128, index as u128);
    [index, runs - 1 - index].map(|run| Shard::cut(total, runs, run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Small ones, and those that wrap when they are doubled or multiplied.
    fn any_size() -> impl Strategy<Value = usize> {
        prop_oneof![
            0usize..100,
            any::<usize>(),
            (0usize..4).prop_map(|n| usize::MAX - n)
        ]
    }

    proptest! {
        #[test]
        fn shards_tile_the_rows(total in 0usize..10_000, parts in 1usize..64) {
            let all = Shard::all(total, parts);
            prop_assert_eq!(all[0].start, 0);
            prop_assert_eq!(all[parts - 1].end(), total);
            for pair in all.windows(2) {
                prop_assert_eq!(pair[0].end(), pair[1].start);
                prop_assert!(pair[0].len - pair[1].len <= 1);
            }
        }

        #[test]
        fn no_total_and_no_degree_wraps(total in any_size(), parts in any_size(), inner in any_size(), at in any::<[usize; 2]>()) {
            let (parts, inner) = (parts.max(1), inner.max(1));
            let (index, within) = (at[0] % parts, at[1] % inner);
            let [front, back] = zigzag(total, parts, index);
            let part = Shard::of_grid(total, (parts, index), (inner, within));
            for shard in [Shard::of(total, parts, index), front, back, part] {
                prop_assert!(shard.start <= total && shard.len <= total - shard.start);
            }
            prop_assert!(front.end() <= back.start);
            if within + 1 < inner {
                prop_assert_eq!(Shard::of_grid(total, (parts, index), (inner, within + 1)).start, part.end());
            }
        }

        #[test]
        fn zigzag_holds_every_row_once(total in 0usize..5_000, parts in 1usize..17) {
            let mut rows: Vec<usize> = (0..parts)
                .flat_map(|i| zigzag(total, parts, i))
                .flat_map(|s| s.start..s.end())
                .collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..total).collect::<Vec<_>>());
        }
    }
}
