//! Finding the function by name: versions, namesakes, IFUNCs, mangled names, debug files, helpers.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod target_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use target_support::*;
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
        assert_eq!(chosen, &[Svma(implementation)], "{flags:?}");
        assert!(
            error
                .hint()
                .unwrap()
                .contains(&Svma(implementation).to_string())
        );
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
    // As g++ would name them; a C++ compiler is no part of a bare machine.
    let source = "#define METHOD(name, symbol, ...) __attribute__((noipa)) int name(void *this, __VA_ARGS__) __asm__(symbol); \\\n\
                    __attribute__((noipa)) int name(void *this, __VA_ARGS__)\n\
        METHOD(get1, \"_ZN3app5Store3getEi\", int x) { return x + 1; }\n\
        METHOD(get2, \"_ZN3app5Store3getEic\", int x, char y) { return x + y; }\n\
        METHOD(put, \"_ZN3app5Store3putEi\", int x) { return x * 7; }\n\
        int work(int x) { return get1(0, x) + get2(0, x, 1) + put(0, x); }\n";
    let binary = shop.victim("cxx", source, &[]);
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

/// Through the function where there is one; else at a distance that a program of the same libc confirms.
#[test]
fn where_errno_is() {
    let shop = Workshop::new();
    let ask = |name: &str, source: &str, flags: &[&str]| {
        let binary = shop.victim(name, source, flags);
        let victim = shop.start(&binary);
        let memory = victim.memory();
        let snapshot = TargetImage::snapshot(&memory).unwrap();
        (snapshot.errno(&memory), snapshot)
    };
    let (errno, snapshot) = ask("errno_dynamic", WORK, &[]);
    let Ok(Errno::Location(at)) = errno else {
        panic!("{errno:?}")
    };
    assert_eq!(snapshot.module_at(at).unwrap().soname(), Some("libc.so.6"));

    let (errno, _) = ask("errno_static", WORK, &["-static"]);
    let Ok(Errno::ThreadPointer(distance)) = errno else {
        panic!("{errno:?}")
    };
    // A program that computes it has the same thread-local variables: those of libc.
    let source = "#include <errno.h>\n__attribute__((noipa)) int work(int x) { char *tp; __asm__(\"mov %%fs:0,%0\" : \"=r\"(tp)); return (int)((char *)&errno - tp); }";
    let said = shop.victim("errno_says", source, &["-static"]);
    let mut child = Command::new(&said)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let real: i64 = line.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(distance, real);

    shop.run("strip", &["errno_static"]);
    let victim = shop.start(&shop.path("errno_static"));
    let memory = victim.memory();
    let errno = TargetImage::snapshot(&memory).unwrap().errno(&memory);
    assert!(
        matches!(errno, Err(ResolveError::FunctionNotFound { .. })),
        "{errno:?}"
    );
}
