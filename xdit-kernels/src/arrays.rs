//! Arrays of the crate `ndarray` as views and tensors, and back.

use ndarray::{ArrayD, ArrayView, ArrayViewD, Dimension, IxDyn};

use crate::{
    Device, Element, Error, MAX_NDIM, Result, Shape, Tensor, View, sizes::Layout, vector::reserved,
    view::host_memory,
};

const OP: &str = "ndarray";

/// The shape of an array, which may have more dims than a tensor.
fn shape_of(sizes: &[usize]) -> Result<Shape> {
    match sizes.len() <= MAX_NDIM {
        true => Ok(Shape::from(sizes)),
        false => Err(Error::shape(
            OP,
            format!("at most {MAX_NDIM} dims"),
            sizes.len(),
        )),
    }
}

impl<'a> View<'a> {
    /// Borrows an array of the crate `ndarray` where it lies, whether it is contiguous, transposed, sliced or broadcast.
    /// Requires the feature `ndarray`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a negative stride (an axis that is inverted), which a view cannot have: copy such an array with
    /// [`Tensor::from_ndarray`]. Also for more than six dims. [`Error::Device`] for a device that does not read the host's memory.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use xdit_kernels::{Device, View, elementwise};
    /// let (x, device) = (array![[1f32, 2., 3.], [4., 5., 6.]], Device::cpu());
    /// let columns = View::from_ndarray(x.t(), &device)?;
    /// assert_eq!((columns.shape(), columns.strides()), (&[3, 2][..], &[1, 3][..]));
    /// assert_eq!(elementwise::scale(columns, 2.0)?.to_vec_blocking::<f32>()?, [2., 8., 4., 10., 6., 12.]);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn from_ndarray<T: Element, D: Dimension>(
        array: ArrayView<'a, T, D>,
        device: &'a Device,
    ) -> Result<Self> {
        host_memory(OP, device)?;
        let shape = shape_of(array.shape())?;
        let steps = array.shape().iter().zip(array.strides());
        let strides: Option<Vec<usize>> = steps
            .map(|(size, stride)| match size {
                // Nobody steps along it.
                0 | 1 => Some(0),
                _ => usize::try_from(*stride).ok(),
            })
            .collect();
        let strides = strides.ok_or_else(|| {
            Error::shape(
                OP,
                "strides of 0 or more (Tensor::from_ndarray copies an array with an inverted axis)",
                array.strides(),
            )
        })?;
        let layout = Layout::strided(shape, Shape::from(strides.as_slice()), T::DTYPE);
        let layout = layout.ok_or_else(|| {
            let expected = "an array that fits memory, of at most 2^36 elements if it repeats some";
            Error::shape(OP, expected, shape)
        })?;
        // SAFETY: the array borrows initialised and aligned elements of this dtype for 'a. Its shape and strides are those of the
        // layout (except strides along which nobody steps), so every index that the layout reaches is an element of the array.
        Ok(unsafe { Self::from_raw(array.as_ptr().cast(), layout, device) })
    }
}

impl Tensor {
    /// Copies an array of the crate `ndarray`, with any strides. Requires the feature `ndarray`.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than six dims, [`Error::OutOfMemory`].
    ///
    /// # Examples
    /// ```
    /// use ndarray::{array, s};
    /// use xdit_kernels::{Device, Tensor};
    /// let x = array![[1f32, 2., 3.], [4., 5., 6.]];
    /// let mirrored = Tensor::from_ndarray(x.slice(s![.., ..;-1]), &Device::cpu())?;
    /// assert_eq!(mirrored.shape(), [2, 3]);
    /// assert_eq!(mirrored.to_vec_blocking::<f32>()?, [3., 2., 1., 6., 5., 4.]);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn from_ndarray<T: Element, D: Dimension>(
        array: ArrayView<'_, T, D>,
        device: &Device,
    ) -> Result<Self> {
        let shape = shape_of(array.shape())?;
        let host = device.or_cpu();
        if let Ok(view) = View::from_ndarray(array.view(), &host) {
            return view.to_tensor()?.to_device(device);
        }
        let mut values = reserved(OP, array.len())?;
        values.extend(array.iter().copied());
        Self::from_slice(&values, shape, device)
    }

    /// Copies the tensor to an array of the crate `ndarray`. `T` is the type of the elements, or f32, to which any float is
    /// converted exactly. Requires the feature `ndarray`.
    ///
    /// Blocks until the device has computed the elements, and counts as one of [`Device::host_reads`].
    ///
    /// # Errors
    /// As [`to_vec_blocking`](Self::to_vec_blocking).
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use xdit_kernels::{DType, Device, Tensor};
    /// let x = Tensor::from_slice(&[1f32, 2., 3., 4.], [2, 2], &Device::cpu())?.to_dtype(DType::BF16)?;
    /// assert_eq!(x.to_ndarray_blocking::<f32>()?, array![[1., 2.], [3., 4.]].into_dyn());
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn to_ndarray_blocking<T: Element>(&self) -> Result<ArrayD<T>> {
        let values = self.to_vec_blocking::<T>()?;
        ArrayD::from_shape_vec(IxDyn(self.shape()), values)
            .map_err(|error| Error::shape(OP, error.to_string(), self.shape()))
    }

    /// Borrows the tensor as an array of the crate `ndarray`, without a copy. Requires the feature `ndarray`.
    ///
    /// Blocks until the device has computed the elements, and counts as one of [`Device::host_reads`].
    ///
    /// # Errors
    /// As [`host_slice_blocking`](Self::host_slice_blocking).
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor};
    /// let x = Tensor::from_slice(&[1f32, 2., 3., 4.], [2, 2], &Device::cpu())?;
    /// assert_eq!(x.host_ndarray_blocking::<f32>()?.sum(), 10.0);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn host_ndarray_blocking<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        let values = self.host_slice_blocking::<T>()?;
        ArrayViewD::from_shape(IxDyn(self.shape()), values)
            .map_err(|error| Error::shape(OP, error.to_string(), self.shape()))
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use ndarray::{Array, Array3, Axis, Ix0, Zip, s};

    use super::*;

    /// An array of 4 × 5 × 6 different numbers.
    fn numbered<T: Element>(of: impl Fn(f32) -> T) -> Array3<T> {
        let values = (0..120).map(|i| of(i as f32)).collect();
        Array3::from_shape_vec((4, 5, 6), values).unwrap()
    }

    fn same<T: Element, D: Dimension>(tensor: &Tensor, array: &ArrayView<'_, T, D>) {
        assert_eq!((tensor.shape(), tensor.dtype()), (array.shape(), T::DTYPE));
        let copied = tensor.to_ndarray_blocking::<T>().unwrap();
        assert_eq!(copied, array.view().into_dyn());
        assert_eq!(tensor.host_ndarray_blocking::<T>().unwrap(), copied);
    }

    fn both_ways<T: Element>(of: impl Fn(f32) -> T) {
        let (array, device) = (numbered(of), Device::cpu());
        let mut turned = array.view();
        turned.swap_axes(0, 2);
        let row = array.slice(s![1, .., ..]);
        let repeated = row.broadcast((3, 5, 6)).unwrap();
        let arrays = [
            array.view(),
            turned,
            array.slice(s![1..4;2, 2.., ..;3]),
            array.slice(s![..1, .., ..]),
            array.slice(s![..0, .., ..]),
            repeated,
        ];
        for array in &arrays {
            let view = View::from_ndarray(array.view(), &device).unwrap();
            same(&view.to_tensor().unwrap(), array);
            same(&Tensor::from_ndarray(array.view(), &device).unwrap(), array);
        }
        let inverted = array.slice(s![..;-1, .., ..;-2]);
        let error = View::from_ndarray(inverted.view(), &device).unwrap_err();
        assert!(error.to_string().contains("inverted axis"), "{error}");
        same(&Tensor::from_ndarray(inverted, &device).unwrap(), &inverted);
        // One entry: nobody steps, so the view needs no copy.
        let one = array.slice(s![2..3;-1, .., ..]);
        assert!(View::from_ndarray(one.view(), &device).is_ok());
    }

    #[test]
    fn arrays_of_any_strides_and_floats_come_and_go() {
        both_ways(|x| x);
        both_ways(bf16::from_f32);
        both_ways(f16::from_f32);
        both_ways(|x| x as u32);
        both_ways(|x| x as u8);
    }

    #[test]
    fn views_borrow_and_kernels_read_them() {
        let (array, device) = (numbered(|x| x), Device::cpu());
        let slice = array.slice(s![.., 1..;2, ..]);
        let view = View::from_ndarray(slice, &device).unwrap();
        let doubled = crate::elementwise::scale(view, 2.0).unwrap();
        let doubled = doubled.host_ndarray_blocking::<f32>().unwrap();
        let pairs = Zip::from(doubled.view()).and(slice.into_dyn());
        assert!(pairs.all(|doubled, x| *doubled == 2.0 * x));
        let tensor = Tensor::from_slice(&[1f32, 2.], [2], &device).unwrap();
        let borrowed = tensor.host_ndarray_blocking::<f32>().unwrap();
        let lies_at = tensor.host_slice_blocking::<f32>().unwrap().as_ptr();
        assert_eq!(borrowed.as_ptr(), lies_at);
    }

    #[test]
    fn numbers_and_halves_widen_and_other_types_are_refused() {
        let device = Device::cpu();
        let number = Array::<f32, Ix0>::from_elem((), 7.0);
        same(
            &Tensor::from_ndarray(number.view(), &device).unwrap(),
            &number.view(),
        );
        let halves = numbered(f16::from_f32);
        let tensor = Tensor::from_ndarray(halves.view(), &device).unwrap();
        let widened = tensor.to_ndarray_blocking::<f32>().unwrap();
        assert_eq!(widened, numbered(|x| x).into_dyn());
        assert!(tensor.to_ndarray_blocking::<u32>().is_err());
        assert!(tensor.host_ndarray_blocking::<f32>().is_err());
    }

    #[test]
    fn more_dims_than_six_are_refused() {
        let (array, device) = (ArrayD::<f32>::zeros(vec![1; 7]), Device::cpu());
        for error in [
            View::from_ndarray(array.view(), &device).unwrap_err(),
            Tensor::from_ndarray(array.view(), &device).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), "ndarray: expected at most 6 dims, got 7");
        }
        let six = array.index_axis(Axis(0), 0);
        same(&Tensor::from_ndarray(six.view(), &device).unwrap(), &six);
    }
}
