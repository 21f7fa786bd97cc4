//! The whole way of a patch, from an object and a pid to a live patch (DESIGN, "The path, as types").
//!
//! ```text
//! object ─program→ VerifiedProgram … ─┐                                            (each program of the object)
//! pid → Process → TargetImage ─query→ PatchSite … → displaced, liveness ─┴→ compile → template … ─prepare (one thread held)→
//! Prepared ─apply (all stopped)→ Applied
//! ```
//! Decides the order, and that everything which can fail does so before anything in the target is touched. How a stage
//! works is the stage's business.

pub mod info;
pub mod inspect;
mod join;
pub mod program;
pub mod query;
pub mod seccomp;
pub mod shared;
pub mod unwinding;

use shared::Shared;
use upatch_abi::arena::window_for;
use upatch_jit::{CompiledPatch, VectorState, private};
use upatch_trampolines::{
    Avma, CheckFailure, CheckedImage, DisplacedInsns, Liveness, SiteKind, TrampolineTemplate,
    Undisplaceable, check, displace, liveness,
};
use upatch_verifier::program::ProgramKind;
use upatch_verifier::{Pc, Policy, VerifiedProgram};

use crate::kernel::{self, KernelError};
use crate::object::{ArenaLayout, ObjectProgram, PatchObject, TypeTable};
use crate::patching::record::MAX_SITES;
use crate::patching::{
    self, Applied, ArenaError, Backend, BuildError, FoundState, Placement, PokeFigures,
    PrepareError, Record, Request, SiteRequest,
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
    /// What the arena shall be made of; without a word the kernel's if the object has kernel programs, else a memory file.
    pub backend: Option<Backend>,
    /// Where kernel programs go.
    pub devices: &'a [kernel::Device],
}

/// Why a patch is not applied. The target is as before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The object gives no verified program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The command line says a place, and the object has several programs.
    #[error("--function and --offset say one place, and the object has {count} programs")]
    OverrideOfSeveral {
        /// How many.
        count: usize,
    },
    /// The object has more programs than upatch applies together.
    #[error("the object has {count} programs; at most {MAX_SITES} are applied together")]
    TooManySites {
        /// How many.
        count: usize,
    },
    /// Two programs displace the same instructions.
    #[error(
        "{first} and {second} lie too close together: both would displace the same instructions"
    )]
    SitesOverlap {
        /// One place.
        first: String,
        /// The other.
        second: String,
    },
    /// A killed `upatch` left a patch there in the middle.
    #[error("an interrupted upatch left patch {id} there half applied, where it changes nothing")]
    Interrupted {
        /// Its id.
        id: String,
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
    /// Kernel programs reach no memory file.
    #[error("the object has kernel programs, which reach an arena of the kernel's only")]
    MemfdForKernel,
    /// Its kernel programs are not in place.
    #[error(transparent)]
    Kernel(#[from] KernelError),
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
    /// One for each program of the object, never none; the first is the leader.
    pub sites: Vec<SitePlan>,
    /// Programs for the kernel that come along.
    pub kernel: kernel::Plan,
    /// What the arena will be made of.
    pub backend: Backend,
    arena: Option<ArenaContent>,
}

/// What is known of one site.
#[derive(Debug)]
pub struct SitePlan {
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
    /// What its record will say.
    pub info: PatchInfo,
    /// Findings of the verifier that refuse nothing.
    pub warnings: Vec<(Pc, String)>,
    /// Most instructions that one call executes.
    pub max_steps: u64,
    vectors: VectorState,
}

/// Does everything that can be done without touching the target, for all programs of the object: if one is refused, all are.
///
/// # Errors
/// See [`ApplyError`].
pub fn plan<'p>(process: &'p Process, request: &ApplyRequest<'_>) -> Result<Plan<'p>, ApplyError> {
    let object = request.object;
    let count = object.programs().len();
    if count > 1 && (request.operator.function.is_some() || request.operator.address.is_some()) {
        return Err(ApplyError::OverrideOfSeveral { count });
    }
    if count > MAX_SITES {
        return Err(ApplyError::TooManySites { count });
    }
    let verified = program::all_verified(object, &request.policy)?;
    let kernel = kernel::plan(object, request.devices)?;
    let backend = match (request.backend, kernel.programs.is_empty()) {
        (Some(Backend::Memfd), false) => return Err(ApplyError::MemfdForKernel),
        (Some(backend), _) => backend,
        (None, true) => Backend::Memfd,
        (None, false) => Backend::Kernel,
    };
    let target = TargetImage::snapshot(process)?;
    let mut sites: Vec<SitePlan> = Vec::new();
    for (program, verified) in object.programs().iter().zip(&verified) {
        let mut site = plan_site(process, request, &target, program, verified, Purpose::Apply)?;
        let range = site.displaced.range();
        if let Some(other) = sites
            .iter()
            .find(|other| other.displaced.range().overlaps(&range))
        {
            return Err(ApplyError::SitesOverlap {
                first: other.info.site_name(),
                second: site.info.site_name(),
            });
        }
        if !sites.is_empty() {
            // The leader's record names the variables.
            site.info.globals.clear();
            site.info.types = TypeTable::default();
            site.info.events = None;
        }
        sites.push(site);
    }
    let window = sites.iter().map(|site| site.compiled.arena_window).max();
    // Kernel programs have one even if no patch uses it.
    let for_kernel = if kernel.programs.is_empty() {
        0
    } else {
        window_for(object.arena().len).unwrap_or(0)
    };
    let window = window.unwrap_or(0).max(for_kernel);
    Ok(Plan {
        process,
        id: object.id(),
        arena: arena_content(object.arena(), window),
        sites,
        kernel,
        backend,
    })
}

/// What a site is planned for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be patched: everything that may be in the way is looked at.
    Apply,
    /// To be shown, whatever is there at the moment.
    Show,
}

fn plan_site(
    process: &Process,
    request: &ApplyRequest<'_>,
    target: &TargetImage,
    program: &ObjectProgram,
    verified: &VerifiedProgram,
    purpose: Purpose,
) -> Result<SitePlan, ApplyError> {
    let object = request.object;
    let query = query::query(program, object.build_ids(), &request.operator)?;
    let site = target.resolve(process, &query)?;
    let named = query.function.clone();
    let info = info_of(request, program, &site, named, object.arena());
    check_kind(program.kind, &site, &info)?;
    if purpose == Purpose::Apply {
        refuse_if_ours(process, &site)?;
        site.compare_memory(process)?;
    }

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
    if purpose == Purpose::Apply {
        check_seccomp(process, verified)?;
    }
    let gated = object.programs().len() > 1;
    let compiled = upatch_jit::compile(
        verified,
        &join::site_registers(&liveness, at_entry, gated, vectors),
    );
    let externs = compiled
        .extern_names
        .iter()
        .map(|name| target.find_function(process, name, Some(site.module())))
        .collect::<Result<Vec<_>, _>>()?;
    if purpose == Purpose::Apply {
        let called = std::iter::zip(&compiled.extern_names, &externs)
            // It is known not to throw, and in every module.
            .filter(|(name, _)| *name != "__errno_location")
            .map(|(name, at)| (name.clone(), *at));
        unwinding::check(process, target, called)??;
    }
    Ok(SitePlan {
        displaced,
        liveness,
        externs,
        info,
        warnings: verified.facts().warnings.clone(),
        max_steps: verified.facts().max_steps,
        compiled,
        vectors,
        site,
    })
}

impl SitePlan {
    /// The image for given addresses, checked.
    fn build(
        &self,
        template: &TrampolineTemplate,
        placement: &Placement,
    ) -> Result<CheckedImage, BuildError> {
        let image = template.place(placement.image, &join::bindings(placement, &self.externs))?;
        let policy = join::policy(
            &self.compiled,
            &self.liveness,
            self.vectors,
            placement,
            &self.externs,
        );
        check(&image, &policy).map_err(|failure| BuildError::Never(Box::new(failure)))
    }
}

impl Plan<'_> {
    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The first site.
    #[must_use]
    pub fn first(&self) -> &SitePlan {
        // SANITY: an object has at least one program, and each became a site.
        self.sites.first().expect("a plan without sites")
    }

    /// Prepares images and arena in the target, stops it, pokes, and lets it run. `shared` was made for several
    /// processes; without one it makes its own.
    ///
    /// # Errors
    /// See [`ApplyError`]; the target runs unpatched then.
    pub fn carry_out(mut self, shared: Option<&Shared>) -> Result<Applied, ApplyError> {
        let own = match shared {
            Some(_) => None,
            None => Some(Shared::make(&[self.process], &self, false)?),
        };
        // SANITY: without one there is one of its own.
        let shared = shared.or(own.as_ref()).expect("nothing shared");
        if let Some(leader) = self.sites.first_mut() {
            leader.info.kernel = shared.infos();
        }
        let links = shared.links();
        let several = self.sites.len() > 1;
        type Build<'b> = Box<dyn Fn(&Placement) -> Result<CheckedImage, BuildError> + 'b>;
        let templates: Vec<TrampolineTemplate> = self
            .sites
            .iter()
            .map(|site| {
                TrampolineTemplate::new(join::fragment(&site.compiled), site.displaced.clone())
            })
            .collect();
        let builds: Vec<Build<'_>> = std::iter::zip(&self.sites, &templates)
            .map(|(site, template)| -> Build<'_> {
                Box::new(|placement| site.build(template, placement))
            })
            .collect();
        let mut sites = Vec::new();
        for (index, site) in self.sites.iter().enumerate() {
            let gate = if several && index == 0 {
                private::GUARDS
            } else {
                0
            };
            sites.push(SiteRequest {
                site: site.site.avma(),
                max_len: templates[index].max_len() as u64,
                private_len: site.compiled.private_bytes.max(gate),
                build: &*builds[index],
                // SANITY: strings, numbers and lists of them serialise.
                info: serde_json::to_value(&site.info)
                    .expect("the record's information serialises"),
            });
        }
        let request = Request {
            id: self.id,
            sites,
            gate: private::GATE,
            arena: shared.arena(),
            links: &links,
        };
        let prepared = patching::prepare(self.process, &request)?;
        for (site, record) in self.sites.iter().zip(prepared.records()) {
            seed_private(self.process, record, site.compiled.private_bytes)?;
        }
        // A file may have been replaced, or a probe may have come, while all this was done.
        for site in &self.sites {
            if let Err(changed) = site.site.compare_memory(self.process) {
                // What is prepared is found and removed later if it can't be now.
                let _ = prepared.discard();
                return Err(changed.into());
            }
        }
        Ok(patching::apply(prepared)?)
    }
}

/// A patch of ours at the place would look like foreign bytes further on; say what it is.
fn refuse_if_ours(process: &Process, site: &PatchSite) -> Result<(), ApplyError> {
    let inventory = patching::inspect(process)?;
    for found in &inventory.found {
        if !found.plans().any(|plan| plan.at == site.avma()) {
            continue;
        }
        match found.state {
            FoundState::Applied => {
                return Err(ApplyError::Prepare(PrepareError::AlreadyPatched {
                    id: found.id.clone(),
                    site: site.avma(),
                }));
            }
            FoundState::Interrupted => {
                return Err(ApplyError::Interrupted {
                    id: found.id.clone(),
                });
            }
            FoundState::Leftover
            | FoundState::Retired
            | FoundState::Contested { .. }
            | FoundState::Incomplete
            | FoundState::Damaged(_) => {}
        }
    }
    Ok(())
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
        .or(named.filter(|_| into == program.target.as_ref().map_or(0, |target| target.offset)))
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
        kernel: Vec::new(),
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
