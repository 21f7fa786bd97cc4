//! Our reading of BTF against bpftool's: the types of the arena's variables, and the prototypes of external functions.

use std::process::Command;

use serde_json::Value;
use upatch::object::{IntKind, PatchObject, TypeDesc, TypeRef};
use upatch_verifier::program::{ExternParam, ExternRet};

use crate::{build_case, cases, is_possible};

/// `bpftool -j btf dump file`, or `None` without bpftool: `$UPATCH_BPFTOOL`, where `cargo xtask` put it, or installed.
fn dump(bytes: &[u8]) -> Option<Vec<Value>> {
    let file = tempfile::NamedTempFile::with_suffix(".o").ok()?;
    std::fs::write(file.path(), bytes).ok()?;
    let bpftool = std::env::var_os("UPATCH_BPFTOOL").unwrap_or_else(|| "bpftool".into());
    let output = Command::new(bpftool)
        .args(["-j", "btf", "dump", "file"])
        .arg(file.path())
        .output()
        .ok()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let whole: Value = serde_json::from_slice(&output.stdout).expect("bpftool prints JSON");
    Some(whole["types"].as_array().expect("a list of types").clone())
}

struct Theirs(Vec<Value>);

impl Theirs {
    fn get(&self, id: u64) -> &Value {
        self.0
            .iter()
            .find(|ty| ty["id"] == id)
            .unwrap_or(&Value::Null)
    }

    /// Behind typedefs and qualifiers.
    fn resolve(&self, id: u64) -> &Value {
        let ty = self.get(id);
        match ty["kind"].as_str() {
            Some("TYPEDEF" | "CONST" | "VOLATILE" | "RESTRICT" | "TYPE_TAG") => {
                self.resolve(id_of(ty))
            }
            _ => ty,
        }
    }

    fn named(&self, kind: &str, name: &str) -> &Value {
        self.0
            .iter()
            .find(|ty| ty["kind"] == kind && ty["name"] == name)
            .unwrap_or(&Value::Null)
    }
}

fn id_of(ty: &Value) -> u64 {
    ty["type_id"].as_u64().unwrap_or(0)
}

/// Compares one type with everything in it; returns how many types that were.
fn same(object: &PatchObject, ours: TypeRef, theirs: &Theirs, id: u64) -> usize {
    let there = theirs.resolve(id);
    let kind = there["kind"].as_str();
    let size = there["size"].as_u64();
    match object
        .arena()
        .types
        .get(ours)
        .expect("as bpftool prints it")
    {
        TypeDesc::Int { bytes, kind: ours } => {
            assert_eq!((kind, size), (Some("INT"), Some(u64::from(*bytes))));
            let encoding = there["encoding"].as_str();
            match ours {
                IntKind::Bool => assert_eq!(encoding, Some("BOOL")),
                IntKind::Signed => assert_eq!(encoding, Some("SIGNED")),
                IntKind::Unsigned => assert_eq!(encoding, Some("(none)")),
                IntKind::Char => assert_eq!(there["name"], "char"),
            }
            1
        }
        TypeDesc::Enum { bytes, values, .. } => {
            assert_eq!((kind, size), (Some("ENUM"), Some(u64::from(*bytes))));
            let listed: Vec<_> = there["values"]
                .as_array()
                .expect("as bpftool prints it")
                .iter()
                .map(|value| {
                    (
                        value["name"]
                            .as_str()
                            .expect("as bpftool prints it")
                            .to_owned(),
                        value["val"].as_i64().expect("as bpftool prints it"),
                    )
                })
                .collect();
            assert_eq!(values, &listed);
            1
        }
        TypeDesc::Pointer => {
            assert_eq!(kind, Some("PTR"));
            1
        }
        TypeDesc::Array { of, len } => {
            assert_eq!(
                (kind, there["nr_elems"].as_u64()),
                (Some("ARRAY"), Some(u64::from(*len)))
            );
            1 + same(object, *of, theirs, id_of(there))
        }
        TypeDesc::Struct { bytes, members } => {
            assert!(matches!(kind, Some("STRUCT" | "UNION")));
            assert_eq!(size, Some(u64::from(*bytes)));
            let listed = there["members"].as_array().expect("as bpftool prints it");
            assert_eq!(members.len(), listed.len());
            members.iter().zip(listed).fold(1, |sum, (member, listed)| {
                let name = listed["name"].as_str().unwrap_or("");
                assert_eq!(member.name, if name == "(anon)" { "" } else { name });
                assert_eq!(listed["bits_offset"], member.bit_offset);
                assert_eq!(
                    listed["bitfield_size"].as_u64().unwrap_or(0),
                    u64::from(member.bits)
                );
                sum + same(object, member.ty, theirs, id_of(listed))
            })
        }
        TypeDesc::Float { .. } | TypeDesc::Opaque { .. } => {
            panic!("no case has such a type: {there}")
        }
    }
}

#[test]
fn bpftool_reads_the_same() {
    let mut compared = 0;
    for source in cases("accept").into_iter().chain(cases("libbpf")) {
        if !is_possible("objects::bpftool_reads_the_same", &source) {
            continue;
        }
        let (report, bytes) = build_case(&source, &[]).unwrap();
        let Some(types) = dump(&bytes) else {
            upatch_tests::skip::skip("objects::bpftool_reads_the_same", "no bpftool");
            return;
        };
        let theirs = Theirs(types);
        for global in &report.object.arena().globals {
            let variable = theirs.named("VAR", &global.name);
            compared += same(&report.object, global.ty, &theirs, id_of(variable));
        }
        for found in report.object.externs() {
            let prototype = theirs.get(id_of(theirs.named("FUNC", &found.name)));
            let params = prototype["params"].as_array().unwrap();
            assert_eq!(params.len(), found.params.len());
            for (ours, listed) in found.params.iter().zip(params) {
                let listed = theirs.resolve(id_of(listed));
                match ours {
                    ExternParam::Scalar { bytes } => assert_eq!(listed["size"], *bytes),
                    ExternParam::AppPointer { .. }
                    | ExternParam::SizedMemory { .. }
                    | ExternParam::ConstString { .. } => assert_eq!(listed["kind"], "PTR"),
                }
            }
            let ret = prototype["ret_type_id"].as_u64().unwrap();
            assert_eq!(ret == 0, found.ret == ExternRet::Void);
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}
