//! Every recorded `HunyuanDiTPipeline.__call__`, run again from prompt to pixels in every tier.

use xdit_tests::golden_run::goldens_match;

use super::{V1_1, V1_2};

#[test]
fn v1_1_draws_what_diffusers_draws() {
    goldens_match(V1_1);
}

#[test]
fn v1_2_draws_what_diffusers_draws() {
    goldens_match(V1_2);
}
