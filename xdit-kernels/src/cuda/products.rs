//! Matrix products by cuBLASLt: `y = x·Wᵀ`, row-major, with a bias and an activation where the library has them.

use super::{
    blas_library::{BlasLibrary, ProductAlgorithm},
    buffer::CudaBuffer,
    context::CudaContext,
    error::SUCCESS,
    error::device_error,
    options::CudaOptions,
};
use crate::{DType, Result};
use cudarc::cublaslt::sys::{
    cublasComputeType_t as Compute, cublasLtEpilogue_t as Fused, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as DescAttribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cudaDataType,
};
use cudarc::driver::sys::CUstream;
use std::{
    collections::HashMap,
    ffi::c_void,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The most scratch that an algorithm may ask for.
const MOST_WORKSPACE: usize = 32 << 20;

/// What the library does to the sums before it rounds them, beside adding a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FusedActivation {
    None,
    /// The form with tanh.
    Gelu,
}

/// `y = x·Wᵀ` of x `[m, k]`, W `[n, k]` (its rows adjacent, one after another) and y `[m, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProductShape {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Distance of rows of x, in elements.
    pub(crate) x_stride: usize,
    /// Distance of rows of y, in elements.
    pub(crate) y_stride: usize,
    /// Of x and W.
    pub(crate) dtype: DType,
    /// Of y and the bias: the dtype of x, or f32.
    pub(crate) y_dtype: DType,
    pub(crate) activation: FusedActivation,
}

/// Addresses of the operands. A null bias is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductOperands {
    pub(crate) x: *const u8,
    pub(crate) weight: *const u8,
    pub(crate) bias: *const u8,
    pub(crate) y: *mut u8,
}

/// A product that the library has planned.
struct ProductPlan {
    description: cublasLtMatmulDesc_t,
    /// Of W, x and y, as the library's columns.
    layouts: [cublasLtMatrixLayout_t; 3],
    algorithm: ProductAlgorithm,
}

/// A shape, whether there is a bias, and the alignment in bytes of x, W and y, which the choice of an algorithm depends on.
type PlanKey = (ProductShape, bool, [u32; 3]);

/// cuBLASLt on one GPU, with the plans of the products that it was asked for. The library is opened by the first product.
pub(crate) struct Products {
    context: Arc<CudaContext>,
    options: CudaOptions,
    state: Mutex<ProductState>,
}

#[derive(Default)]
struct ProductState {
    library: Option<BlasLibrary>,
    plans: HashMap<PlanKey, ProductPlan>,
}

// SAFETY: the library's objects belong to no thread, and the mutex around them gives them to one at a time.
unsafe impl Send for ProductState {}

impl fmt::Debug for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Products of {}", self.context.ordinal)
    }
}

impl Products {
    pub(super) fn new(context: &Arc<CudaContext>, options: &CudaOptions) -> Self {
        Self {
            context: Arc::clone(context),
            options: options.clone(),
            state: Mutex::default(),
        }
    }

    /// Gives a product to a stream. `scratch` allocates memory that the stream may use.
    ///
    /// # Safety
    /// The operands lie there as the shape says, in memory as [`CudaQueue::launch`](super::CudaQueue::launch) demands.
    pub(super) unsafe fn run(
        &self,
        op: &'static str,
        stream: CUstream,
        shape: ProductShape,
        operands: ProductOperands,
        scratch: impl FnOnce(usize) -> Result<CudaBuffer>,
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ProductState { library, plans } = &mut *state;
        self.context.bind(op)?;
        let library = match library {
            Some(library) => &*library,
            none => none.insert(
                BlasLibrary::open(&self.options.library_folders)
                    .map_err(|reason| device_error(op, reason))?,
            ),
        };
        let aligned = [operands.x, operands.weight, operands.y.cast_const()].map(alignment);
        let plan = match plans.entry((shape, !operands.bias.is_null(), aligned)) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(self.plan(op, library, shape, operands, aligned)?)
            }
        };
        self.set_bias(op, library, plan.description, operands.bias)?;
        let workspace = scratch(plan.algorithm.workspace_bytes)?;
        let [weight, x, y] = plan.layouts;
        let (one, zero) = (1f32, 0f32);
        // SAFETY: the plan is of this shape; the operands are the caller's promise; the workspace may be freed after the call,
        // since the stream uses it in its order.
        let status = unsafe {
            (library.cublasLtMatmul)(
                library.handle,
                plan.description,
                (&raw const one).cast(),
                operands.weight.cast(),
                weight,
                operands.x.cast(),
                x,
                (&raw const zero).cast(),
                operands.y.cast_const().cast(),
                y,
                operands.y.cast(),
                y,
                plan.algorithm.data.as_ptr(),
                workspace.ptr().cast(),
                plan.algorithm.workspace_bytes,
                stream,
            )
        };
        self.check(op, "cublasLtMatmul", status)
    }

    /// Plans a product. The library's matrices are columns one after another: its Wᵀ·x is our x·Wᵀ.
    fn plan(
        &self,
        op: &'static str,
        library: &BlasLibrary,
        shape: ProductShape,
        operands: ProductOperands,
        aligned: [u32; 3],
    ) -> Result<ProductPlan> {
        let compute = match self.options.tf32 && shape.dtype == DType::F32 {
            true => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => Compute::CUBLAS_COMPUTE_32F,
        };
        let mut plan = ProductPlan {
            description: std::ptr::null_mut(),
            layouts: [std::ptr::null_mut(); 3],
            algorithm: ProductAlgorithm::default(),
        };
        let scale = cudaDataType::CUDA_R_32F as u32;
        // SAFETY: the pointer is to a description.
        let status = unsafe {
            (library.cublasLtMatmulDescCreate)(&mut plan.description, compute as u32, scale)
        };
        self.check(op, "cublasLtMatmulDescCreate", status)?;
        let planned = self.fill(op, library, shape, operands, aligned, &mut plan);
        if planned.is_err() {
            plan.destroy(library);
        }
        planned.map(|()| plan)
    }

    fn fill(
        &self,
        op: &'static str,
        library: &BlasLibrary,
        shape: ProductShape,
        operands: ProductOperands,
        aligned: [u32; 3],
        plan: &mut ProductPlan,
    ) -> Result<()> {
        let transposed = 1i32;
        let attribute = DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA;
        self.describe(op, library, plan.description, attribute, &transposed)?;
        let fused = match (shape.activation, !operands.bias.is_null()) {
            (FusedActivation::None, false) => Fused::CUBLASLT_EPILOGUE_DEFAULT,
            (FusedActivation::None, true) => Fused::CUBLASLT_EPILOGUE_BIAS,
            (FusedActivation::Gelu, false) => Fused::CUBLASLT_EPILOGUE_GELU,
            (FusedActivation::Gelu, true) => Fused::CUBLASLT_EPILOGUE_GELU_BIAS,
        } as u32;
        let attribute = DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE;
        self.describe(op, library, plan.description, attribute, &fused)?;
        // The library chooses by it too.
        self.set_bias(op, library, plan.description, operands.bias)?;
        let ProductShape { m, n, k, .. } = shape;
        let (of_x, of_y) = (data_type(op, shape.dtype)?, data_type(op, shape.y_dtype)?);
        let layouts = [
            (of_x, k, n, k),
            (of_x, k, m, shape.x_stride),
            (of_y, n, m, shape.y_stride),
        ];
        for (layout, (of, rows, columns, stride)) in plan.layouts.iter_mut().zip(layouts) {
            let create = library.cublasLtMatrixLayoutCreate;
            // SAFETY: the pointer is to a layout.
            let status = unsafe { create(layout, of, rows as u64, columns as u64, stride as i64) };
            self.check(op, "cublasLtMatrixLayoutCreate", status)?;
        }
        let mut preference = std::ptr::null_mut();
        // SAFETY: the pointer is to a preference.
        let status = unsafe { (library.cublasLtMatmulPreferenceCreate)(&mut preference) };
        self.check(op, "cublasLtMatmulPreferenceCreate", status)?;
        let most = MOST_WORKSPACE as u64;
        let [x_aligned, weight_aligned, y_aligned] = aligned;
        let wishes: [(Preference, *const c_void, usize); 5] = [
            (
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const most).cast(),
                size_of::<u64>(),
            ),
            wish(
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                &weight_aligned,
            ),
            wish(
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                &x_aligned,
            ),
            wish(
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                &y_aligned,
            ),
            wish(
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                &y_aligned,
            ),
        ];
        let mut found = 0;
        let mut status = SUCCESS;
        for (attribute, value, bytes) in wishes {
            let set = library.cublasLtMatmulPreferenceSetAttribute;
            // SAFETY: `bytes` bytes lie at `value`.
            status = status.max(unsafe { set(preference, attribute as u32, value, bytes) });
        }
        let [weight, x, y] = plan.layouts;
        if status == SUCCESS {
            // SAFETY: all objects are of the library, and there is room for one result.
            status = unsafe {
                (library.cublasLtMatmulAlgoGetHeuristic)(
                    library.handle,
                    plan.description,
                    weight,
                    x,
                    y,
                    y,
                    preference,
                    1,
                    &mut plan.algorithm,
                    &mut found,
                )
            };
        }
        // SAFETY: created above, destroyed once.
        unsafe { (library.cublasLtMatmulPreferenceDestroy)(preference) };
        self.check(op, "cublasLtMatmulAlgoGetHeuristic", status)?;
        match found {
            0 => Err(device_error(
                op,
                format!(
                    "cuBLASLt has no algorithm for [{m}, {k}] by [{n}, {k}] of {}",
                    shape.dtype
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Sets where the bias lies, if there is one.
    fn set_bias(
        &self,
        op: &'static str,
        library: &BlasLibrary,
        description: cublasLtMatmulDesc_t,
        bias: *const u8,
    ) -> Result<()> {
        if bias.is_null() {
            return Ok(());
        }
        let attribute = DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        self.describe(op, library, description, attribute, &(bias.addr() as u64))
    }

    fn describe<T>(
        &self,
        op: &'static str,
        library: &BlasLibrary,
        description: cublasLtMatmulDesc_t,
        attribute: DescAttribute,
        value: &T,
    ) -> Result<()> {
        let set = library.cublasLtMatmulDescSetAttribute;
        let value: *const T = value;
        // SAFETY: the library reads as many bytes as the attribute has, which is the size of `T`.
        let status = unsafe { set(description, attribute as u32, value.cast(), size_of::<T>()) };
        self.check(op, "cublasLtMatmulDescSetAttribute", status)
    }

    fn check(&self, op: &'static str, function: &str, status: u32) -> Result<()> {
        match status {
            SUCCESS => Ok(()),
            _ => Err(device_error(
                op,
                format!(
                    "{function} failed on {}: status {status}",
                    self.context.ordinal
                ),
            )),
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &state.library
            && self.context.bind("products").is_ok()
        {
            for plan in state.plans.values() {
                plan.destroy(library);
            }
        }
    }
}

impl ProductPlan {
    /// Gives back what the library made for this plan, which is not used any more.
    fn destroy(&self, library: &BlasLibrary) {
        for layout in self.layouts.iter().filter(|layout| !layout.is_null()) {
            // SAFETY: created by `fill`, destroyed once.
            unsafe { (library.cublasLtMatrixLayoutDestroy)(*layout) };
        }
        // SAFETY: created by `plan`, destroyed once.
        unsafe { (library.cublasLtMatmulDescDestroy)(self.description) };
    }
}

/// An alignment, as an attribute of a preference.
fn wish(attribute: Preference, value: &u32) -> (Preference, *const c_void, usize) {
    let value: *const u32 = value;
    (attribute, value.cast(), size_of::<u32>())
}

/// The alignment of an address, of those that algorithms tell apart.
fn alignment(address: *const u8) -> u32 {
    1 << address.addr().trailing_zeros().min(8)
}

/// The library's number of a dtype.
fn data_type(op: &'static str, dtype: DType) -> Result<u32> {
    use crate::dtype::FloatType;
    let of = match dtype.float(op)? {
        FloatType::BF16 => cudaDataType::CUDA_R_16BF,
        FloatType::F16 => cudaDataType::CUDA_R_16F,
        FloatType::F32 => cudaDataType::CUDA_R_32F,
    };
    Ok(of as u32)
}
