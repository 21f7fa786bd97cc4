//! A process as a set of modules: the one that a query means, and functions by name over all of them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use upatch_trampolines::Avma;

use super::build_id::BuildId;
use super::bytes::Bytes;
use super::elf::ElfImage;
use super::error::{ModuleId, ResolveError, SnapshotError};
use super::memory::{TargetMemory, open_readable};
use super::module::Module;
use super::query::TargetQuery;

/// Tag of the auxiliary vector: address of the main program's program headers (getauxval(3)).
const AT_PHDR: u64 = 3;
/// Where separate debug files are installed.
const DEBUG_DIRECTORY: &str = "usr/lib/debug";

/// All modules of a process at one moment.
///
/// Holding a `TargetImage` tells you what was loaded when it was taken, not what is loaded now:
/// [`super::PatchSite::compare_memory`] looks again.
#[derive(Debug)]
pub struct TargetImage {
    modules: Vec<Arc<Module>>,
    debug_roots: Vec<PathBuf>,
}

impl TargetImage {
    /// Looks at a process.
    ///
    /// # Errors
    /// Its maps can't be read, or it has no memory.
    pub fn snapshot(memory: &impl TargetMemory) -> Result<Self, SnapshotError> {
        let unreadable = |what| move |source| SnapshotError::Unreadable { what, source };
        let maps = memory.mappings().map_err(unreadable("memory map"))?;
        if maps.is_empty() {
            return Err(SnapshotError::NoMemory);
        }
        let auxv = memory.auxv().map_err(unreadable("auxiliary vector"))?;
        let main = auxv.as_chunks::<16>().0.iter().find_map(|entry| {
            let word = |at: usize| {
                entry[at..at + 8]
                    .iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            };
            (word(0) == AT_PHDR).then(|| Avma(word(8)))
        });
        // Without memory access all look like strangers: say so rather than "no modules".
        if let Some(main) = main {
            memory
                .read_exact_at(main, &mut [0; 4])
                .map_err(unreadable("memory"))?;
        }
        let modules = Module::find_all(memory, &maps, main)
            .into_iter()
            .map(Arc::new)
            .collect();
        Ok(Self {
            modules,
            debug_roots: vec![
                PathBuf::from("/").join(DEBUG_DIRECTORY),
                memory.root().join(DEBUG_DIRECTORY),
            ],
        })
    }

    /// Looks for separate debug files (`.build-id/xx/….debug`) in `directory` too, before the usual places.
    #[must_use]
    pub fn with_debug_directory(mut self, directory: PathBuf) -> Self {
        self.debug_roots.insert(0, directory);
        self
    }

    /// All modules in the order of addresses.
    #[must_use]
    pub fn modules(&self) -> &[Arc<Module>] {
        &self.modules
    }

    /// The module that holds an address.
    #[must_use]
    pub fn module_at(&self, at: Avma) -> Option<&Arc<Module>> {
        let inside = |module: &&Arc<Module>| {
            module
                .mappings()
                .iter()
                .any(|mapping| mapping.range.contains(at))
        };
        self.modules.iter().find(inside)
    }

    /// How errors list the modules.
    #[must_use]
    pub fn ids(&self) -> Vec<ModuleId> {
        self.modules.iter().map(|module| module.id()).collect()
    }

    /// The module that a query means, by the rules of DESIGN ("Sections and targets").
    ///
    /// # Errors
    /// No build-id given, or none, several or another one found.
    pub fn select(
        &self,
        memory: &impl TargetMemory,
        query: &TargetQuery,
    ) -> Result<&Arc<Module>, ResolveError> {
        let named: Vec<&Arc<Module>> = match &query.module {
            Some(name) => self
                .modules
                .iter()
                .filter(|module| is_called(memory, module, name))
                .collect(),
            None => self.modules.iter().collect(),
        };
        let ids =
            |modules: &[&Arc<Module>]| modules.iter().map(|module| module.id()).collect::<Vec<_>>();
        if query.build_ids.is_empty() {
            let found = if named.is_empty() {
                self.ids()
            } else {
                ids(&named)
            };
            return Err(ResolveError::BuildIdMissing { found });
        }
        let has_id = |module: &&&Arc<Module>| {
            module
                .build_id()
                .is_some_and(|id| query.build_ids.iter().any(|prefix| prefix.matches(id)))
        };
        let fitting: Vec<&Arc<Module>> = named.iter().filter(has_id).copied().collect();
        match (fitting.as_slice(), &query.module) {
            ([one], _) => Ok(one),
            ([_, ..], _) => Err(ResolveError::ModuleAmbiguous {
                found: ids(&fitting),
            }),
            ([], None) => Err(ResolveError::BuildIdUnknown {
                wanted: query.build_ids.clone(),
                found: self.ids(),
            }),
            ([], Some(name)) if named.is_empty() => Err(ResolveError::ModuleNotFound {
                name: name.clone(),
                found: self.ids(),
            }),
            ([], Some(name)) => {
                let all: Vec<&Arc<Module>> = self.modules.iter().collect();
                let others: Vec<&Arc<Module>> = all.iter().filter(has_id).copied().collect();
                Err(ResolveError::ModuleMismatch {
                    name: name.clone(),
                    wanted: query.build_ids.clone(),
                    named: ids(&named),
                    others: ids(&others),
                })
            }
        }
    }

    /// The separate debug file with this build-id, if one is installed.
    pub(crate) fn debug_file(&self, id: &BuildId) -> Option<ElfImage> {
        let text = id.to_string();
        let (first, rest) = text.split_at_checked(2)?;
        let name = format!(".build-id/{first}/{rest}.debug");
        self.debug_roots.iter().find_map(|root| {
            let file: File = open_readable(&root.join(&name)).ok()?;
            let image = ElfImage::from_file(Bytes::of_file(&file).ok()?).ok()?;
            // The path is only a claim.
            (debug_build_id(&image).as_ref() == Some(id)).then_some(image)
        })
    }
}

/// The build-id of a debug file: its program headers describe the stripped binary, so the note is found by section.
fn debug_build_id(image: &ElfImage) -> Option<BuildId> {
    use object::{Object, ObjectSection, SectionKind};
    let file = image.sections()?;
    file.sections()
        .filter(|section| section.kind() == SectionKind::Note)
        .find_map(|section| BuildId::in_notes(section.data().ok()?, section.align()))
}

/// By its own names, or by any path that leads to the same file as the process sees it.
fn is_called(memory: &impl TargetMemory, module: &Module, name: &str) -> bool {
    if module.is_called(name) {
        return true;
    }
    let Ok(relative) = Path::new(name).strip_prefix("/") else {
        return false;
    };
    let Ok(metadata) = fs::metadata(memory.root().join(relative)) else {
        return false;
    };
    let device = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    module
        .mappings()
        .iter()
        .any(|mapping| mapping.inode == metadata.ino() && mapping.dev == device)
}
