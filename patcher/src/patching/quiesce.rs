//! Quiescence: is anybody in these bytes, or will anybody return into them?
//!
//! ```text
//!   site ─► ┌────────┐  a thread that stands here simply takes the jump
//!           │ insn 1 │
//!           │ insn 2 │◄─ a thread that stands here is moved to the copy of the same instruction in the image
//!           │ insn 3 │◄─ a word on a stack that points here may be a return address or the ip in a signal frame:
//!           └────────┘   nobody can tell which, so the poke waits
//! resume ─►   …          a return address to here stays right
//! ```
//!
//! Looking for words on stacks is conservative: any aligned word that happens to hold such an address delays. It can't
//! see suspended contexts (coroutines, a saved `jmp_buf`), which is why an image that calls the application is retired
//! instead of unmapped.

use upatch_trampolines::{Avma, AvmaRange, PokePlan};

use crate::process::{StoppedProcess, TaskView};

/// What keeps a plan from being carried out right now. All of it is worth another try a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Blocker {
    /// A task stands inside and can't be moved.
    #[error("thread {tid} stands at {ip}")]
    Stands {
        /// The task.
        tid: i32,
        /// Where.
        ip: Avma,
    },
    /// A task stands inside, in a restartable sequence: moved, it would miss its abort.
    #[error("thread {tid} stands at {ip} in a restartable sequence")]
    Rseq {
        /// The task.
        tid: i32,
        /// Where.
        ip: Avma,
    },
    /// A word on a task's stack points inside.
    #[error("thread {tid} may return to {word}")]
    Returns {
        /// The task.
        tid: i32,
        /// Where to.
        word: Avma,
    },
}

/// A plan that can't be carried out now; the plan is handed back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} has no quiet moment: {}", plan.at, describe(blockers))]
pub struct Busy {
    /// The plan.
    pub plan: PokePlan,
    /// Who is in the way.
    pub blockers: Vec<Blocker>,
}

fn describe(blockers: &[Blocker]) -> String {
    let shown: Vec<String> = blockers.iter().take(4).map(ToString::to_string).collect();
    shown.join(", ")
}

/// Who uses one range of addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct RangeUse {
    /// Tasks that stand inside.
    pub(super) standing: Vec<TaskView>,
    /// Words on stacks that point inside: (task, word).
    pub(super) words: Vec<(i32, Avma)>,
}

impl RangeUse {
    pub(super) fn is_unused(&self) -> bool {
        self.standing.is_empty() && self.words.is_empty()
    }
}

/// Who uses each of these ranges; true if every stack could be read to its end.
pub(super) fn survey(
    stopped: &mut StoppedProcess<'_>,
    ranges: &[AvmaRange],
) -> (Vec<RangeUse>, bool) {
    let mut uses = vec![RangeUse::default(); ranges.len()];
    let mut complete = true;
    let hull = AvmaRange {
        start: ranges
            .iter()
            .map(|range| range.start)
            .min()
            .unwrap_or(Avma(0)),
        end: ranges
            .iter()
            .map(|range| range.end)
            .max()
            .unwrap_or(Avma(0)),
    };
    let tasks: Vec<TaskView> = stopped.tasks().collect();
    for task in tasks {
        for (range, used) in ranges.iter().zip(&mut uses) {
            // A system call that will be repeated lies two bytes back.
            let repeats = task.restarts && range.contains(Avma(task.ip.0.wrapping_sub(2)));
            if range.contains(task.ip) || repeats {
                used.standing.push(task);
            }
        }
        complete &= stopped.scan_stack(&task, |word| {
            let word = Avma(word);
            if !hull.contains(word) {
                return;
            }
            for (range, used) in ranges.iter().zip(&mut uses) {
                if range.contains(word) {
                    used.words.push((task.tid, word));
                }
            }
        });
    }
    (uses, complete)
}

/// The displaced bytes but the first: a task at the first one takes the jump.
pub(super) fn interior(plan: &PokePlan) -> AvmaRange {
    AvmaRange {
        start: plan.displaced.start.plus(1),
        end: plan.displaced.end,
    }
}

/// Which way a poke goes, and so the order of moving and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Original bytes become the jump: move out of them first.
    Enter,
    /// The jump becomes original bytes: move into them afterwards.
    Leave,
}

/// One task and where it is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) tid: i32,
    pub(super) from: Avma,
    pub(super) to: Avma,
}

/// One site's plan, and the tasks that it moves.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) plan: PokePlan,
    pub(super) moves: Vec<Move>,
}

/// Proof that plans may be carried out now.
///
/// Holding a `Quiescent` tells you: every task of the address space stands still; none stands in, or returns into, the
/// displaced bytes of any of the plans, but those that it will move; and this is true until it is used up or dropped.
///
/// ```compile_fail,E0505
/// use upatch::{patching::{Quiescent, text_poke}, process::StoppedProcess};
/// use upatch_trampolines::PokePlan;
/// fn resume_too_early(mut stopped: StoppedProcess<'_>, plan: PokePlan) {
///     let quiescent = stopped.quiesce(plan).unwrap();
///     stopped.resume();
///     let _ = text_poke(quiescent);
/// }
/// ```
#[must_use]
pub struct Quiescent<'s, 't> {
    pub(super) stopped: &'s mut StoppedProcess<'t>,
    pub(super) parts: Vec<Part>,
    /// The gate byte of several sites: closed while they are poked.
    pub(super) gate: Option<Avma>,
    pub(super) direction: Direction,
}

impl<'t> StoppedProcess<'t> {
    /// Proves that the plan may be carried out, or says who is in the way.
    ///
    /// # Errors
    /// [`Busy`], with the plan.
    pub fn quiesce(&mut self, plan: PokePlan) -> Result<Quiescent<'_, 't>, Box<Busy>> {
        let (uses, _) = survey(self, &[interior(&plan)]);
        self.quiesce_surveyed(&[plan], None, &uses)
    }

    /// As [`Self::quiesce`], for all sites of a patch, with the survey of the plans' [`interior`]s at hand.
    pub(super) fn quiesce_surveyed(
        &mut self,
        plans: &[PokePlan],
        gate: Option<Avma>,
        uses: &[RangeUse],
    ) -> Result<Quiescent<'_, 't>, Box<Busy>> {
        let mut parts = Vec::new();
        for (plan, used) in plans.iter().zip(uses) {
            match self.moves(plan, used) {
                Ok(moves) => parts.push(Part {
                    plan: plan.clone(),
                    moves,
                }),
                Err(blockers) => {
                    return Err(Box::new(Busy {
                        plan: plan.clone(),
                        blockers,
                    }));
                }
            }
        }
        Ok(Quiescent {
            stopped: self,
            parts,
            gate,
            direction: Direction::Enter,
        })
    }

    /// Who has to be moved out of one site, or who is in the way.
    fn moves(&self, plan: &PokePlan, used: &RangeUse) -> Result<Vec<Move>, Vec<Blocker>> {
        let mut blockers: Vec<Blocker> = used
            .words
            .iter()
            .map(|&(tid, word)| Blocker::Returns { tid, word })
            .collect();
        let mut moves = Vec::new();
        for task in &used.standing {
            let (tid, ip) = (task.tid, task.ip);
            match plan.ips.to_image(ip) {
                // A task that will repeat a system call has its ip behind it: its copy would be another instruction.
                // Displaced system calls are refused before, so this is a task that only looks like it.
                Some(to) if !task.parked && !task.restarts => {
                    if self.in_rseq_section(task) {
                        blockers.push(Blocker::Rseq { tid, ip });
                    } else {
                        moves.push(Move { tid, from: ip, to });
                    }
                }
                Some(_) | None => blockers.push(Blocker::Stands { tid, ip }),
            }
        }
        if blockers.is_empty() {
            Ok(moves)
        } else {
            Err(blockers)
        }
    }

    /// The same for taking jumps back, by the plans that put them there. Nobody can be in the way: a jump has no inside.
    /// Tasks that stand in the images' copies of displaced instructions are moved home, so that they empty sooner.
    pub fn quiesce_inverse(&mut self, plans: &[PokePlan], gate: Option<Avma>) -> Quiescent<'_, 't> {
        let tasks: Vec<TaskView> = self.tasks().collect();
        let movable: Vec<&TaskView> = tasks
            .iter()
            .filter(|task| !task.parked && !task.restarts && !self.in_rseq_section(task))
            .collect();
        let part = |plan: &PokePlan| {
            let moves = movable.iter().filter_map(|task| {
                let to = plan.ips.to_original(task.ip)?;
                Some(Move {
                    tid: task.tid,
                    from: task.ip,
                    to,
                })
            });
            Part {
                plan: plan.inverse(),
                moves: moves.collect(),
            }
        };
        Quiescent {
            parts: plans.iter().map(part).collect(),
            stopped: self,
            gate,
            direction: Direction::Leave,
        }
    }
}
