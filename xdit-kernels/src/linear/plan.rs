//! How the output is cut into tiles for threads.

/// Most bytes of packed input that one call holds at a time; rows beyond are packed when those before are done.
/// Below the size from which the C library's allocator maps fresh (zeroed, page-faulting) memory for each call.
pub(super) const PACKED_BYTES: usize = 16 << 20;

/// Rows of a tile at most: 280 rows of a block of 512 k in f32 take 0.6 MB of the cache near a core.
const MAX_ROWS: usize = 280;

/// Sums of a tile at most (f32, 160 kB).
const MAX_SUMS: usize = 280 * 128;

/// Sizes of a tile, in panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) row_panels: usize,
    pub(super) column_panels: usize,
    /// Tiles of a full chunk of rows.
    pub(super) tasks: usize,
}

impl Plan {
    /// The cut of `rows × columns` panels with the least estimated time on `threads` threads. Results do not depend on it.
    pub(super) fn new(rows: usize, columns: usize, mr: usize, nr: usize, threads: usize) -> Self {
        let mut best = (
            f64::INFINITY,
            Self {
                row_panels: 1,
                column_panels: 1,
                tasks: 1,
            },
        );
        let most_rows = (MAX_ROWS / mr).max(1).min(rows);
        let fewest_tiles = rows.div_ceil(most_rows);
        // Cutting rows further than the threads need only adds traffic.
        for row_tiles in fewest_tiles..=rows.min(fewest_tiles + threads) {
            let row_panels = rows.div_ceil(row_tiles);
            let row_tiles = rows.div_ceil(row_panels);
            let most_columns = (MAX_SUMS / (row_panels * mr * nr)).clamp(1, columns);
            for column_panels in 1..=most_columns.min(64) {
                let tasks = row_tiles * columns.div_ceil(column_panels);
                let rounds = tasks.div_ceil(threads.max(1));
                // In units of one register tile: the tiles, bringing a panel of rows and one of weights near the core,
                // taking the task.
                let work = (row_panels * column_panels) as f64;
                let time = rounds as f64
                    * (work + 0.3 * row_panels as f64 + 0.6 * column_panels as f64 + 0.5);
                if time < best.0 {
                    best = (
                        time,
                        Self {
                            row_panels,
                            column_panels,
                            tasks,
                        },
                    );
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_cover_the_output_and_feed_every_thread() {
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
                let plan = Plan::new(rows, columns, 14, 32, threads);
                assert_eq!(
                    plan.tasks,
                    rows.div_ceil(plan.row_panels) * columns.div_ceil(plan.column_panels)
                );
                assert!(
                    plan.row_panels * plan.column_panels * 14 * 32 <= MAX_SUMS,
                    "{plan:?}"
                );
                assert!(
                    plan.tasks >= threads.min(rows * columns) / 2,
                    "{plan:?} for {threads} threads"
                );
            }
        }
    }
}
