//! Finding the function: names, versions, namesakes, mangled names, bounds; and text that must not be patched.

mod target_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use target_support::*;
use upatch::process::Process;
use upatch::target::*;

fn query(binary: &Path, function: &str) -> TargetQuery {
    TargetQuery::function(Some("exe"), function, ids(binary))
}

#[test]
fn versions_are_listed() {
    let shop = Workshop::new();
    shop.write(
        "libver.c",
        "__asm__(\".symver f1,f@VERS_1\"); __asm__(\".symver f2,f@@VERS_2\");\n\
         __attribute__((noipa)) int f1(int x) { return x + 1; }\n__attribute__((noipa)) int f2(int x) { return x + 2; }\n\
         __attribute__((noipa)) int g(int x) { return x + 3; }",
    );
    shop.write(
        "libver.map",
        "VERS_1 { global: f; g; local: *; };\nVERS_2 { global: f; } VERS_1;\n",
    );
    shop.run(
        "gcc",
        &[
            "-O2",
            "-shared",
            "-fPIC",
            "-Wl,--build-id=sha1,--version-script=libver.map",
            "-o",
            "libver.so",
            "libver.c",
        ],
    );
    let library = shop.path("libver.so");
    let (old, new) = (nm(&library, "f1").0, nm(&library, "f2").0);
    let binary = shop.victim("versions", WORK, &["-Wl,--no-as-needed", "-L.", "-lver"]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let only = MemoryOnly(&memory);
    let ask = |from_memory: bool, name: &str| {
        let query = TargetQuery::function(Some("libver.so"), name, ids(&library));
        if from_memory {
            TargetImage::snapshot(&only).unwrap().resolve(&only, &query)
        } else {
            TargetImage::snapshot(&memory)
                .unwrap()
                .resolve(&memory, &query)
        }
    };
    for from_memory in [false, true] {
        let error = ask(from_memory, "f").unwrap_err();
        let ResolveError::FunctionAmbiguous { definitions, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(definitions.len(), 2);
        let text = error.to_string();
        assert!(
            text.contains("f@VERS_1 at") && text.contains("f@@VERS_2 at"),
            "{text}"
        );
        assert!(error.hint().unwrap().contains("NAME@VERSION"));
        assert_eq!(error.failure(), Failure::NotFound);
        assert_eq!(ask(from_memory, "f@VERS_1").unwrap().svma(), Svma(old));
        assert_eq!(ask(from_memory, "f@VERS_2").unwrap().svma(), Svma(new));
        assert_eq!(ask(from_memory, "f@@VERS_2").unwrap().svma(), Svma(new));
        assert!(matches!(
            ask(from_memory, "f@@VERS_1"),
            Err(ResolveError::FunctionNotFound { .. })
        ));
        assert!(ask(from_memory, "g").is_ok());
    }
}

#[test]
fn namesakes_are_listed_and_aliases_are_not() {
    let shop = Workshop::new();
    shop.write("one.c", "__attribute__((noipa)) static int twin(int x) { return x + 1; }\nint one(int x) { return twin(x); }");
    shop.write("two.c", "__attribute__((noipa)) static int twin(int x) { return x * 9; }\nint two(int x) { return twin(x); }");
    let source = "int one(int); int two(int); __attribute__((noipa)) int work(int x) { return one(x) + two(x); }\n\
        int alias(int) __attribute__((alias(\"work\"))); int weak_alias(int) __attribute__((weak, alias(\"work\")));\n\
        __attribute__((noipa, weak)) int weak(int x) { return x - 8; } int (*keep)(int) = weak;";
    let binary = shop.victim("twins", source, &["one.c", "two.c"]);
    let victim = shop.start(&binary);
    let error = refusal(&victim, &query(&binary, "twin"));
    let ResolveError::FunctionAmbiguous { definitions, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(definitions.len(), 2);
    assert_ne!(definitions[0].at, definitions[1].at);
    for definition in definitions {
        assert!(
            error.to_string().contains(&definition.at.to_string()),
            "{error}"
        );
        let chosen = TargetQuery {
            address: Some(definition.at),
            ..query(&binary, "twin")
        };
        assert_eq!(resolve(&victim, &chosen).unwrap().svma(), definition.at);
    }
    let start = nm(&binary, "work").0;
    for name in ["work", "alias", "weak_alias"] {
        assert_eq!(
            resolve(&victim, &query(&binary, name)).unwrap().svma(),
            Svma(start),
            "{name}"
        );
    }
    assert!(resolve(&victim, &query(&binary, "weak")).is_ok());
    // A name and an address that contradict each other.
    let wrong = TargetQuery {
        address: Some(Svma(start)),
        ..query(&binary, "one")
    };
    assert!(matches!(
        refusal(&victim, &wrong),
        ResolveError::Contradiction { .. }
    ));
    let wrong = TargetQuery {
        address: Some(Svma(start)),
        ..query(&binary, "twin")
    };
    assert!(matches!(
        refusal(&victim, &wrong),
        ResolveError::Contradiction { .. }
    ));
    // Undefined here, defined elsewhere; and nowhere, with a name that is like it.
    let error = refusal(&victim, &query(&binary, "usleep"));
    let ResolveError::FunctionNotFound { defined_in, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        defined_in
            .iter()
            .any(|path| path.to_string_lossy().contains("libc")),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("libc"));
    let error = refusal(&victim, &query(&binary, "weak_al"));
    assert!(error.to_string().contains("weak_alias"), "{error}");
    assert!(matches!(
        refusal(
            &victim,
            &TargetQuery {
                function: None,
                ..query(&binary, "")
            }
        ),
        ResolveError::NothingNamed
    ));
}

#[test]
fn imports_of_a_fixed_program_are_no_definitions() {
    let shop = Workshop::new();
    // Comparing its address makes ld give the import a value: that of the PLT stub.
    let source = "#include <stdlib.h>\nint (*volatile p)(int) = abs; long (*volatile q)(long) = labs; int (*volatile r)(void) = rand;\n\
        __attribute__((noipa)) int work(int x) { return p == (int (*)(int))&rand ? 1 : r() ? x : 2; }";
    let binary = shop.victim(
        "imports",
        source,
        &["-no-pie", "-fno-builtin", "-fno-pic", "-Wl,-z,lazy"],
    );
    let victim = shop.start(&binary);
    assert!(matches!(
        refusal(&victim, &query(&binary, "rand")),
        ResolveError::FunctionNotFound { .. }
    ));
}

#[test]
fn ifunc_is_refused_with_its_implementation() {
    let shop = Workshop::new();
    let source = "typedef int fn(int);\n__attribute__((noipa)) static int pick_avx2(int x) { return x + 2; }\n\
        static fn *choose(void) { return pick_avx2; }\nint pick(int) __attribute__((ifunc(\"choose\")));\n\
        __attribute__((noipa)) int work(int x) { return pick(x); }";
    for flags in [&["-pie"][..], &["-no-pie"], &["-static"]] {
        let binary = shop.victim("ifunc", source, flags);
        let implementation = nm(&binary, "pick_avx2").0;
        let victim = shop.start(&binary);
        let error = refusal(&victim, &query(&binary, "pick"));
        let ResolveError::Ifunc {
            chosen, candidates, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(error.failure(), Failure::Refused);
        assert!(
            candidates.iter().any(|name| name == "pick_avx2"),
            "{candidates:?}"
        );
        // A static program's IRELATIVE slots have no dynamic section that leads to them.
        if flags != ["-static"] {
            assert_eq!(chosen, &[Svma(implementation)], "{flags:?}");
            assert!(
                error
                    .hint()
                    .unwrap()
                    .contains(&Svma(implementation).to_string())
            );
        }
        assert!(resolve(&victim, &query(&binary, "pick_avx2")).is_ok());
    }
    // libc's own: what this process calls is found in its offset table.
    let binary = shop.victim("copies", "#include <string.h>\nchar buf[64];\n__attribute__((noipa)) int work(int x) { memcpy(buf, buf + x, x); return x; }", &["-fno-builtin", "-Wl,-z,now"]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let libc = snapshot
        .modules()
        .iter()
        .find(|one| one.soname() == Some("libc.so.6"))
        .unwrap();
    let id: Vec<BuildIdPrefix> = vec![libc.build_id().unwrap().into()];
    let error = snapshot
        .resolve(
            &memory,
            &TargetQuery::function(Some("libc.so.6"), "memcpy@@GLIBC_2.14", id.clone()),
        )
        .unwrap_err();
    let ResolveError::Ifunc { chosen, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(chosen.len(), 1, "{error:?}");
    let address = TargetQuery {
        address: Some(chosen[0]),
        build_ids: id,
        ..TargetQuery::default()
    };
    assert!(snapshot.resolve(&memory, &address).unwrap().is_entry());
}

#[test]
fn demangled_names() {
    let shop = Workshop::new();
    shop.write("cxx.cc", &format!(
        "namespace app {{ struct Store {{ int get(int); int get(int, char); int put(int); }};\n\
         __attribute__((noipa)) int Store::get(int x) {{ return x + 1; }}\n__attribute__((noipa)) int Store::get(int x, char y) {{ return x + y; }}\n\
         __attribute__((noipa)) int Store::put(int x) {{ return x * 7; }} }}\n\
         extern \"C\" int work(int x) {{ app::Store s; return s.get(x) + s.get(x, 1) + s.put(x); }}\n{}", MAIN.replace("int work(int);", ""),
    ));
    shop.run(
        "g++",
        &["-O2", "-Wl,--build-id=sha1", "-o", "cxx", "cxx.cc"],
    );
    let binary = shop.path("cxx");
    let victim = shop.start(&binary);
    let put = nm(&binary, "_ZN3app5Store3putEi").0;
    for name in [
        "_ZN3app5Store3putEi",
        "app::Store::put",
        "app::Store::put(int)",
    ] {
        assert_eq!(
            resolve(&victim, &query(&binary, name)).unwrap().svma(),
            Svma(put),
            "{name}"
        );
    }
    let error = refusal(&victim, &query(&binary, "app::Store::get"));
    assert!(
        matches!(&error, ResolveError::FunctionAmbiguous { definitions, .. } if definitions.len() == 2),
        "{error}"
    );
    let get = nm(&binary, "_ZN3app5Store3getEic").0;
    assert_eq!(
        resolve(&victim, &query(&binary, "app::Store::get(int, char)"))
            .unwrap()
            .svma(),
        Svma(get)
    );
    assert!(matches!(
        refusal(&victim, &query(&binary, "Store::put")),
        ResolveError::FunctionNotFound { .. }
    ));

    shop.write("rusty.rs", "pub mod store { #[inline(never)] pub fn get(x: u64) -> u64 { std::hint::black_box(x) * 3 } }\n\
        fn main() { println!(\"{} ready\", store::get(2)); loop { if std::os::unix::process::parent_id() == 1 { return; } \
        std::thread::sleep(std::time::Duration::from_millis(20)); } }");
    for mangling in ["v0", "legacy"] {
        let out = Command::new("rustc")
            .args([
                "-O",
                "-o",
                "rusty",
                "rusty.rs",
                "-Clink-arg=-Wl,--build-id=sha1",
            ])
            .args(if mangling == "v0" {
                &["-Csymbol-mangling-version=v0"][..]
            } else {
                &[]
            })
            .current_dir(shop.dir.path())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let binary = shop.path("rusty");
        let victim = shop.start(&binary);
        let site = resolve(&victim, &query(&binary, "rusty::store::get")).unwrap();
        assert!(
            site.function().unwrap().contains("5store3get"),
            "{:?}",
            site.function()
        );
        drop(victim);
    }
}

#[test]
fn separate_debug_file() {
    let shop = Workshop::new();
    let binary = shop.victim("split", &format!("{WORK}\n__attribute__((noipa)) static int inner(int x) {{ return x * 11; }}\nint outer(int x) {{ return inner(x) + work(x); }}"), &["-rdynamic"]);
    let (start, size) = nm(&binary, "inner");
    let id = build_id(&binary).to_string();
    let debug = format!("debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    fs::create_dir_all(shop.path(&debug).parent().unwrap()).unwrap();
    shop.run("objcopy", &["--only-keep-debug", "split", &debug]);
    shop.run("strip", &["split"]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    assert!(matches!(
        snapshot.resolve(&memory, &query(&binary, "inner")),
        Err(ResolveError::FunctionNotFound { .. })
    ));
    let snapshot = snapshot.with_debug_directory(shop.path("debug"));
    let site = snapshot.resolve(&memory, &query(&binary, "inner")).unwrap();
    assert_eq!((site.svma(), site.range().len()), (Svma(start), size));
    site.compare_memory(&memory).unwrap();
    // A debug file of another build at that path is not believed.
    let other = shop.victim("split2", &WORK.replace("40", "41"), &[]);
    fs::copy(other, shop.path(&debug)).unwrap();
    assert!(matches!(
        snapshot.resolve(&memory, &query(&binary, "inner")),
        Err(ResolveError::FunctionNotFound { .. })
    ));
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
    let cases: [(&str, &str, u64, fn(&Foreign) -> bool); 4] = [
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

#[test]
fn functions_for_helper_calls() {
    let shop = Workshop::new();
    shop.write("libhelp.c", "int shared_helper(int x) { return x; } static int hid(int x) { return x * 2; } int (*keep)(int) = hid; int only_here(void) { return 1; }");
    shop.run(
        "gcc",
        &[
            "-O2",
            "-shared",
            "-fPIC",
            "-Wl,--build-id=sha1",
            "-o",
            "libhelp.so",
            "libhelp.c",
        ],
    );
    let source = format!(
        "#include <errno.h>\n{WORK}\nint failed(void) {{ return errno; }} int shared_helper(int x) {{ return x + 1; }}\n__attribute__((noipa)) static int local(int x) {{ return x + 9; }} int (*keep2)(int) = local;"
    );
    let dynamic = shop.victim(
        "helpers",
        &source,
        &["-rdynamic", "-Wl,--no-as-needed", "-L.", "-lhelp"],
    );
    let fixed = shop.victim("helpers_static", &source, &["-static"]);
    {
        let victim = shop.start(&dynamic);
        let memory = victim.memory();
        let snapshot = TargetImage::snapshot(&memory).unwrap();
        let main = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
        let libc = snapshot
            .modules()
            .iter()
            .find(|one| one.soname() == Some("libc.so.6"))
            .unwrap();
        let find = |name: &str, preferred: Option<&Module>| {
            snapshot.find_function(&memory, name, preferred)
        };
        let errno = find("__errno_location", Some(main)).unwrap();
        assert!(libc.range().contains(errno));
        assert_eq!(find("__errno_location", None).unwrap(), errno);
        assert_eq!(
            find("shared_helper", Some(main)).unwrap(),
            main.bias().avma(Svma(nm(&dynamic, "shared_helper").0))
        );
        assert!(
            matches!(find("shared_helper", None), Err(ResolveError::ModuleAmbiguous { found }) if found.len() == 2)
        );
        assert_eq!(
            find("only_here", None).unwrap(),
            find("only_here", Some(main)).unwrap()
        );
        assert_eq!(
            find("local", Some(main)).unwrap(),
            main.bias().avma(Svma(nm(&dynamic, "local").0))
        );
        assert!(matches!(
            find("nobody_has_this", None),
            Err(ResolveError::FunctionNotFound { .. })
        ));
        assert!(matches!(
            find("strlen", None),
            Err(ResolveError::Ifunc { .. })
        ));
    }
    let victim = shop.start(&fixed);
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let errno = snapshot
        .find_function(&memory, "__errno_location", None)
        .unwrap();
    assert_eq!(errno.0, nm(&fixed, "__errno_location").0);
}

/// A server of this machine under its own name, started without a socket of its own where possible.
fn server(command: &mut Command) -> Option<(std::process::Child, Process)> {
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let memory = Process::open(child.id() as i32).ok()?;
    Some((child, memory))
}

#[test]
fn memcached_of_debian() {
    const ID: &str = "729230f14537e8751a677c2721c1d16dedd92441";
    let binary = Path::new("/usr/bin/memcached");
    if !binary.exists() {
        println!("skipped: memcached is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut fs::metadata(dir.path()).unwrap().permissions(),
        0o755,
    );
    let socket = dir.path().join("socket");
    let Some((mut child, memory)) =
        server(Command::new(binary).args(["-u", "root", "-s"]).arg(&socket))
    else {
        panic!("memcached doesn't start")
    };
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let exe = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
    let id = exe.build_id().unwrap().to_string();
    let known = id == ID;
    // Whatever version it is: every hundredth function resolves by address, and memory is as the file says.
    let image = exe.image(&memory).unwrap();
    let mut resolved = 0;
    for frame in image.frames().iter().step_by(10) {
        let query = TargetQuery {
            module: Some("exe".into()),
            address: Some(frame.start),
            build_ids: vec![id.parse().unwrap()],
            ..TargetQuery::default()
        };
        match snapshot.resolve(&memory, &query) {
            Ok(site) => {
                assert!(site.is_entry());
                site.compare_memory(&memory).unwrap();
                resolved += 1;
            }
            Err(error) => assert!(matches!(error, ResolveError::Plt { .. }), "{error}"),
        }
    }
    if known {
        let query = TargetQuery {
            address: Some(Svma(0xa790)),
            build_ids: vec!["729230f1".parse().unwrap()],
            ..TargetQuery::default()
        };
        let site = snapshot.resolve(&memory, &query).unwrap();
        assert_eq!(site.bytes()[..5], [0x31, 0xc0, 0x48, 0x85, 0xff]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(resolved > 20, "{resolved}");
    println!("memcached {id}: {resolved} functions resolved; the version of TARGETS.md: {known}");
}

#[test]
fn redis_of_debian() {
    let binary = Path::new("/usr/bin/redis-server");
    if !binary.exists() {
        println!("skipped: redis-server is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary);
    command
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(dir.path().join("socket"))
        .current_dir(dir.path());
    let Some((mut child, memory)) = server(&mut command) else {
        panic!("redis doesn't start")
    };
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let exe = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
    let started = std::time::Instant::now();
    for name in [
        "restoreCommand",
        "keysCommand",
        "flushallCommand",
        "debugCommand",
        "addReplyError",
        "quicklistCreate",
    ] {
        let query = TargetQuery::function(Some("exe"), name, vec![exe.build_id().unwrap().into()]);
        let site = snapshot
            .resolve(&memory, &query)
            .unwrap_or_else(|error| panic!("{error}"));
        site.compare_memory(&memory).unwrap();
        assert_eq!(site.function(), Some(name));
    }
    let only = MemoryOnly(&memory);
    let from_memory = TargetImage::snapshot(&only).unwrap();
    let query = TargetQuery::function(
        Some("exe"),
        "keysCommand",
        vec![exe.build_id().unwrap().into()],
    );
    let (one, other) = (
        snapshot.resolve(&memory, &query).unwrap(),
        from_memory.resolve(&only, &query).unwrap(),
    );
    assert_eq!((one.svma(), one.bytes()), (other.svma(), other.bytes()));
    println!("redis: 7 functions in {:?}", started.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}
