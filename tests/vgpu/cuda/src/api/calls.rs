//! What every exported function does: it counts the call, and makes a result code of what the body returns.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::codes::{self, Code, Res};

static CALLS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Runs the body of an exported function.
pub(crate) fn called(name: &'static str, body: impl FnOnce() -> Res) -> Code {
    *CALLS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(name)
        .or_default() += 1;
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => {
            eprintln!("vgpu: {name} panicked: this is a bug of the double");
            codes::UNKNOWN
        }
    }
}

/// How often each function was called.
pub(crate) fn counts() -> BTreeMap<&'static str, u64> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Declares exported functions. Pointers among their arguments have the types of `arguments.rs`.
macro_rules! api {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => { $(
        $(#[$attribute])*
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> $crate::codes::Code {
            $crate::api::calls::called(stringify!($name), move || -> $crate::codes::Res { $body })
        }
    )* };
}

pub(crate) use api;
