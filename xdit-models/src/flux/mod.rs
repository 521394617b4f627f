//! Flux.1: its transformer's configuration.

mod config;

pub use config::FluxConfig;
