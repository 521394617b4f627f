//! Whole models over several ranks. `table.rs` runs every strategy with every family (the table in the README). The other files
//! compare PipeFusion with an independent simulation, run hybrids, guidance over two ranks and random delays, and check the
//! reads, memory and messages of each rank (`host_reads.rs`: the host reads in a step), and that no order of axes changes a
//! byte. Tests of one strategy alone belong in its crate.

mod bands;
mod cancel;
mod delays;
mod engine;
mod exact;
mod flux;
mod guidance;
mod host_reads;
mod hunyuandit;
mod hybrids;
mod loading;
mod memory;
mod orders;
mod ranks;
mod sd3;
mod simulation;
mod strict;
mod table;
