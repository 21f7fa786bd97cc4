//! Attaching loaded programs, by aya's links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use serde::{Deserialize, Serialize};

use super::load::{KernelError, Loaded, failed};
use super::sys;
use crate::object::Hook;

/// What the record says of an attached program. It comes back from the target: only ever shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedInfo {
    /// The C function.
    pub name: String,
    /// Where it is attached.
    pub hook: Hook,
    /// Of this device.
    pub interface: String,
    /// The device's number.
    pub ifindex: u32,
    /// The kernel's number of the program.
    pub program: u32,
    /// The kernel's hash of its instructions, hex digits.
    pub tag: String,
    /// The kernel's number of the link.
    pub link: u32,
}

/// A program that runs for every packet, for as long as somebody holds its link.
#[derive(Debug)]
pub struct Attached {
    link: OwnedFd,
    /// For the record.
    pub info: AttachedInfo,
}

impl Attached {
    /// Its link, closed on exec.
    #[must_use]
    pub fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// Attaches programs, behind those that are attached already.
///
/// # Errors
/// See [`KernelError`]; those before are detached again.
pub fn attach(loaded: Vec<Loaded>) -> Result<Vec<Attached>, KernelError> {
    loaded.into_iter().map(one).collect()
}

fn one(loaded: Loaded) -> Result<Attached, KernelError> {
    let Loaded { fd, planned } = loaded;
    let refused = |why: String| KernelError::Attach {
        program: planned.name.clone(),
        hook: planned.hook,
        interface: planned.interface.clone(),
        why,
    };
    let program = sys::prog_info(fd.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
    let link = link(program.id, planned.hook, &planned.interface)
        .map_err(|error| refused(in_one_line(&*error)))?;
    let info = sys::link_info(link.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD"))?;
    if info.prog_id != program.id || info.ifindex != planned.ifindex {
        return Err(refused("the device was renamed meanwhile".to_owned()));
    }
    Ok(Attached {
        link,
        info: AttachedInfo {
            tag: program
                .tag
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            name: planned.name,
            hook: planned.hook,
            interface: planned.interface,
            ifindex: planned.ifindex,
            program: program.id,
            link: info.id,
        },
    })
}

type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// aya attaches and keeps its link's descriptor to itself: ours is a second one of the same link.
fn link(program: u32, hook: Hook, interface: &str) -> Result<OwnedFd, Refusal> {
    let info =
        loaded_programs().find(|found| found.as_ref().is_ok_and(|info| info.id() == program));
    let info: ProgramInfo = info.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))??;
    let mut classifier = SchedClassifier::from_program_info(info, "upatch".into())?;
    let attached = classifier.attach_with_options(
        interface,
        match hook {
            Hook::TcxIngress => TcAttachType::Ingress,
            Hook::TcxEgress => TcAttachType::Egress,
        },
        TcAttachOptions::TcxOrder(LinkOrder::default()),
    )?;
    let link = FdLink::try_from(classifier.take_link(attached)?)?;
    Ok(sys::link_by_id(link.info()?.id())?)
}

fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
