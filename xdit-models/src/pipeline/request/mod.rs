//! The arguments of a call, with their names in diffusers, and their sources.
//!
//! `fields` is the one list of them; the others say how they are set, laid over one another, checked and split into branches.

mod branches;
mod builders;
mod check;
mod fields;
mod into_prompts;
mod lists;
mod overlay;
mod refuse;
#[cfg(test)]
mod tests;
mod unused;

pub(crate) use branches::{Branches, Branches3};
pub(crate) use check::MAX_SIDE;
pub use fields::{Defaults, OutputType, Request};
pub use into_prompts::IntoPrompts;
pub use overlay::Overlay;
pub(crate) use unused::unused;
