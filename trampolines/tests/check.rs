//! Case files for the machine-code check: hooks in assembly that must be accepted, and bad ones that must be refused,
//! each for the reason it was written for.
//!
//! The hook is assembled for 0x500000; `continue` is a label behind it, where the displaced instructions of a plain entry
//! (or, with `offset`, of a place inside a function) follow. Keys: `stack N` (declared), `max N` (allowed), `free`, `clobber`,
//! `write` (registers), `extern` (0x450000 may be called), `silent` (but the image doesn't say so), `vectors`, `syscalls N…`,
//! `tls OFFSET LEN`, `literals N` (the last N bytes are data), `flags` (live at the entry); then `accept` or `refuse TEXT`.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a panic is a failed test"
)]

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use support::{Case, assemble, cases};
use upatch_trampolines::check::{TlsWindow, VectorState};
use upatch_trampolines::{
    Avma, AvmaRange, Bindings, CheckPolicy, Fragment, FunctionText, GprSet, TrampolineImage,
    TrampolineTemplate, check, displace,
};

const IMAGE: Avma = Avma(0x50_0000);
const ARENA: AvmaRange = AvmaRange {
    start: Avma(0x100_0000_0000),
    end: Avma(0x100_0000_1000),
};
const PRIVATE: AvmaRange = AvmaRange {
    start: Avma(0x2000_0000),
    end: Avma(0x2000_0040),
};
const EXTERN: Avma = Avma(0x45_0000);
const PRELUDE: &str =
    "ARENA = 0x10000000000\nPRIVATE = 0x20000000\nEXTERN = 0x450000\nOUTSIDE = 0x460000\n_start:\n";

fn main() {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = ["accept.case", "refuse.case"]
        .into_iter()
        .flat_map(cases)
        .map(|case| Trial::test(case.name.clone(), move || run(&case).map_err(Failed::from)))
        .collect();
    trials.push(Trial::test("property: mutations", || {
        mutations().map_err(Failed::from)
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn number(text: &str) -> i64 {
    text.strip_prefix("0x").map_or_else(
        || text.parse().unwrap(),
        |digits| i64::from_str_radix(digits, 16).unwrap(),
    )
}

fn registers(names: Option<&str>) -> GprSet {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    let number =
        |name| u8::try_from(NAMES.iter().position(|known| *known == name).unwrap()).unwrap();
    names.map_or(GprSet::EMPTY, |names| {
        names
            .split(' ')
            .fold(GprSet::EMPTY, |set, name| set.with(number(name)))
    })
}

fn image_and_policy(case: &Case) -> (TrampolineImage, CheckPolicy) {
    let bytes = assemble(&format!("{PRELUDE}{}\ncontinue:\n", case.asm), IMAGE.0);
    image_of(case, bytes)
}

fn image_of(case: &Case, bytes: Vec<u8>) -> (TrampolineImage, CheckPolicy) {
    let stack = case
        .key("stack")
        .map_or(256, |text| u32::try_from(number(text)).unwrap());
    let literals = case
        .key("literals")
        .map_or(0, |text| usize::try_from(number(text)).unwrap());
    let calls = case.key("extern").is_some();
    let fragment = Fragment {
        code_len: bytes.len() - literals,
        bytes,
        fixups: Vec::new(),
        stack_bytes: stack,
        arena_len: ARENA.len(),
        calls_application: calls && case.key("silent").is_none(),
    };
    // sub rsp, 8; lea rax, [rip+8]; add rsp, 8; ret
    let function = vec![
        0x48, 0x83, 0xec, 0x08, 0x48, 0x8d, 0x05, 0x08, 0, 0, 0, 0x48, 0x83, 0xc4, 0x08, 0xc3,
    ];
    let site = if case.key("offset").is_some() { 4 } else { 0 };
    let displaced = displace(&FunctionText::new(Avma(0x40_1000), function, site)).unwrap();
    let bindings = Bindings {
        arena_base: ARENA.start,
        externs: vec![EXTERN],
        private_base: PRIVATE.start,
        gate: None,
    };
    let image = TrampolineTemplate::new(fragment, displaced)
        .place(IMAGE, &bindings)
        .unwrap();
    let tls: Vec<TlsWindow> = case
        .all("tls")
        .into_iter()
        .map(|text| {
            let (offset, len) = text.split_once(' ').unwrap();
            TlsWindow {
                offset: number(offset),
                len: u32::try_from(number(len)).unwrap(),
            }
        })
        .collect();
    let policy = CheckPolicy {
        free: registers(case.key("free")),
        clobberable: registers(case.key("clobber")),
        may_write: registers(case.key("write")),
        flags_free: case.key("flags").is_none(),
        externs: if calls { vec![EXTERN] } else { Vec::new() },
        errno_location: case.key("errno").map(|_| EXTERN),
        arena: ARENA,
        private: PRIVATE,
        syscalls: case.key("syscalls").map_or(Vec::new(), |list| {
            list.split(' ')
                .map(|text| u32::try_from(number(text)).unwrap())
                .collect()
        }),
        tls_reads: tls,
        vectors: case.key("vectors").map(|_| VectorState {
            mask: 7,
            bytes: 832,
        }),
        ..CheckPolicy::strict(
            case.key("max")
                .map_or(4096, |text| u32::try_from(number(text)).unwrap()),
        )
    };
    (image, policy)
}

fn run(case: &Case) -> Result<(), String> {
    let (image, policy) = image_and_policy(case);
    match (check(&image, &policy), case.key("refuse")) {
        (Ok(_), None) if case.key("accept").is_some() => Ok(()),
        (Err(failure), Some(wanted))
            if !wanted.is_empty() && failure.to_string().contains(wanted) =>
        {
            Ok(())
        }
        (Ok(_), _) => Err("accepted".to_owned()),
        (Err(failure), _) => Err(format!("refused: {failure}")),
    }
}

/// Single-byte mutations of every accepted hook: the check answers, in bounded time, and never panics.
fn mutations() -> Result<(), String> {
    let (mut accepted, mut refused) = (0u32, 0u32);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let started = std::time::Instant::now();
    for case in cases("accept.case") {
        let bytes = assemble(&format!("{PRELUDE}{}\ncontinue:\n", case.asm), IMAGE.0);
        for _ in 0..300 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut mutated = bytes.clone();
            let Some(at) = usize::try_from(random >> 32)
                .unwrap()
                .checked_rem(mutated.len())
            else {
                continue;
            };
            mutated[at] ^= u8::try_from(random & 0xff).unwrap().max(1);
            let (image, policy) = image_of(&case, mutated);
            let one = std::time::Instant::now();
            match check(&image, &policy) {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
            if one.elapsed().as_secs() >= 10 {
                return Err(format!(
                    "{}: {:?} for one mutation",
                    case.name,
                    one.elapsed()
                ));
            }
        }
    }
    println!(
        "{accepted} mutations accepted, {refused} refused, {:?}",
        started.elapsed()
    );
    if refused > accepted {
        Ok(())
    } else {
        Err(format!("{accepted} accepted, only {refused} refused"))
    }
}
