//! Compiled code, executed in this process: only programs that the interpreter has run to their end without a fault.
//!
//! Each is compiled twice, as it is and from its proof (which lets the compiler leave things out); both must agree.

use upatch_jit::{RawCode, compile_function, compile_raw};
use upatch_tests::native::{Bindings, Mapping, Native};
use upatch_verifier::asm::Case;
use upatch_verifier::{RawProgram, VerifiedProgram};

use crate::engines::Ran;

/// Compiles the program and calls it with the case's memory.
pub(crate) fn run(
    raw: &RawProgram,
    verified: Option<&VerifiedProgram>,
    case: &Case,
) -> Result<Ran, String> {
    let plain = call(&compile_raw(raw), &case.mem)?;
    if let Some(verified) = verified {
        let proven = call(&compile_function(verified), &case.mem)?;
        if proven != plain {
            return Err(format!("from the proof {proven:x?}, without {plain:x?}"));
        }
    }
    let (r0, memory) = plain;
    Ok(Ran::Ended { r0, memory })
}

/// r0 and the memory afterwards.
fn call(code: &RawCode, mem: &[u8]) -> Result<(u64, Vec<u8>), String> {
    if code.arena_window != 0 || !code.extern_names.is_empty() {
        return Err("no case has an arena or external functions".to_owned());
    }
    let text = |error: std::io::Error| error.to_string();
    let private_bytes = usize::try_from(code.private_bytes).map_err(|error| error.to_string())?;
    let private = Mapping::new(private_bytes.max(1), 4096).map_err(text)?;
    let bindings = Bindings {
        private: private.address(),
        ..Bindings::default()
    };
    let (native, starts) =
        Native::place_all(&[(&code.bytes, &code.fixups)], &bindings).map_err(text)?;
    let start = *starts.first().ok_or("nothing was placed")?;
    let mut memory = mem.to_vec();
    let pointer = if memory.is_empty() {
        0
    } else {
        memory.as_mut_ptr() as u64
    };
    // SAFETY: the JIT says that this is a C function of two numbers. The interpreter has run the same program on the same
    // memory without leaving it, and memory and private data live across the call.
    let r0 = unsafe { native.call(start, pointer, memory.len() as u64) };
    Ok((r0, memory))
}
