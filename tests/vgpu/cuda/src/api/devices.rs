//! Initialisation, devices, texts of errors.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use crate::api::calls::api;
use crate::api::current::device_index;
use crate::api::exit::at_exit;
use crate::arguments::{Out, TextOut};
use crate::codes::{self, Code, Res};
use crate::config::Config;
use crate::engine::{engine, start};

/// An identity that no other device has.
fn uuid(uuid: &Out<[u8; 16]>, device: c_int) -> Res {
    let mut bytes = *b"vgpu-device-\0\0\0\0";
    bytes[15] = (engine()?.config.first_device + device_index(device)?) as u8;
    uuid.set(bytes)
}

/// A `CUdevice_attribute`.
fn attribute(config: &Config, attribute: c_int, device: usize) -> Res<usize> {
    let (major, minor) = config.capability;
    Ok(match attribute {
        1..=3 => 1024,                      // threads of a block, and in x and y
        4 => 64,                            // threads of a block in z
        5 => i32::MAX as usize,             // blocks in x
        6 | 7 => 65535,                     // blocks in y and z
        8 => 48 << 10,                      // shared memory of a block
        9 => 64 << 10,                      // constant memory
        10 => 32,                           // warp size
        12 | 82 => 65536,                   // registers of a block, of a multiprocessor
        13 | 36 => 1_000_000,               // clocks in kHz
        16 => 8,                            // multiprocessors
        33 => config.first_device + device, // PCI bus
        37 => 256,                          // width of the memory bus
        38 => 4 << 20,                      // L2
        39 => 2048,                         // threads of a multiprocessor
        40 => 2,                            // copy engines
        75 => major as usize,
        76 => minor as usize,
        81 => config.most_shared() + 1024, // shared memory of a multiprocessor
        97 => config.most_shared(),        // shared memory of a block that asks for it
        106 => 32,                         // blocks of a multiprocessor
        111 => 1024,                       // shared memory that the system keeps
        15 | 19 | 31 | 41 | 78 | 95 | 115 => 1, // overlap, mapping, concurrency, addressing, priorities, cooperation, pools
        120 => usize::from(major >= 9),         // clusters
        other if (1..=200).contains(&other) => 0,
        _ => return Err(codes::INVALID_VALUE),
    })
}

/// A text that lives as long as the process, as callers expect.
fn lasting(text: String) -> *const c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    text.into_raw()
}

api! {
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(codes::INVALID_VALUE);
        }
        if start(at_exit).config.devices == 0 {
            return Err(codes::NO_DEVICE);
        }
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<c_int>) {
        version.set(start(at_exit).config.driver)
    }

    fn cuDeviceGetCount(count: Out<c_int>) {
        count.set(engine()?.config.devices as c_int)
    }

    fn cuDeviceGet(device: Out<c_int>, number: c_int) {
        device.set(device_index(number)? as c_int)
    }

    fn cuDeviceGetName(name: TextOut, size: c_int, device: c_int) {
        let device = device_index(device)?;
        let (major, minor) = engine()?.config.capability;
        let text = format!("Virtual GPU {device} (compute capability {major}.{minor})");
        name.fill(usize::try_from(size).unwrap_or(0), &text);
        Ok(())
    }

    fn cuDeviceGetUuid(out: Out<[u8; 16]>, device: c_int) {
        uuid(&out, device)
    }

    fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, device: c_int) {
        uuid(&out, device)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) {
        device_index(device)?;
        bytes.set(engine()?.config.memory_bytes)
    }

    fn cuDeviceGetAttribute(value: Out<c_int>, name: c_int, device: c_int) {
        let device = device_index(device)?;
        value.set(attribute(&engine()?.config, name, device)? as c_int)
    }

    fn cuDeviceCanAccessPeer(can: Out<c_int>, device: c_int, peer: c_int) {
        let others = device_index(device)? != device_index(peer)?;
        can.set(c_int::from(others && engine()?.config.peers))
    }

    fn cuGetErrorName(code: Code, text: Out<*const c_char>) {
        let name = codes::name(code).ok_or(codes::INVALID_VALUE)?;
        let prefix = if code == 0 { "CUDA_" } else { "CUDA_ERROR_" };
        text.set(lasting(format!("{prefix}{name}")))
    }

    /// The text of the last finding with this code, so that the errors of programs say what was found.
    fn cuGetErrorString(code: Code, text: Out<*const c_char>) {
        let found = engine().ok().and_then(|engine| engine.lock().texts.get(&code).cloned());
        let plain = || match codes::name(code) {
            Some(name) => name.to_lowercase().replace('_', " "),
            None => format!("error {code}"),
        };
        text.set(lasting(found.unwrap_or_else(plain)))
    }

    /// NVRTC asks for this; an error makes it go on.
    fn cuGetExportTable(table: Out<*const c_void>, _id: *const c_void) {
        table.set(std::ptr::null())?;
        Err(codes::NOT_FOUND)
    }
}
