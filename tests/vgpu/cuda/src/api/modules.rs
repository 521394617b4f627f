//! Modules: PTX texts that a context loads.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use crate::api::calls::api;
use crate::api::current::current_device;
use crate::arguments::{In, Out, Text, TextOut};
use crate::codes::{self, Res};
use crate::engine::engine;
use crate::handles::{FUNCTION, MODULE, handle, index};
use crate::records::Origin;
use crate::state::{FunctionState, LoadedModule, State};

/// Where the JIT compiler writes what it has to say, from the options of `cuModuleLoadDataEx`.
struct Logs {
    info: (TextOut, usize),
    error: (TextOut, usize),
}

/// `CU_JIT_INFO_LOG_BUFFER` and its size, `CU_JIT_ERROR_LOG_BUFFER` and its size.
const LOG_OPTIONS: [c_int; 4] = [3, 4, 5, 6];

impl Logs {
    fn read(count: c_uint, options: &In<c_int>, values: &In<u64>) -> Res<Self> {
        let none = TextOut(std::ptr::null_mut());
        let mut logs = Self {
            info: (none, 0),
            error: (none, 0),
        };
        for number in 0..count as usize {
            let (option, value) = (options.at(number)?, values.at(number)?);
            match option {
                3 => logs.info.0 = TextOut(value as *mut _),
                // The sizes are 32-bit numbers in place of a pointer.
                4 => logs.info.1 = value as u32 as usize,
                5 => logs.error.0 = TextOut(value as *mut _),
                6 => logs.error.1 = value as u32 as usize,
                _ => {}
            }
        }
        Ok(logs)
    }

    /// Fills the buffers; the values of the sizes become the bytes used.
    fn write(&self, error: &str, options: &[c_int], values: &Out<u64>) {
        let used = [
            self.info.0.fill(self.info.1, ""),
            self.error.0.fill(self.error.1, error),
        ];
        for (number, option) in options.iter().enumerate() {
            if let Some(which) = [LOG_OPTIONS[1], LOG_OPTIONS[3]]
                .iter()
                .position(|o| o == option)
            {
                values.at(number).set_if_wanted(used[which] as u64);
            }
        }
    }
}

/// Loads a text into the current context; an error comes with its text.
fn load(image: &Text) -> Result<u64, (codes::Code, String)> {
    let plain = |code| (code, String::new());
    let device = current_device().map_err(plain)?;
    let engine = engine().map_err(plain)?;
    let bytes = image.bytes().map_err(plain)?;
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.contains(".version"));
    let Some(text) = text else {
        let text = "the image of a module is no PTX text".to_owned();
        return Err((codes::NO_BINARY_FOR_GPU, text));
    };
    let image = engine.images.load(&engine.config, text)?;
    let mut state = engine.lock();
    let mut variables = Vec::new();
    for variable in image.module.variables() {
        let address = engine.allocate(&mut state, device, variable.size.max(1), None);
        if let Some(record) = state.records.last_mut() {
            record.origin = Origin::Variable;
        }
        if let Ok((_, contents)) = engine.heap.locate(address, variable.size) {
            contents.write(0, &variable.initial);
        }
        variables.push(address);
    }
    state.modules.push(LoadedModule {
        device,
        loaded: true,
        module: image.module,
        pointers: image.pointers,
        variables: variables.into(),
    });
    Ok(handle(MODULE, state.modules.len() - 1))
}

fn load_plain(module: &Out<u64>, image: &Text) -> Res {
    match load(image) {
        Ok(loaded) => module.set(loaded),
        Err((code, text)) if text.is_empty() => Err(code),
        Err((code, text)) => engine()?.lock().refuse(code, text),
    }
}

fn module_index(state: &State, module: u64) -> Res<usize> {
    let module = index(MODULE, module, state.modules.len())?;
    if state.modules[module].loaded {
        Ok(module)
    } else {
        Err(codes::INVALID_HANDLE)
    }
}

api! {
    fn cuModuleLoadData(module: Out<u64>, image: Text) {
        load_plain(&module, &image)
    }

    fn cuModuleLoadDataEx(module: Out<u64>, image: Text, count: c_uint, options: In<c_int>, values: Out<u64>) {
        let logs = Logs::read(count, &options, &values.as_in())?;
        let options = options.list(count as usize)?;
        match load(&image) {
            Ok(loaded) => {
                logs.write("", &options, &values);
                module.set(loaded)
            }
            Err((code, text)) => {
                logs.write(&text, &options, &values);
                engine()?.lock().refuse(code, text)
            }
        }
    }

    fn cuModuleUnload(module: u64) {
        let engine = engine()?;
        let (device, variables) = {
            let mut state = engine.lock();
            let module = module_index(&state, module)?;
            let module = &mut state.modules[module];
            module.loaded = false;
            (module.device, Arc::clone(&module.variables))
        };
        if !variables.is_empty() {
            engine.synchronize_device(device)?;
        }
        for variable in variables.iter() {
            engine.free(*variable, None)?;
        }
        Ok(())
    }

    fn cuModuleGetFunction(function: Out<u64>, module: u64, name: Text) {
        let name = String::from_utf8_lossy(name.bytes()?).into_owned();
        let mut state = engine()?.lock();
        let module = module_index(&state, module)?;
        let mut entries = state.modules[module].module.entries().iter();
        let entry = entries.position(|entry| entry.name() == name);
        let entry = entry.ok_or(codes::NOT_FOUND)?;
        let known = |f: &FunctionState| f.module == module && f.entry == entry;
        let index = match state.functions.iter().position(known) {
            Some(known) => known,
            None => {
                state.functions.push(FunctionState { module, entry, most_dynamic: 48 << 10 });
                state.functions.len() - 1
            }
        };
        function.set(handle(FUNCTION, index))
    }

    fn cuModuleGetGlobal_v2(pointer: Out<u64>, size: Out<usize>, module: u64, name: Text) {
        let name = String::from_utf8_lossy(name.bytes()?).into_owned();
        let state = engine()?.lock();
        let module = &state.modules[module_index(&state, module)?];
        let variables = module.module.variables();
        let found = variables.iter().position(|variable| variable.name == name);
        let found = found.ok_or(codes::NOT_FOUND)?;
        pointer.set_if_wanted(module.variables[found]);
        size.set_if_wanted(variables[found].size);
        Ok(())
    }
}
