//! PipeFusion on whole models: against an independent simulation of the algorithm, under every hybrid, with guidance over two ranks, with
//! random delays, and what each rank reads and holds.

mod delays;
mod engine;
mod exact;
mod flux;
mod guidance;
mod hunyuandit;
mod hybrids;
mod loading;
mod memory;
mod sd3;
mod simulation;
mod strategies;
