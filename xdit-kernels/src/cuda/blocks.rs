//! The bookkeeping of a pool: which bytes of which segments are free, and for which stream. It calls no driver.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A stream of the pool, by its number.
pub(super) type StreamId = usize;

/// Every block begins at a multiple of this, and has a multiple of it: the alignment that a driver's own allocations have.
const GRANULE: usize = 512;
/// Requests up to here share small segments, so that they do not scatter over those of large tensors.
const SMALL: usize = 1 << 20;
const SMALL_SEGMENT: usize = 2 << 20;
/// Requests below half of this share segments of this size.
const SHARED_SEGMENT: usize = 20 << 20;
/// Larger segments are multiples of this, the driver's own page.
const LARGE_PAGE: usize = 2 << 20;
/// A larger rest of a block of a large segment becomes a block of its own.
const LARGE_REST: usize = 64 << 10;

/// The bytes that a request takes.
pub(super) fn rounded(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(GRANULE)
}

/// Whether a request of `bytes` rounded bytes lies in small segments.
fn is_small(bytes: usize) -> bool {
    bytes <= SMALL
}

/// The bytes of a new segment for a request of `bytes` rounded bytes: the usual size, and the least that does.
pub(super) fn segment_sizes(bytes: usize) -> [usize; 2] {
    match bytes {
        0..=SMALL => [SMALL_SEGMENT; 2],
        _ => {
            let least = bytes.checked_next_multiple_of(LARGE_PAGE).unwrap_or(bytes);
            match bytes < SHARED_SEGMENT / 2 {
                true => [SHARED_SEGMENT, least],
                false => [least; 2],
            }
        }
    }
}

/// A point in the work of a stream. `E` is its event.
#[derive(Debug)]
struct StreamPoint<E> {
    stream: StreamId,
    /// Later points have larger numbers.
    number: u64,
    event: E,
}

#[derive(Debug)]
enum BlockState<E> {
    Free {
        /// What its stream must wait for before it uses the block: one point of a stream, the latest.
        after: Vec<StreamPoint<E>>,
    },
    Used {
        /// Other streams that were given work with the block.
        readers: Vec<StreamId>,
    },
}

#[derive(Debug)]
struct PoolBlock<E> {
    len: usize,
    /// Where its segment begins.
    segment: u64,
    stream: StreamId,
    state: BlockState<E>,
}

/// Memory that the driver gave in one piece. Its blocks tile it.
#[derive(Debug)]
struct PoolSegment {
    len: usize,
    small: bool,
}

/// The segments of a pool and their blocks.
#[derive(Debug)]
pub(super) struct PoolBlocks<E> {
    segments: BTreeMap<u64, PoolSegment>,
    blocks: BTreeMap<u64, PoolBlock<E>>,
    /// Length and address of the free blocks of each stream, of small segments and of large ones.
    free: HashMap<(StreamId, bool), BTreeSet<(usize, u64)>>,
    /// Points that were made so far.
    points: u64,
    pub(super) in_use: usize,
    pub(super) peak: usize,
    pub(super) held: usize,
}

impl<E> Default for PoolBlocks<E> {
    fn default() -> Self {
        Self {
            segments: BTreeMap::new(),
            blocks: BTreeMap::new(),
            free: HashMap::new(),
            points: 0,
            in_use: 0,
            peak: 0,
            held: 0,
        }
    }
}

impl<E> PoolBlocks<E> {
    /// Adds a segment of the driver's for a request of `bytes` rounded bytes, as one free block of a stream.
    pub(super) fn add_segment(&mut self, address: u64, len: usize, bytes: usize, stream: StreamId) {
        let small = is_small(bytes);
        self.segments.insert(address, PoolSegment { len, small });
        self.held += len;
        let state = BlockState::Free { after: Vec::new() };
        self.insert(address, len, address, stream, state);
    }

    /// The smallest free block of a stream that holds `bytes` rounded bytes, now used, and what its stream must wait for.
    pub(super) fn take(&mut self, bytes: usize, stream: StreamId) -> Option<(u64, Vec<E>)> {
        let small = is_small(bytes);
        let free = self.free.get(&(stream, small))?;
        let &(len, address) = free.range((bytes, 0)..).next()?;
        let block = self.remove(address)?;
        let BlockState::Free { after } = block.state else {
            unreachable!("a block that is in the list of free ones")
        };
        let rest = len - bytes;
        let splits = rest >= if small { GRANULE } else { LARGE_REST };
        let taken = if splits { bytes } else { len };
        let readers = Vec::new();
        self.insert(
            address,
            taken,
            block.segment,
            stream,
            BlockState::Used { readers },
        );
        if splits {
            // What the stream waits for now, it does not wait for again.
            let state = BlockState::Free { after: Vec::new() };
            self.insert(address + bytes as u64, rest, block.segment, stream, state);
        }
        self.in_use += taken;
        self.peak = self.peak.max(self.in_use);
        Some((
            address,
            after.into_iter().map(|point| point.event).collect(),
        ))
    }

    /// Whether a stream has a free block of `bytes` rounded bytes.
    pub(super) fn has_free(&self, bytes: usize, stream: StreamId) -> bool {
        let free = self.free.get(&(stream, is_small(bytes)));
        free.is_some_and(|free| free.range((bytes, 0)..).next().is_some())
    }

    /// A stream other than `stream` with a free block of `bytes` rounded bytes.
    pub(super) fn other_with(&self, bytes: usize, stream: StreamId) -> Option<StreamId> {
        let small = is_small(bytes);
        let fits = |blocks: &BTreeSet<(usize, u64)>| blocks.range((bytes, 0)..).next().is_some();
        let mut others: Vec<StreamId> = (self.free.iter())
            .filter(|((other, of_small), blocks)| {
                *other != stream && *of_small == small && fits(blocks)
            })
            .map(|((other, _), _)| *other)
            .collect();
        others.sort_unstable();
        others.first().copied()
    }

    /// Gives a free block of `bytes` rounded bytes of one stream to another, which may use it after `event` of the first.
    pub(super) fn adopt(&mut self, bytes: usize, from: StreamId, to: StreamId, event: E) {
        let free = self.free.get(&(from, is_small(bytes)));
        let Some(&(_, address)) = free.and_then(|free| free.range((bytes, 0)..).next()) else {
            return;
        };
        if let Some(mut block) = self.remove(address) {
            let point = self.point(from, event);
            if let BlockState::Free { after } = &mut block.state {
                join(after, [point]);
            }
            self.insert(address, block.len, block.segment, to, block.state);
        }
    }

    /// Notes that a stream was given work with the used block that an address lies in.
    pub(super) fn note_use(&mut self, address: u64, stream: StreamId) {
        let Some((first, block)) = self.blocks.range_mut(..=address).next_back() else {
            return;
        };
        if address - first < block.len as u64
            && block.stream != stream
            && let BlockState::Used { readers } = &mut block.state
            && !readers.contains(&stream)
        {
            readers.push(stream);
        }
    }

    /// Frees a used block. `event` makes an event of each other stream that was given work with it, after that work. Neighbours
    /// that are free for the same stream become one block with it.
    pub(super) fn release(&mut self, address: u64, mut event: impl FnMut(StreamId) -> Option<E>) {
        let Some(mut block) = self.remove(address) else {
            return;
        };
        let BlockState::Used { readers } = &mut block.state else {
            unreachable!("a block is freed once")
        };
        let readers = std::mem::take(readers).into_iter();
        let mut after: Vec<StreamPoint<E>> = readers
            .filter_map(|reader| Some(self.point(reader, event(reader)?)))
            .collect();
        self.in_use -= block.len;
        let (mut first, mut len) = (address, block.len);
        if let Some(next) = self.free_neighbour(address + block.len as u64, &block)
            && let Some(next) = self.remove(next)
            && let BlockState::Free { after: more } = next.state
        {
            len += next.len;
            join(&mut after, more);
        }
        let before = self.blocks.range(..address).next_back().map(|(at, _)| *at);
        if let Some(before) = before.and_then(|at| self.free_neighbour(at, &block))
            && let Some(previous) = self.remove(before)
            && let BlockState::Free { after: more } = previous.state
        {
            first = before;
            len += previous.len;
            join(&mut after, more);
        }
        self.insert(
            first,
            len,
            block.segment,
            block.stream,
            BlockState::Free { after },
        );
    }

    /// The latest point of a stream.
    fn point(&mut self, stream: StreamId, event: E) -> StreamPoint<E> {
        self.points += 1;
        StreamPoint {
            stream,
            number: self.points,
            event,
        }
    }

    /// `address`, if a free block of the same segment and stream begins there.
    fn free_neighbour(&self, address: u64, block: &PoolBlock<E>) -> Option<u64> {
        let other = self.blocks.get(&address)?;
        let joins = other.segment == block.segment
            && other.stream == block.stream
            && matches!(other.state, BlockState::Free { .. });
        joins.then_some(address)
    }

    /// Takes the segments out of which no block is used, for the driver to have back.
    pub(super) fn take_unused_segments(&mut self) -> Vec<u64> {
        let used: BTreeSet<u64> = (self.blocks.values())
            .filter(|block| matches!(block.state, BlockState::Used { .. }))
            .map(|block| block.segment)
            .collect();
        let unused = self.segments.keys().filter(|at| !used.contains(at));
        let unused: Vec<u64> = unused.copied().collect();
        for segment in &unused {
            let len = self.segments.get(segment).map_or(0, |s| s.len);
            let inside = self.blocks.range(*segment..*segment + len as u64);
            let inside: Vec<u64> = inside.map(|(at, _)| *at).collect();
            for block in inside {
                self.remove(block);
            }
            self.segments.remove(segment);
            self.held -= len;
        }
        unused
    }

    fn insert(
        &mut self,
        address: u64,
        len: usize,
        segment: u64,
        stream: StreamId,
        state: BlockState<E>,
    ) {
        if matches!(state, BlockState::Free { .. }) {
            let small = self.in_small_segment(segment);
            let free = self.free.entry((stream, small)).or_default();
            free.insert((len, address));
        }
        let block = PoolBlock {
            len,
            segment,
            stream,
            state,
        };
        self.blocks.insert(address, block);
    }

    fn remove(&mut self, address: u64) -> Option<PoolBlock<E>> {
        let block = self.blocks.remove(&address)?;
        let small = self.in_small_segment(block.segment);
        if let Some(free) = self.free.get_mut(&(block.stream, small)) {
            free.remove(&(block.len, address));
        }
        Some(block)
    }

    fn in_small_segment(&self, segment: u64) -> bool {
        self.segments.get(&segment).is_some_and(|s| s.small)
    }
}

/// Adds points, of each stream the latest.
fn join<E>(after: &mut Vec<StreamPoint<E>>, more: impl IntoIterator<Item = StreamPoint<E>>) {
    for point in more {
        match after.iter_mut().find(|known| known.stream == point.stream) {
            Some(known) if known.number > point.number => {}
            Some(known) => *known = point,
            None => after.push(point),
        }
    }
}
