//! What an object becomes, and what lies in a process: the same listing before and after applying.
//!
//! ```text
//! object alone            → compiled for any function, as the ABI has it
//! object and process      → compiled for that very place, with the instructions that it displaces
//! process, patch applied  → the image in its memory; with the object too, both compared and shown side by side
//! ```
//! Changes nothing, stops nobody.

use std::collections::BTreeMap;

use iced_x86::{Instruction, OpKind};
use upatch_jit::{CompiledPatch, FixupKind, Gpr, GprSet, SiteRegs, VectorState};
use upatch_trampolines::{Avma, AvmaRange, TrampolineTemplate};
use upatch_verifier::program::ProgramKind;
use upatch_verifier::{Policy, VerifiedProgram};

use super::info::PatchInfo;
use super::program::ProgramError;
use super::{ApplyError, ApplyRequest, Purpose, SitePlan, join, program};
use crate::listing::{self, Machine, Passage, Step};
use crate::object::PatchObject;
use crate::patching::{Found, Placement, Record, Region};
use crate::process::{MemoryError, Process};
use crate::target::TargetImage;

/// Longest image that is read back from a process, in bytes: ours are kilobytes.
const LONGEST: u64 = 1 << 20;

/// One program, or one image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// The C function, or the patch's id.
    pub name: String,
    /// The section, if known.
    pub section: String,
    /// Where it lies or would lie: `function (address) in module`; `None` for an object alone.
    pub place: Option<String>,
    /// Registers that the code may overwrite, as the compiler was told; `None` where that isn't known.
    pub free: Option<GprSet>,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Most stack that it uses, in bytes; `None` where that isn't known.
    pub stack_bytes: Option<u32>,
    /// Is the code in memory what the object gives? `None`: nothing to compare with.
    pub agreement: Option<Agreement>,
    /// The listing.
    pub passages: Vec<Passage>,
}

/// Memory and object, compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// Every byte is the same.
    Same,
    /// They differ.
    Differs {
        /// The first byte that does.
        at: u64,
        /// How many do.
        bytes: usize,
    },
}

/// The object's programs, compiled for the entry of a function of which nothing is known but the ABI.
///
/// # Errors
/// A program that doesn't link or isn't proven safe.
pub fn of_object(object: &PatchObject, policy: &Policy) -> Result<Vec<Inspected>, ProgramError> {
    // What no argument is passed in, and nobody's caller keeps (psABI §3.2.1).
    const FREE: GprSet = GprSet::of(&[Gpr::Rax, Gpr::R10, Gpr::R11]);
    object
        .programs()
        .iter()
        .map(|program| {
            let verified = program::verified(object, program, policy)?;
            let at_entry = program.kind != ProgramKind::PatchOffset;
            let free = if at_entry { FREE } else { GprSet::EMPTY };
            let site = SiteRegs {
                free,
                at_entry,
                gated: object.programs().len() > 1,
                vectors: VectorState::detect().unwrap_or(VectorState::SSE),
            };
            let compiled = upatch_jit::compile(&verified, &site);
            Ok(Inspected {
                name: program.name.clone(),
                section: program.section.clone(),
                place: None,
                free: Some(free),
                code_bytes: compiled.bytes.len(),
                stack_bytes: Some(compiled.stack_bytes),
                agreement: None,
                passages: of_compiled(&verified, &compiled),
            })
        })
        .collect()
}

/// What would be applied, site by site, with the instructions that it displaces.
///
/// # Errors
/// As [`plan`](super::plan()).
pub fn of_plan(
    process: &Process,
    request: &ApplyRequest<'_>,
) -> Result<Vec<Inspected>, ApplyError> {
    let plan = super::plan(process, request)?;
    let verified = program::all_verified(request.object, &request.policy)?;
    let programs = std::iter::zip(request.object.programs(), &verified);
    Ok(std::iter::zip(programs, &plan.sites)
        .map(|((program, verified), site)| {
            let mut passages = of_compiled(verified, &site.compiled);
            passages.push(Passage {
                source: None,
                title: Some("displaced instructions, as they are in the function".to_owned()),
                steps: vec![Step {
                    pc: None,
                    text: String::new(),
                    code: site
                        .displaced
                        .listing()
                        .map(|(at, bytes, text)| Machine {
                            at: at.0,
                            bytes: bytes.to_vec(),
                            text,
                            note: None,
                        })
                        .collect(),
                }],
            });
            Inspected {
                name: program.name.clone(),
                section: program.section.clone(),
                place: Some(place_of(&site.info, site.site.avma().0)),
                free: Some(GprSet(site.liveness.free.0)),
                code_bytes: site.compiled.bytes.len(),
                stack_bytes: Some(site.compiled.stack_bytes),
                agreement: None,
                passages,
            }
        })
        .collect())
}

/// The images of a patch as they lie in the process.
///
/// # Errors
/// One can't be read.
pub fn of_memory(process: &Process, found: &Found) -> Result<Vec<Inspected>, MemoryError> {
    let images = found
        .regions
        .iter()
        .map(|region| Image::read(process, found, region));
    images
        .map(|image| Ok(image?.described(&found.id)))
        .collect()
}

/// The same beside what the object is compiled to for the same places, and whether both agree.
///
/// # Errors
/// An image can't be read, or the object can't be compiled for this process.
pub fn of_both(
    process: &Process,
    found: &Found,
    request: &ApplyRequest<'_>,
) -> Result<Vec<Inspected>, ApplyError> {
    let verified = program::all_verified(request.object, &request.policy)?;
    let target = TargetImage::snapshot(process)?;
    let mut shown = Vec::new();
    let sites = std::iter::zip(request.object.programs(), &verified)
        .map(|(program, verified)| {
            let site =
                super::plan_site(process, request, &target, program, verified, Purpose::Show)?;
            Ok((program, verified, site))
        })
        .collect::<Result<Vec<_>, ApplyError>>()?;
    for region in &found.regions {
        let image = Image::read(process, found, region)?;
        let mut described = image.described(&found.id);
        let at = region.plan().map(|plan| plan.at);
        let site = sites
            .iter()
            .find(|(_, _, site)| Some(site.site.avma()) == at);
        if let (Some((program, verified, site)), Some(record)) = (site, &region.record) {
            described.name.clone_from(&program.name);
            described.free = Some(GprSet(site.liveness.free.0));
            described.stack_bytes = Some(site.compiled.stack_bytes);
            let expected = expected(site, found, record);
            let agreement = compare(&image, expected.as_deref());
            if agreement == Agreement::Same {
                let hook = image.hook_len();
                let code = site.compiled.code_len.min(hook);
                let mut passages = listing::compiled(
                    verified.program(),
                    &site.compiled.marks,
                    image.bytes.get(..code).unwrap_or_default(),
                    image.base,
                    &|insn, _| image.remark(insn),
                );
                // Behind the hook's code there are its literals and the displaced instructions, as found.
                passages.extend(described.passages.pop());
                described.passages = passages;
            }
            described.agreement = Some(agreement);
        }
        shown.push(described);
    }
    Ok(shown)
}

/// The image that the object gives for the addresses that the record names.
fn expected(site: &SitePlan, found: &Found, record: &Record) -> Option<Vec<u8>> {
    let nowhere = AvmaRange::new(Avma(0), 0);
    let placement = Placement {
        image: record.image.range().start,
        arena: found.arena().unwrap_or(nowhere),
        private: record.data.map_or(nowhere, |data| data.range()),
        gate: found.gate(),
    };
    let template = TrampolineTemplate::new(join::fragment(&site.compiled), site.displaced.clone());
    let image = template
        .place(placement.image, &join::bindings(&placement, &site.externs))
        .ok()?;
    Some(image.bytes().to_vec())
}

fn compare(image: &Image<'_>, expected: Option<&[u8]>) -> Agreement {
    let expected = expected.unwrap_or_default();
    let longer = image.bytes.len().max(expected.len());
    let mut differing = (0..longer).filter(|at| image.bytes.get(*at) != expected.get(*at));
    match differing.next() {
        None => Agreement::Same,
        Some(first) => Agreement::Differs {
            at: image.base.wrapping_add(first as u64),
            bytes: 1 + differing.count(),
        },
    }
}

fn place_of(info: &PatchInfo, at: u64) -> String {
    format!("{} ({at:#x}) in {}", info.site_name(), info.module)
}

/// The compiler's code with its marks and, by the fixups, what the numbers in it will be.
fn of_compiled(verified: &VerifiedProgram, compiled: &CompiledPatch) -> Vec<Passage> {
    let code = compiled.bytes.get(..compiled.code_len).unwrap_or_default();
    let program = verified.program();
    let remark = |insn: &Instruction, start: usize| {
        let fixup = compiled
            .fixups
            .iter()
            .find(|fixup| (start..start + insn.len()).contains(&fixup.at))?;
        Some(match fixup.kind {
            FixupKind::Continue => "to the displaced instructions".to_owned(),
            FixupKind::Arena(offset) => {
                let globals = &program.arena().globals;
                let global = globals.iter().rfind(|global| {
                    global.offset <= offset && offset - global.offset < global.size
                });
                arena_name(
                    offset,
                    global.map(|global| (global.name.as_str(), global.offset)),
                )
            }
            FixupKind::Extern(number) => {
                let name = usize::try_from(number)
                    .ok()
                    .and_then(|number| compiled.extern_names.get(number));
                format!("address of {}", name.map_or("?", String::as_str))
            }
            FixupKind::Site => "the patched address".to_owned(),
            FixupKind::Gate => "the gate".to_owned(),
            FixupKind::Private(offset) => format!("private data+{offset:#x}"),
        })
    };
    listing::compiled(program, &compiled.marks, code, 0, &remark)
}

fn arena_name(offset: u64, global: Option<(&str, u64)>) -> String {
    match global {
        Some((name, start)) if start == offset => format!("arena+{offset:#x}: {name}"),
        Some((name, start)) => format!("arena+{offset:#x}: {name}+{:#x}", offset - start),
        None => format!("arena+{offset:#x}"),
    }
}

/// An image's bytes, and what its record says about addresses.
struct Image<'f> {
    found: &'f Found,
    record: Option<&'f Record>,
    info: Option<PatchInfo>,
    base: u64,
    bytes: Vec<u8>,
    /// Address of a copy → where it was displaced from.
    copies: BTreeMap<u64, u64>,
}

impl<'f> Image<'f> {
    fn read(process: &Process, found: &'f Found, region: &'f Region) -> Result<Self, MemoryError> {
        let record = region.record.as_ref();
        // Without a record that can be believed, all of the mapped code.
        let range = record.map(|record| record.image.range()).or(region.code);
        let (base, bytes) = match range {
            Some(range) => {
                let len = usize::try_from(range.len().min(LONGEST)).unwrap_or(0);
                (range.start.0, process.memory().read_vec(range.start, len)?)
            }
            None => (0, Vec::new()),
        };
        let ips = record.map_or(&[][..], |record| &record.ips);
        Ok(Self {
            found,
            record,
            info: record.and_then(|record| crate::telemetry::info_of(record.info.text())),
            base,
            bytes,
            copies: ips
                .iter()
                .map(|(original, copy)| (copy.0, original.0))
                .collect(),
        })
    }

    fn described(&self, id: &str) -> Inspected {
        let remark = |insn: &Instruction, _: usize| self.remark(insn);
        let at = self.record.map_or(0, |record| record.site.0);
        Inspected {
            name: id.to_owned(),
            section: self
                .info
                .as_ref()
                .map_or_else(String::new, |info| info.section.clone()),
            place: Some(match &self.info {
                Some(info) => place_of(info, at),
                None => "a place that its record doesn't tell".to_owned(),
            }),
            free: None,
            code_bytes: self.bytes.len(),
            stack_bytes: None,
            agreement: None,
            passages: listing::found(&self.bytes, self.base, &self.copies, &remark),
        }
    }

    /// Bytes before the first copy of a displaced instruction.
    fn hook_len(&self) -> usize {
        let first = self.copies.keys().next();
        first
            .and_then(|first| usize::try_from(first.wrapping_sub(self.base)).ok())
            .map_or(self.bytes.len(), |len| len.min(self.bytes.len()))
    }

    /// What an address in an instruction is.
    fn remark(&self, insn: &Instruction) -> Option<String> {
        let target = insn.near_branch_target();
        if target != 0 {
            let first = self.copies.keys().next();
            return if Some(&target) == first {
                Some("to the displaced instructions".to_owned())
            } else if target.wrapping_sub(self.base) >= self.bytes.len() as u64 {
                Some("to the program".to_owned())
            } else {
                None
            };
        }
        let number = (0..insn.op_count())
            .find(|operand| insn.op_kind(*operand) == OpKind::Immediate64)
            .map(|operand| insn.immediate(operand))?;
        let record = self.record?;
        if let Some(arena) = self.found.arena()
            && let Some(offset) = number.checked_sub(arena.start.0)
            && offset < arena.len()
        {
            // The leader's record names the variables.
            let leader = self
                .found
                .record()
                .and_then(|record| crate::telemetry::info_of(record.info.text()));
            let globals = leader.as_ref().map_or(&[][..], |info| &info.globals);
            let global = globals
                .iter()
                .find(|global| offset >= global.offset && offset - global.offset < global.size);
            return Some(arena_name(
                offset,
                global.map(|global| (global.name.as_str(), global.offset)),
            ));
        }
        if self.found.gate().is_some_and(|gate| gate.0 == number) {
            return Some("the gate".to_owned());
        }
        let data = record.data.map(|data| data.range());
        if let Some(offset) = data.and_then(|data| {
            number
                .checked_sub(data.start.0)
                .filter(|offset| *offset < data.len())
        }) {
            return Some(format!("private data+{offset:#x}"));
        }
        (number == record.site.0).then(|| "the patched address".to_owned())
    }
}
