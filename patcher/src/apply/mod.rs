//! The whole way of a patch, from an object and a pid to a live patch (DESIGN, "The path, as types").
//!
//! ```text
//! object ─program→ VerifiedProgram ─┐
//! pid → Process → TargetImage ─query→ PatchSite → displaced, liveness ─┴→ compile → template ─prepare (one thread held)→
//! Prepared ─apply (all stopped)→ Applied
//! ```
//! Decides the order, and that everything which can fail does so before anything in the target is touched. How a stage
//! works is the stage's business.

pub mod info;
mod join;
pub mod program;
pub mod query;
pub mod seccomp;
pub mod unwinding;

use upatch_jit::{CompiledPatch, VectorState, private};
use upatch_trampolines::{
    Avma, CheckFailure, DisplacedInsns, Liveness, SiteKind, TrampolineTemplate, Undisplaceable,
    check, displace, liveness,
};
use upatch_verifier::program::ProgramKind;
use upatch_verifier::{Pc, Policy, VerifiedProgram};

use crate::object::{ArenaLayout, ObjectProgram, PatchObject};
use crate::patching::{
    self, Applied, Arena, ArenaError, BuildError, Placement, PokeFigures, PrepareError, Record,
    Request,
};
use crate::process::status::Status;
use crate::process::{MemoryError, Process, ProcessError};
use crate::target::{PatchSite, ResolveError, SnapshotError, TargetImage};
use info::PatchInfo;
use program::ProgramError;
use query::{Override, QueryError};
use seccomp::SeccompConflict;

/// What is to be applied, and how.
#[derive(Clone, Debug)]
pub struct ApplyRequest<'a> {
    /// The patch.
    pub object: &'a PatchObject,
    /// Its file name, for the record.
    pub object_name: &'a str,
    /// What the operator said about the place.
    pub operator: Override,
    /// What the verifier allows.
    pub policy: Policy,
}

/// Why a patch is not applied. The target is as before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The object gives no verified program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The object has several programs.
    #[error("the object has {count} programs; several in one object are not applied together yet")]
    Several {
        /// How many.
        count: usize,
    },
    /// No place is meant.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The process can't be opened or looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its modules can't be found out.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The place isn't there, or must not be patched.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A program for an entry, and a place that is none, or the other way round.
    #[error("the program is made for {program}, but {site} is {place}")]
    WrongKind {
        /// What the section says.
        program: &'static str,
        /// The place.
        site: String,
        /// What it is.
        place: &'static str,
    },
    /// The instructions there can't be moved.
    #[error("{site} can't be patched: {error}")]
    Undisplaceable {
        /// The place.
        site: String,
        /// Why.
        error: Undisplaceable,
    },
    /// The target's seccomp filter may object.
    #[error(transparent)]
    Seccomp(#[from] SeccompConflict),
    /// An exception could pass through the image.
    #[error(transparent)]
    MayThrow(#[from] unwinding::MayThrow),
    /// This processor has no XSAVE, without which vector registers can't be kept around calls of the application.
    #[error("the patch calls functions of the program, which needs a processor with XSAVE")]
    NoXsave,
    /// What the compiler made did not pass the check of its machine code: an error of ours, found in time.
    #[error("the machine-code check refuses the image: {0}")]
    Check(CheckFailure),
    /// There is no memory to share with it.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// Nothing could be prepared in the target.
    #[error(transparent)]
    Prepare(PrepareError),
    /// It could not be made live.
    #[error(transparent)]
    Apply(#[from] patching::ApplyError),
    /// The image's private data could not be written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl From<PrepareError> for ApplyError {
    /// A check's refusal comes back through the preparation; it is the check's all the same.
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Build(BuildError::Never(error)) => match error.downcast::<CheckFailure>()
            {
                Ok(failure) => Self::Check(*failure),
                Err(error) => Self::Prepare(PrepareError::Build(BuildError::Never(error))),
            },
            error => Self::Prepare(error),
        }
    }
}

/// Everything that is known before the target is touched: what `--dry-run` prints.
#[derive(Debug)]
pub struct Plan<'p> {
    process: &'p Process,
    /// First 8 hex digits of the object's SHA-256.
    pub id: String,
    /// The place.
    pub site: PatchSite,
    /// The instructions that make room.
    pub displaced: DisplacedInsns,
    /// Which registers are free there, and why.
    pub liveness: Liveness,
    /// The machine code.
    pub compiled: CompiledPatch,
    /// Addresses of the application's functions that it calls.
    pub externs: Vec<Avma>,
    /// What the record will say.
    pub info: PatchInfo,
    /// Findings of the verifier that refuse nothing.
    pub warnings: Vec<(Pc, String)>,
    /// Most instructions that one call executes.
    pub max_steps: u64,
    vectors: VectorState,
    arena: Option<ArenaContent>,
}

/// Does everything that can be done without touching the target.
///
/// # Errors
/// See [`ApplyError`].
pub fn plan<'p>(process: &'p Process, request: &ApplyRequest<'_>) -> Result<Plan<'p>, ApplyError> {
    let object = request.object;
    let [program] = object.programs() else {
        return Err(ApplyError::Several {
            count: object.programs().len(),
        });
    };
    let verified = program::verified(object, program, &request.policy)?;
    let query = query::query(program, object.build_ids(), &request.operator)?;
    let target = TargetImage::snapshot(process)?;
    let site = target.resolve(process, &query)?;
    let named = query.function.clone();
    let info = info_of(request, program, &site, named, object.arena());
    check_kind(program.kind, &site, &info)?;
    refuse_if_ours(process, &site)?;
    site.compare_memory(process)?;

    let text = site.text();
    let displaced = displace(&text).map_err(|error| ApplyError::Undisplaceable {
        site: info.site_name(),
        error,
    })?;
    let at_entry = text.kind() == SiteKind::Entry;
    let liveness = liveness(&text, text.kind(), &|to| site.is_outside_module(to));

    let calls_out = !verified.facts().externs.is_empty();
    let vectors = match VectorState::detect() {
        Some(vectors) => vectors,
        None if calls_out => return Err(ApplyError::NoXsave),
        None => VectorState::SSE,
    };
    check_seccomp(process, &verified)?;
    let compiled = upatch_jit::compile(
        &verified,
        &join::site_registers(&liveness, at_entry, vectors),
    );
    let externs = compiled
        .extern_names
        .iter()
        .map(|name| target.find_function(process, name, Some(site.module())))
        .collect::<Result<Vec<_>, _>>()?;
    let called = std::iter::zip(&compiled.extern_names, &externs)
        // It is known not to throw, and in every module.
        .filter(|(name, _)| *name != "__errno_location")
        .map(|(name, at)| (name.clone(), *at));
    unwinding::check(process, &target, called)??;
    Ok(Plan {
        process,
        id: object.id(),
        displaced,
        liveness,
        externs,
        info,
        warnings: verified.facts().warnings.clone(),
        max_steps: verified.facts().max_steps,
        arena: arena_content(object.arena(), compiled.arena_window),
        compiled,
        vectors,
        site,
    })
}

impl Plan<'_> {
    /// Prepares image and arena in the target, stops it, pokes, and lets it run.
    ///
    /// # Errors
    /// See [`ApplyError`]; the target runs unpatched then.
    pub fn carry_out(self) -> Result<Applied, ApplyError> {
        let template = TrampolineTemplate::new(join::fragment(&self.compiled), self.displaced);
        let build = |placement: &Placement| {
            let image =
                template.place(placement.image, &join::bindings(placement, &self.externs))?;
            let policy = join::policy(
                &self.compiled,
                &self.liveness,
                self.vectors,
                placement,
                &self.externs,
            );
            check(&image, &policy).map_err(|failure| BuildError::Never(Box::new(failure)))
        };
        // SANITY: strings, numbers and lists of them serialise.
        let info = serde_json::to_value(&self.info).expect("the record's information serialises");
        let arena = self
            .arena
            .map(|arena| Arena::memfd(&self.id, arena.len, &arena.initial, None))
            .transpose()?;
        let prepared = patching::prepare(
            self.process,
            &Request {
                id: self.id,
                site: self.site.avma(),
                max_len: template.max_len() as u64,
                private_len: self.compiled.private_bytes,
                arena: arena.as_ref(),
                build: &build,
                info,
            },
        )?;
        seed_private(self.process, prepared.record(), self.compiled.private_bytes)?;
        // The file may have been replaced, or a probe may have come, while all this was done.
        if let Err(changed) = self.site.compare_memory(self.process) {
            // What is prepared is found and removed later if it can't be now.
            let _ = prepared.discard();
            return Err(changed.into());
        }
        Ok(patching::apply(prepared)?)
    }
}

/// A patch of ours at the place would look like foreign bytes further on; say what it is.
fn refuse_if_ours(process: &Process, site: &PatchSite) -> Result<(), ApplyError> {
    let inventory = patching::inspect(process)?;
    let there = |found: &&patching::Found| {
        found.state == patching::FoundState::Applied
            && found.plan().is_some_and(|plan| plan.at == site.avma())
    };
    match inventory.found.iter().find(there) {
        Some(found) => Err(ApplyError::Prepare(PrepareError::AlreadyPatched {
            id: found.id.clone(),
            site: site.avma(),
        })),
        None => Ok(()),
    }
}

/// Filters belong to threads: any of them may reach the patch.
fn check_seccomp(process: &Process, verified: &VerifiedProgram) -> Result<(), ApplyError> {
    for tid in process.numbers_in("task")? {
        // A thread that has ended meanwhile runs nothing.
        let Ok(status) = process.read_text(&format!("task/{tid}/status")) else {
            continue;
        };
        seccomp::check(
            &Status::parse(&status),
            verified.facts().helpers.iter().copied(),
        )?;
    }
    Ok(())
}

fn check_kind(kind: ProgramKind, site: &PatchSite, info: &PatchInfo) -> Result<(), ApplyError> {
    let wrong = |program, place| {
        Err(ApplyError::WrongKind {
            program,
            site: info.site_name(),
            place,
        })
    };
    match (kind, site.is_entry()) {
        (ProgramKind::PatchEntry, false) => wrong("a function's entry", "inside a function"),
        (ProgramKind::PatchOffset, true) => {
            wrong("a place inside a function", "a function's entry")
        }
        (ProgramKind::PatchEntry, true)
        | (ProgramKind::PatchOffset, false)
        | (ProgramKind::Probe | ProgramKind::Memory { .. }, _) => Ok(()),
    }
}

fn info_of(
    request: &ApplyRequest<'_>,
    program: &ObjectProgram,
    site: &PatchSite,
    named: Option<String>,
    arena: &ArenaLayout,
) -> PatchInfo {
    let module = site.module();
    let into = site.avma().since(site.range().start).unwrap_or(0);
    // A stripped binary has no name for it; the operator's or the section's says what people call it.
    let function = site
        .function()
        .map(str::to_owned)
        .or(named)
        .unwrap_or_else(|| format!("{:#x}", site.svma().0.wrapping_sub(into)));
    PatchInfo {
        object: request.object_name.to_owned(),
        build_id: module
            .build_id()
            .map_or_else(String::new, ToString::to_string),
        module: module.path().display().to_string(),
        function,
        offset: into,
        section: program.section.clone(),
        globals: arena.globals.clone(),
        types: arena.types.clone(),
        events: arena.events.clone(),
    }
}

/// An arena's length and what it begins with.
#[derive(Debug)]
struct ArenaContent {
    len: u64,
    initial: Vec<u8>,
}

/// The arena's pages and first content; `None` when the patch has no arena.
fn arena_content(layout: &ArenaLayout, window: u64) -> Option<ArenaContent> {
    if window == 0 {
        return None;
    }
    let end = layout
        .initial
        .iter()
        .map(|segment| segment.offset + segment.bytes.len() as u64)
        .max();
    let mut initial = vec![0; usize::try_from(end.unwrap_or(0)).unwrap_or(0)];
    for segment in &layout.initial {
        let start = usize::try_from(segment.offset).unwrap_or(usize::MAX);
        if let Some(room) = initial.get_mut(start..start.saturating_add(segment.bytes.len())) {
            room.copy_from_slice(&segment.bytes);
        }
    }
    Some(ArenaContent {
        len: window + upatch_abi::arena::SLACK,
        initial,
    })
}

/// The generator's state must not be zero, and need not be secret.
fn seed_private(process: &Process, record: &Record, private_bytes: u64) -> Result<(), MemoryError> {
    let Some(data) = record.data.filter(|_| private_bytes > 0) else {
        return Ok(());
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = now.map_or(1, |time| {
        u64::from(time.subsec_nanos()) << 32 ^ time.as_secs()
    }) | 1;
    process.memory().write(
        data.range().start.plus(private::RANDOM),
        &seed.to_le_bytes(),
    )
}

/// A short account of the stops that an operation needed.
#[must_use]
pub fn stops_in_words(figures: &PokeFigures) -> String {
    let times = if figures.stops == 1 {
        "once".to_owned()
    } else {
        format!("{} times", figures.stops)
    };
    let tasks = if figures.tasks == 1 {
        "1 task".to_owned()
    } else {
        format!("{} tasks", figures.tasks)
    };
    format!(
        "stopped {tasks} {times}, {} µs at the longest",
        figures.longest_stop.as_micros()
    )
}
