//! Every recorded `StableDiffusion3Pipeline.__call__`, run again from prompt to pixels in every tier.

use xdit_tests::golden_run::goldens_match;

use super::{SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM};

#[test]
fn sd3_medium_draws_what_diffusers_draws() {
    goldens_match(SD3_MEDIUM);
}

#[test]
fn sd35_medium_draws_what_diffusers_draws() {
    goldens_match(SD35_MEDIUM);
}

#[test]
fn sd35_large_draws_what_diffusers_draws() {
    goldens_match(SD35_LARGE);
}
