//! The control plane with ranks that are threads of this process: each has its own end, over TCP. Tensors go through sockets.

mod early;
mod errors;
mod faults;
mod fuzz;
mod numbers;
mod rendezvous;
mod support;

use crate::conformance;
use support::run;

#[test]
fn conforms_at_every_size() {
    for world_size in [1, 2, 4, 5] {
        run(world_size, move |group| {
            for (name, check) in conformance::CHECKS {
                check(group).unwrap_or_else(|e| panic!("{name} on {world_size} ranks: {e}"));
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{world_size} ranks: {e}"));
    }
}
