//! Outputs that are not zeroed first.

use crate::{DType, Device, Error, Result, Shape, Tensor, TensorMut, ViewMut, entries::EntryBox};
use std::sync::atomic::{AtomicBool, Ordering};

/// A tensor that is not initialised yet. It gives out parts, each for one kernel to write, and becomes a tensor when kernels
/// have written all of it. It is not zeroed, and safe code never sees memory that no kernel has written.
///
/// A part counts as written when a kernel (an `op_into`, or [`layout::copy_into`](crate::layout::copy_into)) that was given the
/// whole part has returned without an error. A part that is narrowed further, or that no kernel takes, does not count.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor, TensorMut, layout};
/// let device = Device::cpu();
/// let row = Tensor::from_slice(&[1f32, 2.], [1, 2], &device)?;
/// let mut joint = TensorMut::unfilled([2, 2], DType::F32, &device)?;
/// layout::copy_into(&row, joint.part(&[(0, 1, 1)])?)?;
/// layout::copy_into(&row, joint.part(&[(0, 0, 1)])?)?;
/// assert_eq!(joint.freeze()?.to_vec_blocking::<f32>()?, [1., 2., 1., 2.]);
///
/// let mut half = TensorMut::unfilled([2, 2], DType::F32, &device)?;
/// layout::copy_into(&row, half.part(&[(0, 1, 1)])?)?;
/// assert!(half.freeze().is_err());
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct Unfilled {
    tensor: TensorMut,
    parts: Vec<HandedOut>,
}

/// A box of elements that was given out for a kernel to write.
#[derive(Debug)]
struct HandedOut {
    entries: EntryBox,
    /// Set by the kernel that has written all of it.
    written: AtomicBool,
}

const OP: &str = "unfilled output";

impl TensorMut {
    /// A tensor that is not zeroed: kernels write it part by part, all of it.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn unfilled(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Unfilled> {
        Self::unfilled_for(OP, shape, dtype, device)
    }

    /// As [`unfilled`](Self::unfilled), for an operation that errors name.
    pub(crate) fn unfilled_for(
        op: &'static str,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Unfilled> {
        // SAFETY: `Unfilled` hands out views to write into and nothing to read, and gives the tensor away only when kernels have
        // written every element.
        let tensor = unsafe { Self::uninit(op, shape, dtype, device)? };
        Ok(Unfilled {
            tensor,
            parts: Vec::new(),
        })
    }
}

impl Unfilled {
    /// The part that holds `len` entries of `dim` from `start` on, for each `(dim, start, len)`; without any, the whole.
    ///
    /// # Errors
    /// If a dim has no such entries.
    pub fn part(&mut self, ranges: &[(usize, usize, usize)]) -> Result<ViewMut<'_>> {
        let mut parts = self.parts([ranges])?;
        // One for each range.
        Ok(parts.swap_remove(0))
    }

    /// Several parts at once, each as of [`part`](Self::part), for kernels that write all of them.
    ///
    /// # Errors
    /// If a dim has no such entries, or two of these parts share an element.
    pub fn parts<R: AsRef<[(usize, usize, usize)]>>(
        &mut self,
        ranges: impl IntoIterator<Item = R>,
    ) -> Result<Vec<ViewMut<'_>>> {
        let parts = self.tensor.view_mut().boxes(ranges)?;
        let first = self.parts.len();
        self.parts
            .extend(parts.iter().map(|&(_, entries)| HandedOut {
                entries,
                written: AtomicBool::new(false),
            }));
        let notes = self.parts[first..].iter().map(|part| &part.written);
        let parts = parts.into_iter().zip(notes);
        Ok(parts.map(|((part, _), note)| part.unfilled(note)).collect())
    }

    /// The tensor, to be written further.
    ///
    /// # Errors
    /// If kernels have not written each element once: some are missing, or parts overlap.
    pub fn filled(self) -> Result<TensorMut> {
        let written: Vec<&HandedOut> = (self.parts.iter())
            .filter(|part| part.written.load(Ordering::Relaxed))
            .collect();
        let apart = written
            .iter()
            .enumerate()
            .all(|(i, a)| written[..i].iter().all(|b| a.entries.is_apart(&b.entries)));
        // Boxes that are apart lie inside the tensor, so their sizes add up to no more than its.
        let elements: usize = written.iter().map(|part| part.entries.numel()).sum();
        if apart && elements == self.tensor.numel() {
            return Ok(self.tensor);
        }
        let got = match apart {
            true => format!("{elements}"),
            false => "parts that overlap".into(),
        };
        Err(Error::Shape {
            op: OP,
            expected: format!(
                "kernels to write each of {} elements once",
                self.tensor.numel()
            ),
            got,
        })
    }

    /// The finished tensor.
    ///
    /// # Errors
    /// As [`filled`](Self::filled)'s.
    pub fn freeze(self) -> Result<Tensor> {
        Ok(self.filled()?.freeze())
    }
}

#[cfg(all(test, feature = "ops"))]
mod tests {
    use super::*;
    use crate::{layout::copy_into, softmax::softmax_into, testing::test_devices};

    fn ones(shape: &[usize], device: &Device) -> Tensor {
        let numel = shape.iter().product();
        Tensor::from_slice(&vec![1f32; numel], shape, device).unwrap()
    }

    #[test]
    fn what_kernels_have_not_written_is_not_added_to() {
        use crate::{
            attention::{AttnInput, AttnOut, flash_accumulate_into},
            merge::merge_in_place,
        };
        let device = &Device::cpu();
        let x = ones(&[1, 1, 1, 1], device);
        let new = |shape: &[usize]| TensorMut::unfilled(shape, DType::F32, device).unwrap();
        let (mut out, mut lse) = (new(&[1, 1, 1, 1]), new(&[1, 1, 1]));
        let part = AttnOut {
            out: x.clone(),
            lse: ones(&[1, 1, 1], device),
        };
        let input = AttnInput::new(&x, &x, &x);
        let added = [
            merge_in_place(out.part(&[]).unwrap(), lse.part(&[]).unwrap(), &part),
            flash_accumulate_into(&input, out.part(&[]).unwrap(), lse.part(&[]).unwrap()),
            merge_in_place(
                out.parts([[(0, 0, 1)]])
                    .unwrap()
                    .remove(0)
                    .reshape([1, 1, 1, 1])
                    .unwrap(),
                lse.part(&[]).unwrap(),
                &part,
            ),
        ];
        for result in added {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("an output that holds numbers"), "{error}");
        }
    }

    #[test]
    fn what_kernels_have_not_written_is_never_a_tensor() {
        for device in &test_devices() {
            let new = || TensorMut::unfilled([2, 3], DType::F32, device).unwrap();
            let row = ones(&[1, 3], device);
            // Nothing; a part that no kernel takes; one of two parts.
            assert!(new().freeze().is_err());
            let mut unused = new();
            unused.part(&[]).unwrap();
            assert!(unused.freeze().is_err());
            let mut half = new();
            copy_into(&row, half.part(&[(0, 0, 1)]).unwrap()).unwrap();
            assert!(half.filled().is_err());
            // The same part twice is not the whole.
            let mut twice = new();
            for _ in 0..2 {
                copy_into(&row, twice.part(&[(0, 0, 1)]).unwrap()).unwrap();
            }
            assert!(twice.freeze().is_err());
            // A kernel that was given a piece of a part, or failed.
            let mut piece = new();
            copy_into(&row, piece.part(&[]).unwrap().narrow(0, 1, 1).unwrap()).unwrap();
            assert!(piece.freeze().is_err());
            let mut failed = new();
            assert!(copy_into(&row, failed.part(&[]).unwrap()).is_err());
            assert!(failed.freeze().is_err());
        }
    }

    #[test]
    fn parts_in_any_dims_make_the_whole() {
        for device in &test_devices() {
            let mut out = TensorMut::unfilled([2, 3], DType::F32, device).unwrap();
            copy_into(&ones(&[2, 1], device), out.part(&[(1, 2, 1)]).unwrap()).unwrap();
            let corner = out.part(&[(1, 0, 2), (0, 1, 1)]).unwrap();
            softmax_into(&ones(&[1, 2], device), corner).unwrap();
            // Another shape of the same elements is the same part.
            let flat = out.part(&[(0, 0, 1), (1, 0, 2)]).unwrap();
            let flat = flat.split_last(&[2, 1]).unwrap();
            copy_into(&ones(&[1, 2, 1], device), flat).unwrap();
            let got = out.freeze().unwrap().to_vec_blocking::<f32>().unwrap();
            assert_eq!(got, [1., 1., 1., 0.5, 0.5, 1.]);
            let empty = TensorMut::unfilled([2, 0], DType::F32, device).unwrap();
            assert_eq!(empty.freeze().unwrap().shape(), [2, 0]);
            let mut out = TensorMut::unfilled([2, 3], DType::F32, device).unwrap();
            assert!(out.part(&[(1, 2, 2)]).is_err());
            assert!(out.part(&[(2, 0, 1)]).is_err());
            // Several at once, of which one is not written.
            let parts = out.parts([[(1, 0, 1)], [(1, 1, 2)]]).unwrap();
            assert_eq!(parts.iter().map(|part| part.shape()[1]).sum::<usize>(), 3);
            for part in parts.into_iter().take(1) {
                copy_into(&ones(&[2, 1], device), part).unwrap();
            }
            copy_into(&ones(&[2, 2], device), out.part(&[(1, 1, 2)]).unwrap()).unwrap();
            assert!(out.parts([[(1, 0, 2)], [(1, 1, 1)]]).is_err());
            assert_eq!(
                out.freeze().unwrap().to_vec_blocking::<f32>().unwrap(),
                [1.; 6]
            );
        }
    }
}
