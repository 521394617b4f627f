//! Kernels with one seeded bug each. Every one is reported, or gives a wrong result, under at least one schedule.

use ptx_interp::Module;

use crate::bugs::{MUTATIONS, Mutation};
use crate::cases::case;
use crate::support::schedules;

/// How a mutated kernel is found out, if it is.
fn found_out(mutation: &Mutation) -> Option<String> {
    let case = case(mutation.case);
    let module = match Module::parse(&mutation.of(case.text)) {
        Ok(module) => module,
        Err(error) => return Some(format!("refused: {error}")),
    };
    schedules(3)
        .iter()
        .find_map(|options| match (case.run)(&module, options) {
            Ok(true) => None,
            Ok(false) => Some("a wrong result".to_owned()),
            Err(report) => Some(format!("{:?}: {report}", report.finding)),
        })
}

#[test]
fn every_seeded_bug_is_found() {
    let missed: Vec<&str> = MUTATIONS
        .iter()
        .filter(|mutation| match found_out(mutation) {
            Some(how) => {
                println!("{} ({}): {how}", mutation.what, mutation.case);
                false
            }
            None => true,
        })
        .map(|mutation| mutation.what)
        .collect();
    assert!(MUTATIONS.len() >= 40);
    assert!(missed.is_empty(), "nobody noticed: {}", missed.join("; "));
}

#[test]
fn most_bugs_are_reported_under_any_schedule() {
    // Of these a report does not depend on the order of warps or the time of copies.
    let always = [
        "the barrier before other warps' sums",
        "the barrier of the transpose",
        "the barrier before a stage is read",
        "the barrier before a stage is filled again",
        "a wait for one group too few",
        "the last wait",
        "a commit",
        "nothing orders the init of mbarriers",
        "scores are read before they are there",
        "no fence before the copy unit reads",
        "a store in place of an atomic, global",
    ];
    for what in always {
        let mutation = MUTATIONS
            .iter()
            .find(|mutation| mutation.what == what)
            .expect("a mutation of this name");
        let case = case(mutation.case);
        let module = Module::parse(&mutation.of(case.text)).expect("the mutated text loads");
        for options in schedules(3) {
            assert!(
                (case.run)(&module, &options).is_err(),
                "{what}: nothing reported with {options:?}"
            );
        }
    }
}
