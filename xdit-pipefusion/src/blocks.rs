use std::ops::Range;

/// The blocks that a stage holds, as ranges in rising order that do not touch. A stage of a linear pipeline holds one range, a
/// stage of a folded one up to two.
///
/// # Examples
/// ```
/// use xdit_pipefusion::Blocks;
/// let ends = Blocks::new([0..2, 6..8]);
/// assert_eq!(ends.iter().collect::<Vec<_>>(), [0, 1, 6, 7]);
/// assert_eq!(ends.place(&(6..8)), Some(2..4));
/// assert_eq!(ends.place(&(1..7)), None);
/// assert_eq!(Blocks::new([0..2, 2..4]), Blocks::from(0..4));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Blocks(Vec<Range<usize>>);

impl Blocks {
    /// Creates blocks from ranges in rising order without common blocks. Adjacent ranges are joined, and empty ranges are
    /// dropped.
    pub fn new(ranges: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut joined: Vec<Range<usize>> = Vec::new();
        for range in ranges.into_iter().filter(|range| !range.is_empty()) {
            match joined.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    /// Returns the ranges.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.0
    }

    /// Iterates over all blocks.
    pub fn iter(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        self.0.iter().cloned().flatten()
    }

    /// Returns the number of blocks.
    pub fn len(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// Returns whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `block` is one of these.
    pub fn contains(&self, block: usize) -> bool {
        self.0.iter().any(|range| range.contains(&block))
    }

    /// Returns the position of the blocks of a range among these, or `None` if they do not follow each other here.
    pub fn place(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let mut before = 0;
        for held in &self.0 {
            if held.start <= range.start && range.end <= held.end {
                let start = before + (range.start - held.start);
                return Some(start..start + range.len());
            }
            before += held.len();
        }
        None
    }

    /// Returns whether all of `other` are among these.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.iter().all(|range| self.place(range).is_some())
    }
}

impl From<Range<usize>> for Blocks {
    fn from(range: Range<usize>) -> Self {
        Self::new([range])
    }
}
