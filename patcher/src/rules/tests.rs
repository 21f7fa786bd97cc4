//! Values that fit and values that don't, for every kind of type.

use serde_json::{Value, json};

use super::{Assignment, Rules};
use crate::object::{GlobalInfo, IntKind, Member, Role, TypeDesc, TypeRef, TypeTable};

fn member(name: &str, ty: u32, bit_offset: u32, bits: u8) -> Member {
    Member {
        name: name.into(),
        ty: TypeRef(ty),
        bit_offset,
        bits,
    }
}

/// Variables `n` (s32), `text` (char[8]), `s` (a struct with bit-fields and an array), `big` (u64), `on`, `mode`.
fn variables() -> (Vec<GlobalInfo>, TypeTable) {
    let types = vec![
        TypeDesc::Int {
            bytes: 4,
            kind: IntKind::Signed,
        },
        TypeDesc::Int {
            bytes: 1,
            kind: IntKind::Char,
        },
        TypeDesc::Array {
            of: TypeRef(1),
            len: 8,
        },
        TypeDesc::Array {
            of: TypeRef(4),
            len: 3,
        },
        TypeDesc::Int {
            bytes: 2,
            kind: IntKind::Unsigned,
        },
        TypeDesc::Struct {
            bytes: 16,
            members: vec![
                member("low", 0, 0, 3),
                member("high", 8, 3, 5),
                member("", 6, 32, 0),
            ],
        },
        TypeDesc::Struct {
            bytes: 8,
            members: vec![member("list", 3, 0, 0), member("last", 4, 48, 0)],
        },
        TypeDesc::Int {
            bytes: 1,
            kind: IntKind::Bool,
        },
        TypeDesc::Int {
            bytes: 8,
            kind: IntKind::Unsigned,
        },
        TypeDesc::Enum {
            bytes: 4,
            signed: true,
            values: vec![("OFF".into(), -1), ("ON".into(), 7)],
        },
        TypeDesc::Float { bytes: 8 },
    ];
    let mut offset = 0;
    let globals = [
        ("n", 0, 8),
        ("text", 2, 8),
        ("s", 5, 16),
        ("big", 8, 8),
        ("on", 7, 8),
        ("mode", 9, 8),
        ("f", 10, 8),
    ]
    .into_iter()
    .map(|(name, ty, size)| {
        offset += size;
        GlobalInfo {
            name: name.into(),
            offset: offset - size,
            size,
            role: Role::Rule,
            ty: TypeRef(ty),
        }
    })
    .collect();
    (globals, TypeTable { types })
}

fn set(assignments: &[&str]) -> Result<Vec<(Value, Value)>, String> {
    let (globals, types) = variables();
    let parsed = assignments
        .iter()
        .map(|text| text.parse::<Assignment>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let rules = Rules {
        globals: &globals,
        types: &types,
    };
    let edits = rules
        .plan(&parsed, &[0x55_u8; 64][..])
        .map_err(|error| error.to_string())?;
    for edit in &edits {
        for store in &edit.stores {
            assert!(store.offset + store.bytes.len() as u64 <= 64, "{edit:?}");
        }
    }
    Ok(edits.into_iter().map(|edit| (edit.old, edit.new)).collect())
}

fn new(assignment: &str) -> Result<Value, String> {
    set(&[assignment]).map(|mut all| all.remove(0).1)
}

#[test]
fn takes_what_fits() {
    for (assignment, value) in [
        ("n=5", json!(5)),
        ("n=-2147483648", json!(i32::MIN)),
        (" n = 0x7fffffff ", json!(i32::MAX)),
        ("n=-0x10", json!(-16)),
        ("big=18446744073709551615", json!(u64::MAX)),
        ("on=true", json!(true)),
        ("on=0", json!(false)),
        ("mode=ON", json!("ON")),
        ("mode=OFF", json!("OFF")),
        ("mode=3", json!(3)),
        ("text=hello", json!("hello")),
        ("text=\"a\\tb\\x41\\0\"", json!([97, 9, 98, 65, 0, 0, 0, 0])),
        ("text=12345678", json!([49, 50, 51, 52, 53, 54, 55, 56])),
        ("text=", json!("")),
        ("text[1]='x'", json!(120)),
        ("text=[72,105]", json!("Hi")),
        ("s.low=-4", json!(-4)),
        ("s.high=31", json!(31)),
        ("s.list=[1,0xff]", Value::Null),
        ("s.list=[1,\"0xff\"]", json!([1, 255, 0])),
        ("s.list[2]=9", json!(9)),
        ("s.last=65535", json!(65535)),
        (
            "s={\"last\":1,\"low\":2}",
            json!({"low": 2, "high": 10, "list": [0x5555, 0x5555, 0x5555], "last": 1}),
        ),
        ("f=-1.5", json!(-1.5)),
    ] {
        match new(assignment) {
            Ok(found) => assert_eq!(found, value, "{assignment}"),
            Err(error) => assert!(value.is_null(), "{assignment}: {error}"),
        }
    }
    // Each sees the ones before it.
    let both = set(&["s.list[0]=1", "s.list[0]=2", "s={\"low\":1}"]).unwrap();
    assert_eq!(both[1], (json!(1), json!(2)));
    assert_eq!(both[2].1["list"][0], 2);
}

#[test]
fn refuses_what_does_not() {
    for (assignment, says) in [
        ("n", "no assignment"),
        ("=5", "the name is missing"),
        ("n.=5", "member's name is missing"),
        ("n[1=5", "`]` is missing"),
        ("n[x]=5", "index is not a number"),
        ("n-x=5", "only .MEMBER and [INDEX]"),
        ("m=5", "no rule `m`; there are n, text, s, big, on, mode, f"),
        ("n.x=5", "`n` has no members"),
        ("n[0]=5", "`n` has no elements"),
        ("s.low.x=1", "`s.low` has no members"),
        ("s.nix=1", "no member `nix`; it has low, high, list, last"),
        ("s.list[3]=1", "has 3 elements, 0 to 2"),
        (
            "s.list=[1,2,3,4]",
            "can't be `4 elements`: it is an array of 3",
        ),
        ("s.list=5", "it is an array of 3"),
        ("s.list=1,2", "[VALUE, …]"),
        ("s=5", "it is a struct"),
        ("s={\"nix\":1}", "no member `nix`"),
        (
            "s={\"list\":[70000]}",
            "`s.list[0]` can't be `70000`: it is a number from 0 to 65535",
        ),
        ("n=2147483648", "from -2147483648 to 2147483647"),
        ("n=0xffffffff", "from -2147483648"),
        ("n=five", "can't be `five`"),
        ("n=", "can't be empty"),
        ("n=--5", "can't be"),
        ("n=1.5", "can't be"),
        ("big=-1", "from 0 to 18446744073709551615"),
        ("s.high=32", "from 0 to 31"),
        ("s.low=4", "from -4 to 3"),
        ("on=2", "true or false"),
        ("mode=MAYBE", "one of OFF, ON, or a number"),
        ("text=123456789", "at most 8 bytes"),
        ("text=\"open", "text in"),
        ("text=\"a\"b", "text in"),
        ("text=\"\\q\"", "text in"),
        ("f=x", "floating-point"),
    ] {
        let error = new(assignment).expect_err(assignment);
        assert!(error.contains(says), "{assignment}: {error}");
    }
    // All or nothing: a bad one at the end refuses those before it.
    assert!(set(&["n=1", "n=x"]).is_err());
}
