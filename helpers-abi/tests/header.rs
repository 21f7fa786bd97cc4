//! `upatch.h` says the same as this crate: every offset, constant and helper id, asked of the compiler. And it keeps
//! company with the headers that BPF sources use.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use upatch_abi::ctx::{self, CtxField};
use upatch_abi::helpers::{Arg, HELPERS};
use upatch_abi::{HEADERS, UPATCH_H, verdict};

const FLAGS: [&str; 9] = [
    "-target",
    "bpf",
    "-mcpu=v4",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-D__TARGET_ARCH_x86",
];

/// Where libbpf's headers are: below `$UPATCH_LIBBPF`, where `cargo xtask` puts them, or installed.
fn libbpf_include() -> PathBuf {
    std::env::var_os("UPATCH_LIBBPF").map_or_else(|| "/usr/include".into(), PathBuf::from)
}

/// Leaves a line for `cargo xtask test`, which lists what did not run.
fn note_skip(test: &str, reason: &str) {
    if let Some(path) = std::env::var_os("UPATCH_SKIPS") {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        let written = file.and_then(|mut file| writeln!(file, "{test}\t{reason}"));
        written.expect("UPATCH_SKIPS can be written");
    }
}

/// Compiles `source` to assembly; the error is what clang said.
fn compile(source: &str, standard: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    std::fs::write(folder.path().join("source.c"), source).expect("the scratch folder is writable");
    std::fs::write(folder.path().join("vmlinux.h"), VMLINUX_H)
        .expect("the scratch folder is writable");
    let clang = std::env::var("UPATCH_CLANG").unwrap_or_else(|_| "clang-19".into());
    let output = Command::new(clang)
        .args(FLAGS)
        .arg(format!("-std={standard}"))
        .args(["-I", ".", "-I"])
        .arg(header)
        .args(["-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter"])
        .arg(libbpf_include())
        .args(["-S", "-o", "-", "source.c"])
        .current_dir(folder.path())
        .output()
        .expect("clang 19 runs (set UPATCH_CLANG if it has another name)");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What a vmlinux.h of bpftool looks like, as far as it could get into our way.
const VMLINUX_H: &str = "
#ifndef __VMLINUX_H__
#define __VMLINUX_H__
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
typedef unsigned char __u8; typedef short unsigned int __u16; typedef unsigned int __u32;
typedef long long unsigned int __u64; typedef __u8 uint8_t; typedef __u64 u64; typedef u64 uint64_t;
typedef __u16 __be16; typedef __u32 __be32; typedef __u32 __wsum; typedef long unsigned int size_t;
typedef signed char __s8; typedef short __s16; typedef int __s32; typedef long long __s64;
typedef _Bool bool; enum { false = 0, true = 1 };
struct pt_regs { long unsigned int r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip;
  union { __u16 cs; __u64 csx; }; long unsigned int flags, sp; union { __u16 ss; __u64 ssx; }; };
#pragma clang attribute pop
#endif
";

#[test]
fn ctx_and_verdicts_agree() {
    let mut source = String::from("#include \"upatch.h\"\n");
    let mut check = |left: String, right: u64| {
        source.push_str(&format!("_Static_assert({left} == {right}, \"\");\n"))
    };
    for ty in ["struct pt_regs", "struct upatch_regs"] {
        check(format!("sizeof({ty})"), u64::from(ctx::SIZE));
        for field in CtxField::ALL {
            let kernel = field.name();
            // User space puts an r in front of those that the 8086 had, and calls flags eflags.
            let user = match field {
                CtxField::Rflags => "eflags".to_owned(),
                CtxField::OrigRax => "orig_rax".to_owned(),
                CtxField::Cs | CtxField::Ss => kernel.to_owned(),
                _ if kernel.starts_with('r') => kernel.to_owned(),
                _ => format!("r{kernel}"),
            };
            for name in [kernel, &user] {
                check(format!("offsetof({ty}, {name})"), u64::from(field.offset()));
                check(format!("sizeof((({ty} *)0)->{name})"), 8);
            }
        }
    }
    for (accessor, field) in [
        ("PARM1", CtxField::Rdi),
        ("PARM2", CtxField::Rsi),
        ("PARM3", CtxField::Rdx),
        ("PARM4", CtxField::Rcx),
        ("PARM5", CtxField::R8),
        ("PARM6", CtxField::R9),
        ("RET", CtxField::Rsp),
        ("FP", CtxField::Rbp),
        ("RC", CtxField::Rax),
        ("SP", CtxField::Rsp),
        ("IP", CtxField::Rip),
    ] {
        check(
            format!("(unsigned long)&PT_REGS_{accessor}(0)"),
            u64::from(field.offset()),
        );
    }
    check("UPATCH_CONTINUE".into(), verdict::UPATCH_CONTINUE);
    check("UPATCH_RETURN".into(), verdict::UPATCH_RETURN);
    for standard in ["gnu11", "gnu17", "gnu2x"] {
        compile(&source, standard).unwrap();
    }
    // The assertions do assert.
    assert!(compile(&source.replace("== 168", "== 160"), "gnu17").is_err());
}

#[test]
fn helper_ids_agree() {
    let mut source = String::from(
        "#include \"upatch.h\"\nstatic long body(__u32 index, void *data) { return index + (long)data; }\n",
    );
    for helper in HELPERS {
        let args: Vec<&str> = helper
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Scalar => "7",
                Arg::UserAddress
                | Arg::ReadMemory { .. }
                | Arg::WriteMemory { .. }
                | Arg::CallbackContext => "p",
                Arg::Size { .. } => "8",
                Arg::ConstString => "\"text\"",
                Arg::Callback => "body",
                Arg::Zero => "0",
            })
            .collect();
        source.push_str(&format!(
            "SEC(\"t\") long use_{name}(char *p) {{ (void)p; return (long){name}({args}); }}\n",
            name = helper.name,
            args = args.join(", ")
        ));
    }
    let assembly = compile(&source, "gnu17").unwrap();
    for helper in HELPERS {
        let body = assembly
            .split(&format!("\nuse_{}:", helper.name))
            .nth(1)
            .unwrap();
        let call = body
            .lines()
            .find_map(|line| line.trim().strip_prefix("call "))
            .unwrap();
        assert_eq!(call, helper.id.to_string(), "{}", helper.name);
    }
    // And no other: the header has as many helpers as the table.
    let in_header = UPATCH_H.matches("__upatch_helper(").count() - 1;
    assert_eq!(in_header, HELPERS.len());
}

/// A probe and a patch in one file, with everything that other headers define too.
const USES: &str = "
UPATCH_BUILD_ID(\"0123456789abcdef\");
UPATCH_COUNTER(__u64, hits);
SEC(\"uprobe/exe:f\") int UPATCH(probe, int a, long b)
{
	char name[16];
	long sum = a + b + PT_REGS_PARM1(ctx) + PT_REGS_PARM6(ctx) + PT_REGS_RC(ctx) + PT_REGS_SP(ctx);
	bpf_probe_read_user(name, sizeof(name), (void *)PT_REGS_PARM2(ctx));
	return sum + name[0] + bpf_ktime_get_ns();
}
SEC(\"upatch/exe:g\") int UPATCH(patch, const char *text, size_t len, bool on)
{
	if (!on || !text || len < 9)
		return UPATCH_CONTINUE;
	UPATCH_INC(hits);
	return upatch_return(ctx, -14);
}
";

#[test]
fn keeps_company_in_any_order() {
    let ours = "upatch.h";
    let libbpf = ["linux/bpf.h", "bpf/bpf_helpers.h", "bpf/bpf_tracing.h"];
    let mut companies: Vec<Vec<&str>> = vec![vec![ours]];
    for header in [
        "linux/types.h",
        "linux/bpf.h",
        "linux/ptrace.h",
        "stdbool.h",
        "stddef.h",
    ] {
        companies.push(vec![ours, header]);
        companies.push(vec![header, ours]);
    }
    if libbpf_include().join("bpf/bpf_helpers.h").exists() {
        for at in 0..=libbpf.len() {
            let mut company = libbpf.to_vec();
            company.insert(at, ours);
            companies.push(company);
        }
        companies.push(vec![
            "linux/ptrace.h",
            "linux/bpf.h",
            "bpf/bpf_helpers.h",
            "bpf/bpf_tracing.h",
            ours,
        ]);
        companies.push(vec![
            ours,
            "linux/ptrace.h",
            "linux/bpf.h",
            "bpf/bpf_helpers.h",
            "bpf/bpf_tracing.h",
        ]);
        companies.push(vec![
            "vmlinux.h",
            "bpf/bpf_helpers.h",
            "bpf/bpf_tracing.h",
            ours,
        ]);
        companies.push(vec![
            "vmlinux.h",
            ours,
            "bpf/bpf_helpers.h",
            "bpf/bpf_tracing.h",
        ]);
    } else {
        assert!(
            std::env::var_os("UPATCH_STRICT").is_none(),
            "libbpf's headers are not installed"
        );
        note_skip(
            "keeps_company_in_any_order",
            "libbpf's headers are not installed",
        );
    }
    companies.push(vec!["vmlinux.h", ours]);
    for standard in ["gnu11", "gnu17"] {
        for company in &companies {
            let mut source: String = company
                .iter()
                .map(|header| format!("#include <{header}>\n"))
                .collect();
            source.push_str(USES);
            if let Err(error) = compile(&source, standard) {
                panic!("{company:?} with {standard}:\n{error}");
            }
        }
    }
}

#[test]
fn arguments_are_cut_to_their_types() {
    let source = |arguments: &str, test: &str| {
        format!(
            "#include <upatch.h>\nSEC(\"upatch/exe:f\") int UPATCH(f, {arguments}) {{ return {test}; }}\n"
        )
    };
    let body = |arguments, test| {
        let assembly = compile(&source(arguments, test), "gnu17").unwrap();
        assembly
            .split("\nf:")
            .nth(1)
            .unwrap()
            .split("exit")
            .next()
            .unwrap()
            .to_owned()
    };
    // A bool lives in the low 8 bits; all 64 would be garbage.
    assert!(body("bool on", "on ? 1 : 0").contains("255"));
    // A sign-extended byte, a 32-bit comparison.
    assert!(body("signed char c", "c").contains("(s8)"));
    assert!(body("unsigned int n", "n > 65536").contains("if w"));
    // The sixth argument is r9, at offset 64.
    assert!(
        body(
            "int a, int b, int c, int d, int e, long f6",
            "a + b + c + d + e > f6"
        )
        .contains("r1 + 64")
    );
    // What is in no argument register can't be had.
    assert!(compile(&source("double d", "d > 1"), "gnu17").is_err());
    assert!(
        compile(
            &source("int a, int b, int c, int d, int e, int g, int h", "h"),
            "gnu17"
        )
        .is_err()
    );
}

#[test]
fn refuses_other_machines() {
    let folder = tempfile::tempdir().unwrap();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/upatch.h");
    let clang = std::env::var("UPATCH_CLANG").unwrap_or_else(|_| "clang-19".into());
    let output = Command::new(clang)
        .args(["-fsyntax-only", "-x", "c"])
        .arg(header)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("upatch.h is for BPF programs"));
}

/// Each header alone, twice, and all of them, as strictly as an author may compile; what isn't used leaves nothing.
#[test]
fn sanitising_headers_stand_alone() {
    for (name, _) in HEADERS {
        let source = format!("#include \"{name}\"\n#include \"{name}\"\n{USES}");
        for standard in ["gnu11", "gnu17", "gnu2x"] {
            compile(&source, standard).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let with = |header: &str| compile(&format!("#include \"{header}\"\n{USES}"), "gnu17").unwrap();
    let functions = |assembly: String| assembly.matches("@function").count();
    assert_eq!(
        functions(with("upatch_sanitize.h")),
        functions(with("upatch.h"))
    );
}

/// A buffer whose size gives no mask is an error, whichever function it is given to.
#[test]
fn sanitising_functions_insist_on_powers_of_two() {
    let calls = [
        "upatch_read_str(text, size, at)",
        "upatch_read_text(text, size, at, 3)",
        "upatch_only(text, size, upatch_word)",
        "upatch_identifier(text, size)",
        "upatch_plain_name(text, size)",
        "(upatch_lower(text, size), 0)",
        "upatch_utf8(text, size)",
        "upatch_parse_u64(text, size, 10, 9, &number)",
        "upatch_parse_s64(text, size, 10, 0, 9, &signed_number)",
        "upatch_path_check(text, size)",
        "upatch_path_normalize(text, size, 3, UPATCH_DOTDOT_REFUSE)",
        "upatch_list_has(names, text, size)",
        "upatch_list_has_prefix(names, text, size)",
        "upatch_list_has_beneath(names, text, size)",
    ];
    for call in calls {
        let source = |size: &str| {
            format!(
                "#include \"upatch_sanitize.h\"\nUPATCH_STRING_LIST(names, 2, 8) = {{ \"a\" }};\n\
                 SEC(\"upatch/exe:f\") int UPATCH(f, const char *at)\n{{\n\
                 \tchar text[256] = {{}};\n\t__u64 number = 0;\n\t__s64 signed_number = 0;\n\
                 \tlong result = {};\n\
                 \treturn upatch_return(ctx, result + number + signed_number + names_generation + (long)at);\n}}\n",
                call.replace("size", size)
            )
        };
        for size in ["2", "128", "256"] {
            compile(&source(size), "gnu17").unwrap_or_else(|error| panic!("{call}: {error}"));
        }
        for size in ["0", "1", "100", "255", "512"] {
            let error = compile(&source(size), "gnu17").expect_err(call);
            assert!(error.contains("must be a power of two"), "{call}: {error}");
        }
    }
}

#[test]
fn events_that_can_not_be_are_said_so() {
    let program = |define: &str, body: &str| {
        format!(
            "{define}\n#include \"upatch.h\"\nstruct big {{ char bytes[96]; }};\nint f(void) {{ {body} }}\n"
        )
    };
    let good = "struct big b = {}; return upatch_event(&b, sizeof(b));";
    let larger = "#define UPATCH_EVENT_BYTES 96";
    compile(&program(larger, good), "gnu17").unwrap();
    compile(&program("", "upatch_printk(\"%d\", 1); return 0;"), "gnu11").unwrap();
    let long = format!("upatch_printk(\"{}\"); return 0;", "x".repeat(64));
    for (define, body, says) in [
        ("", good, "larger than UPATCH_EVENT_BYTES"),
        (
            "#define UPATCH_EVENT_SLOTS 1000",
            "return 0;",
            "a power of two",
        ),
        (
            "#define UPATCH_EVENT_BYTES 90",
            "return 0;",
            "a multiple of 8",
        ),
        (
            "#define UPATCH_EVENT_SLOTS (1 << 24)",
            "return 0;",
            "larger than 64 MiB",
        ),
        ("", &long, "longer than 63 bytes"),
    ] {
        let said = compile(&program(define, body), "gnu17").unwrap_err();
        assert!(said.contains(says), "{define} {body}: {said}");
    }
}
