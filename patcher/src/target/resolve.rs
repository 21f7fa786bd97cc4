//! From a query to a patch site: the module, the function in it, its bounds, its bytes.

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use upatch_trampolines::Avma;

use super::address::Svma;
use super::elf::{ElfImage, PAGE};
use super::error::{Failure, ResolveError};
use super::image::TargetImage;
use super::memory::TargetMemory;
use super::module::Module;
use super::parts;
use super::plt::{self, Plt};
use super::query::TargetQuery;
use super::site::PatchSite;
use super::symbols::{self, Definition, SymbolKind};

/// Longest function that is taken for one; real ones (interpreter loops, generated parsers) stay below 1 MiB.
const MAX_FUNCTION: u64 = 16 << 20;
/// An `Elf64_Rela` of text writes at most eight bytes.
const RELOCATED_BYTES: u64 = 8;
/// Alignment of functions, up to which padding may reach.
const ALIGNMENT: u64 = 16;
/// How many names an error suggests.
const SUGGESTIONS: usize = 5;

/// A function before its bytes were looked at.
struct Function {
    name: Option<String>,
    start: Svma,
    len: u64,
}

impl TargetImage {
    /// The patch site that a query means.
    ///
    /// # Errors
    /// See [`ResolveError`]; nothing is guessed.
    pub fn resolve(
        &self,
        memory: &impl TargetMemory,
        query: &TargetQuery,
    ) -> Result<PatchSite, ResolveError> {
        let module = self.select(memory, query)?;
        let image = module.image(memory)?;
        let path = || module.path().to_owned();
        let plt = Plt::of(&image);
        let (function, at) = match (&query.function, query.address) {
            (None, None) => return Err(ResolveError::NothingNamed),
            (Some(name), None) => {
                let found = self.definition(memory, module, &image, name)?;
                let at = found.at.plus(query.offset);
                let function = bounds(module, &image, found.at, Some(found))?;
                (function, at)
            }
            (name, Some(at)) => (
                self.function_at(memory, module, &image, at, name.as_deref())?,
                at.plus(query.offset),
            ),
        };
        let Function { name, start, len } = function;
        if plt.is_stub(&image, start) {
            return Err(ResolveError::Plt {
                module: path(),
                at: start,
            });
        }
        let offset = at.since(start).filter(|offset| *offset < len);
        let offset = offset.ok_or(ResolveError::OutsideFunction {
            offset: at.0.wrapping_sub(start.0),
            len,
        })?;
        let bytes = image
            .at(start, len)
            .filter(|_| len <= MAX_FUNCTION && image.is_code(start));
        let bytes = bytes
            .ok_or_else(|| ResolveError::NotCode {
                module: path(),
                at: start,
            })?
            .to_vec();
        check_boundary(start, &bytes, offset).map_err(|error| match (error, query.address) {
            // In the words of whoever gave an address, not a function's offset.
            (ResolveError::NotAnInstruction { before, after, .. }, Some(_)) => {
                ResolveError::AddressInside {
                    at,
                    before: start.plus(before),
                    after: start.plus(after),
                }
            }
            (error, _) => error,
        })?;
        if image.dynamic().has_text_relocations() {
            let mut relocations = image.relocations().into_iter();
            let end = start.plus(len);
            let inside = relocations
                .find(|one| one.at < end && one.at.0.saturating_add(RELOCATED_BYTES) > start.0);
            if let Some(inside) = inside {
                return Err(ResolveError::TextRelocation {
                    module: path(),
                    at: inside.at,
                });
            }
        }
        let neighbours = Neighbours::of(&image, start, len);
        let site = PatchSite {
            padding: padding(&image, start.plus(len), neighbours.next),
            parts: parts::of(&image, name.as_deref(), start, len),
            entry_points: neighbours.inside,
            module: Arc::clone(module),
            plt,
            function: name,
            start,
            // SANITY: offset < len <= MAX_FUNCTION.
            site: usize::try_from(offset).expect("an offset below 16 MiB"),
            bytes,
            image,
        };
        let maps = memory
            .mappings()
            .map_err(|source| ResolveError::Unreadable {
                at: site.avma(),
                source,
            })?;
        site.check_mapping(&maps)?;
        Ok(site)
    }

    /// The address of the function that an extern of a patch means: defined in `preferred` if it is given and defines it,
    /// else in exactly one of all modules.
    ///
    /// # Errors
    /// None, several, or an IFUNC.
    pub fn find_function(
        &self,
        memory: &impl TargetMemory,
        name: &str,
        preferred: Option<&Module>,
    ) -> Result<Avma, ResolveError> {
        let mut found: Vec<(Arc<Module>, Arc<ElfImage>, Definition)> = Vec::new();
        let first = preferred.into_iter().filter_map(|preferred| {
            self.modules()
                .iter()
                .find(|module| module.range() == preferred.range())
        });
        let all = first.chain(self.modules().iter().filter(|module| {
            preferred.is_none_or(|preferred| module.range() != preferred.range())
        }));
        for (index, module) in all.enumerate() {
            // A module that can't be read can't define it; the error of the preferred one is told.
            let image = match module.image(memory) {
                Ok(image) => image,
                Err(error) if index == 0 && preferred.is_some() => return Err(error),
                Err(_) => continue,
            };
            if let Some(definition) = self.lookup(memory, module, &image, name)? {
                found.push((Arc::clone(module), image, definition));
                if preferred.is_some() && index == 0 {
                    break;
                }
            }
        }
        // Elsewhere only what the dynamic linker could bind counts; statics of strangers don't.
        if found.len() > 1 {
            found.retain(|(_, _, definition)| definition.binding != symbols::Binding::Local);
        }
        match found.as_slice() {
            [(module, _, definition)] => Ok(module.bias().avma(definition.at)),
            [] => {
                let module = preferred.or_else(|| {
                    self.modules()
                        .iter()
                        .find(|one| one.is_main())
                        .map(Arc::as_ref)
                });
                Err(ResolveError::FunctionNotFound {
                    module: module
                        .map(|module| module.path().to_owned())
                        .unwrap_or_default(),
                    name: name.to_owned(),
                    similar: Vec::new(),
                    defined_in: Vec::new(),
                })
            }
            [_, _, ..] => Err(ResolveError::ModuleAmbiguous {
                found: found.iter().map(|(module, _, _)| module.id()).collect(),
            }),
        }
    }

    /// The one definition of `name` in a module; if there is none, the error says what is there instead.
    fn definition(
        &self,
        memory: &impl TargetMemory,
        module: &Module,
        image: &ElfImage,
        name: &str,
    ) -> Result<Definition, ResolveError> {
        self.lookup(memory, module, image, name)
            .and_then(|found| {
                found.ok_or_else(|| ResolveError::FunctionNotFound {
                    module: module.path().to_owned(),
                    name: name.to_owned(),
                    similar: symbols::similar(image, image, name, SUGGESTIONS),
                    defined_in: Vec::new(),
                })
            })
            .map_err(|error| self.with_definers(memory, module, error))
    }

    /// The one definition of `name` in a module, if there is any: from the loaded image, else from its separate debug file.
    fn lookup(
        &self,
        memory: &impl TargetMemory,
        module: &Module,
        image: &ElfImage,
        name: &str,
    ) -> Result<Option<Definition>, ResolveError> {
        let mut found = symbols::definitions(image, image, name);
        if found.is_empty()
            && let Some(debug) = image.build_id().and_then(|id| self.debug_file(id))
        {
            found = symbols::definitions(&debug, image, name);
        }
        let path = || module.path().to_owned();
        match found.as_slice() {
            [one] if one.kind == SymbolKind::Ifunc => {
                let (chosen, candidates) = self.implementations(memory, module, image, one);
                Err(ResolveError::Ifunc {
                    module: path(),
                    name: name.to_owned(),
                    chosen,
                    candidates,
                })
            }
            [one] => Ok(Some(one.clone())),
            [] => Ok(None),
            [_, _, ..] => Err(ResolveError::FunctionAmbiguous {
                module: path(),
                name: name.to_owned(),
                definitions: found,
            }),
        }
    }

    /// Adds to "no such function" which other modules define it.
    fn with_definers(
        &self,
        memory: &impl TargetMemory,
        module: &Module,
        mut error: ResolveError,
    ) -> ResolveError {
        if let ResolveError::FunctionNotFound {
            name, defined_in, ..
        } = &mut error
        {
            let others = self
                .modules()
                .iter()
                .filter(|other| other.range() != module.range());
            *defined_in = others
                .filter(|other| {
                    other
                        .image(memory)
                        .is_ok_and(|image| !symbols::definitions(&image, &image, name).is_empty())
                })
                .map(|other| other.path().to_owned())
                .collect();
        }
        error
    }

    /// The function around an address of the file, named or not.
    fn function_at(
        &self,
        memory: &impl TargetMemory,
        module: &Module,
        image: &ElfImage,
        at: Svma,
        name: Option<&str>,
    ) -> Result<Function, ResolveError> {
        if !image.is_code(at) {
            return Err(ResolveError::NotCode {
                module: module.path().to_owned(),
                at,
            });
        }
        let symbol = symbols::covering(image, image, at)
            .or_else(|| symbols::covering(&self.debug_file(image.build_id()?)?, image, at));
        let function = bounds(module, image, at, symbol)?;
        let Some(name) = name else {
            return Ok(function);
        };
        // The name is a label where the binary has no such symbol; where it has, it must be the same place.
        match self.definition(memory, module, image, name) {
            Ok(found) if found.at != function.start => Err(ResolveError::Contradiction {
                name: name.to_owned(),
                symbol: found.at,
                address: at,
            }),
            Err(ResolveError::FunctionAmbiguous { definitions, .. })
                if definitions.iter().all(|one| one.at != function.start) =>
            {
                let symbol = definitions.first().map_or(at, |one| one.at);
                Err(ResolveError::Contradiction {
                    name: name.to_owned(),
                    symbol,
                    address: at,
                })
            }
            Err(error) if error.failure() == Failure::System => Err(error),
            // It names what begins at the address, not what the address happens to lie in.
            Ok(_) | Err(_) if at != function.start => Ok(function),
            Ok(_) | Err(_) => Ok(Function {
                name: Some(name.to_owned()),
                ..function
            }),
        }
    }

    /// What an IFUNC leads to here: slots that ld.so filled, and names that look like implementations.
    fn implementations(
        &self,
        memory: &impl TargetMemory,
        module: &Module,
        image: &ElfImage,
        ifunc: &Definition,
    ) -> (Vec<Svma>, Vec<String>) {
        let mut chosen = Vec::new();
        for other in self.modules() {
            let Ok(theirs) = other.image(memory) else {
                continue;
            };
            let own = other.range() == module.range();
            let names: Vec<bool> = theirs
                .dynamic()
                .symbols(theirs.bytes())
                .map(|(name, _, _)| name == ifunc.name.as_bytes())
                .collect();
            for slot in theirs
                .relocations()
                .into_iter()
                .filter(|one| plt::binds_functions(one.kind))
            {
                let resolver = own
                    && slot.kind == plt::R_X86_64_IRELATIVE
                    && slot.addend.cast_unsigned() == ifunc.at.0;
                let named =
                    usize::try_from(slot.symbol).is_ok_and(|index| names.get(index) == Some(&true));
                let mut word = [0; 8];
                let at = other.bias().avma(slot.at);
                if (resolver || named) && memory.read_exact_at(at, &mut word).is_ok() {
                    let value = Avma(u64::from_le_bytes(word));
                    let stated = module.bias().svma(value);
                    if module.range().contains(value) && image.is_code(stated) && stated != ifunc.at
                    {
                        chosen.push(stated);
                    }
                }
            }
        }
        let plt = Plt::of(image);
        chosen.retain(|at| !plt.is_stub(image, *at));
        chosen.sort_unstable();
        chosen.dedup();
        let mut names = symbols::similar(image, image, &ifunc.name, 4 * SUGGESTIONS);
        names.retain(|name| {
            *name != ifunc.name && name.trim_start_matches('_').contains(['_', '.'])
        });
        names.truncate(SUGGESTIONS);
        (chosen, names)
    }
}

/// Where a function begins and ends: by its symbol's size, else by `.eh_frame`.
fn bounds(
    module: &Module,
    image: &ElfImage,
    at: Svma,
    symbol: Option<Definition>,
) -> Result<Function, ResolveError> {
    let (name, symbol) = match symbol {
        Some(symbol) if symbol.size > 0 => {
            return Ok(Function {
                name: Some(symbol.name),
                start: symbol.at,
                len: symbol.size,
            });
        }
        Some(symbol) => (Some(symbol.name), Some(symbol.at)),
        None => (None, None),
    };
    let frames = image.frames();
    let next = frames.partition_point(|frame| frame.start <= at);
    let frame = frames[..next]
        .iter()
        .rev()
        .take(16)
        .find(|frame| frame.covers(at));
    match frame {
        // A symbol without a size inside a frame is a label, unless the frame begins there: then bounds are known.
        Some(frame) if symbol.is_none_or(|symbol| symbol == frame.start) => Ok(Function {
            name,
            start: frame.start,
            len: frame.len,
        }),
        Some(_) | None => Err(ResolveError::NoBounds {
            module: module.path().to_owned(),
            at,
        }),
    }
}

/// Decodes from the entry: the offset must be where an instruction begins.
fn check_boundary(start: Svma, bytes: &[u8], offset: u64) -> Result<(), ResolveError> {
    let mut decoder = Decoder::with_ip(64, bytes, start.0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut here = 0;
    while here < offset {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Err(ResolveError::Undecodable {
                at: start.plus(here),
            });
        }
        let next = here + instruction.len() as u64;
        if next > offset {
            return Err(ResolveError::NotAnInstruction {
                offset,
                before: here,
                after: next,
            });
        }
        here = next;
    }
    Ok(())
}

/// What other symbols and frames say about a function's surroundings.
struct Neighbours {
    /// Places inside that have names of their own.
    inside: Vec<Svma>,
    /// Where the next thing begins.
    next: Option<Svma>,
}

impl Neighbours {
    fn of(image: &ElfImage, start: Svma, len: u64) -> Self {
        let end = start.plus(len);
        let mut inside = Vec::new();
        let mut next: Option<Svma> = None;
        let mut see = |at: Svma| {
            if at > start && at < end && inside.len() < 4096 {
                inside.push(at);
            } else if at >= end && next.is_none_or(|next| at < next) {
                next = Some(at);
            }
        };
        symbols::for_each(image, image, &mut |symbol| see(symbol.at));
        let frames = image.frames();
        let after = frames.partition_point(|frame| frame.start < end);
        if let Some(frame) = frames.get(after) {
            see(frame.start);
        }
        inside.sort_unstable();
        inside.dedup();
        Self { inside, next }
    }
}

/// Bytes from a function's end to the next thing, at most to the next multiple of 16 and within the page.
fn padding(image: &ElfImage, end: Svma, next: Option<Svma>) -> Vec<u8> {
    let Some(aligned) = end.0.checked_next_multiple_of(ALIGNMENT) else {
        return Vec::new();
    };
    let limit = aligned
        .min(next.map_or(u64::MAX, |next| next.0))
        .min((end.0 / PAGE + 1).saturating_mul(PAGE));
    let len = limit.saturating_sub(end.0);
    image
        .at(end, len)
        .filter(|_| len > 0)
        .map(<[u8]>::to_vec)
        .unwrap_or_default()
}
