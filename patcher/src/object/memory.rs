//! Lays out what a patch remembers: arena variables, plain globals behind them, read-only data.
//!
//! Sizes and offsets come from the symbol table: clang's BTF has zeros for the arena. Invariant: the variables of a
//! [`Memory`] are disjoint and inside the arena, and its initial bytes are no more than the object has.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use upatch_abi::arena::{MAX_WINDOW, PAGE};
use upatch_verifier::program::DataObject;

use super::ObjectError;
use super::btf::{Btf, Type, TypeId};
use super::elf::{Elf, Place, Section, SymbolKind};
use super::events::EventRing;
use super::index::BtfIndex;
use super::types::{TypeBuilder, TypeRef, TypeTable};

/// BPF_MAP_TYPE_ARENA (include/uapi/linux/bpf.h).
const MAP_TYPE_ARENA: u32 = 33;
/// enum bpf_map_type, for messages.
const MAP_TYPES: [&str; 33] = [
    "unspecified",
    "hash",
    "array",
    "program array",
    "perf event array",
    "per-CPU hash",
    "per-CPU array",
    "stack trace",
    "cgroup array",
    "LRU hash",
    "LRU per-CPU hash",
    "LPM trie",
    "array of maps",
    "hash of maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup storage",
    "reuseport sockarray",
    "per-CPU cgroup storage",
    "queue",
    "stack",
    "socket storage",
    "devmap hash",
    "struct_ops",
    "ring buffer",
    "inode storage",
    "task storage",
    "bloom filter",
    "user ring buffer",
    "cgroup local storage",
];

/// What a variable is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `UPATCH_RULE`: set from outside.
    Rule,
    /// `UPATCH_COUNTER`: counted by the patch.
    Counter,
    /// The ring of events.
    Events,
    /// None of these.
    Plain,
}

/// A variable in the arena.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GlobalInfo {
    /// Its C name.
    pub name: String,
    /// First byte in the arena.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// What it is for.
    pub role: Role,
    /// Its type in the object's [`TypeTable`].
    #[serde(rename = "type")]
    pub ty: TypeRef,
}

/// Initial bytes of a part of the arena; what no segment covers is zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte in the arena.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What an object wants of the arena.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ArenaLayout {
    /// Bytes used or reserved; 0: none.
    pub len: u64,
    /// Variables, by ascending offset, disjoint.
    pub globals: Vec<GlobalInfo>,
    /// Initial bytes; later ones lie over earlier ones.
    pub initial: Vec<Segment>,
    /// Types of the variables and events.
    pub types: TypeTable,
    /// The ring of `upatch_event`, if the object has one.
    pub events: Option<EventRing>,
}

/// Where a data section went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DataPlace {
    /// Its first byte in the arena, and its size.
    Arena { base: u64 },
    /// Index in [`Memory::data`].
    ReadOnly { object: u32 },
    /// `.maps`.
    Maps,
    /// Nothing that a program may refer to.
    Nowhere,
}

/// Everything that is laid out.
pub(super) struct Memory {
    pub(super) arena: ArenaLayout,
    pub(super) data: Vec<DataObject>,
    /// By section index.
    pub(super) places: HashMap<usize, DataPlace>,
}

/// Lays out all data sections. `kernel` is a kernel program of the object, if there is one.
pub(super) fn lay_out(
    elf: &Elf<'_>,
    btf: &Btf<'_>,
    index: &BtfIndex<'_>,
    kernel: Option<&str>,
    events: &BTreeSet<TypeId>,
) -> Result<Memory, ObjectError> {
    let reserved = reserved(btf, index)?;
    let mut layout = Layout {
        len: 0,
        memory: Memory {
            arena: ArenaLayout::default(),
            data: Vec::new(),
            places: HashMap::new(),
        },
    };
    // Arena variables first: kernel programs know them by these offsets.
    for arena_variables in [true, false] {
        for (number, section) in elf.sections.iter().enumerate() {
            if !section.is_data() || section.name.starts_with(".addr_space.") != arena_variables {
                continue;
            }
            layout.section(elf, btf, index, number, section, kernel)?;
        }
    }
    let Layout { len, mut memory } = layout;
    if reserved != 0 && reserved < len {
        return Err(ObjectError::ArenaTooSmall {
            reserved,
            needed: len,
        });
    }
    memory.arena.len = len.max(reserved);
    let mut builder = TypeBuilder::new(btf);
    memory.arena.globals = globals(elf, index, &memory.places, &mut builder)?;
    let ring = memory
        .arena
        .globals
        .iter()
        .find(|global| global.role == Role::Events)
        .cloned();
    memory.arena.events = ring.and_then(|ring| EventRing::new(btf, &mut builder, &ring, events));
    memory.arena.types = builder.finish();
    Ok(memory)
}

struct Layout {
    len: u64,
    memory: Memory,
}

impl Layout {
    fn section(
        &mut self,
        elf: &Elf<'_>,
        btf: &Btf<'_>,
        index: &BtfIndex<'_>,
        number: usize,
        section: &Section<'_>,
        kernel: Option<&str>,
    ) -> Result<(), ObjectError> {
        let named = |prefix: &str| {
            section
                .name
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let place = match section.name {
            "license" | "version" | "upatch.build_id" => DataPlace::Nowhere,
            ".maps" => DataPlace::Maps,
            "maps" => {
                let map = symbol_at(elf, number, 0).unwrap_or("?").to_owned();
                return Err(ObjectError::Map {
                    map,
                    kind: "legacy".to_owned(),
                });
            }
            ".addr_space.1" => self.in_arena(section)?,
            name if name.starts_with(".addr_space.") => {
                return Err(ObjectError::UnknownDataSection {
                    section: name.to_owned(),
                });
            }
            _ if section.is_writable() && (named(".data") || named(".bss")) => match kernel {
                Some(program) if section.size != 0 => {
                    return Err(misplaced(elf, btf, index, number, program));
                }
                Some(_) | None => self.in_arena(section)?,
            },
            _ if named(".rodata") && !section.is_writable() => {
                let object = self.memory.data.len() as u32;
                self.memory.data.push(DataObject {
                    name: section.name.to_owned(),
                    bytes: section.data.to_vec(),
                });
                DataPlace::ReadOnly { object }
            }
            name if section.is_writable() && section.size != 0 => {
                return Err(ObjectError::UnknownDataSection {
                    section: name.to_owned(),
                });
            }
            _ => DataPlace::Nowhere,
        };
        let relocation = match place {
            DataPlace::Arena { .. } | DataPlace::ReadOnly { .. } => {
                elf.relocations(number)?.into_iter().next()
            }
            DataPlace::Maps | DataPlace::Nowhere => None,
        };
        if let Some(relocation) = relocation {
            let variable = symbol_at(elf, number, relocation.offset)
                .unwrap_or(section.name)
                .to_owned();
            return Err(ObjectError::PointerInData { variable });
        }
        self.memory.places.insert(number, place);
        Ok(())
    }

    fn in_arena(&mut self, section: &Section<'_>) -> Result<DataPlace, ObjectError> {
        let too_large = |len| ObjectError::ArenaTooLarge { len };
        if section.align > PAGE {
            return Err(ObjectError::Alignment {
                section: section.name.to_owned(),
                align: section.align,
            });
        }
        let base = self.len.next_multiple_of(section.align);
        let end = base
            .checked_add(section.size)
            .ok_or_else(|| too_large(section.size))?;
        if end > MAX_WINDOW {
            return Err(too_large(end));
        }
        self.len = end;
        if section.data.iter().any(|&byte| byte != 0) {
            self.memory.arena.initial.push(Segment {
                offset: base,
                bytes: section.data.to_vec(),
            });
        }
        Ok(DataPlace::Arena { base })
    }
}

/// The variable of section `number` that holds byte `offset`.
fn symbol_at<'a>(elf: &Elf<'a>, number: usize, offset: u64) -> Option<&'a str> {
    elf.symbols
        .iter()
        .filter(|symbol| {
            symbol.kind == SymbolKind::Object && symbol.place == Place::Section(number)
        })
        .find(|symbol| {
            offset
                .checked_sub(symbol.value)
                .is_some_and(|inside| inside < symbol.size.max(1))
        })
        .map(|symbol| symbol.name)
}

fn misplaced(
    elf: &Elf<'_>,
    btf: &Btf<'_>,
    index: &BtfIndex<'_>,
    number: usize,
    program: &str,
) -> ObjectError {
    let first = elf
        .symbols
        .iter()
        .filter(|symbol| {
            symbol.kind == SymbolKind::Object && symbol.place == Place::Section(number)
        })
        .min_by_key(|symbol| symbol.value);
    let name = first.map_or("?", |symbol| symbol.name);
    let spelling = match index.variables.get(name) {
        Some(&ty) => btf.spell_variable(ty, "__arena", name),
        None => format!("TYPE __arena {name}"),
    };
    ObjectError::MisplacedVariable {
        name: name.to_owned(),
        program: program.to_owned(),
        spelling,
    }
}

fn globals(
    elf: &Elf<'_>,
    index: &BtfIndex<'_>,
    places: &HashMap<usize, DataPlace>,
    types: &mut TypeBuilder<'_, '_>,
) -> Result<Vec<GlobalInfo>, ObjectError> {
    let mut globals = Vec::new();
    for symbol in &elf.symbols {
        let Place::Section(number) = symbol.place else {
            continue;
        };
        let Some(DataPlace::Arena { base }) = places.get(&number) else {
            continue;
        };
        if symbol.kind != SymbolKind::Object || symbol.size == 0 {
            continue;
        }
        let inside = elf
            .sections
            .get(number)
            .zip(symbol.value.checked_add(symbol.size))
            .is_some_and(|(section, end)| end <= section.size);
        if !inside {
            return Err(ObjectError::OutOfSection {
                name: symbol.name.to_owned(),
            });
        }
        let role = if index.is_rule(symbol.name) {
            Role::Rule
        } else if index.is_counter(symbol.name) {
            Role::Counter
        } else if index.is_ring(symbol.name) {
            Role::Events
        } else {
            Role::Plain
        };
        let ty = match index.variables.get(symbol.name) {
            Some(&ty) => types.add(ty),
            None => types.opaque(symbol.size.min(u64::from(u32::MAX)) as u32),
        };
        globals.push(GlobalInfo {
            name: symbol.name.to_owned(),
            offset: base + symbol.value,
            size: symbol.size,
            role,
            ty,
        });
    }
    globals.sort_by_key(|global| global.offset);
    match globals
        .windows(2)
        .find(|pair| pair[0].offset + pair[0].size > pair[1].offset)
    {
        Some(pair) => Err(ObjectError::Overlap {
            first: pair[0].name.clone(),
            second: pair[1].name.clone(),
        }),
        None => Ok(globals),
    }
}

/// Bytes that a BPF_MAP_TYPE_ARENA in `.maps` reserves; every other map is refused.
fn reserved(btf: &Btf<'_>, index: &BtfIndex<'_>) -> Result<u64, ObjectError> {
    let mut reserved = None;
    for &(name, ty) in &index.maps {
        let attribute = |wanted| map_attribute(btf, ty, wanted);
        let refused = |kind: &str| ObjectError::Map {
            map: name.to_owned(),
            kind: kind.to_owned(),
        };
        match attribute("type") {
            Some(MAP_TYPE_ARENA) if reserved.is_some() => return Err(refused("second arena")),
            Some(MAP_TYPE_ARENA) => {
                let len = u64::from(attribute("max_entries").unwrap_or(0)) * PAGE;
                if len == 0 || len > MAX_WINDOW {
                    return Err(ObjectError::ArenaTooLarge { len });
                }
                reserved = Some(len);
            }
            Some(kind) => return Err(refused(MAP_TYPES.get(kind as usize).unwrap_or(&"unknown"))),
            None => return Err(refused("unknown")),
        }
    }
    Ok(reserved.unwrap_or(0))
}

/// A number in a map's definition: `int (*name)[number]`.
fn map_attribute(btf: &Btf<'_>, map: TypeId, wanted: &str) -> Option<u32> {
    let Type::Struct { members, .. } = btf.get(btf.resolve(map)) else {
        return None;
    };
    let member = members.iter().find(|member| member.name == wanted)?;
    let Type::Pointer { to } = btf.get(member.ty) else {
        return None;
    };
    match btf.get(*to) {
        Type::Array { len, .. } => Some(*len),
        _ => None,
    }
}
