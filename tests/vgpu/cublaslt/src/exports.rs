//! The functions that programs call.

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::arguments::{In, Out};
use crate::objects::{Description, Layout, Object, objects};
use crate::problem::Problem;
use crate::queue::{Addresses, queue, report};
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, Number, Res, Status};

/// The workspace that an algorithm wants if the preference allows it.
const WORKSPACE: u64 = 64 << 10;
/// Marks the algorithms of this double.
const MAGIC: u64 = 0x7667_7075_6c74_0001;

/// A `cublasLtMatmulAlgo_t`: the mark, the workspace, and the problem that it is for.
type Algorithm = [u64; 8];

/// A `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

fn called(body: impl FnOnce() -> Res) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status,
        Err(_) => {
            report("libcublasLt panicked: this is a bug of the double");
            14
        }
    }
}

/// A report, and the status that the call returns.
fn refuse<T>(status: Status, text: &str) -> Res<T> {
    report(&format!("cublasLt: {text}"));
    Err(status)
}

fn problem(description: usize, layouts: [usize; 4]) -> Res<Problem> {
    let mut objects = objects();
    let description = *objects.description(description)?;
    let mut parts = Vec::with_capacity(4);
    for layout in layouts {
        parts.push(*objects.layout(layout)?);
    }
    let parts: [Layout; 4] = parts.try_into().map_err(|_| INVALID_VALUE)?;
    drop(objects);
    match Problem::new(description, parts) {
        Ok(problem) => Ok(problem),
        Err((status, text)) => refuse(status, &text),
    }
}

/// The workspace that a call must give; an error if the algorithm is for another problem.
fn workspace_of(problem: &Problem, algorithm: In<Algorithm>) -> Res<usize> {
    if algorithm.is_null() {
        return Ok(0);
    }
    let [magic, bytes, fingerprint, ..] = algorithm.get()?;
    if magic != MAGIC {
        return refuse(
            INVALID_VALUE,
            "the algorithm is none of cublasLtMatmulAlgoGetHeuristic",
        );
    }
    if fingerprint != problem.fingerprint() {
        return refuse(
            INVALID_VALUE,
            "the algorithm was chosen for another product",
        );
    }
    Ok(bytes as usize)
}

fn check_alignment(problem: &Problem, at: &Addresses) -> Res {
    let mut operands = vec![
        ("a", at.a, problem.a.number),
        ("b", at.b, problem.b.number),
        ("d", at.d, problem.d.number),
    ];
    if problem.beta != 0.0 {
        operands.push(("c", at.c, problem.c.number));
    }
    if problem.has_bias {
        operands.push(("the bias", problem.description.bias, problem.bias_number));
    }
    for (name, address, number) in operands {
        if address == 0 || !address.is_multiple_of(number.bytes() as u64) {
            return refuse(INVALID_VALUE, &format!("{name} lies at {address:#x}"));
        }
    }
    Ok(())
}

macro_rules! exports {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => { $(
        $(#[$attribute])*
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the functions are NVIDIA's")]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> Status {
            called(move || -> Res { $body })
        }
    )* };
}

exports! {
    fn cublasLtCreate(handle: Out<usize>) {
        handle.set(objects().add(Object::Handle))
    }

    fn cublasLtDestroy(handle: usize) {
        let mut objects = objects();
        objects.check_handle(handle)?;
        objects.remove(handle)
    }

    fn cublasLtMatrixLayoutCreate(layout: Out<usize>, number: u32, rows: u64, columns: u64, leading: i64) {
        let made = Layout::new(number, rows, columns, leading)?;
        layout.set(objects().add(Object::Layout(made)))
    }

    fn cublasLtMatrixLayoutDestroy(layout: usize) {
        objects().remove(layout)
    }

    /// The order (1, by columns only), the batch (5) and its stride (6).
    fn cublasLtMatrixLayoutSetAttribute(layout: usize, attribute: u32, value: In<u8>, bytes: usize) {
        let mut objects = objects();
        let layout = objects.layout(layout)?;
        match attribute {
            1 if value.get_as::<u32>(bytes)? == 0 => {}
            5 => layout.batch = usize::try_from(value.get_as::<i32>(bytes)?).map_err(|_| INVALID_VALUE)?,
            6 => layout.stride = value.get_as(bytes)?,
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    /// Sums in f32, with or without TF32; the factors are f32.
    fn cublasLtMatmulDescCreate(description: Out<usize>, compute: u32, scale: u32) {
        if !matches!(compute, 68 | 69 | 74 | 75 | 77) || scale != 0 {
            return refuse(NOT_SUPPORTED, &format!("compute type {compute} with factors of type {scale}"));
        }
        description.set(objects().add(Object::Description(Description {
            tf32: compute == 77,
            transposed: [false; 2],
            epilogue: 1,
            bias: 0,
            bias_number: None,
            bias_stride: 0,
        })))
    }

    fn cublasLtMatmulDescDestroy(description: usize) {
        objects().remove(description)
    }

    fn cublasLtMatmulDescSetAttribute(description: usize, attribute: u32, value: In<u8>, bytes: usize) {
        let mut objects = objects();
        let description = objects.description(description)?;
        let transposed = || match value.get_as::<u32>(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(NOT_SUPPORTED),
        };
        match attribute {
            // Factors come from the host.
            2 if value.get_as::<u32>(bytes)? == 0 => {}
            3 => description.transposed[0] = transposed()?,
            4 => description.transposed[1] = transposed()?,
            5 if !transposed()? => {}
            7 => description.epilogue = value.get_as(bytes)?,
            8 => description.bias = value.get_as(bytes)?,
            10 => description.bias_stride = value.get_as(bytes)?,
            // Numbers of multiprocessors, and less precise sums, change nothing here.
            15 | 25 => {}
            26 => {
                let number = Number::from_code(value.get_as(bytes)?);
                description.bias_number = Some(number.ok_or(NOT_SUPPORTED)?);
            }
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    fn cublasLtMatmulPreferenceCreate(preference: Out<usize>) {
        preference.set(objects().add(Object::Preference(0)))
    }

    fn cublasLtMatmulPreferenceDestroy(preference: usize) {
        objects().remove(preference)
    }

    /// The workspace (1). Others do not change which algorithm is chosen: there is one.
    fn cublasLtMatmulPreferenceSetAttribute(preference: usize, attribute: u32, value: In<u8>, bytes: usize) {
        let mut objects = objects();
        let most = objects.preference(preference)?;
        if attribute == 1 {
            *most = value.get_as(bytes)?;
        }
        Ok(())
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        handle: usize,
        description: usize,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        preference: usize,
        wanted: c_int,
        results: Out<Heuristic>,
        found: Out<c_int>,
    ) {
        objects().check_handle(handle)?;
        if wanted < 1 {
            return Err(INVALID_VALUE);
        }
        let problem = problem(description, [a, b, c, d])?;
        let workspace = WORKSPACE.min(*objects().preference(preference)?);
        let mut algorithm = [0; 8];
        algorithm[..3].copy_from_slice(&[MAGIC, workspace, problem.fingerprint()]);
        results.set(Heuristic {
            algorithm,
            workspace: workspace as usize,
            state: 0,
            waves: 1.0,
            reserved: [0; 4],
        })?;
        found.set(1)
    }

    fn cublasLtMatmul(
        handle: usize,
        description: usize,
        alpha: In<f32>,
        a: u64,
        a_layout: usize,
        b: u64,
        b_layout: usize,
        beta: In<f32>,
        c: u64,
        c_layout: usize,
        d: u64,
        d_layout: usize,
        algorithm: In<Algorithm>,
        workspace: u64,
        workspace_bytes: usize,
        stream: u64,
    ) {
        objects().check_handle(handle)?;
        let mut problem = problem(description, [a_layout, b_layout, c_layout, d_layout])?;
        (problem.alpha, problem.beta) = (alpha.get()?, beta.get()?);
        let needed = workspace_of(&problem, algorithm)?;
        if workspace_bytes < needed || (workspace == 0 && needed > 0) {
            let text = format!("a workspace of {workspace_bytes} bytes; the algorithm needs {needed}");
            return refuse(INVALID_VALUE, &text);
        }
        let at = Addresses { a, b, c, d, workspace, workspace_bytes: needed };
        check_alignment(&problem, &at)?;
        queue(problem, at, stream)
    }

    /// The double has nothing to log beside its reports.
    fn cublasLtLoggerSetLevel(_level: c_int) {
        Ok(())
    }

    fn cublasLtLoggerOpenFile(_path: In<c_char>) {
        Ok(())
    }
}
