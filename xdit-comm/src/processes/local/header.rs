//! What stands before the bytes of a tensor on a socket.

use super::inbox::SocketLane;
use crate::{Spec, processes::calls::DTYPES};
use std::io::{self, Read};
use std::sync::Arc;
use xdit_kernels::{MAX_NDIM, Shape};

/// The largest number of splits between the world and a group. The axes of a mesh need a few.
const DEEPEST: usize = 64;
/// The numbers of the longest path: each split has its number and a color.
const LONGEST: usize = 2 * DEEPEST;

/// Returns a header: a byte each for the kind of the lane, the dtype, the number of dims and the length of the path, then the path
/// and the dims in 8 bytes each, little-endian.
///
/// # Errors
/// For a dtype or a path that a header cannot name.
pub(super) fn encode(lane: &SocketLane, spec: &Spec) -> io::Result<Vec<u8>> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what.to_owned());
    let dtype = DTYPES.iter().position(|dtype| *dtype == spec.dtype);
    let dtype = dtype.ok_or_else(|| refused("a dtype that the transport does not know"))?;
    if lane.path.len() > LONGEST {
        let splits = lane.path.len() / 2;
        return Err(refused(&format!(
            "a group after {splits} splits of the world, where at most {DEEPEST} are allowed"
        )));
    }
    let lengths = [dtype, spec.shape.len(), lane.path.len()];
    let mut bytes = vec![u8::from(lane.collective)];
    bytes.extend(lengths.iter().map(|length| *length as u8));
    let dims = spec.shape.iter().map(|dim| *dim as u64);
    for number in lane.path.iter().copied().chain(dims) {
        bytes.extend(number.to_le_bytes());
    }
    Ok(bytes)
}

/// Reads a header of `sender`. Returns `None` at the end of the stream.
///
/// # Errors
/// Those of the socket; or bytes that are no header.
pub(super) fn read(from: &mut impl Read, sender: usize) -> io::Result<Option<(SocketLane, Spec)>> {
    let mut first = [0; 4];
    if from.read(&mut first[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut first[1..])?;
    let [kind, dtype, ndim, depth] = first;
    let refused = || io::Error::new(io::ErrorKind::InvalidData, "bytes that are no header");
    let (ndim, depth) = (usize::from(ndim), usize::from(depth));
    let dtype = DTYPES.get(usize::from(dtype)).ok_or_else(refused)?;
    if kind > 1 || ndim > MAX_NDIM || depth > LONGEST {
        return Err(refused());
    }
    let mut number = || {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        io::Result::Ok(u64::from_le_bytes(bytes))
    };
    let path = (0..depth).map(|_| number()).collect::<io::Result<_>>()?;
    let dims = (0..ndim)
        .map(|_| number())
        .collect::<io::Result<Vec<_>>>()?;
    let dims = dims.into_iter().map(usize::try_from);
    let dims: Vec<usize> = dims.collect::<Result<_, _>>().map_err(|_| refused())?;
    let spec = Spec::new(Shape::new(&dims), *dtype);
    let lane = SocketLane {
        path: Arc::new(path),
        sender,
        collective: kind == 1,
    };
    Ok(Some((lane, spec)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_come_back(
            path in proptest::collection::vec(any::<u64>(), 0..=LONGEST),
            dims in proptest::collection::vec(any::<u32>(), 0..=MAX_NDIM),
            (collective, dtype) in (any::<bool>(), 0..DTYPES.len()),
        ) {
            let dims: Vec<usize> = dims.into_iter().map(|dim| dim as usize).collect();
            let spec = Spec::new(Shape::new(&dims), DTYPES[dtype]);
            let lane = SocketLane { path: Arc::new(path), sender: 3, collective };
            let bytes = encode(&lane, &spec).unwrap();
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read(&mut rest, 3).unwrap(), Some((lane, spec)));
            prop_assert_eq!(read(&mut rest, 3).unwrap(), None);
            // A stream that ends inside of a header.
            let cut = bytes.len() - 1;
            prop_assert!(read(&mut &bytes[..cut], 3).is_err());
        }

        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            read(&mut bytes.as_slice(), 0).ok();
        }
    }
}
