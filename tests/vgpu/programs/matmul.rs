//! Programs that multiply matrices with cuBLASLt.

use std::ffi::c_void;

use cudarc::cublaslt::sys as lt;
use cudarc::driver::sys;
use half::bf16;

use crate::driver::{
    Event, Gpu, Pointer, Stream, allocate, call, destroy, event, free, record, stream, synchronize,
    upload, uploaded, wait,
};
use crate::{Outcome, Program, compare};

/// Tokens, features in and out: odd, so that mixed-up sizes show.
const T: usize = 24;
const IN: usize = 40;
const OUT: usize = 16;
/// The columns of the output buffer: the product fills a part of it.
const PITCH: usize = 20;
const BATCH: usize = 2;

pub(crate) const PROGRAMS: &[Program] = &[Program {
    name: "linear layer",
    capability: 80,
    run: linear,
    bugs: &[
        ("the input comes too late", "data race"),
        ("the result is read too early", "data race"),
        ("two streams share the workspace", "data race"),
        ("the workspace is too small", "a workspace of"),
        (
            "the weights are freed too early",
            "freed while in use/use after free",
        ),
        ("the weights are not transposed", "op(a) is"),
        ("the operands are swapped", "op(a) is/the product is"),
        (
            "the pitch of the input is that of the output",
            "the next begins",
        ),
        ("a token too many", "out of bounds"),
        ("no stride of the batch", "wrong result"),
        ("the bias has no address", "the bias lies at 0x0"),
        ("the bias is not there", "never-written"),
        ("the epilogue is forgotten", "wrong result"),
        (
            "the algorithm of another product",
            "chosen for another product",
        ),
        ("alpha and beta are swapped", "never-written"),
        ("f32 for bf16", "out of bounds/never-written"),
    ],
}];

/// As `call!`, for cuBLASLt.
macro_rules! blas {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: as in `call!`; the doubles check handles and device addresses.
        let status = unsafe { lt::$function($($argument),*) };
        status.result().map_err(|error| format!("{}: {:?}", stringify!($function), error.0))
    }};
}

fn data<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

/// A matrix by columns.
fn layout(
    number: lt::cudaDataType,
    rows: usize,
    columns: usize,
    leading: usize,
    stride: usize,
) -> Result<lt::cublasLtMatrixLayout_t, String> {
    let mut layout = std::ptr::null_mut();
    blas!(cublasLtMatrixLayoutCreate(
        &mut layout,
        number,
        rows as u64,
        columns as u64,
        leading as i64
    ))?;
    let (batch, stride) = (BATCH as i32, stride as i64);
    let count = lt::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
    let offset = lt::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
    blas!(cublasLtMatrixLayoutSetAttribute(
        layout,
        count,
        data(&batch),
        4
    ))?;
    blas!(cublasLtMatrixLayoutSetAttribute(
        layout,
        offset,
        data(&stride),
        8
    ))?;
    Ok(layout)
}

/// The description of `op(a) b` with an epilogue.
fn description(
    transposed: bool,
    epilogue: u32,
    bias: Pointer,
) -> Result<lt::cublasLtMatmulDesc_t, String> {
    use lt::cublasLtMatmulDescAttributes_t as Attribute;
    let mut out = std::ptr::null_mut();
    let (compute, scale) = (
        lt::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        lt::cudaDataType::CUDA_R_32F,
    );
    blas!(cublasLtMatmulDescCreate(&mut out, compute, scale))?;
    let transposed = i32::from(transposed);
    blas!(cublasLtMatmulDescSetAttribute(
        out,
        Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
        data(&transposed),
        4
    ))?;
    blas!(cublasLtMatmulDescSetAttribute(
        out,
        Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
        data(&epilogue),
        4
    ))?;
    blas!(cublasLtMatmulDescSetAttribute(
        out,
        Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
        data(&bias),
        8
    ))?;
    Ok(out)
}

fn numbers(count: usize, step: usize) -> Vec<bf16> {
    (0..count)
        .map(|i| bf16::from_f32(((i * step) % 9) as f32 / 4.0 - 1.0))
        .collect()
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}

/// `y = gelu(x w^T + bias)` by rows, which are columns to cuBLASLt: y^T = w x^T.
fn reference(x: &[bf16], w: &[bf16], bias: &[bf16]) -> Vec<bf16> {
    let row = |numbers: &[bf16], i: usize| -> Vec<f32> {
        numbers[i * IN..(i + 1) * IN]
            .iter()
            .map(|n| n.to_f32())
            .collect()
    };
    let mut out = Vec::new();
    for token in 0..BATCH * T {
        for (feature, bias) in bias.iter().enumerate() {
            let (x, w) = (row(x, token), row(w, feature));
            let sum: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
            out.push(bf16::from_f32(gelu(sum + bias.to_f32())));
        }
    }
    out
}

/// Everything that the programs of this file make.
struct Setting {
    s: Stream,
    t: Stream,
    ready: Event,
    x: Pointer,
    w: Pointer,
    bias: Pointer,
    y: Pointer,
    workspace: Pointer,
}

const WORKSPACE: usize = 1 << 16;

fn linear(bug: &str) -> Outcome {
    let gpu = Gpu::open(0)?;
    let (s, t, ready) = (stream()?, stream()?, event()?);
    let (x, w, bias) = (
        numbers(BATCH * T * IN, 5),
        numbers(OUT * IN, 7),
        numbers(OUT, 2),
    );
    let setting = Setting {
        s,
        t,
        ready,
        x: allocate(x.len() * 2, s)?,
        w: uploaded(&w, s)?,
        bias: if bug == "the bias is not there" {
            allocate(OUT * 2, s)?
        } else {
            uploaded(&bias, s)?
        },
        y: allocate(BATCH * T * PITCH * 2, s)?,
        workspace: allocate(WORKSPACE, s)?,
    };
    record(ready, s)?;
    wait(t, ready)?;
    upload(
        setting.x,
        &x,
        if bug == "the input comes too late" {
            t
        } else {
            s
        },
    )?;
    multiply(&setting, bug)?;
    record(ready, s)?;
    if bug != "the result is read too early" {
        wait(t, ready)?;
    }
    if bug == "the weights are freed too early" {
        free(&[setting.w], t)?;
        multiply(&setting, bug)?;
        return synchronize(s);
    }
    let got = rows(setting.y, t)?;
    compare(&got, &reference(&x, &w, &bias))?;
    synchronize(s)?;
    free(
        &[
            setting.x,
            setting.w,
            setting.bias,
            setting.y,
            setting.workspace,
        ],
        s,
    )?;
    synchronize(s)?;
    destroy(&[s, t], &[ready])?;
    gpu.close()
}

/// The rows of the output, without what lies between them.
fn rows(y: Pointer, stream: Stream) -> Result<Vec<bf16>, String> {
    let mut out = vec![bf16::ZERO; BATCH * T * OUT];
    let rect = sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: std::ptr::null(),
        srcDevice: y,
        srcArray: std::ptr::null_mut(),
        srcPitch: PITCH * 2,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        dstHost: out.as_mut_ptr().cast(),
        dstDevice: 0,
        dstArray: std::ptr::null_mut(),
        dstPitch: OUT * 2,
        WidthInBytes: OUT * 2,
        Height: BATCH * T,
    };
    call!(cuMemcpy2DAsync_v2(&rect, stream))?;
    Ok(out)
}

fn multiply(setting: &Setting, bug: &str) -> Outcome {
    let number = if bug == "f32 for bf16" {
        lt::cudaDataType::CUDA_R_32F
    } else {
        lt::cudaDataType::CUDA_R_16BF
    };
    let tokens = if bug == "a token too many" { T + 1 } else { T };
    let leading = if bug == "the pitch of the input is that of the output" {
        PITCH
    } else {
        IN
    };
    let stride = if bug == "no stride of the batch" {
        0
    } else {
        T * IN
    };
    let weights = layout(number, IN, OUT, IN, 0)?;
    let inputs = layout(number, IN, tokens, leading, stride)?;
    let outputs = layout(number, OUT, tokens, PITCH, T * PITCH)?;
    let (a, b) = if bug == "the operands are swapped" {
        (inputs, weights)
    } else {
        (weights, inputs)
    };
    let bias = if bug == "the bias has no address" {
        0
    } else {
        setting.bias
    };
    // GELU and the bias, or the bias alone.
    let epilogue = if bug == "the epilogue is forgotten" {
        4
    } else {
        36
    };
    let description = description(bug != "the weights are not transposed", epilogue, bias)?;
    let (mut handle, mut preference) = (std::ptr::null_mut(), std::ptr::null_mut());
    blas!(cublasLtCreate(&mut handle))?;
    blas!(cublasLtMatmulPreferenceCreate(&mut preference))?;
    let most = lt::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    blas!(cublasLtMatmulPreferenceSetAttribute(
        preference,
        most,
        data(&WORKSPACE),
        8
    ))?;
    let mut found = 0;
    let mut result = std::mem::MaybeUninit::<lt::cublasLtMatmulHeuristicResult_t>::uninit();
    let other = layout(number, OUT, tokens, OUT, T * OUT)?;
    let chosen_for = if bug == "the algorithm of another product" {
        other
    } else {
        outputs
    };
    blas!(cublasLtMatmulAlgoGetHeuristic(
        handle,
        description,
        a,
        b,
        chosen_for,
        chosen_for,
        preference,
        1,
        result.as_mut_ptr(),
        &mut found
    ))?;
    // SAFETY: the call filled the result.
    let result = unsafe { result.assume_init() };
    let (mut alpha, mut beta) = (1.0_f32, 0.0_f32);
    if bug == "alpha and beta are swapped" {
        std::mem::swap(&mut alpha, &mut beta);
    }
    let workspace = if bug == "the workspace is too small" {
        result.workspaceSize / 2
    } else {
        result.workspaceSize
    };
    let streams = if bug == "two streams share the workspace" {
        vec![setting.s, setting.t]
    } else {
        vec![setting.s]
    };
    if bug == "two streams share the workspace" {
        record(setting.ready, setting.s)?;
        wait(setting.t, setting.ready)?;
    }
    for (round, stream) in streams.into_iter().enumerate() {
        let y = if round == 0 {
            setting.y
        } else {
            allocate(BATCH * T * PITCH * 2, stream)?
        };
        let (first, second) = if bug == "the operands are swapped" {
            (setting.x, setting.w)
        } else {
            (setting.w, setting.x)
        };
        blas!(cublasLtMatmul(
            handle,
            description,
            data(&alpha),
            first as *const _,
            a,
            second as *const _,
            b,
            data(&beta),
            y as *const _,
            outputs,
            y as *mut _,
            outputs,
            &result.algo,
            setting.workspace as *mut _,
            workspace,
            stream.cast(),
        ))
        // The report says more than the status.
        .or_else(|error| synchronize(setting.s).and(Err(error)))?;
    }
    blas!(cublasLtMatmulPreferenceDestroy(preference))?;
    blas!(cublasLtMatmulDescDestroy(description))?;
    for layout in [weights, inputs, outputs, other] {
        blas!(cublasLtMatrixLayoutDestroy(layout))?;
    }
    blas!(cublasLtDestroy(handle))?;
    call!(cuCtxGetDevice(&mut 0))
}
