//! Modules of kernels: PTX that the driver compiles for its GPU when a kernel of it is first launched.

use super::{
    context::CudaContext,
    driver::version_text,
    error::{SUCCESS, device_error},
    launch::{Args, KernelFunction, LaunchShape},
};
use crate::{Error, Result};
use cudarc::driver::sys::{CUfunction_attribute, CUjit_option, CUmodule};
use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The kernels of one family, as PTX. Its name is the module's in messages and in the cache.
#[derive(Debug)]
pub(crate) struct PtxModule {
    pub(crate) name: &'static str,
    /// For every GPU of compute capability 8.0 and more.
    pub(crate) sm_80: &'static str,
    /// For compute capability 9.0 alone.
    pub(crate) sm_90a: Option<&'static str>,
}

impl PtxModule {
    /// The PTX for a GPU of this capability and a driver of this version, and what it was compiled for.
    fn choose(&self, capability: u32, driver: i32) -> (&'static str, &'static str) {
        match self.sm_90a {
            Some(ptx) if capability == 90 && needs(ptx).is_some_and(|least| least <= driver) => {
                (ptx, "sm_90a")
            }
            _ => (self.sm_80, "sm_80"),
        }
    }
}

/// The first version of CUDA whose driver reads this PTX, by its `.version`; `None` where it is not known. (PTX ISA, "Release
/// Notes")
fn needs(ptx: &str) -> Option<i32> {
    let line = ptx.lines().find_map(|line| line.strip_prefix(".version "));
    let cuda = match line?.trim() {
        "7.8" => 11_080,
        "8.0" => 12_000,
        "8.1" => 12_010,
        "8.2" => 12_020,
        "8.3" => 12_030,
        "8.4" => 12_040,
        "8.5" => 12_050,
        "8.6" => 12_070,
        "8.7" => 12_080,
        "8.8" => 12_090,
        "9.0" => 13_000,
        _ => return None,
    };
    Some(cuda)
}

/// A kernel, and what the driver told or was told about it.
struct LoadedKernel {
    function: KernelFunction,
    /// Number of bytes of each parameter, where the driver tells them.
    parameters: Option<Vec<usize>>,
    /// Dynamic shared memory that the driver allows it so far.
    shared_bytes: u32,
}

struct LoadedModule {
    raw: CUmodule,
    kernels: HashMap<&'static str, LoadedKernel>,
}

// SAFETY: the driver takes calls for one module from several threads.
unsafe impl Send for LoadedModule {}

/// The modules that one GPU has loaded.
pub(crate) struct Modules {
    context: Arc<CudaContext>,
    loaded: Mutex<HashMap<&'static str, LoadedModule>>,
}

impl fmt::Debug for Modules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Modules of {}", self.context.ordinal)
    }
}

/// Dynamic shared memory that each kernel may have without being asked for.
const USUAL_SHARED_BYTES: u32 = 48 << 10;

impl Modules {
    pub(super) fn new(context: &Arc<CudaContext>) -> Self {
        Self {
            context: Arc::clone(context),
            loaded: Mutex::default(),
        }
    }

    /// A kernel, ready to be launched with this shape and these arguments. Loads its module first, if no launch has yet.
    pub(super) fn function(
        &self,
        op: &'static str,
        module: &'static PtxModule,
        kernel: &'static str,
        shape: LaunchShape,
        args: &Args,
    ) -> Result<KernelFunction> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if !loaded.contains_key(module.name) {
            loaded.insert(module.name, self.load(op, module)?);
        }
        let Some(of) = loaded.get_mut(module.name) else {
            unreachable!("inserted above")
        };
        if !of.kernels.contains_key(kernel) {
            let found = self.find(op, of.raw, module.name, kernel)?;
            of.kernels.insert(kernel, found);
        }
        let Some(found) = of.kernels.get_mut(kernel) else {
            unreachable!("inserted above")
        };
        if let Some(parameters) = &found.parameters
            && !args.sizes().eq(parameters.iter().copied())
        {
            let given: Vec<usize> = args.sizes().collect();
            return Err(device_error(
                op,
                format!(
                    "the kernel {kernel} takes parameters of {} bytes, and was given {}",
                    list(parameters),
                    list(&given)
                ),
            ));
        }
        if shape.shared_bytes > found.shared_bytes {
            self.allow_shared(op, kernel, found.function, shape.shared_bytes)?;
            found.shared_bytes = shape.shared_bytes;
        }
        Ok(found.function)
    }

    /// Whether this GPU gets the module's kernels for capability 9.0, and the driver tells its copy unit about tensors.
    pub(super) fn have_sm_90a(&self, module: &PtxModule) -> bool {
        let driver = &self.context.driver;
        let (_, target) = module.choose(self.context.capability, driver.version);
        target == "sm_90a" && driver.cuTensorMapEncodeTiled.is_some()
    }

    /// Gives a module to the driver, which compiles it or takes it from its cache.
    fn load(&self, op: &'static str, module: &PtxModule) -> Result<LoadedModule> {
        let context = &self.context;
        let (ptx, target) = module.choose(context.capability, context.driver.version);
        tracing::info!(
            module = module.name,
            target,
            capability = context.capability,
            driver = version_text(context.driver.version),
            "kernels are loaded"
        );
        let text = CString::new(ptx).map_err(|_| {
            device_error(op, format!("the PTX of {} holds a zero byte", module.name))
        })?;
        let mut log = vec![0u8; 8 << 10];
        let options = [
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER as u32,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as u32,
        ];
        // The size is the pointer's value itself.
        let size: *mut c_void = std::ptr::without_provenance_mut(log.len());
        let values = [log.as_mut_ptr().cast(), size];
        let mut raw = std::ptr::null_mut();
        context.bind(op)?;
        // SAFETY: the text ends in a zero; there is a value for each of two options, and the log is as large as it says.
        let status = unsafe {
            (context.driver.cuModuleLoadDataEx)(
                &mut raw,
                text.as_ptr().cast(),
                2,
                options.as_ptr(),
                values.as_ptr(),
            )
        };
        if status != SUCCESS {
            let log = log.split(|&byte| byte == 0).next().unwrap_or_default();
            return Err(self.not_compiled(op, module.name, target, status, log));
        }
        Ok(LoadedModule {
            raw,
            kernels: HashMap::new(),
        })
    }

    fn not_compiled(
        &self,
        op: &'static str,
        module: &str,
        target: &str,
        status: u32,
        log: &[u8],
    ) -> Error {
        let driver = &self.context.driver;
        let log = String::from_utf8_lossy(log);
        let log = match log.trim() {
            "" => "the driver says no more".to_owned(),
            log => log.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        device_error(
            op,
            format!(
                "the driver (CUDA {}) does not compile the kernels {module} ({target}) for {}, compute capability {}.{}: {}; {log}",
                version_text(driver.version),
                self.context.ordinal,
                self.context.capability / 10,
                self.context.capability % 10,
                driver.explain(status),
            ),
        )
    }

    /// A kernel of a module by its name.
    fn find(
        &self,
        op: &'static str,
        module: CUmodule,
        module_name: &str,
        kernel: &str,
    ) -> Result<LoadedKernel> {
        let context = &self.context;
        let name = CString::new(kernel)
            .map_err(|_| device_error(op, "a kernel's name holds a zero byte".into()))?;
        let mut raw = std::ptr::null_mut();
        context.bind(op)?;
        // SAFETY: the module is loaded in the current context, and the name ends in a zero.
        let status =
            unsafe { (context.driver.cuModuleGetFunction)(&mut raw, module, name.as_ptr()) };
        if status != SUCCESS {
            let why = context.driver.explain(status);
            let reason = format!("the kernels {module_name} have no {kernel}: {why}");
            return Err(device_error(op, reason));
        }
        let parameters = context.driver.cuFuncGetParamInfo.map(|ask| {
            let size = |index| {
                let (mut offset, mut size) = (0, 0);
                // SAFETY: the function is of the current context, the pointers are to numbers. An index behind the last
                // parameter is an error.
                (unsafe { ask(raw, index, &mut offset, &mut size) } == SUCCESS).then_some(size)
            };
            (0..).map_while(size).collect()
        });
        Ok(LoadedKernel {
            function: KernelFunction { raw },
            parameters,
            shared_bytes: USUAL_SHARED_BYTES,
        })
    }

    /// Lets a kernel have this much dynamic shared memory.
    fn allow_shared(
        &self,
        op: &'static str,
        kernel: &str,
        function: KernelFunction,
        bytes: u32,
    ) -> Result<()> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let amount = i32::try_from(bytes).unwrap_or(i32::MAX);
        self.context.bind(op)?;
        let set = self.context.driver.cuFuncSetAttribute;
        // SAFETY: the function is of the current context.
        let status = unsafe { set(function.raw, attribute as u32, amount) };
        let call = format!("giving {kernel} {bytes} bytes of shared memory");
        self.context.check(op, &call, status)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let loaded = self
            .loaded
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if loaded.is_empty() || self.context.bind("module").is_err() {
            return;
        }
        // Kernels of the modules may still run. If one failed, there is nothing left to wait for.
        // SAFETY: takes nothing; the context is current.
        unsafe { (self.context.driver.cuCtxSynchronize)() };
        for module in loaded.values() {
            // SAFETY: loaded in this context, unloaded once; nobody has its kernels any more.
            unsafe { (self.context.driver.cuModuleUnload)(module.raw) };
        }
    }
}

/// Numbers as a sentence has them.
fn list(numbers: &[usize]) -> String {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    match numbers.is_empty() {
        true => "none".into(),
        false => numbers.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: PtxModule = PtxModule {
        name: "both",
        sm_80: "// a comment\n.version 8.0\n.target sm_80\n",
        sm_90a: Some(".version 8.1\n.target sm_90a\n"),
    };

    #[test]
    fn hopper_gets_its_own_kernels_from_a_driver_that_reads_them() {
        let target = |capability, driver| BOTH.choose(capability, driver).1;
        assert_eq!(target(90, 12_010), "sm_90a");
        assert_eq!(target(90, 13_000), "sm_90a");
        // An older driver, and the neighbours of Hopper, which has no successor that runs its kernels.
        assert_eq!(target(90, 12_000), "sm_80");
        for other in [80, 86, 89, 100, 120] {
            assert_eq!(target(other, 13_000), "sm_80");
        }
        let (ptx, _) = BOTH.choose(80, 12_000);
        assert!(ptx.contains("sm_80"), "{ptx}");
    }

    #[test]
    fn ptx_tells_which_driver_it_needs() {
        assert_eq!(needs(BOTH.sm_80), Some(12_000));
        assert_eq!(needs(".version 8.7\n"), Some(12_080));
        assert_eq!(needs(".version 99.0\n"), None);
        assert_eq!(needs("no version"), None);
    }
}
