//! Sets of bytes of an allocation.

/// Sorted ranges `start..end` that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(usize, usize)>);

impl Ranges {
    #[cfg(test)]
    pub(crate) fn single(start: usize, len: usize) -> Self {
        Self(if len == 0 {
            vec![]
        } else {
            vec![(start, start + len)]
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first byte.
    pub(crate) fn first(&self) -> usize {
        self.0.first().map_or(0, |range| range.0)
    }

    /// Adds a range that begins behind all others or touches the last one.
    fn append(&mut self, start: usize, end: usize) {
        match self.0.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.0.push((start, end)),
        }
    }

    /// The first range that both sets have.
    pub(crate) fn overlap(&self, other: &Self) -> Option<(usize, usize)> {
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (start, end) = (a.0.max(b.0), a.1.min(b.1));
            if start < end {
                return Some((start, end));
            }
            if a.1 < b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        None
    }

    /// Removes the bytes of another set.
    pub(crate) fn subtract(&mut self, other: &Self) {
        if self.overlap(other).is_none() {
            return;
        }
        let mut rest = Self::default();
        let mut j = 0;
        for &(mut start, end) in &self.0 {
            while other.0.get(j).is_some_and(|cut| cut.1 <= start) {
                j += 1;
            }
            let mut at = j;
            while let Some(cut) = other.0.get(at).filter(|cut| cut.0 < end) {
                if start < cut.0 {
                    rest.0.push((start, cut.0));
                }
                start = cut.1;
                at += 1;
            }
            if start < end {
                rest.0.push((start, end));
            }
        }
        *self = rest;
    }
}

/// Bytes that one page of marks covers.
const PAGE: usize = 4096;

/// A set of bytes that grows by single accesses: one bit a byte, in pages that exist where a bit is set.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<Option<Box<[u64; PAGE / 64]>>>);

impl Marks {
    pub(crate) fn set(&mut self, start: usize, len: usize) {
        let (mut at, end) = (start, start + len);
        while at < end {
            let (page, word, bit) = (at / PAGE, at % PAGE / 64, at % 64);
            if page >= self.0.len() {
                self.0.resize_with(page + 1, || None);
            }
            let bits = (64 - bit).min(end - at);
            let mask = if bits == 64 { !0 } else { (1 << bits) - 1 };
            self.0[page].get_or_insert_with(|| Box::new([0; PAGE / 64]))[word] |= mask << bit;
            at += bits;
        }
    }

    pub(crate) fn ranges(&self) -> Ranges {
        let mut out = Ranges::default();
        for (page, words) in self.0.iter().enumerate() {
            let words = words.iter().flat_map(|words| words.iter()).enumerate();
            for (number, &word) in words.filter(|(_, word)| **word != 0) {
                let base = page * PAGE + number * 64;
                let mut at = 0;
                while at < 64 && word >> at != 0 {
                    at += (word >> at).trailing_zeros();
                    let ones = (!(word >> at)).trailing_zeros().min(64 - at);
                    out.append(base + at as usize, base + (at + ones) as usize);
                    at += ones;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(usize, usize)]) -> Ranges {
        Ranges(list.to_vec())
    }

    #[test]
    fn marks_become_ranges() {
        let mut marks = Marks::default();
        marks.set(3, 130);
        marks.set(4094, 4);
        marks.set(8191, 1);
        marks.set(10 * PAGE, PAGE);
        let expected = [(3, 133), (4094, 4098), (8191, 8192), (40960, 45056)];
        assert_eq!(marks.ranges(), ranges(&expected));
        let mut marks = Marks::default();
        marks.set(0, 64);
        marks.set(65, 1);
        assert_eq!(marks.ranges(), ranges(&[(0, 64), (65, 66)]));
    }

    #[test]
    fn overlaps() {
        let a = ranges(&[(0, 4), (8, 12)]);
        assert_eq!(a.overlap(&ranges(&[(4, 8), (11, 20)])), Some((11, 12)));
        assert_eq!(ranges(&[(0, 4)]).overlap(&ranges(&[(4, 8)])), None);
    }

    #[test]
    fn differences() {
        let mut a = ranges(&[(0, 10), (20, 30), (40, 50)]);
        a.subtract(&ranges(&[(2, 4), (8, 22), (25, 26), (40, 50)]));
        assert_eq!(a, ranges(&[(0, 2), (4, 8), (22, 25), (26, 30)]));
        a.subtract(&ranges(&[(0, 100)]));
        assert!(a.is_empty());
    }
}
