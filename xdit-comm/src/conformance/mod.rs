//! Tests of the contract of [`Backend`](crate::Backend), one function for each rule. Run each function on all ranks of a group.
//!
//! ```
//! use xdit_comm::{conformance, threads};
//! for (name, check) in conformance::CHECKS {
//!     threads::run(3, |group| check(&group)).unwrap_or_else(|e| panic!("{name}: {e}"));
//! }
//! ```

mod collectives;
mod control;
mod groups;
mod messages;
mod support;

use crate::{Group, Result};

/// A test that all ranks of one group run.
pub type Check = fn(&Group) -> Result<()>;

/// All tests with their names.
pub const CHECKS: &[(&str, Check)] = &[
    (
        "messages arrive in the order sent",
        messages::messages_arrive_in_order,
    ),
    (
        "calls of a batch progress together",
        messages::calls_of_a_batch_progress_together,
    ),
    ("an empty batch is done", messages::an_empty_batch_is_done),
    (
        "receives come ahead where they may",
        messages::receives_come_ahead,
    ),
    ("a ring of send_recv comes round", messages::send_recv_ring),
    ("a message to oneself arrives", messages::send_to_self),
    ("broadcast from every root", collectives::broadcast),
    (
        "scatter and gather are inverse",
        collectives::scatter_then_gather,
    ),
    (
        "all_gather keeps rank order and uneven shapes",
        collectives::all_gather_uneven,
    ),
    (
        "all_reduce gives every rank the same bytes",
        collectives::all_reduce,
    ),
    (
        "reduce_scatter is a part of all_reduce",
        collectives::reduce_scatter,
    ),
    (
        "a mean is the sum divided by the number of ranks",
        collectives::mean,
    ),
    (
        "all_to_all twice is the identity",
        collectives::all_to_all_twice,
    ),
    ("empty tensors travel", collectives::empty_tensors),
    ("every dtype travels bit for bit", messages::dtypes),
    (
        "many operations are under way at once",
        collectives::many_under_way,
    ),
    ("awaiting out of order", messages::await_out_of_order),
    ("dropped batches run on", messages::dropped_batches_run_on),
    ("barriers pass when all have come", collectives::barrier),
    (
        "the control plane keeps bytes and order",
        control::control_keeps_bytes_and_order,
    ),
    (
        "the control plane is beside the data",
        control::control_is_beside_the_data,
    ),
    ("split orders by key", groups::split_orders_by_key),
    (
        "subgroups do not disturb each other",
        groups::subgroups_are_apart,
    ),
    ("a mesh has the group of each axis", groups::mesh),
    ("bytes are counted", collectives::bytes_are_counted),
];
