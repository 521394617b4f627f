//! The driver with a toy model: compared with a naive simulation, with drift, with failures, with delays anywhere.

mod delays;
mod drift;
mod faults;
mod messages;
mod naive;
mod resume;
mod run;
mod same;
mod strict;
mod toy;
