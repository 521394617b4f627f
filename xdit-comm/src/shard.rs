/// A run of rows of one whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// First row.
    pub start: usize,
    /// Number of rows; may be 0 where there are fewer rows than parts.
    pub len: usize,
}

impl Shard {
    /// Part `index` of `total` rows cut into `parts` runs whose lengths differ by at most one, longer ones first.
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
        assert!(index < parts, "part {index} of {parts}");
        let (short, longer) = (total / parts, total % parts);
        Self {
            start: index * short + index.min(longer),
            len: short + usize::from(index < longer),
        }
    }

    /// All parts, in order.
    pub fn all(total: usize, parts: usize) -> Vec<Self> {
        (0..parts).map(|i| Self::of(total, parts, i)).collect()
    }

    /// The row after the last.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

/// The two runs of rank `index` in the zigzag order: cut into 2·`parts` runs, a rank holds one from the front and its mirror
/// image from the back, so that under a causal mask all ranks see about as many keys.
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
    [
        Shard::of(total, 2 * parts, index),
        Shard::of(total, 2 * parts, 2 * parts - 1 - index),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
