//! Loading an object's kernel programs: what they are bound to, and what the kernel's verifier says of them.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use upatch_verifier::program::DataObject;

use super::btf::{KernelBtf, kernel_function};
use super::{name_of, sys};
use crate::object::{Hook, KernelCode, KernelReference, LinkError, PatchObject, link_kernel};

/// `BPF_PROG_TYPE_SCHED_CLS`, what tcx runs.
const SCHED_CLS: u32 = 3;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`, the expected attach types.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_MAP_TYPE_ARRAY`, and its flag `BPF_F_RDONLY_PROG`.
const MAP_TYPE_ARRAY: u32 = 2;
const READ_ONLY: u32 = 1 << 7;
/// Sources of a 64-bit immediate and of a call: a map, a value in one, a function of the kernel.
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;
const PSEUDO_KFUNC: u8 = 2;
/// Bytes for the verifier's log, of which the kernel keeps the end, and lines of it that are shown.
const LOG: usize = 1 << 20;
const SHOWN: usize = 24;

/// Where the operator wants kernel programs: a network device, for one program or for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The program; `None`: all that no other names.
    pub program: Option<String>,
    /// The interface's name, in the network namespace of `upatch`.
    pub interface: String,
}

/// Why kernel programs are not in place. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Its parts don't fit together.
    #[error("kernel program `{program}`: {error}")]
    Link {
        /// The C function.
        program: String,
        /// What is wrong.
        error: LinkError,
    },
    /// It isn't known where they go.
    #[error("no network device is given for the kernel programs {}", programs.join(", "))]
    NoDevice {
        /// `name (hook)`.
        programs: Vec<String>,
    },
    /// A device for a program that isn't there.
    #[error("the object has no kernel program `{program}`{}", among(known))]
    NoProgram {
        /// As given.
        program: String,
        /// What it has.
        known: Vec<String>,
    },
    /// There is no such device.
    #[error("there is no network device `{interface}` in upatch's network namespace")]
    NoInterface {
        /// As given.
        interface: String,
    },
    /// The object's type information is none to the kernel.
    #[error("the kernel refuses the object's type information:\n{log}")]
    TypeInformation {
        /// The end of what it said.
        log: String,
    },
    /// No such function in the running kernel.
    #[error("kernel program `{program}` calls `{name}`, which this kernel does not have")]
    NoKfunc {
        /// The C function.
        program: String,
        /// What it calls.
        name: String,
    },
    /// The kernel's verifier can't prove it safe.
    #[error("the kernel rejects the program `{program}`:\n{log}")]
    Rejected {
        /// The C function.
        program: String,
        /// The end of what the verifier said.
        log: String,
    },
    /// We may not.
    #[error("not permitted to load or attach kernel programs ({call})")]
    NotPermitted {
        /// What was refused.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Loaded, but not taken at the device.
    #[error("can't attach `{program}` to {hook} of {interface}: {why}")]
    Attach {
        /// The C function.
        program: String,
        /// Where.
        hook: Hook,
        /// Of what.
        interface: String,
        /// What the kernel said.
        why: String,
    },
    /// Anything else.
    #[error("{call} failed")]
    Failed {
        /// What.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn among(known: &[String]) -> String {
    if known.is_empty() {
        return String::new();
    }
    format!("; it has {}", known.join(", "))
}

pub(super) fn failed(call: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => KernelError::NotPermitted { call, source },
        _ => KernelError::Failed { call, source },
    }
}

/// A kernel program with the place where it goes.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The C function.
    pub name: String,
    /// Where it is attached.
    pub hook: Hook,
    /// Of this device.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    code: KernelCode,
    /// `struct bpf_func_info` and `struct bpf_line_info`.
    functions: Vec<[u32; 2]>,
    lines: Vec<[u32; 4]>,
}

/// All kernel programs of an object, linked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order of their sections; none is the usual case.
    pub programs: Vec<Planned>,
    /// As the kernel takes it.
    btf: Vec<u8>,
    license: String,
}

/// Links the object's kernel programs and finds their devices.
///
/// # Errors
/// See [`KernelError`].
pub fn plan(object: &PatchObject, devices: &[Device]) -> Result<Plan, KernelError> {
    let programs = object.kernel_programs();
    for device in devices {
        let known = |wanted: &String| programs.iter().any(|program| program.name == *wanted);
        let wanted = device.program.clone().or_else(|| {
            // A device, and nothing to attach to it.
            programs.is_empty().then(|| device.interface.clone())
        });
        if let Some(program) = wanted.filter(|wanted| !known(wanted)) {
            let known = programs
                .iter()
                .map(|program| program.name.clone())
                .collect();
            return Err(KernelError::NoProgram { program, known });
        }
    }
    let device_of = |name: &str| {
        let named = devices
            .iter()
            .find(|device| device.program.as_deref() == Some(name));
        named.or_else(|| devices.iter().find(|device| device.program.is_none()))
    };
    let homeless: Vec<String> = programs
        .iter()
        .filter(|program| device_of(&program.name).is_none())
        .map(|program| format!("`{}` ({})", program.name, program.hook))
        .collect();
    if !homeless.is_empty() {
        return Err(KernelError::NoDevice { programs: homeless });
    }
    if programs.is_empty() {
        return Ok(Plan {
            programs: Vec::new(),
            btf: Vec::new(),
            license: String::new(),
        });
    }
    let damaged = || KernelError::TypeInformation {
        log: "it is damaged".to_owned(),
    };
    let mut btf = KernelBtf::new(object.kernel_btf()).ok_or_else(damaged)?;
    let mut planned = Vec::new();
    for program in programs {
        let Some(device) = device_of(&program.name) else {
            continue;
        };
        let code = link_kernel(object, program).map_err(|error| KernelError::Link {
            program: program.name.clone(),
            error,
        })?;
        let ifindex = CString::new(device.interface.as_str())
            .ok()
            .and_then(|name| sys::interface_number(&name));
        planned.push(Planned {
            name: program.name.clone(),
            hook: program.hook,
            interface: device.interface.clone(),
            ifindex: ifindex.ok_or_else(|| KernelError::NoInterface {
                interface: device.interface.clone(),
            })?,
            functions: functions(&code, &btf),
            lines: lines(&code, &mut btf),
            code,
        });
    }
    Ok(Plan {
        programs: planned,
        btf: btf.bytes(),
        license: object.license().unwrap_or_default().to_owned(),
    })
}

/// A program that the kernel has accepted.
#[derive(Debug)]
pub struct Loaded {
    pub(super) fd: OwnedFd,
    pub(super) planned: Planned,
}

/// Loads planned programs, bound to the arena.
///
/// # Errors
/// See [`KernelError`]; what was loaded is gone again.
pub fn load(plan: &Plan, id: &str, arena: BorrowedFd<'_>) -> Result<Vec<Loaded>, KernelError> {
    if plan.programs.is_empty() {
        return Ok(Vec::new());
    }
    let types = load_types(&plan.btf)?;
    // The parser ends it at the first zero byte.
    let license = CString::new(plan.license.as_str()).unwrap_or_default();
    let mut binder = Binder {
        id,
        arena,
        data: HashMap::new(),
        vmlinux: None,
    };
    let mut loaded = Vec::new();
    for one in &plan.programs {
        let insns = binder.bind(one)?;
        let program = sys::ProgLoad {
            prog_type: SCHED_CLS,
            expected_attach_type: match one.hook {
                Hook::TcxIngress => TCX_INGRESS,
                Hook::TcxEgress => TCX_EGRESS,
            },
            name: name_of(id),
            license: &license,
            insns: &insns,
            btf: types.as_fd(),
            functions: &one.functions,
            lines: &one.lines,
        };
        let fd = match sys::prog_load(&program, None) {
            Ok(fd) => fd,
            Err(source) if source.raw_os_error() == Some(libc::EPERM) => {
                return Err(failed("BPF_PROG_LOAD")(source));
            }
            Err(source) => {
                let mut log = vec![0; LOG];
                let _ = sys::prog_load(&program, Some(&mut log));
                let log = match end_of(&log) {
                    // Refused before the verifier had its turn.
                    log if log.is_empty() => source.to_string(),
                    log => log,
                };
                return Err(KernelError::Rejected {
                    program: one.name.clone(),
                    log,
                });
            }
        };
        loaded.push(Loaded {
            fd,
            planned: one.clone(),
        });
    }
    Ok(loaded)
}

fn load_types(btf: &[u8]) -> Result<OwnedFd, KernelError> {
    sys::btf_load(btf, None).map_err(|source| match failed("BPF_BTF_LOAD")(source) {
        error @ KernelError::NotPermitted { .. } => error,
        _ => {
            let mut log = vec![0; LOG];
            let _ = sys::btf_load(btf, Some(&mut log));
            KernelError::TypeInformation { log: end_of(&log) }
        }
    })
}

/// The last lines of a log.
fn end_of(log: &[u8]) -> String {
    let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// `struct bpf_func_info` of each function; none at all if one has no type.
fn functions(code: &KernelCode, btf: &KernelBtf) -> Vec<[u32; 2]> {
    let all: Option<Vec<_>> = code
        .functions
        .iter()
        .map(|(start, name)| Some([*start, *btf.functions.get(name)?]))
        .collect();
    all.unwrap_or_default()
}

/// `struct bpf_line_info`, ascending and on instructions only; none at all if a function begins without one.
fn lines(code: &KernelCode, btf: &mut KernelBtf) -> Vec<[u32; 4]> {
    let mut lines: Vec<[u32; 4]> = Vec::new();
    for line in &code.lines {
        let opcode = code.insns.get(line.pc.index() * 8);
        // The second half of a 64-bit immediate is all zeros there.
        let follows = lines.last().is_none_or(|last| last[0] < line.pc.0);
        if opcode.is_none_or(|&opcode| opcode == 0) || !follows {
            continue;
        }
        let position = line.line << 10 | line.column & 0x3ff;
        let (file, text) = (btf.string(&line.file), btf.string(&line.text));
        lines.push([line.pc.0, file, text, position]);
    }
    let begins = |start: &u32| lines.iter().any(|line| line[0] == *start);
    if code.functions.iter().all(|(start, _)| begins(start)) {
        lines
    } else {
        Vec::new()
    }
}

/// Puts descriptors and numbers of the running kernel into instructions.
struct Binder<'a> {
    id: &'a str,
    arena: BorrowedFd<'a>,
    /// Read-only objects by name: programs of one object share them.
    data: HashMap<String, OwnedFd>,
    /// `/sys/kernel/btf/vmlinux`, when it was needed.
    vmlinux: Option<Vec<u8>>,
}

impl Binder<'_> {
    fn bind(&mut self, planned: &Planned) -> Result<Vec<u8>, KernelError> {
        let code = &planned.code;
        let mut insns = code.insns.clone();
        for &(at, reference) in &code.references {
            let (src, imm, second) = match reference {
                KernelReference::ArenaMap => (PSEUDO_MAP_FD, number(self.arena), 0),
                KernelReference::Arena { offset } => {
                    (PSEUDO_MAP_VALUE, number(self.arena), offset.cast_signed())
                }
                KernelReference::Data { object, offset } => {
                    let Some(object) = code.data.get(object as usize) else {
                        continue;
                    };
                    let map = number(self.read_only(object)?);
                    (PSEUDO_MAP_VALUE, map, offset.cast_signed())
                }
                KernelReference::Kfunc(index) => {
                    let name = code.kfuncs.get(index as usize).cloned().unwrap_or_default();
                    let Some(number) = self.kfunc(&name)? else {
                        return Err(KernelError::NoKfunc {
                            program: planned.name.clone(),
                            name,
                        });
                    };
                    (PSEUDO_KFUNC, number.cast_signed(), 0)
                }
            };
            write(&mut insns, at as usize, src, imm);
            if !matches!(reference, KernelReference::Kfunc(_)) {
                write(&mut insns, at as usize + 1, 0, second);
            }
        }
        Ok(insns)
    }

    /// The frozen array that holds a read-only object.
    fn read_only(&mut self, object: &DataObject) -> Result<BorrowedFd<'_>, KernelError> {
        if !self.data.contains_key(&object.name) {
            let map = sys::map_create(sys::MapCreate {
                map_type: MAP_TYPE_ARRAY,
                key_size: 4,
                value_size: u32::try_from(object.bytes.len()).unwrap_or(u32::MAX),
                max_entries: 1,
                map_flags: READ_ONLY,
                name: name_of(self.id),
                ..sys::MapCreate::default()
            })
            .map_err(failed("BPF_MAP_CREATE"))?;
            sys::map_set_first(map.as_fd(), &object.bytes)
                .map_err(failed("BPF_MAP_UPDATE_ELEM"))?;
            sys::map_freeze(map.as_fd()).map_err(failed("BPF_MAP_FREEZE"))?;
            self.data.insert(object.name.clone(), map);
        }
        Ok(self.data[&object.name].as_fd())
    }

    fn kfunc(&mut self, name: &str) -> Result<Option<u32>, KernelError> {
        if self.vmlinux.is_none() {
            let path = "/sys/kernel/btf/vmlinux";
            self.vmlinux = Some(std::fs::read(path).map_err(failed(path))?);
        }
        Ok(self
            .vmlinux
            .as_deref()
            .and_then(|vmlinux| kernel_function(vmlinux, name)))
    }
}

fn number(fd: BorrowedFd<'_>) -> i32 {
    fd.as_raw_fd()
}

fn write(insns: &mut [u8], at: usize, src: u8, imm: i32) {
    if let Some(slot) = insns.get_mut(at * 8..at * 8 + 8) {
        slot[1] = slot[1] & 0x0f | src << 4;
        slot[4..].copy_from_slice(&imm.to_le_bytes());
    }
}
