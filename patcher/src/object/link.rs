//! Makes one program of a function and everything it reaches: subprograms, callbacks, data, external functions.
//!
//! ```text
//!  section upatch/exe:f    .text                     linked
//!  ┌────────┐             ┌─────┬─────┬─────┐       ┌────────┬─────┬─────┐
//!  │ f      │── call ────→│ a   │ b   │ c   │   →   │ f      │ c   │ a   │   in the order they are met;
//!  └────────┘             └──↑──┴─────┴──│──┘       └────────┴─────┴─────┘   b is not reached
//!                            └── call ───┘  (no relocation inside one section)
//! ```
//! Instructions that refer to something are decoded as they stand and then replaced; the verifier's `decode` is the only
//! decoder. Invariant: every reference of the result has been resolved from a relocation or a relative call.

use std::collections::{BTreeMap, HashMap};

use upatch_verifier::decode::{DecodeError, decode};
use upatch_verifier::insn::{Callee, Imm64, Insn, Pc};
use upatch_verifier::program::{
    Arena, ArenaGlobal, DataObject, Extern, LineInfo, MAX_SLOTS, MalformedProgram, Program,
    ProgramParts, Subprog,
};

mod kernel;

pub use kernel::{KernelCode, KernelReference, link_kernel};

use super::bytes::i32_at;
use super::memory::Role;
use super::{Function, ObjectProgram, PatchObject, Reference, Referent, SourceLine};

const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;
const CALL: u8 = 0x85;
const LD_IMM64: u8 = 0x18;
const PSEUDO_CALL: u8 = 1;
const SLOT: usize = 8;

/// Why a program can't be linked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum LinkError {
    #[error("the object has no program `{name}`")]
    NoProgram { name: String },
    #[error("`{name}` is called but not defined, and is not declared as a function of the program")]
    Undefined { name: String },
    #[error(
        "`{function}` takes the address of `{name}`, a function of the program; it can only be called"
    )]
    AddressOfExtern { function: String, name: String },
    #[error(
        "`{function}` refers to the map `{map}`; a patch reaches the arena through its variables"
    )]
    MapReference { function: String, map: String },
    #[error("`{function}` refers to `{name}`, which is neither code nor data of the patch")]
    Nowhere { function: String, name: String },
    #[error("`{function}` refers to byte {offset} of `{object}`, outside of it")]
    OutOfData {
        function: String,
        object: String,
        offset: i64,
    },
    #[error(
        "the instruction at byte {offset:#x} of `{section}` calls or names byte {to} of `{in_section}`, where no function begins"
    )]
    NotAFunction {
        section: String,
        offset: u64,
        in_section: String,
        to: i64,
    },
    #[error(
        "the relocation at byte {offset:#x} of `{section}` (kind {kind}) does not fit its instruction"
    )]
    BadRelocation {
        section: String,
        offset: u64,
        kind: u32,
    },
    #[error("with all its functions the program has more than {MAX_SLOTS} instruction slots")]
    TooLong,
    #[error(
        "`{function}` calls bpf_arena_free_pages, after which a process that maps the arena could reach freed memory"
    )]
    FreesArena { function: String },
    #[error("{error}")]
    Decode { error: DecodeError },
    #[error(transparent)]
    Malformed(#[from] MalformedProgram),
}

/// Links a program of the object.
///
/// # Errors
/// The first reference that leads nowhere, or structure that isn't a program's.
pub fn link(object: &PatchObject, program: &ObjectProgram) -> Result<Program, LinkError> {
    let (kind, entry) = object.entry(program).ok_or_else(|| LinkError::NoProgram {
        name: program.name.clone(),
    })?;
    let linker = Linker::linked(object, Plane::Patch, entry)?;
    let mut insns = decode(&linker.bytes).map_err(|error| LinkError::Decode { error })?;
    for (pc, replacement) in &linker.replace {
        let insn = insns.get_mut(pc.index());
        match (insn, replacement) {
            (Some(Insn::Call { callee }), Replacement::Callee(new)) => *callee = *new,
            (Some(Insn::LdImm64 { imm, .. }), Replacement::Imm64(new)) => *imm = *new,
            // The opcode was looked at before: the slot is the second half of a 64-bit immediate.
            (_, Replacement::Callee(_) | Replacement::Imm64(_) | Replacement::ArenaMap) => {
                return Err(LinkError::Malformed(MalformedProgram::TornImm64 {
                    at: *pc,
                }));
            }
        }
    }
    let arena = object.arena();
    let parts = ProgramParts {
        kind,
        name: program.name.clone(),
        insns,
        subprogs: linker.subprogs(),
        lines: linker.lines(),
        data: linker.data,
        arena: Arena {
            len: arena.len,
            globals: arena
                .globals
                .iter()
                .map(|global| ArenaGlobal {
                    name: global.name.clone(),
                    offset: global.offset,
                    size: global.size,
                    counter: global.role == Role::Counter,
                })
                .collect(),
        },
        externs: linker.externs,
    };
    Ok(Program::new(parts)?)
}

enum Replacement {
    Callee(Callee),
    Imm64(Imm64),
    /// The arena itself, which only kernel programs name.
    ArenaMap,
}

/// Who will run the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plane {
    Patch,
    /// External functions are the kernel's.
    Kernel,
}

struct Linker<'o> {
    object: &'o PatchObject,
    plane: Plane,
    /// Functions by code section and first byte.
    starts: HashMap<(usize, u64), usize>,
    /// All code so far.
    bytes: Vec<u8>,
    /// Functions in the order of their code.
    order: Vec<usize>,
    placed: HashMap<usize, Pc>,
    replace: BTreeMap<Pc, Replacement>,
    data: Vec<DataObject>,
    data_index: HashMap<u32, u32>,
    externs: Vec<Extern>,
    kfuncs: Vec<String>,
}

impl<'o> Linker<'o> {
    /// A function and everything it reaches, all references resolved.
    fn linked(object: &'o PatchObject, plane: Plane, entry: usize) -> Result<Self, LinkError> {
        let mut linker = Self::new(object, plane);
        linker.function(entry)?;
        let mut next = 0;
        while let Some(&index) = linker.order.get(next) {
            linker.scan(index)?;
            next += 1;
        }
        Ok(linker)
    }

    fn new(object: &'o PatchObject, plane: Plane) -> Self {
        let starts = object
            .functions
            .iter()
            .enumerate()
            .map(|(index, function)| ((function.section, function.start), index))
            .collect();
        Self {
            object,
            plane,
            starts,
            bytes: Vec::new(),
            order: Vec::new(),
            placed: HashMap::new(),
            replace: BTreeMap::new(),
            data: Vec::new(),
            data_index: HashMap::new(),
            externs: Vec::new(),
            kfuncs: Vec::new(),
        }
    }

    /// Where the function is, appending it if it isn't there yet.
    fn function(&mut self, index: usize) -> Result<Pc, LinkError> {
        if let Some(&pc) = self.placed.get(&index) {
            return Ok(pc);
        }
        let function = &self.object.functions[index];
        let code = &self.object.code[function.section].bytes
            [function.start as usize..function.end as usize];
        if (self.bytes.len() + code.len()) / SLOT > MAX_SLOTS {
            return Err(LinkError::TooLong);
        }
        let pc = Pc((self.bytes.len() / SLOT) as u32);
        self.bytes.extend_from_slice(code);
        self.order.push(index);
        self.placed.insert(index, pc);
        Ok(pc)
    }

    /// Resolves every reference of a function.
    fn scan(&mut self, index: usize) -> Result<(), LinkError> {
        let object = self.object;
        let function = &object.functions[index];
        let section = &object.code[function.section];
        let base = self.function(index)?.0;
        for (slot, offset) in (function.start..function.end).step_by(SLOT).enumerate() {
            let pc = Pc(base + slot as u32);
            let bytes = &section.bytes[offset as usize..];
            let (opcode, src) = (bytes[0], bytes[1] >> 4);
            let imm = i64::from(i32_at(bytes, 4).unwrap_or_default());
            let reference = section.references.get(&offset);
            let replacement = match (opcode, reference) {
                (
                    CALL,
                    Some(Reference {
                        kind: R_BPF_64_32,
                        to,
                    }),
                ) if src == PSEUDO_CALL => {
                    Replacement::Callee(self.callee(function, offset, *to, imm)?)
                }
                (CALL, None) if src == PSEUDO_CALL => {
                    let to = Referent::Code {
                        section: function.section,
                        value: offset,
                    };
                    Replacement::Callee(self.callee(function, offset, to, imm)?)
                }
                (
                    LD_IMM64,
                    Some(Reference {
                        kind: R_BPF_64_64,
                        to,
                    }),
                ) => match *to {
                    Referent::Map { .. } if self.plane == Plane::Kernel => Replacement::ArenaMap,
                    to => Replacement::Imm64(self.imm64(function, offset, to, imm)?),
                },
                (_, None) => continue,
                (_, Some(Reference { kind, .. })) => {
                    return Err(LinkError::BadRelocation {
                        section: section.name.clone(),
                        offset,
                        kind: *kind,
                    });
                }
            };
            // What stands there is the assembler's, and would only confuse the decoder.
            if let Some(src) = self.bytes.get_mut(pc.index() * SLOT + 1) {
                *src &= 0x0f;
            }
            self.replace.insert(pc, replacement);
        }
        Ok(())
    }

    /// A call's `imm` counts slots from the instruction behind it, so -1 stands for the symbol itself.
    fn callee(
        &mut self,
        function: &Function,
        offset: u64,
        to: Referent,
        imm: i64,
    ) -> Result<Callee, LinkError> {
        match to {
            Referent::Code { section, value } => {
                let to = i64::try_from(value)
                    .unwrap_or(i64::MAX)
                    .saturating_add((imm + 1) * SLOT as i64);
                Ok(Callee::Subprog(
                    self.function_at(function, offset, section, to)?,
                ))
            }
            Referent::Undefined { symbol } if self.plane == Plane::Kernel => {
                let name = self.symbol(symbol);
                if name == "bpf_arena_free_pages" {
                    return Err(LinkError::FreesArena {
                        function: function.name.clone(),
                    });
                }
                let known = self.kfuncs.iter().position(|known| *known == name);
                let index = known.unwrap_or_else(|| {
                    self.kfuncs.push(name);
                    self.kfuncs.len() - 1
                });
                Ok(Callee::Extern(index as u32))
            }
            Referent::Undefined { symbol } => {
                let name = self.symbol(symbol);
                let known = self.externs.iter().position(|known| known.name == name);
                let index = match known {
                    Some(index) => index,
                    None => {
                        let found = self.object.externs.iter().find(|found| found.name == name);
                        self.externs
                            .push(found.cloned().ok_or(LinkError::Undefined { name })?);
                        self.externs.len() - 1
                    }
                };
                Ok(Callee::Extern(index as u32))
            }
            Referent::Map { symbol } | Referent::Nowhere { symbol } => Err(LinkError::Nowhere {
                function: function.name.clone(),
                name: self.symbol(symbol),
            }),
            Referent::Arena { .. } | Referent::ReadOnly { .. } => Err(LinkError::BadRelocation {
                section: self.object.code[function.section].name.clone(),
                offset,
                kind: R_BPF_64_32,
            }),
        }
    }

    fn imm64(
        &mut self,
        function: &Function,
        offset: u64,
        to: Referent,
        addend: i64,
    ) -> Result<Imm64, LinkError> {
        let at = |value: u64| {
            i64::try_from(value)
                .unwrap_or(i64::MAX)
                .saturating_add(addend)
        };
        let outside = |object: &str, offset| LinkError::OutOfData {
            function: function.name.clone(),
            object: object.to_owned(),
            offset,
        };
        match to {
            Referent::Code { section, value } => Ok(Imm64::Subprog(self.function_at(
                function,
                offset,
                section,
                at(value),
            )?)),
            Referent::Arena { value } => match u64::try_from(at(value)) {
                Ok(offset) if offset <= self.object.arena().len => Ok(Imm64::Arena { offset }),
                Ok(_) | Err(_) => Err(outside("the arena", at(value))),
            },
            Referent::ReadOnly { object, value } => {
                let found = &self.object.data[object as usize];
                match u32::try_from(at(value)) {
                    Ok(offset) if offset as usize <= found.bytes.len() => {
                        let data = &mut self.data;
                        let index = *self.data_index.entry(object).or_insert_with(|| {
                            data.push(found.clone());
                            (data.len() - 1) as u32
                        });
                        Ok(Imm64::Data {
                            object: index,
                            offset,
                        })
                    }
                    Ok(_) | Err(_) => Err(outside(&found.name, at(value))),
                }
            }
            Referent::Map { symbol } => Err(LinkError::MapReference {
                function: function.name.clone(),
                map: self.symbol(symbol),
            }),
            Referent::Undefined { symbol } => Err(LinkError::AddressOfExtern {
                function: function.name.clone(),
                name: self.symbol(symbol),
            }),
            Referent::Nowhere { symbol } => Err(LinkError::Nowhere {
                function: function.name.clone(),
                name: self.symbol(symbol),
            }),
        }
    }

    fn function_at(
        &mut self,
        from: &Function,
        offset: u64,
        section: usize,
        to: i64,
    ) -> Result<Pc, LinkError> {
        let found = u64::try_from(to)
            .ok()
            .and_then(|to| self.starts.get(&(section, to)).copied());
        match found {
            Some(index) => self.function(index),
            None => Err(LinkError::NotAFunction {
                section: self.object.code[from.section].name.clone(),
                offset,
                in_section: self.object.code[section].name.clone(),
                to,
            }),
        }
    }

    fn symbol(&self, symbol: usize) -> String {
        self.object.symbols.get(symbol).cloned().unwrap_or_default()
    }

    fn subprogs(&self) -> Vec<Subprog> {
        self.order
            .iter()
            .filter_map(|index| {
                let function = self.object.functions.get(*index)?;
                let start = *self.placed.get(index)?;
                Some(Subprog {
                    start,
                    end: Pc(start.0 + ((function.end - function.start) / SLOT as u64) as u32),
                    name: function.name.clone(),
                    global: function.global,
                    args: function.args,
                })
            })
            .collect()
    }

    fn lines(&self) -> Vec<LineInfo> {
        let mut lines = Vec::new();
        for index in &self.order {
            let (Some(function), Some(start)) =
                (self.object.functions.get(*index), self.placed.get(index))
            else {
                continue;
            };
            let all = &self.object.lines;
            let first = all.partition_point(|line| {
                (line.section, line.offset) < (function.section, function.start)
            });
            let inside =
                |line: &&SourceLine| line.section == function.section && line.offset < function.end;
            for line in all.iter().skip(first).take_while(inside) {
                let pc = Pc(start.0 + ((line.offset - function.start) / SLOT as u64) as u32);
                lines.push(LineInfo {
                    pc,
                    file: line.file.clone(),
                    line: line.line,
                    column: line.column,
                    text: line.text.clone(),
                });
            }
        }
        lines
    }
}
