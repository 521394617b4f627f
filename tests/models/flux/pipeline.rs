//! Every recorded `FluxPipeline.__call__`, run again from prompt to pixels in every tier.

use xdit_tests::golden_run::goldens_match;

#[test]
fn flux_dev_agrees_with_diffusers() {
    goldens_match("flux-dev");
}

#[test]
fn flux_schnell_agrees_with_diffusers() {
    goldens_match("flux-schnell");
}

#[test]
fn flux_of_a_variant_agrees_with_diffusers() {
    goldens_match("flux-variant");
}
