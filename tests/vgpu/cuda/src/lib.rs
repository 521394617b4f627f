#![doc = include_str!("../../README.md")]

mod api;
mod arguments;
mod clock;
mod codes;
mod config;
mod contents;
mod engine;
mod execute;
mod finish;
mod graph;
mod handles;
mod heap;
mod images;
pub mod native;
mod pace;
mod queue;
mod ranges;
mod recorder;
mod records;
mod state;
mod streams;
mod work;
