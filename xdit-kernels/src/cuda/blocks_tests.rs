//! The pool's bookkeeping without a driver: addresses are counted, events are numbers.

use super::blocks::{PoolBlocks, rounded, segment_sizes};
use proptest::prelude::*;

/// A pool whose driver has memory without end. Blocks are kept as (address, bytes, stream).
#[derive(Default)]
struct Pool {
    blocks: PoolBlocks<u32>,
    next: u64,
    used: Vec<(u64, usize, usize)>,
    events: u32,
}

impl Pool {
    fn take(&mut self, bytes: usize, stream: usize) -> (u64, Vec<u32>) {
        let bytes = rounded(bytes).unwrap();
        if !self.blocks.has_free(bytes, stream) {
            let [len, _] = segment_sizes(bytes);
            self.blocks.add_segment(self.next, len, bytes, stream);
            self.next += len as u64;
        }
        let taken = self.blocks.take(bytes, stream).unwrap();
        self.used.push((taken.0, bytes, stream));
        taken
    }

    fn release(&mut self, index: usize) {
        let (address, ..) = self.used.swap_remove(index);
        self.blocks.release(address, |_| {
            self.events += 1;
            Some(self.events)
        });
    }

    /// No two used blocks share a byte, and the counters add up.
    fn check(&self) {
        let mut used = self.used.clone();
        used.sort_unstable();
        for pair in used.windows(2) {
            assert!(pair[0].0 + pair[0].1 as u64 <= pair[1].0, "{pair:?}");
        }
        let bytes: usize = used.iter().map(|(_, bytes, _)| bytes).sum();
        assert!(bytes <= self.blocks.in_use, "{bytes}");
        assert!(self.blocks.in_use <= self.blocks.peak);
        assert!(self.blocks.in_use <= self.blocks.held);
    }
}

proptest! {
    #[test]
    fn blocks_never_overlap_and_everything_comes_back(
        steps in proptest::collection::vec((0usize..3, 0usize..40 << 20, 0usize..3), 1..60)
    ) {
        let mut pool = Pool::default();
        for (kind, number, stream) in steps {
            match kind {
                0 => drop(pool.take(number % (3 << 20), stream)),
                1 => drop(pool.take(number, stream)),
                _ if pool.used.is_empty() => {}
                _ => pool.release(number % pool.used.len()),
            }
            pool.check();
        }
        while !pool.used.is_empty() {
            pool.release(0);
        }
        assert_eq!(pool.blocks.in_use, 0);
        // Neighbours have joined, so every segment is whole and the driver gets all back.
        pool.blocks.take_unused_segments();
        assert_eq!(pool.blocks.held, 0);
        assert!(!pool.blocks.has_free(1, 0));
    }
}

#[test]
fn a_stream_uses_its_block_again_without_waiting_and_others_do_not_see_it() {
    let mut pool = Pool::default();
    let (first, _) = pool.take(1000, 0);
    pool.release(0);
    assert_eq!(pool.blocks.other_with(512, 1), Some(0));
    assert_eq!(pool.blocks.other_with(512, 0), None);
    assert!(!pool.blocks.has_free(512, 1));
    assert_eq!(pool.take(900, 0), (first, vec![]));
    assert_eq!(pool.blocks.peak, 1024);
}

#[test]
fn a_block_that_another_stream_was_given_waits_for_that_stream() {
    let mut pool = Pool::default();
    let (address, _) = pool.take(4096, 0);
    let (beside, _) = pool.take(4096, 0);
    // Its own stream, and twice the same other one, at its last byte.
    pool.blocks.note_use(address, 0);
    pool.blocks.note_use(address + 4095, 2);
    pool.blocks.note_use(address, 2);
    // Outside: the neighbour has no reader.
    assert_eq!(beside, address + 4096);
    pool.release(0);
    assert_eq!(pool.events, 1);
    assert_eq!(pool.take(4096, 0), (address, vec![1]));
    pool.release(0);
    assert_eq!(pool.events, 1);
    // Joined blocks wait for what each of them waits for: of two events of a stream for the later one.
    pool.take(4096, 0);
    pool.blocks.note_use(address, 2);
    pool.blocks.note_use(beside, 2);
    pool.blocks.note_use(beside, 1);
    for _ in 0..2 {
        pool.release(0);
    }
    assert_eq!(pool.events, 4);
    let (first, mut after) = pool.take(4096, 0);
    after.sort_unstable();
    assert_eq!((first, after), (address, vec![3, 4]));
    // The stream has waited: the rest of the block is its own at once.
    assert_eq!(pool.take(4096, 0), (beside, vec![]));
}

#[test]
fn a_block_goes_to_another_stream_after_an_event() {
    let mut pool = Pool::default();
    let (address, _) = pool.take(3 << 20, 0);
    pool.release(0);
    pool.blocks.adopt(3 << 20, 0, 1, 77);
    assert!(!pool.blocks.has_free(1 << 20, 0));
    assert_eq!(pool.take(3 << 20, 1), (address, vec![77]));
}

#[test]
fn sizes_are_rounded_and_never_wrap() {
    assert_eq!(rounded(0), Some(512));
    assert_eq!(rounded(513), Some(1024));
    assert_eq!(rounded(usize::MAX), None);
    assert_eq!(segment_sizes(512), [2 << 20; 2]);
    assert_eq!(segment_sizes(3 << 20), [20 << 20, 4 << 20]);
    assert_eq!(segment_sizes(33 << 20), [34 << 20; 2]);
}
