//! Bounds and parts of functions, and text that must not be patched.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod target_support;

use std::path::Path;

use target_support::*;
use upatch::target::*;

fn query(binary: &Path, function: &str) -> TargetQuery {
    TargetQuery::function(Some("exe"), function, ids(binary))
}

#[test]
fn offsets_and_bounds() {
    let shop = Workshop::new();
    // A function without .size whose bounds come from CFI, one with neither, and one that is shorter than a jump.
    let source = format!(
        "{WORK}\n__asm__(\".text\\n.globl by_frame\\n.type by_frame,@function\\nby_frame: .cfi_startproc\\nmovl $7,%eax\\nnop\\nret\\n.cfi_endproc\\n\
         .globl nowhere\\n.type nowhere,@function\\n.balign 16\\nnowhere: movl $7,%eax\\nret\\n\
         .balign 16\\n.globl tiny\\n.type tiny,@function\\ntiny: .cfi_startproc\\nret\\n.cfi_endproc\\n.size tiny,.-tiny\\n.balign 16\\n\");"
    );
    let binary = shop.victim("bounds", &source, &[]);
    let victim = shop.start(&binary);
    let site = resolve(&victim, &query(&binary, "by_frame")).unwrap();
    assert_eq!(site.bytes(), [0xb8, 7, 0, 0, 0, 0x90, 0xc3]);
    assert!(matches!(
        refusal(&victim, &query(&binary, "nowhere")),
        ResolveError::NoBounds { .. }
    ));
    let tiny = resolve(&victim, &query(&binary, "tiny")).unwrap();
    assert_eq!((tiny.bytes(), tiny.padding().len()), (&[0xc3][..], 15));
    let at = |offset| TargetQuery {
        offset,
        ..query(&binary, "by_frame")
    };
    assert_eq!(
        resolve(&victim, &at(5)).unwrap().avma(),
        site.avma().plus(5)
    );
    assert!(!resolve(&victim, &at(6)).unwrap().is_entry());
    let error = refusal(&victim, &at(3));
    assert!(
        matches!(
            error,
            ResolveError::NotAnInstruction {
                offset: 3,
                before: 0,
                after: 5
            }
        ),
        "{error}"
    );
    assert!(matches!(
        refusal(&victim, &at(7)),
        ResolveError::OutsideFunction { offset: 7, len: 7 }
    ));
    assert!(matches!(
        refusal(&victim, &at(u64::MAX)),
        ResolveError::OutsideFunction { .. }
    ));
    // Label inside a function: an entry point that the code doesn't show.
    let source = format!(
        "{WORK}\nint extra(int x) {{ __asm__ volatile(\"nop\\n.globl inside\\ninside: nop\"); return x; }}"
    );
    let binary = shop.victim("labels", &source, &[]);
    let victim = shop.start(&binary);
    let inside = nm(&binary, "inside").0;
    let site = resolve(&victim, &query(&binary, "extra")).unwrap();
    assert_eq!(
        site.text().entry_points,
        [site.module().bias().avma(Svma(inside))]
    );
    assert!(matches!(
        refusal(&victim, &query(&binary, "inside")),
        ResolveError::NoBounds { .. }
    ));
}

#[test]
fn cold_parts_are_found_without_symbols() {
    let shop = Workshop::new();
    let source = "#include <stdio.h>\nvolatile int bad;\n__attribute__((cold, noipa)) void complain(int x) { bad += x; }\n\
        __attribute__((noipa)) int work(int x) { int sum = 0; for (int i = 0; i < x; i++) { if (__builtin_expect(i > 1000, 0)) { complain(i); bad = i; sum -= bad * 3; } sum += bad; } return sum; }";
    let binary = shop.victim("parts", source, &["-freorder-blocks-and-partition"]);
    let (cold, size) = nm(&binary, "work.cold");
    let (start, _) = nm(&binary, "work");
    let check = |site: PatchSite| {
        let text = site.text();
        let bias = site.module().bias();
        let part = text
            .parts
            .iter()
            .find(|part| part.at == bias.avma(Svma(cold)))
            .expect("the cold part");
        assert_eq!(part.bytes.len() as u64, size);
        assert_eq!(text.parts.len(), 1, "nothing else jumps into it");
    };
    let victim = shop.start(&binary);
    check(resolve(&victim, &query(&binary, "work")).unwrap());
    drop(victim);
    let by_address = TargetQuery {
        address: Some(Svma(start)),
        function: None,
        ..query(&binary, "")
    };
    shop.run("strip", &["parts"]);
    let victim = shop.start(&binary);
    check(resolve(&victim, &by_address).unwrap());
}

#[test]
fn text_that_is_writable_shared_or_not_code() {
    let shop = Workshop::new();
    let protect = |flags: &str| {
        format!(
            "#include <sys/mman.h>\n#include <stdint.h>\n__attribute__((noipa)) int target(int x) {{ return x + 5; }}\n\
            __attribute__((noipa)) int work(int x) {{ uintptr_t at = (uintptr_t)target & ~4095ul; return mprotect((void *)at, 4096, {flags}) + x; }}"
        )
    };
    let binary = shop.victim("rwx", &protect("PROT_READ|PROT_WRITE|PROT_EXEC"), &[]);
    let victim = shop.start(&binary);
    let error = refusal(&victim, &query(&binary, "target"));
    assert!(
        matches!(
            error,
            ResolveError::Mapping {
                why: error::MappingFault::Writable,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.failure(), Failure::Refused);
    // Not executable any more: in a page of its own, which the program doesn't run.
    let lonely = protect("PROT_READ").replace(
        "int target",
        "__attribute__((section(\".lonely\"), aligned(4096))) int target",
    );
    let lonely = format!(
        "{lonely}\n__attribute__((section(\".lonely\"), aligned(4096))) int behind(int x) {{ return x; }}"
    );
    let binary = shop.victim("noexec", &lonely, &[]);
    let victim = shop.start(&binary);
    let error = refusal(&victim, &query(&binary, "target"));
    assert!(
        matches!(
            error,
            ResolveError::Mapping {
                why: error::MappingFault::NotExecutable,
                ..
            }
        ),
        "{error}"
    );
    // Text that the program replaced by a shared mapping of its own file, and by anonymous memory.
    for (name, flags, shared) in [
        ("shared", "MAP_SHARED|MAP_FIXED", true),
        ("anonymous", "MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED", false),
    ] {
        let source = format!(
            "#include <sys/mman.h>\n#include <fcntl.h>\n#include <stdint.h>\n#include <string.h>\n#include <stdio.h>\n\
             __attribute__((noipa, section(\".lonely\"), aligned(4096))) int target(int x) {{ return x + 5; }}\n\
             __attribute__((noipa, section(\".lonely\"), aligned(4096))) int behind(int x) {{ return x; }}\n\
             __attribute__((noipa)) int work(int x) {{ uintptr_t at = (uintptr_t)target; unsigned long a, b, off = 0; char line[512]; FILE *f = fopen(\"/proc/self/maps\", \"r\");\n\
               while (fgets(line, sizeof line, f)) {{ unsigned long o; char p[5]; if (sscanf(line, \"%lx-%lx %4s %lx\", &a, &b, p, &o) == 4 && a <= at && at < b) off = o + at - a; }}\n\
               int fd = open(\"/proc/self/exe\", O_RDONLY); (void)fd;\n\
               return mmap((void *)at, 4096, PROT_READ|PROT_EXEC, {flags}, {}) == (void *)at ? x : -1; }}",
            if shared { "fd, off" } else { "-1, 0" }
        );
        let binary = shop.victim(name, &source, &[]);
        let victim = shop.start(&binary);
        let error = refusal(&victim, &query(&binary, "target"));
        if shared {
            assert!(
                matches!(
                    error,
                    ResolveError::Mapping {
                        why: error::MappingFault::Shared,
                        ..
                    }
                ),
                "{error}"
            );
        } else {
            assert!(matches!(error, ResolveError::NotMapped { .. }), "{error}");
        }
    }
}

#[test]
fn text_that_was_changed() {
    let shop = Workshop::new();
    let change = |bytes: &str| {
        format!(
            "#include <sys/mman.h>\n#include <string.h>\n#include <stdint.h>\n\
            __attribute__((noipa, aligned(4096))) int target(int x) {{ return x * 1234567 + 5; }}\n\
            __attribute__((noipa, aligned(4096))) int work(int x) {{ mprotect((void *)target, 4096, PROT_READ|PROT_WRITE);\n\
            memcpy((void *)((uintptr_t)target + {bytes}); return mprotect((void *)target, 4096, PROT_READ|PROT_EXEC) + x; }}"
        )
    };
    type Expected = fn(&Foreign) -> bool;
    let cases: [(&str, &str, u64, Expected); 4] = [
        ("int3", "0), \"\\xcc\", 1", 0, |foreign| {
            *foreign == Foreign::UprobeOrBreakpoint
        }),
        (
            "jump",
            "0), \"\\xe9\\x10\\x20\\x30\\x00\", 5",
            0,
            |foreign| matches!(foreign, Foreign::Jump { .. }),
        ),
        ("own", "2), \"\\x11\\x22\\x33\", 3", 2, |foreign| {
            *foreign == Foreign::Unknown
        }),
        (
            "call",
            "0), \"\\xe8\\x00\\x00\\x00\\x00\", 5",
            0,
            |foreign| *foreign == Foreign::Unknown,
        ),
    ];
    for (name, bytes, at, expected) in cases {
        let binary = shop.victim(name, &change(bytes), &[]);
        let victim = shop.start(&binary);
        let memory = victim.memory();
        // Resolving succeeds: the file is what it was. Comparing names the byte.
        let site = resolve(&victim, &query(&binary, "target")).unwrap();
        let error = site.compare_memory(&memory).unwrap_err();
        let ResolveError::TextChanged {
            at: found, foreign, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(*found, site.avma().plus(at), "{name}");
        assert!(expected(foreign), "{name}: {error}");
        assert_eq!(error.failure(), Failure::Refused);
        if name == "jump" {
            // A poke of ours that is as it should be, and one that isn't.
            let poke = [0xe9, 0x10, 0x20, 0x30, 0];
            site.compare_memory_patched(&memory, site.avma(), &poke)
                .unwrap();
            let other =
                site.compare_memory_patched(&memory, site.avma(), &[0xe9, 0x11, 0x20, 0x30, 0]);
            let error = other.unwrap_err();
            let ResolveError::TextChanged { at, foreign, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(*at, site.avma().plus(1));
            assert!(matches!(foreign, Foreign::Jump { .. }), "{error}");
        }
        if name == "int3" {
            // Even where memory is all there is, a probe is seen.
            let only = MemoryOnly(&memory);
            let start = site.svma();
            let by_address = TargetQuery {
                address: Some(start),
                function: None,
                ..query(&binary, "")
            };
            let site = TargetImage::snapshot(&only)
                .unwrap()
                .resolve(&only, &by_address)
                .unwrap();
            let error = site.compare_memory(&only).unwrap_err();
            assert!(error.hint().unwrap().contains("probe"), "{error}");
        }
    }
}

#[test]
fn text_relocations_are_refused() {
    let shop = Workshop::new();
    shop.write("librel.c", "int shown = 3; int clean(int x) { return x + 1; }\n\
        __asm__(\".text\\n.globl dirty\\n.type dirty,@function\\ndirty: .cfi_startproc\\nmovabsq $shown,%rax\\nmovl (%rax),%eax\\nret\\n.cfi_endproc\\n.size dirty,.-dirty\\n\");");
    shop.run(
        "gcc",
        &[
            "-O2",
            "-shared",
            "-fPIC",
            "-Wl,--build-id=sha1,-z,notext",
            "-o",
            "librel.so",
            "librel.c",
        ],
    );
    let library = shop.path("librel.so");
    let binary = shop.victim("relocated", WORK, &["-Wl,--no-as-needed", "-L.", "-lrel"]);
    let victim = shop.start(&binary);
    let ask = |name: &str| {
        resolve(
            &victim,
            &TargetQuery::function(Some("librel.so"), name, ids(&library)),
        )
    };
    let error = ask("dirty").unwrap_err();
    assert!(
        matches!(&error, ResolveError::TextRelocation { .. }),
        "{error}"
    );
    assert_eq!(error.failure(), Failure::Refused);
    ask("clean")
        .unwrap()
        .compare_memory(&victim.memory())
        .unwrap();
}

/// Attaches a perf event to an instruction of a file and says so; holds it until its input ends.
const PROBE: &str = r#"
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **arguments)
{
	FILE *file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
	int kind = -1, fd = -1;
	if (count == 4 && file && fscanf(file, "%d", &kind) == 1) {
		struct perf_event_attr attr = { .type = kind, .size = sizeof(attr) };
		attr.config1 = (unsigned long)arguments[1];
		attr.config2 = strtoul(arguments[2], NULL, 10);
		fd = syscall(SYS_perf_event_open, &attr, atoi(arguments[3]), -1, -1, PERF_FLAG_FD_CLOEXEC);
	}
	puts(fd >= 0 ? "ready" : strerror(errno));
	fflush(stdout);
	return getchar() != EOF;
}
"#;

/// Kernel uprobes, the plain and the optimised kind, are seen and named; once they are gone the text is as in the file.
#[test]
fn kernel_uprobes_are_named() {
    use std::io::{BufRead, BufReader};
    let shop = Workshop::new();
    shop.write("probe.c", PROBE);
    shop.run("gcc", &["-O2", "-o", "probe", "probe.c"]);
    let source = "#include <stdio.h>\n#include <unistd.h>\n\
        __attribute__((noipa)) int plain(int x) { return x * 1234567; }\n\
        __asm__(\".text\\n.globl spot\\n.type spot,@function\\n.balign 16\\nspot: .cfi_startproc\\n.byte 0x0f,0x1f,0x44,0,0\\nlea 1(%rdi),%eax\\nret\\n.cfi_endproc\\n.size spot,.-spot\\n\");\n\
        int spot(int); int main(void) { puts(\"ready\"); fflush(stdout); for (int i = 0; getppid() != 1; i++) { plain(i); spot(i); usleep(1000); } }\n";
    shop.write("probed.c", source);
    shop.run(
        "gcc",
        &["-O2", "-Wl,--build-id=sha1", "-o", "probed", "probed.c"],
    );
    let binary = shop.path("probed");
    for (name, optimised) in [("plain", false), ("spot", true)] {
        let victim = shop.start(&binary);
        let memory = victim.memory();
        let site = resolve(&victim, &query(&binary, name)).unwrap();
        site.compare_memory(&memory).unwrap();
        let image = image(&binary);
        let segment = image.segment_of(site.svma()).unwrap();
        let offset = segment.offset + site.svma().since(segment.svma).unwrap();
        let mut probe = std::process::Command::new(shop.path("probe"))
            .arg(&binary)
            .args([offset.to_string(), victim.pid().to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let _ = BufReader::new(probe.stdout.take().unwrap()).read_line(&mut said);
        let attached = said.trim() == "ready";
        // The kernel optimises a probe when it is hit, and not every kernel does.
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(500);
        let mut seen = Vec::new();
        while attached && std::time::Instant::now() < deadline {
            match site.compare_memory(&memory) {
                Err(ResolveError::TextChanged { at, foreign, .. }) => {
                    assert_eq!(at, site.avma());
                    seen.push(foreign);
                }
                Err(error) => panic!("{error}"),
                Ok(()) => assert!(seen.is_empty(), "the probe is still attached"),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(probe.stdin.take());
        probe.wait().unwrap();
        if !attached {
            upatch_tests::skip::skip(
                "target_text::uprobes",
                &format!("no uprobe of our own here ({})", said.trim()),
            );
            return;
        }
        let count = |foreign| seen.iter().filter(|one| **one == foreign).count();
        let (traps, calls) = (
            count(Foreign::UprobeOrBreakpoint),
            count(Foreign::OptimizedUprobe),
        );
        println!("{name}: seen {traps} times as a trap, {calls} times as a call");
        assert!(!seen.is_empty() && traps + calls == seen.len(), "{seen:?}");
        assert!(optimised || calls == 0);
        site.compare_memory(&memory).unwrap();
    }
}
