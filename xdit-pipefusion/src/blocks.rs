use std::ops::Range;

/// The blocks that a stage holds: ranges in rising order that do not touch, one in a linear pipeline, up to two in a folded one.
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
    /// These ranges, which come in rising order and have no block in common; those that touch become one, empty ones none.
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

    /// The ranges.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.0
    }

    /// Every block.
    pub fn iter(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        self.0.iter().cloned().flatten()
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a block is among them.
    pub fn contains(&self, block: usize) -> bool {
        self.0.iter().any(|range| range.contains(&block))
    }

    /// Where the blocks of a range lie among these; `None` unless they follow each other here.
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

    /// Whether all of `other` are among these.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.iter().all(|range| self.place(range).is_some())
    }
}

impl From<Range<usize>> for Blocks {
    fn from(range: Range<usize>) -> Self {
        Self::new([range])
    }
}
