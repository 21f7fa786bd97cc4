//! Puts an object's tables together: programs, functions, memory, references, source lines.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use upatch_verifier::ProgramKind;

use super::btf::Btf;
use super::btf_ext::BtfExt;
use super::bytes::str_at;
use super::elf::{Elf, Place, SymbolKind};
use super::index::BtfIndex;
use super::memory::{self, DataPlace, Memory};
use super::target::{self, SectionRole, Target};
use super::{
    CodeSection, Function, KernelProgram, ObjectError, ObjectProgram, PatchObject, Reference,
    Referent, SourceLine, core, externs,
};

/// Most bytes of a license.
const MAX_LICENSE: usize = 128;

/// What a code section is, and its index in the ELF file.
struct CodePlace {
    elf: usize,
    role: SectionRole,
}

pub(super) fn parse(bytes: &[u8]) -> Result<PatchObject, ObjectError> {
    let elf = Elf::parse(bytes)?;
    let btf = Btf::parse(data_of(&elf, ".BTF")?.ok_or(ObjectError::NoBtf { section: ".BTF" })?)?;
    let ext = match data_of(&elf, ".BTF.ext")? {
        Some(section) => BtfExt::parse(section, &btf)?,
        None => BtfExt::default(),
    };
    let index = BtfIndex::new(&btf);
    let places = code_places(&elf)?;
    let functions = functions(&elf, &index, &places)?;
    let kernel = kernel_program(&places, &functions);
    let memory = memory::lay_out(
        &elf,
        &btf,
        &index,
        kernel.map(|function| &*function.name),
        &core::named_types(&ext.core),
    )?;
    let kernel_programs = kernel_programs(&elf, &places, &functions)?;
    let programs = programs(&elf, &places, &functions)?;
    let called = called_by_patches(&elf, &places)?;
    let matters = |name: &str| kernel_programs.is_empty() || called.contains(name);
    let externs = externs::all(&btf, &index, matters)
        .map_err(|(name, error)| ObjectError::Extern { name, error })?;
    let mut code = code(&elf, &places, &memory)?;
    let numbers: HashMap<&str, usize> = places
        .iter()
        .enumerate()
        .map(|(number, place)| (elf.sections[place.elf].name, number))
        .collect();
    for relocation in &ext.core {
        if let Some(section) = numbers
            .get(relocation.section)
            .and_then(|&number| code.get_mut(number))
        {
            core::apply(&btf, relocation, relocation.section, &mut section.bytes)?;
        }
    }
    Ok(PatchObject {
        sha256: Sha256::digest(bytes).into(),
        programs,
        btf: if kernel_programs.is_empty() {
            Vec::new()
        } else {
            data_of(&elf, ".BTF")?.unwrap_or_default().to_vec()
        },
        kernel_programs,
        build_ids: build_ids(&elf)?,
        license: license(&elf)?,
        arena: memory.arena,
        data: memory.data,
        externs,
        code,
        functions,
        lines: lines(&ext, &numbers),
        symbols: elf
            .symbols
            .iter()
            .map(|symbol| symbol.name.to_owned())
            .collect(),
    })
}

fn data_of<'a>(elf: &Elf<'a>, name: &str) -> Result<Option<&'a [u8]>, ObjectError> {
    Ok(elf.section(name)?.map(|number| elf.sections[number].data))
}

fn section_name<'a>(elf: &Elf<'a>, places: &[CodePlace], number: usize) -> &'a str {
    places
        .get(number)
        .map_or("?", |place| elf.sections[place.elf].name)
}

/// Sections with instructions, and what they are.
fn code_places(elf: &Elf<'_>) -> Result<Vec<CodePlace>, ObjectError> {
    let mut places = Vec::new();
    for (number, section) in elf.sections.iter().enumerate() {
        if !section.is_code() || section.data.is_empty() {
            continue;
        }
        let role = target::role(section.name).map_err(|error| ObjectError::BadTarget {
            section: section.name.to_owned(),
            error,
        })?;
        places.push(CodePlace { elf: number, role });
    }
    Ok(places)
}

/// All functions by section and start, disjoint.
fn functions(
    elf: &Elf<'_>,
    index: &BtfIndex<'_>,
    places: &[CodePlace],
) -> Result<Vec<Function>, ObjectError> {
    let numbers: HashMap<usize, usize> = places
        .iter()
        .enumerate()
        .map(|(number, place)| (place.elf, number))
        .collect();
    let mut functions = Vec::new();
    for symbol in &elf.symbols {
        let Place::Section(elf_number) = symbol.place else {
            continue;
        };
        let Some(&section) = numbers.get(&elf_number) else {
            continue;
        };
        if symbol.kind != SymbolKind::Function {
            continue;
        }
        let end = symbol.value.checked_add(symbol.size);
        let whole = symbol.value % 8 == 0 && symbol.size % 8 == 0 && symbol.size != 0;
        let inside = end.filter(|&end| whole && end <= elf.sections[elf_number].data.len() as u64);
        let end = inside.ok_or_else(|| ObjectError::FunctionBounds {
            name: symbol.name.to_owned(),
        })?;
        functions.push(Function {
            section,
            start: symbol.value,
            end,
            name: symbol.name.to_owned(),
            global: symbol.global,
            args: index.args.get(symbol.name).copied(),
        });
    }
    functions.sort_by_key(|function| (function.section, function.start));
    let overlap = functions
        .windows(2)
        .find(|pair| pair[0].section == pair[1].section && pair[0].end > pair[1].start);
    match overlap {
        Some(pair) => Err(ObjectError::FunctionOverlap {
            first: pair[0].name.clone(),
            second: pair[1].name.clone(),
        }),
        None => Ok(functions),
    }
}

fn kernel_program<'f>(places: &[CodePlace], functions: &'f [Function]) -> Option<&'f Function> {
    functions.iter().find(|function| {
        places
            .get(function.section)
            .is_some_and(|place| matches!(place.role, SectionRole::Kernel(_)))
    })
}

/// The global functions in sections of the kernel's; static ones are called by them.
fn kernel_programs(
    elf: &Elf<'_>,
    places: &[CodePlace],
    functions: &[Function],
) -> Result<Vec<KernelProgram>, ObjectError> {
    let mut programs: Vec<KernelProgram> = Vec::new();
    for function in functions {
        let Some(SectionRole::Kernel(hook)) = places.get(function.section).map(|place| &place.role)
        else {
            continue;
        };
        let section = section_name(elf, places, function.section).to_owned();
        let Some(hook) = *hook else {
            return Err(ObjectError::KernelProgram {
                section,
                function: function.name.clone(),
            });
        };
        if !function.global {
            continue;
        }
        if programs.iter().any(|other| other.name == function.name) {
            return Err(ObjectError::SameName {
                name: function.name.clone(),
            });
        }
        programs.push(KernelProgram {
            name: function.name.clone(),
            section,
            hook,
        });
    }
    Ok(programs)
}

/// Names that are referred to from outside of the kernel's sections.
fn called_by_patches<'a>(
    elf: &Elf<'a>,
    places: &[CodePlace],
) -> Result<HashSet<&'a str>, ObjectError> {
    let mut names = HashSet::new();
    for place in places
        .iter()
        .filter(|place| !matches!(place.role, SectionRole::Kernel(_)))
    {
        for relocation in elf.relocations(place.elf)? {
            names.extend(elf.symbols.get(relocation.symbol).map(|symbol| symbol.name));
        }
    }
    Ok(names)
}

fn programs(
    elf: &Elf<'_>,
    places: &[CodePlace],
    functions: &[Function],
) -> Result<Vec<ObjectProgram>, ObjectError> {
    let mut programs: Vec<ObjectProgram> = Vec::new();
    let mut at: HashMap<Option<Target>, String> = HashMap::new();
    let mut names = HashMap::new();
    for function in functions {
        let Some(place) = places.get(function.section) else {
            continue;
        };
        let section = section_name(elf, places, function.section);
        let refused = |reason| ObjectError::RefusedSection {
            section: section.to_owned(),
            function: function.name.clone(),
            reason,
        };
        let (kind, target) = match &place.role {
            SectionRole::Subprograms | SectionRole::Kernel(_) => continue,
            SectionRole::Refused(reason) => return Err(refused(reason)),
            SectionRole::Program(_, _) if !function.global => {
                return Err(refused("a program is not static"));
            }
            SectionRole::Program(kind, target) => (*kind, target.clone()),
        };
        if names.insert(&function.name, ()).is_some() {
            return Err(ObjectError::SameName {
                name: function.name.clone(),
            });
        }
        if let Some(first) = at.insert(target.clone(), function.name.clone()) {
            let target = target.map_or_else(
                || "the place on the command line".to_owned(),
                |target| target.to_string(),
            );
            return Err(ObjectError::SeveralAtOnePlace {
                first,
                second: function.name.clone(),
                target,
            });
        }
        programs.push(ObjectProgram {
            name: function.name.clone(),
            section: section.to_owned(),
            kind,
            target,
        });
    }
    if programs.is_empty() {
        return Err(ObjectError::NoProgram);
    }
    Ok(programs)
}

fn code(
    elf: &Elf<'_>,
    places: &[CodePlace],
    memory: &Memory,
) -> Result<Vec<CodeSection>, ObjectError> {
    let numbers: HashMap<usize, usize> = places
        .iter()
        .enumerate()
        .map(|(number, place)| (place.elf, number))
        .collect();
    let mut code = Vec::with_capacity(places.len());
    for place in places {
        let section = &elf.sections[place.elf];
        let mut references = HashMap::new();
        for relocation in elf.relocations(place.elf)? {
            let symbol = relocation.symbol;
            let to = elf
                .symbols
                .get(symbol)
                .map_or(Referent::Nowhere { symbol }, |found| match found.place {
                    Place::Undefined => Referent::Undefined { symbol },
                    Place::Other => Referent::Nowhere { symbol },
                    Place::Section(number) => {
                        match (numbers.get(&number), memory.places.get(&number)) {
                            (Some(&section), _) => Referent::Code {
                                section,
                                value: found.value,
                            },
                            (None, Some(DataPlace::Arena { base })) => Referent::Arena {
                                value: base.saturating_add(found.value),
                            },
                            (None, Some(DataPlace::ReadOnly { object })) => Referent::ReadOnly {
                                object: *object,
                                value: found.value,
                            },
                            (None, Some(DataPlace::Maps)) => Referent::Map { symbol },
                            (None, Some(DataPlace::Nowhere) | None) => Referent::Nowhere { symbol },
                        }
                    }
                });
            references.insert(
                relocation.offset,
                Reference {
                    kind: relocation.kind,
                    to,
                },
            );
        }
        code.push(CodeSection {
            name: section.name.to_owned(),
            bytes: section.data.to_vec(),
            references,
        });
    }
    Ok(code)
}

fn build_ids(elf: &Elf<'_>) -> Result<Vec<String>, ObjectError> {
    let Some(bytes) = data_of(elf, "upatch.build_id")? else {
        return Ok(Vec::new());
    };
    let mut ids = Vec::new();
    for text in bytes
        .split(|&byte| byte == 0)
        .filter(|text| !text.is_empty())
    {
        let good = text.len() >= 8 && text.len() % 2 == 0 && text.iter().all(u8::is_ascii_hexdigit);
        let shown = String::from_utf8_lossy(&text[..text.len().min(128)]).to_ascii_lowercase();
        if !good || text.len() > 128 {
            return Err(ObjectError::BadBuildId { text: shown });
        }
        if !ids.contains(&shown) && ids.len() < 1024 {
            ids.push(shown);
        }
    }
    Ok(ids)
}

fn license(elf: &Elf<'_>) -> Result<Option<String>, ObjectError> {
    Ok(data_of(elf, "license")?
        .and_then(|bytes| str_at(bytes, 0, MAX_LICENSE))
        .map(str::to_owned))
}

fn lines(ext: &BtfExt<'_>, numbers: &HashMap<&str, usize>) -> Vec<SourceLine> {
    let mut lines: Vec<SourceLine> = ext
        .lines
        .iter()
        .filter_map(|line| {
            Some(SourceLine {
                section: *numbers.get(line.section)?,
                offset: u64::from(line.offset),
                file: line.file.to_owned(),
                text: line.text.to_owned(),
                line: line.line,
                column: line.column,
            })
        })
        .collect();
    lines.sort_by_key(|line| (line.section, line.offset));
    lines
}

impl PatchObject {
    /// The program's kind and its function.
    pub(super) fn entry(&self, program: &ObjectProgram) -> Option<(ProgramKind, usize)> {
        self.functions
            .iter()
            .position(|function| {
                function.name == program.name
                    && self
                        .code
                        .get(function.section)
                        .is_some_and(|section| section.name == program.section)
            })
            .map(|index| (program.kind, index))
    }
}
