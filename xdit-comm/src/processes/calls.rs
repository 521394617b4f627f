//! Calls, reasons and failures as bytes.

use super::bytes::{FieldWriter, Fields, Read, shortened};
use crate::{
    Error, Loss, Op, ReduceOp, Spec,
    threads::{agree::CallSpecs, state::WorldFailure},
};
use std::time::Duration;
use xdit_kernels::{DType, MAX_NDIM, Shape};

/// The dtypes, in the order of their numbers in frames and in headers of tensors.
pub(super) const DTYPES: [DType; 8] = [
    DType::BF16,
    DType::F16,
    DType::F32,
    DType::U8,
    DType::U32,
    DType::I8,
    DType::F8E4M3,
    DType::F8E5M2,
];
const REDUCTIONS: [ReduceOp; 3] = [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max];

/// The number of values that are in no table. No reader takes it.
const UNKNOWN: u8 = u8::MAX;

/// The place of a value in a table of all values, as a byte.
fn place<T: PartialEq>(table: &[T], value: &T) -> u8 {
    let place = table.iter().position(|other| other == value);
    place.map_or(UNKNOWN, |place| place as u8)
}

fn at<T: Copy>(table: &[T], place: u8, what: &str) -> Read<T> {
    let value = table.get(usize::from(place)).copied();
    value.ok_or_else(|| format!("there is no {what} of number {place}"))
}

fn write_spec(to: &mut FieldWriter, spec: &Spec) {
    to.byte(place(&DTYPES, &spec.dtype));
    to.several(&spec.shape, |to, dim| {
        to.index(*dim);
    });
}

fn read_spec(from: &mut Fields<'_>) -> Read<Spec> {
    let dtype = at(&DTYPES, from.byte()?, "dtype")?;
    let dims = from.several(8, Fields::index)?;
    if dims.len() > MAX_NDIM {
        return Err(format!("a tensor of {} dims", dims.len()));
    }
    Ok(Spec::new(Shape::new(&dims), dtype))
}

pub(super) fn write_call(to: &mut FieldWriter, call: &CallSpecs) {
    let (kind, argument) = match call.op {
        Op::Send { dst } => (0, dst),
        Op::Recv { src } => (1, src),
        Op::Broadcast { root } => (2, root),
        Op::Scatter { root } => (3, root),
        Op::Gather { root } => (4, root),
        Op::AllGather => (5, 0),
        Op::AllReduce(how) => (6, usize::from(place(&REDUCTIONS, &how))),
        Op::ReduceScatter(how) => (7, usize::from(place(&REDUCTIONS, &how))),
        Op::AllToAll => (8, 0),
        Op::Barrier => (9, 0),
    };
    to.byte(kind).index(argument);
    to.several(&call.gives, write_spec);
    to.several(&call.expects, write_spec);
}

pub(super) fn read_call(from: &mut Fields<'_>) -> Read<CallSpecs> {
    let (kind, argument) = (from.byte()?, from.index()?);
    let how = || at(&REDUCTIONS, argument.min(255) as u8, "reduction");
    let op = match kind {
        0 => Op::Send { dst: argument },
        1 => Op::Recv { src: argument },
        2 => Op::Broadcast { root: argument },
        3 => Op::Scatter { root: argument },
        4 => Op::Gather { root: argument },
        5 => Op::AllGather,
        6 => Op::AllReduce(how()?),
        7 => Op::ReduceScatter(how()?),
        8 => Op::AllToAll,
        9 => Op::Barrier,
        other => return Err(format!("there is no operation of number {other}")),
    };
    Ok(CallSpecs {
        op,
        gives: from.several(9, read_spec)?,
        expects: from.several(9, read_spec)?,
    })
}

pub(super) fn write_time(to: &mut FieldWriter, time: Duration) {
    to.number(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

pub(super) fn read_time(from: &mut Fields<'_>) -> Read<Duration> {
    Ok(Duration::from_nanos(from.number()?))
}

pub(super) fn write_loss(to: &mut FieldWriter, loss: &Loss) {
    match loss {
        Loss::Failed(reason) => {
            to.byte(0).text(reason);
        }
        Loss::NoProgress(idle) => write_time(to.byte(1), *idle),
        Loss::NoAnswer(limit) => write_time(to.byte(2), *limit),
        Loss::Ended => {
            to.byte(3);
        }
        Loss::Silent(limit) => write_time(to.byte(4), *limit),
        // Of threads only. Others get its text.
        Loss::LeftBehind { .. } => {
            to.byte(0).text(&loss.to_string());
        }
    }
}

pub(super) fn read_loss(from: &mut Fields<'_>) -> Read<Loss> {
    Ok(match from.byte()? {
        0 => Loss::Failed(from.text()?),
        1 => Loss::NoProgress(read_time(from)?),
        2 => Loss::NoAnswer(read_time(from)?),
        3 => Loss::Ended,
        4 => Loss::Silent(read_time(from)?),
        other => return Err(format!("there is no reason of number {other}")),
    })
}

pub(super) fn write_failure(to: &mut FieldWriter, failure: &WorldFailure) {
    match failure {
        WorldFailure::Lost { rank, reason } => write_loss(to.byte(0).index(*rank), reason),
        WorldFailure::Disagree(Error::Disagree {
            rank,
            other,
            mine,
            theirs,
        }) => {
            let to = to.byte(1).index(*rank).index(*other);
            to.text(shortened(mine)).text(shortened(theirs));
        }
        WorldFailure::Disagree(Error::Deadlock(circle)) => {
            to.byte(2).text(circle);
        }
        WorldFailure::Disagree(other) => {
            to.byte(3).text(&other.to_string());
        }
    }
}

pub(super) fn read_failure(from: &mut Fields<'_>) -> Read<WorldFailure> {
    Ok(match from.byte()? {
        0 => WorldFailure::Lost {
            rank: from.index()?,
            reason: read_loss(from)?,
        },
        1 => WorldFailure::Disagree(Error::Disagree {
            rank: from.index()?,
            other: from.index()?,
            mine: from.text()?,
            theirs: from.text()?,
        }),
        2 => WorldFailure::Disagree(Error::Deadlock(from.text()?)),
        3 => WorldFailure::Disagree(Error::Kernel(from.text()?)),
        other => return Err(format!("there is no failure of number {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_comes_back_and_an_unknown_one_is_an_error() {
        for dtype in DTYPES {
            let (spec, mut to) = (Spec::new([2, 3], dtype), FieldWriter::default());
            write_spec(&mut to, &spec);
            assert_eq!(read_spec(&mut Fields::new(&to.0)), Ok(spec));
        }
        let unknown = place(&DTYPES[1..], &DTYPES[0]);
        assert_eq!(
            at(&DTYPES, unknown, "dtype"),
            Err("there is no dtype of number 255".to_owned())
        );
    }
}
