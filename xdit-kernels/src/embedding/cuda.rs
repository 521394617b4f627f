use crate::{
    Error, Result, TensorMut, View, ViewMut,
    cuda::{Args, LaunchShape, PtxModule},
    layout,
};

static MODULE: PtxModule = PtxModule {
    name: "embedding",
    sm_80: include_str!("embedding.sm_80.ptx"),
    sm_90a: None,
};

const THREADS: usize = 256;

/// Shapes and dtypes are checked by the caller. An id that the table does not have gives a row of NaN.
pub(super) fn embedding(
    op: &'static str,
    table: View<'_>,
    ids: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<()> {
    let (c, rows) = (table.dim(1), ids.dim(0));
    if c == 0 || rows == 0 {
        return Ok(());
    }
    if c > 1 && out.strides()[1] != 1 {
        let mut whole = TensorMut::unfilled(out.shape(), out.dtype(), out.device())?;
        let part = whole.part(&[])?;
        part.written_by(|part| embedding(op, table, ids, part))?;
        return layout::copy_into(&whole.freeze()?, out);
    }
    let adjacent = c == 1 || table.strides()[1] == 1;
    let copy = (!adjacent).then(|| layout::contiguous(table.on(out.device())));
    let copy = copy.transpose()?;
    let table = copy.as_ref().map_or(table, |copy| copy.view());
    let size = table.dtype().size();
    let (table_stride, out_stride) = (table.strides()[0], out.strides()[0]);
    let addresses = table.ptr().addr() | out.ptr().addr();
    let whole = |word: usize| {
        let mut sizes = [c, table_stride, out_stride].into_iter().map(|n| n * size);
        addresses.is_multiple_of(word) && sizes.all(|n| n.is_multiple_of(word))
    };
    let word = [16, 4, 2]
        .into_iter()
        .find(|&word| word > size && whole(word));
    let word = word.unwrap_or(size);
    let kernel = match word {
        16 => "gather_16",
        4 => "gather_4",
        2 => "gather_2",
        _ => "gather_1",
    };
    let each = word / size;
    let too_large = || Error::shape(op, "fewer rows in an operation on a GPU", [rows, c]);
    let count = |n: usize| u32::try_from(n).map_err(|_| too_large());
    let threads = rows.checked_mul(c / each).ok_or_else(too_large)?;
    let blocks = count(threads.div_ceil(THREADS))?;
    if i32::try_from(blocks).is_err() {
        return Err(too_large());
    }
    let mut args = Args::new();
    args.push(table.ptr());
    args.push((table_stride / each) as u64);
    // An id is below it if it is below the number of rows.
    args.push(u32::try_from(table.dim(0)).unwrap_or(u32::MAX));
    args.push(ids.ptr());
    args.push(ids.strides()[0] as u64);
    args.push(out.ptr());
    args.push((out_stride / each) as u64);
    args.push(count(rows)?);
    args.push(count(c / each)?);
    let queue = out.device().expect_cuda();
    let shape = LaunchShape::rows(blocks, THREADS as u32);
    // SAFETY: the table has rows of c adjacent elements, of which the kernel reads those that it has; there is an id and a row of
    // `out` for each row; words are whole and aligned. `out` is exclusively borrowed.
    unsafe { queue.launch(op, &MODULE, kernel, shape, &args) }
}
