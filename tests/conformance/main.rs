//! Conformance: every case of tests/cases/bpf on every engine that can run it, one test a case.
//!
//! A case's text is assembled, encoded, decoded again; then the program runs on the interpreter, is verified and runs
//! again with everything checked that was proven, runs compiled, in rbpf where rbpf is right, and, when root may use bpf(2), in the
//! running kernel. Results and final memory must agree with the case and with each other. What the kernel or our verifier
//! refuses for reasons of its own is listed by name in kernel-refuses.txt and verifier-refuses.txt beside the cases, with
//! part of the message it must give; a listed case that is accepted fails. Cases are curated: the kernel never sees a generated program.

mod engines;
mod jit;
mod kernel;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use upatch_tests::skip::skip;
use upatch_verifier::asm::{Case, Expected};
use upatch_verifier::decode::decode;
use upatch_verifier::encode::encode_plain;
use upatch_verifier::verify::{Policy, verify};
use upatch_verifier::{Program, RawProgram};

use crate::engines::{Engine, Ran, Tally};
use crate::refusals::Refusals;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most cases take microseconds.
    arguments.test_threads.get_or_insert(2);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/bpf");
    let setup = match Setup::new(&folder) {
        Ok(setup) => Arc::new(setup),
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    };
    if let Err(reason) = &setup.kernel_available
        && !arguments.list
    {
        skip("conformance in the running kernel", reason);
    }
    let trials = setup.trials();
    let all = arguments.filter.is_none() && !arguments.list;
    let cases = trials.len();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!("{cases} case files; {}", setup.tally);
    }
    let mut unused = setup.rbpf_skips.unused();
    unused.extend(setup.verifier_refuses.unused());
    if setup.kernel_available.is_ok() {
        unused.extend(setup.kernel_refuses.unused());
    }
    if all && !unused.is_empty() {
        eprintln!("listed, but no case with a result: {unused:?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

struct Setup {
    cases: BTreeMap<String, PathBuf>,
    kernel_refuses: Refusals,
    verifier_refuses: Refusals,
    rbpf_skips: Refusals,
    kernel_available: Result<(), String>,
    tally: Tally,
}

impl Setup {
    fn new(folder: &Path) -> Result<Self, std::io::Error> {
        let mut cases = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "data")
                && let Some(name) = path.file_stem()
            {
                cases.insert(name.to_string_lossy().into_owned(), path.clone());
            }
        }
        let list = |name| Refusals::parse(&std::fs::read_to_string(folder.join(name))?);
        Ok(Self {
            cases,
            kernel_refuses: list("kernel-refuses.txt")?,
            verifier_refuses: list("verifier-refuses.txt")?,
            rbpf_skips: list("rbpf-skips.txt")?,
            kernel_available: kernel::available(),
            tally: Tally::default(),
        })
    }

    fn trials(self: &Arc<Self>) -> Vec<Trial> {
        let trial = |(name, path): (&String, &PathBuf)| {
            let (setup, name, path) = (Arc::clone(self), name.clone(), path.clone());
            Trial::test(name.clone(), move || setup.check(&name, &path))
        };
        self.cases.iter().map(trial).collect()
    }

    fn check(&self, name: &str, path: &Path) -> Result<(), Failed> {
        let text = std::fs::read_to_string(path)?;
        let case = Case::parse(&text)?;
        match &case.expected {
            Expected::Result(expected) => self.check_result(name, &case, *expected),
            Expected::Error(part) => self.check_error(&case, part),
        }
    }

    fn check_result(&self, name: &str, case: &Case, expected: u64) -> Result<(), Failed> {
        let program = case.program()?;
        let bytes = round_trip(case, &program)?;
        let raw = RawProgram::new(program).ok_or("the case is a patch, not a program on memory")?;
        let verified = verify(raw.program().clone(), &Policy::default());
        let mut memory: Option<(Engine, Vec<u8>)> = None;
        for engine in Engine::ALL {
            let ran = match engine {
                Engine::Interpreter => engines::interpreter(&raw, case),
                Engine::Verifier => {
                    engines::verifier(&verified, case, self.verifier_refuses.of(name))
                }
                Engine::Jit => jit::run(&raw, verified.as_ref().ok(), case),
                Engine::Rbpf if self.rbpf_skips.of(name).is_some() => Ok(Ran::NotApplicable),
                Engine::Rbpf => engines::rbpf(&raw, &bytes, case),
                Engine::Kernel => self.kernel(name, &bytes, case),
            };
            let ran = ran.map_err(|error| format!("{engine}: {error}"))?;
            self.tally.count(engine, &ran);
            let Ran::Ended { r0, memory: after } = ran else {
                continue;
            };
            if r0 != expected {
                return Err(format!("{engine}: r0 is {r0:#x}, expected {expected:#x}").into());
            }
            match &memory {
                None => memory = Some((engine, after)),
                Some((other, before)) if *before != after => {
                    return Err(format!(
                        "memory afterwards: {other} {before:x?}, {engine} {after:x?}"
                    )
                    .into());
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn kernel(&self, name: &str, bytes: &[u8], case: &Case) -> Result<Ran, String> {
        if self.kernel_available.is_err() {
            return Ok(Ran::NotApplicable);
        }
        let listed = self.kernel_refuses.of(name);
        match (kernel::run(bytes, &case.mem)?, listed) {
            (kernel::Outcome::Ended { r0, memory }, None) => Ok(Ran::Ended { r0, memory }),
            (kernel::Outcome::Ended { .. }, Some(_)) => {
                Err("accepted, though kernel-refuses.txt lists it".to_owned())
            }
            (kernel::Outcome::Refused { log }, Some(part)) if log.contains(part) => {
                Ok(Ran::Refused)
            }
            (kernel::Outcome::Refused { log }, _) => Err(format!("refused:\n{log}")),
        }
    }

    fn check_error(&self, case: &Case, part: &str) -> Result<(), Failed> {
        let refusal = match case.program() {
            Err(refusal) => refusal,
            Ok(program) => {
                if verify(program.clone(), &Policy::default()).is_ok() {
                    return Err("the verifier accepts it".into());
                }
                let raw = RawProgram::new(program).ok_or("the case is a patch")?;
                match engines::interpreter(&raw, case) {
                    Err(fault) => fault,
                    Ok(ran) => return Err(format!("expected an error, ended with {ran:?}").into()),
                }
            }
        };
        self.tally.count_error();
        if refusal.contains(part) {
            Ok(())
        } else {
            Err(format!("expected `{part}` in: {refusal}").into())
        }
    }
}

/// Text and bytes of a case are the same program; encoding and decoding are inverse.
fn round_trip(case: &Case, program: &Program) -> Result<Vec<u8>, Failed> {
    let bytes = encode_plain(program.insns())?;
    let decoded = decode(&bytes)?;
    if decoded != program.insns() {
        return Err("decoding what was encoded gives another program".into());
    }
    if let (Some(_), Some(raw)) = (&case.asm, &case.raw)
        && *raw != bytes
    {
        return Err(format!("-- asm encodes to {bytes:02x?}, -- raw is {raw:02x?}").into());
    }
    Ok(bytes)
}
