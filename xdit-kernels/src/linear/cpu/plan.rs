//! Divides the output into chunks of rows that are packed together, and chunks into tiles for threads.

use crate::Tier;

/// Most bytes of packed input that one call holds at a time.
const PACKED_BYTES: usize = 16 << 20;

/// Bytes of packed input below which it is not divided into chunks: at the end of a chunk the threads wait for each other.
const CHUNK_BYTES: usize = 3 << 20;

/// The largest tile, by the second-level caches of the processors of a tier.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileLimits {
    /// Rows at most.
    rows: usize,
    /// Sums at most, in f32.
    sums: usize,
}

impl TileLimits {
    pub(super) const fn of(tier: Tier) -> Self {
        match tier {
            // Caches of 256 or 512 KiB: 168 rows of a block of 256 k take 168 KiB, their sums the same.
            Tier::Avx2 => Self {
                rows: 168,
                sums: 168 * 256,
            },
            // Caches of 1 MiB and more: 280 rows of a block of 384 k take 0.4 MB, their sums the same.
            _ => Self {
                rows: 280,
                sums: 280 * 384,
            },
        }
    }
}

/// Tiles that a chunk should have for each thread, so that threads which start late or run slower hold up few.
const TILES_PER_THREAD: usize = 4;

/// Sizes of tiles and chunks, in panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TilePlan {
    pub(super) row_panels: usize,
    pub(super) column_panels: usize,
    /// Rows that are packed together: whole tiles, but for the last.
    pub(super) chunk_panels: usize,
    /// Tiles of a full chunk.
    pub(super) chunk_tasks: usize,
}

impl TilePlan {
    /// The cut of `rows × columns` panels of `(mr, nr)` with the least estimated time on `threads` threads. A packed panel
    /// of rows takes `panel_bytes`. Results do not depend on it.
    pub(super) fn new(
        rows: usize,
        columns: usize,
        (mr, nr): (usize, usize),
        panel_bytes: usize,
        limits: TileLimits,
        threads: usize,
    ) -> Self {
        let threads = threads.max(1);
        let held = (PACKED_BYTES / panel_bytes.max(1)).max(1);
        // Rows of a chunk if memory were the only limit.
        let all_rows = rows;
        let rows = rows.div_ceil(rows.div_ceil(held));
        let most_rows = (limits.rows / mr).clamp(1, rows);
        let fewest_tiles = rows.div_ceil(most_rows);
        let (mut least, mut best) = (f64::INFINITY, (1, 1));
        // Cutting rows further than the threads need only adds traffic.
        for row_tiles in fewest_tiles..=rows.min(fewest_tiles + threads) {
            let row_panels = rows.div_ceil(row_tiles);
            let row_tiles = rows.div_ceil(row_panels);
            let most_columns = (limits.sums / (row_panels * mr * nr)).clamp(1, columns.min(64));
            for column_panels in 1..=most_columns {
                let tasks = row_tiles * columns.div_ceil(column_panels);
                let rounds = tasks.div_ceil(threads);
                // In units of one register tile: the tiles, bringing a panel of rows and one of weights near the core,
                // taking the task.
                let work = (row_panels * column_panels) as f64;
                // And the part of a tile for which the last thread keeps the others waiting.
                let time = (rounds as f64 + 0.3)
                    * (work + 0.3 * row_panels as f64 + 0.6 * column_panels as f64 + 0.5);
                if time < least {
                    (least, best) = (time, (row_panels, column_panels));
                }
            }
        }
        let (row_panels, column_panels) = best;
        let across = columns.div_ceil(column_panels);
        let wanted = (TILES_PER_THREAD * threads)
            .div_ceil(across)
            .max(CHUNK_BYTES / (row_panels * panel_bytes).max(1));
        // Chunks of equal size: a short last one would leave threads idle.
        let row_tiles = all_rows.div_ceil(row_panels);
        let chunks = row_tiles.div_ceil(wanted.min(rows.div_ceil(row_panels)));
        let chunk_tiles = row_tiles.div_ceil(chunks);
        Self {
            row_panels,
            column_panels,
            chunk_panels: (chunk_tiles * row_panels).min(all_rows),
            chunk_tasks: chunk_tiles * across,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_cover_the_output_and_feed_every_thread() {
        let limits = TileLimits::of(Tier::Avx512);
        for threads in [1, 2, 3, 8, 16] {
            for (rows, columns) in [
                (1, 1),
                (1, 96),
                (5, 3),
                (19, 32),
                (74, 96),
                (74, 384),
                (300, 7),
            ] {
                for k in [16, 3072, 1 << 20] {
                    let plan = TilePlan::new(rows, columns, (14, 32), k * 14 * 4, limits, threads);
                    let tiles =
                        rows.div_ceil(plan.row_panels) * columns.div_ceil(plan.column_panels);
                    let what = format!("{plan:?} for {rows} x {columns}, k {k}, {threads} threads");
                    assert!(
                        plan.row_panels * plan.column_panels * 14 * 32 <= limits.sums,
                        "{what}"
                    );
                    assert!(
                        plan.chunk_panels * k * 14 * 4 <= PACKED_BYTES * 5 / 4
                            || plan.chunk_panels == 1,
                        "{what}"
                    );
                    assert!(
                        plan.chunk_panels == rows
                            || plan.chunk_panels.is_multiple_of(plan.row_panels),
                        "{what}"
                    );
                    assert!(plan.chunk_tasks <= tiles, "{what}");
                    // Where k is so long that few rows fit, so few that threads share what columns there are.
                    assert!(
                        k > 3072 || 2 * plan.chunk_tasks >= threads.min(tiles),
                        "{what}"
                    );
                    assert!(2 * tiles >= threads.min(rows * columns), "{what}");
                }
            }
        }
    }
}
