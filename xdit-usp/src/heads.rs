//! The heads that each Ulysses rank computes, for any number of heads, grouped or not.

use xdit_comm::Shard;

/// The heads of one Ulysses rank: its query heads and the key/value heads that they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) q: Shard,
    pub(crate) kv: Shard,
    /// Query heads per key/value head in the whole model.
    group: usize,
}

impl Heads {
    /// Divides query heads as evenly as possible. A rank gets all key/value heads that its query heads read.
    pub(crate) fn of(heads: usize, kv_heads: usize, ranks: usize, rank: usize) -> Self {
        let q = Shard::of(heads, ranks, rank);
        let group = heads / kv_heads.max(1);
        let kv = match q.len {
            0 => Shard { start: 0, len: 0 },
            _ => {
                let (first, last) = (q.start / group, (q.end() - 1) / group);
                Shard {
                    start: first,
                    len: last - first + 1,
                }
            }
        };
        Self { q, kv, group }
    }

    /// Returns, for each query head, the key/value head that it reads, if the same number of query heads does not read each
    /// key/value head. Keys and values are then repeated, with one copy for each query head.
    pub(crate) fn repeats(&self) -> Option<Vec<usize>> {
        let reads: Vec<usize> = (self.q.start..self.q.end())
            .map(|h| h / self.group - self.kv.start)
            .collect();
        let even = self.kv.len > 0 && self.q.len.is_multiple_of(self.kv.len) && {
            let each = self.q.len / self.kv.len;
            reads.iter().enumerate().all(|(i, kv)| i / each == *kv)
        };
        (!even && self.q.len > 0).then_some(reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_heads_over_more_ranks_than_groups() {
        // 8 query heads, 2 key/value heads, 4 ranks: two query heads and one key/value head each, no copies.
        let of = |rank| Heads::of(8, 2, 4, rank);
        assert_eq!((of(1).q.start, of(1).kv.start, of(1).kv.len), (2, 0, 1));
        assert_eq!((of(2).q.start, of(2).kv.start, of(2).kv.len), (4, 1, 1));
        assert!((0..4).all(|r| of(r).repeats().is_none()));
    }

    #[test]
    fn uneven_groups_are_repeated() {
        // 6 query heads, 2 key/value heads, 4 ranks: rank 1 holds heads 2 and 3, which read 0 and 1.
        let heads = Heads::of(6, 2, 4, 1);
        assert_eq!((heads.q.start, heads.q.len, heads.kv.len), (2, 2, 2));
        assert!(heads.repeats().is_none(), "one query head to each");
        // 9 query heads, 3 key/value heads, 2 ranks: rank 0 holds 0..5, reading 0 0 0 1 1.
        assert_eq!(Heads::of(9, 3, 2, 0).repeats(), Some(vec![0, 0, 0, 1, 1]));
    }

    #[test]
    fn more_ranks_than_heads_leaves_some_without() {
        let heads = Heads::of(3, 3, 5, 4);
        assert_eq!((heads.q.len, heads.kv.len), (0, 0));
        assert!(heads.repeats().is_none());
    }
}
