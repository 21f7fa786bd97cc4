//! Hand-assembled hooks and what it takes to put them on a function: the path that BPF will take, with a fragment
//! written by hand.

use anyhow::{Context, Result, ensure};
use upatch::patching::{
    self, Applied, Arena, BuildError, Found, FoundState, Placement, Request, Reverted, SiteRequest,
};
use upatch::process::Process;
use upatch::target::{BuildIdPrefix, PatchSite, Svma, TargetImage, TargetQuery};
use upatch_trampolines::{
    Bindings, CheckPolicy, Fixup, FixupKind, Fragment, PokePlan, TrampolineTemplate, check,
    displace,
};

/// What a hook does besides counting its calls in the arena's first word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// Nothing.
    Count,
    /// Stays a while in a subroutine of the image, so that its return address lies on the stack.
    Linger(u32),
    /// As `Count`, declared to call the application, so that it is retired.
    Retiring,
}

/// `push rax; movabs rax, arena; lock inc qword [rax]; pop rax; jmp continue`, with the lingering in between.
pub(crate) fn fragment(hook: Hook) -> Fragment {
    let mut bytes = vec![0x50, 0x48, 0xb8];
    let arena = bytes.len();
    bytes.extend([0; 8]);
    bytes.extend([0xf0, 0x48, 0xff, 0x00]);
    let mut subroutine = Vec::new();
    if let Hook::Linger(rounds) = hook {
        bytes.extend([0x51, 0xb9]); // push rcx; mov ecx, rounds
        bytes.extend(rounds.to_le_bytes());
        bytes.extend([0xe8, 7, 0, 0, 0, 0x59]); // call behind the jump; pop rcx
        subroutine.extend([0xff, 0xc9, 0x75, 0xfc, 0xc3]); // dec ecx; jne back; ret
    }
    bytes.push(0x58);
    let jump = bytes.len();
    bytes.extend([0xe9, 0, 0, 0, 0]);
    bytes.extend(subroutine);
    Fragment {
        code_len: bytes.len(),
        bytes,
        fixups: vec![
            Fixup {
                at: arena,
                kind: FixupKind::Arena(0),
            },
            Fixup {
                at: jump + 1,
                kind: FixupKind::Continue,
            },
        ],
        stack_bytes: if matches!(hook, Hook::Linger(_)) {
            24
        } else {
            8
        },
        arena_len: 4096,
        calls_application: hook == Hook::Retiring,
    }
}

/// An open process and a function in it.
pub(crate) struct Target {
    pub(crate) process: Process,
    pub(crate) site: PatchSite,
}

impl Target {
    /// Finds `function` in the module.
    pub(crate) fn open(pid: i32, module: &str, function: &str) -> Result<Self> {
        Self::open_by(pid, module, |id| {
            TargetQuery::function(Some(module), function, vec![id])
        })
    }

    /// Finds the function that begins at a stated address of the module.
    pub(crate) fn open_at(pid: i32, module: &str, address: u64) -> Result<Self> {
        Self::open_by(pid, module, |id| TargetQuery {
            module: Some(module.to_owned()),
            address: Some(Svma(address)),
            build_ids: vec![id],
            ..TargetQuery::default()
        })
    }

    fn open_by(
        pid: i32,
        module: &str,
        query: impl FnOnce(BuildIdPrefix) -> TargetQuery,
    ) -> Result<Self> {
        let process = Process::open(pid)?;
        let image = TargetImage::snapshot(&process)?;
        let found = image.modules().iter().find(|found| found.is_called(module));
        let id = found
            .context("no such module")?
            .id()
            .build_id
            .context("no build-id")?;
        let site = image.resolve(&process, &query(id.to_string().parse()?))?;
        Ok(Self { process, site })
    }

    /// Puts the hook on the function.
    pub(crate) fn apply(&self, id: &str, hook: Hook) -> Result<Applied> {
        let displaced = displace(&self.site.text())?;
        let template = TrampolineTemplate::new(fragment(hook), displaced);
        let build = |placement: &Placement| {
            let bindings = Bindings {
                arena_base: placement.arena.start,
                externs: Vec::new(),
                private_base: placement.private.start,
                gate: None,
            };
            let image = template.place(placement.image, &bindings)?;
            let policy = CheckPolicy {
                arena: placement.arena,
                ..CheckPolicy::strict(64)
            };
            check(&image, &policy).map_err(|error| BuildError::Never(error.into()))
        };
        let arena = Arena::memfd(id, 4096, &[], None)?;
        let request = Request {
            id: id.to_owned(),
            sites: vec![SiteRequest {
                site: self.site.avma(),
                max_len: template.max_len() as u64,
                private_len: 0,
                build: &build,
                info: serde_json::json!({"function": self.site.function()}),
            }],
            gate: 0,
            arena: Some(&arena),
            links: &[],
        };
        let prepared = patching::prepare(&self.process, &request)?;
        let applied = patching::apply(prepared)?;
        let maps = self.process.maps()?;
        let open = maps
            .iter()
            .find(|mapping| mapping.perms.write && mapping.perms.exec);
        ensure!(open.is_none(), "writable and executable: {open:?}");
        ensure!(
            patching::inspect(&self.process)?.descriptors.is_empty(),
            "a descriptor was left open"
        );
        Ok(applied)
    }

    /// Hits so far of a live patch.
    pub(crate) fn hits(&self, applied: &Applied) -> Result<u64> {
        let arena = applied.arena().context("no arena")?;
        Ok(self.process.memory().read_u64(arena.start)?)
    }

    /// Everything of ours with this id.
    pub(crate) fn found(&self, id: &str) -> Result<Vec<Found>> {
        let all = patching::inspect(&self.process)?.found;
        Ok(all.into_iter().filter(|found| found.id == id).collect())
    }

    /// Takes the patch off; gives the final hits too.
    pub(crate) fn revert(&self, id: &str) -> Result<(Reverted, u64)> {
        let mut found = self.found(id)?;
        found.retain(|found| found.state == FoundState::Applied);
        ensure!(found.len() == 1, "{} live patches {id}", found.len());
        self.revert_found(&found[0])
    }

    /// As [`Self::revert`], for one that was found.
    pub(crate) fn revert_found(&self, found: &Found) -> Result<(Reverted, u64)> {
        let offset = self.site.text().site;
        let original = |plan: &PokePlan| {
            let bytes = self.site.bytes().get(offset..offset + plan.old.len());
            bytes.unwrap_or_default().to_vec()
        };
        let mut hits = 0;
        let reverted = patching::revert(&self.process, found, &original, &mut |arena| {
            if let Some(arena) = arena {
                hits = self.process.memory().read_u64(arena.start).unwrap_or(0);
            }
        })?;
        Ok((reverted, hits))
    }

    /// Nothing of ours is left, and the text is as in the file.
    pub(crate) fn check_clean(&self) -> Result<()> {
        let inventory = patching::inspect(&self.process)?;
        ensure!(
            inventory == patching::Inventory::default(),
            "left in the process: {inventory:?}"
        );
        self.site.compare_memory(&self.process)?;
        Ok(())
    }
}
