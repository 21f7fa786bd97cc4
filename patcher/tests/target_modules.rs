//! Finding the module: build-ids, ways of linking, stripped files, odd layouts.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod target_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use target_support::*;
use upatch::target::*;

#[test]
fn every_way_of_linking() {
    let shop = Workshop::new();
    let cases: [(&str, &[&str], bool); 6] = [
        ("pie", &["-pie"], false),
        ("fixed", &["-no-pie"], true),
        ("static", &["-static"], true),
        ("static_pie", &["-static-pie"], false),
        ("one_segment", &["-Wl,-z,noseparate-code"], false),
        (
            "offset_is_not_address",
            &[
                "-no-pie",
                "-Wl,-Ttext-segment=0x10000000,-z,max-page-size=0x200000,-z,separate-code",
            ],
            true,
        ),
    ];
    for (name, flags, fixed) in cases {
        let binary = shop.victim(name, WORK, flags);
        let (start, size) = nm(&binary, "work");
        let victim = shop.start(&binary);
        let query = TargetQuery::function(Some("exe"), "work", ids(&binary));
        let site = check(&victim, &query, start, size, Source::File);
        assert_eq!(site.module().bias() == LoadBias(0), fixed, "{name}");
        assert!(site.module().is_main() && site.module().is_called(name));
        assert_eq!(site.function(), Some("work"));
        // The same from memory: no symbol table is loaded, but .eh_frame is.
        let memory = victim.memory();
        let memory = MemoryOnly(&memory);
        let snapshot = TargetImage::snapshot(&memory).unwrap();
        let query = TargetQuery {
            address: Some(Svma(start)),
            function: None,
            ..query
        };
        match snapshot.resolve(&memory, &query) {
            Ok(site) => check_site(&memory, &site, start, size, Source::Memory),
            // This ld writes no PT_GNU_EH_FRAME into a static non-PIE: only sections lead to its frames.
            Err(error) => assert!(
                name == "static" && matches!(error, ResolveError::NoBounds { .. }),
                "{name}: {error}"
            ),
        }
    }
}

#[test]
fn file_offset_differs_from_address() {
    let shop = Workshop::new();
    let script = "ENTRY(_start) SECTIONS { . = 0x20000000 + SIZEOF_HEADERS; .note.gnu.build-id : { *(.note.gnu.build-id) } . = 0x20403000; .text : { *(.text*) } \
                  .rodata : { *(.rodata*) } . = ALIGN(0x1000); .eh_frame_hdr : { *(.eh_frame_hdr) } .eh_frame : { KEEP(*(.eh_frame)) } . = ALIGN(0x1000); .data : { *(.data*) *(.bss*) } }";
    shop.write("odd.ld", script);
    let source = "__attribute__((noipa)) int work(int x) { return x * 3 + 1; }\n\
        static long sys(long n, long a, long b, long c) { long r; __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n), \"D\"(a), \"S\"(b), \"d\"(c) : \"rcx\", \"r11\", \"memory\"); return r; }\n\
        void _start(void) { work(1); sys(1, 1, (long)\"ready\\n\", 6); for (;;) sys(34, 0, 0, 0); }\n";
    shop.write("odd.c", source);
    shop.run(
        "gcc",
        &[
            "-O2",
            "-static",
            "-nostdlib",
            "-fno-stack-protector",
            "-Wl,--build-id=sha1,-T,odd.ld",
            "-Wl,--eh-frame-hdr",
            "-o",
            "odd",
            "odd.c",
        ],
    );
    let binary = shop.path("odd");
    let (start, size) = nm(&binary, "work");
    let segment = image(&binary).segment_of(Svma(start)).copied().unwrap();
    assert_ne!(
        segment.offset,
        segment.svma.0 - 0x2000_0000,
        "the linker script has no effect"
    );
    let victim = shop.start(&binary);
    check(
        &victim,
        &TargetQuery::function(Some("exe"), "work", ids(&binary)),
        start,
        size,
        Source::File,
    );
}

#[test]
fn stripped_by_address() {
    let shop = Workshop::new();
    let binary = shop.victim("stripped", WORK, &[]);
    let (start, size) = nm(&binary, "work");
    shop.run("strip", &["stripped"]);
    let victim = shop.start(&binary);
    let by_name = TargetQuery::function(Some("exe"), "work", ids(&binary));
    let error = refusal(&victim, &by_name);
    assert!(
        matches!(&error, ResolveError::FunctionNotFound { .. }),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("--offset"));
    let by_address = TargetQuery {
        address: Some(Svma(start)),
        function: None,
        ..by_name.clone()
    };
    let site = check(&victim, &by_address, start, size, Source::File);
    assert_eq!(site.function(), None);
    // A name that nobody can check is a label.
    let labelled = TargetQuery {
        address: Some(Svma(start)),
        ..by_name.clone()
    };
    assert_eq!(
        check(&victim, &labelled, start, size, Source::File).function(),
        Some("work")
    );
    // What lies inside of it is not what the label names.
    let inside = (1..size).find_map(|into| {
        let query = TargetQuery {
            address: Some(Svma(start + into)),
            ..by_name.clone()
        };
        resolve(&victim, &query).ok()
    });
    assert_eq!(inside.unwrap().function(), None);
    // Outside of every frame, outside of code, inside an instruction.
    let at = |address| TargetQuery {
        address: Some(Svma(address)),
        function: None,
        ..by_name.clone()
    };
    assert!(matches!(
        refusal(&victim, &at(0x10)),
        ResolveError::NotCode { .. }
    ));
    let inner = (1..size).find_map(|into| match resolve(&victim, &at(start + into)) {
        // In addresses, as it was asked.
        Err(ResolveError::AddressInside { at, before, after }) => {
            Some((at.0 - start, before.0 - start, after.0 - start))
        }
        _ => None,
    });
    let (offset, before, after) = inner.expect("a long instruction");
    assert!(before < offset && offset < after);
    let error = refusal(&victim, &at(start + offset));
    assert_eq!(error.hint(), Some(format!("use {:#x}", start + before)));
    let inside = resolve(&victim, &at(start + after)).unwrap();
    assert!(!inside.is_entry());
    assert_eq!(
        inside.range().start,
        inside.module().bias().avma(Svma(start))
    );
    assert_eq!(inside.text().site as u64, after);
}

/// Removes the section headers from an ELF file by hand: this objcopy can't.
fn drop_sections(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 8], 0x28).unwrap();
    file.write_all_at(&[0; 4], 0x3c).unwrap();
}

#[test]
fn without_section_headers() {
    let shop = Workshop::new();
    let binary = shop.victim(
        "bare",
        &format!("{WORK}\nint shown(int x) {{ return work(x) - 1; }}"),
        &["-rdynamic"],
    );
    let (start, size) = nm(&binary, "shown");
    let (work, work_size) = nm(&binary, "work");
    drop_sections(&binary);
    assert!(
        image(&binary)
            .sections()
            .is_none_or(|file| file.elf_symbol_table().is_empty())
    );
    let victim = shop.start(&binary);
    let query = TargetQuery::function(Some("exe"), "shown", ids(&binary));
    let site = check(&victim, &query, start, size, Source::File);
    let by_address = TargetQuery {
        address: Some(Svma(work)),
        function: None,
        ..query
    };
    check(&victim, &by_address, work, work_size, Source::File);
    // The stub of usleep is known by its jump through the offset table.
    assert!(site.plt_ranges().is_empty());
    assert!(!site.is_outside_module(site.avma()));
}

#[test]
fn plt_is_outside() {
    let shop = Workshop::new();
    let source =
        "#include <stdlib.h>\n__attribute__((noipa)) int work(int x) { return abs(rand()) + x; }";
    for (name, flags, sections) in [
        ("lazy", &["-Wl,-z,lazy"][..], true),
        ("cet", &["-fcf-protection", "-Wl,-z,ibtplt"], true),
        ("bare_plt", &["-Wl,-z,lazy"], false),
        ("now", &["-Wl,-z,now"], true),
    ] {
        let binary = shop.victim(name, source, flags);
        if !sections {
            let id = ids(&binary);
            let (start, _) = nm(&binary, "work");
            drop_sections(&binary);
            let victim = shop.start(&binary);
            let query = TargetQuery {
                address: Some(Svma(start)),
                build_ids: id,
                ..TargetQuery::default()
            };
            calls_plt(&resolve(&victim, &query).unwrap());
        } else {
            let victim = shop.start(&binary);
            let site =
                resolve(&victim, &TargetQuery::function(None, "work", ids(&binary))).unwrap();
            assert!(!site.plt_ranges().is_empty());
            let target = calls_plt(&site);
            let query = TargetQuery {
                address: Some(target),
                build_ids: ids(&binary),
                ..TargetQuery::default()
            };
            assert!(matches!(
                refusal(&victim, &query),
                ResolveError::Plt { .. } | ResolveError::NoBounds { .. }
            ));
        }
    }
}

/// The function calls a stub, and the stub counts as outside.
fn calls_plt(site: &PatchSite) -> Svma {
    let bytes = site.bytes();
    let call = bytes.iter().position(|&byte| byte == 0xe8).expect("a call");
    let distance = i32::from_le_bytes(bytes[call + 1..call + 5].try_into().unwrap());
    let to = site
        .range()
        .start
        .plus(call as u64 + 5)
        .plus(i64::from(distance) as u64);
    assert!(site.module().range().contains(to));
    assert!(site.is_outside_module(to));
    assert!(!site.is_outside_module(site.avma()));
    site.module().bias().svma(to)
}

#[test]
fn build_ids_short_none_and_false() {
    let shop = Workshop::new();
    let short = shop.victim("short", WORK, &["-Wl,--build-id=0x0123456789abcdef"]);
    let victim = shop.start(&short);
    let site = resolve(
        &victim,
        &TargetQuery::function(
            Some("exe"),
            "work",
            vec!["0123456789abcdef".parse().unwrap()],
        ),
    )
    .unwrap();
    assert_eq!(site.module().build_id().unwrap().as_bytes().len(), 8);
    assert!(
        resolve(
            &victim,
            &TargetQuery::function(None, "work", vec!["01234567".parse().unwrap()])
        )
        .is_ok()
    );

    // A type-3 note of another name, in a segment with the others and alone.
    let probe = r#"__asm__(".pushsection .note.stapsdt,\"a\",@note\n.balign 4\n.long 8, 8, 3\n.asciz \"stapsdt\"\n.quad 0x1122334455667788\n.popsection");"#;
    let none = shop.victim("none", &format!("{probe}{WORK}"), &["-Wl,--build-id=none"]);
    let victim = shop.start(&none);
    let false_id = vec!["8877665544332211".parse().unwrap()];
    let error = refusal(
        &victim,
        &TargetQuery::function(Some("exe"), "work", false_id),
    );
    let ResolveError::ModuleMismatch { named, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(named[0].build_id, None);
    assert!(error.to_string().contains("(no build-id)"), "{error}");
    let both = shop.victim("both", &format!("{probe}{WORK}"), &[]);
    let victim = shop.start(&both);
    assert!(resolve(&victim, &TargetQuery::function(None, "work", ids(&both))).is_ok());
}

#[test]
fn which_module_is_meant() {
    let shop = Workshop::new();
    let binary = shop.victim("meant", WORK, &["-Wl,--build-id=0x1111222233334444"]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let ask = |module: Option<&str>, ids: &[&str]| {
        let build_ids = ids.iter().map(|id| id.parse().unwrap()).collect();
        snapshot.resolve(&memory, &TargetQuery::function(module, "work", build_ids))
    };
    // No id: those found are listed, of the named module only if one was named.
    let Err(ResolveError::BuildIdMissing { found }) = ask(None, &[]) else {
        panic!()
    };
    assert!(found.len() >= 3, "program, libc, ld.so: {found:?}");
    let Err(error @ ResolveError::BuildIdMissing { .. }) = ask(Some("exe"), &[]) else {
        panic!()
    };
    assert!(error.to_string().contains("1111222233334444"), "{error}");
    assert!(!error.to_string().contains("libc"), "{error}");
    // Unknown ids and modules, and an id that belongs to another module.
    assert!(matches!(
        ask(None, &["deadbeef"]),
        Err(ResolveError::BuildIdUnknown { .. })
    ));
    assert!(matches!(
        ask(Some("libnothere.so"), &["11112222"]),
        Err(ResolveError::ModuleNotFound { .. })
    ));
    let error = ask(Some("libc.so.6"), &["1111222233334444"]).unwrap_err();
    let ResolveError::ModuleMismatch { others, named, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((others.len(), named.len()), (1, 1));
    assert!(others[0].path.ends_with("meant"));
    // Several ids: any may fit.
    assert!(ask(Some("exe"), &["deadbeef", "11112222"]).is_ok());
    // Every spelling of the module.
    for name in ["exe", "meant", binary.to_str().unwrap()] {
        assert!(ask(Some(name), &["11112222"]).is_ok(), "{name}");
    }
    // A path through a link.
    std::os::unix::fs::symlink(&binary, shop.path("link")).unwrap();
    assert!(ask(shop.path("link").to_str(), &["11112222"]).is_ok());
    // The vDSO is a module too.
    let vdso = snapshot
        .modules()
        .iter()
        .find(|one| one.path() == Path::new("[vdso]"))
        .expect("a vDSO");
    assert_eq!(vdso.soname(), Some("linux-vdso.so.1"));
    let query = TargetQuery::function(
        Some("linux-vdso.so.1"),
        "__vdso_time",
        vec![vdso.build_id().unwrap().into()],
    );
    let site = snapshot.resolve(&memory, &query).unwrap();
    assert_eq!(site.source(), Source::Memory);
    site.compare_memory(&memory).unwrap();
}

#[test]
fn ambiguous_prefix_is_listed() {
    let shop = Workshop::new();
    shop.write("liba.c", "int other(void) { return 1; }");
    shop.run(
        "gcc",
        &[
            "-shared",
            "-fPIC",
            "-Wl,--build-id=0x1111222255556666",
            "-o",
            "liba.so",
            "liba.c",
        ],
    );
    let binary = shop.victim(
        "twin",
        WORK,
        &[
            "-Wl,--build-id=0x1111222233334444",
            "-Wl,--no-as-needed",
            "-L.",
            "-la",
        ],
    );
    let victim = shop.start(&binary);
    let query = |module| TargetQuery::function(module, "work", vec!["11112222".parse().unwrap()]);
    let error = refusal(&victim, &query(None));
    let ResolveError::ModuleAmbiguous { found } = &error else {
        panic!("{error}")
    };
    assert_eq!(found.len(), 2);
    assert!(resolve(&victim, &query(Some("exe"))).is_ok());
    assert!(matches!(
        refusal(&victim, &query(Some("liba.so"))),
        ResolveError::FunctionNotFound { .. }
    ));
}
