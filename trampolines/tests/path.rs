//! The whole path with the hook that gate 1 uses: displace, place, check, plan, and back.

use upatch_trampolines::{
    Avma, AvmaRange, Bindings, CheckPolicy, Fixup, FixupKind, Fragment, FunctionText,
    TrampolineTemplate, check, displace,
};

const SITE: Avma = Avma(0x5555_0000_1000);
const IMAGE: Avma = Avma(0x5555_1000_0000);
const ARENA: Avma = Avma(0x1000_0000_0000);

/// push rax; movabs rax, arena; inc qword [rax]; pop rax; jmp continue
fn counting_hook() -> Fragment {
    let mut bytes = vec![0x50, 0x48, 0xb8];
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[0x48, 0xff, 0x00, 0x58, 0xe9, 0, 0, 0, 0]);
    let code_len = bytes.len();
    Fragment {
        bytes,
        code_len,
        fixups: vec![
            Fixup {
                at: 3,
                kind: FixupKind::Arena(8),
            },
            Fixup {
                at: code_len - 4,
                kind: FixupKind::Continue,
            },
        ],
        stack_bytes: 8,
        arena_len: 4096,
        calls_application: false,
    }
}

#[test]
fn counting_hook_on_an_ordinary_entry() {
    // push rbp; mov rbp, rsp; push rbx; sub rsp, 8; …; ret
    let text = FunctionText::new(
        SITE,
        vec![
            0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 0x08, 0xc9, 0xc3,
        ],
        0,
    );
    let displaced = displace(&text).unwrap();
    assert_eq!(displaced.range(), AvmaRange::new(SITE, 5));
    let template = TrampolineTemplate::new(counting_hook(), displaced);
    let bindings = Bindings {
        arena_base: ARENA,
        externs: Vec::new(),
        private_base: Avma(0),
        gate: None,
    };
    let image = template.place(IMAGE, &bindings).unwrap();
    assert!(image.bytes().len() <= template.max_len());
    // The hook's last jump would lead to what follows it: it is gone.
    assert_eq!(image.code().len(), 15);
    assert_eq!(image.bytes()[15..20], [0x55, 0x48, 0x89, 0xe5, 0x53]);

    let policy = CheckPolicy {
        arena: AvmaRange::new(ARENA, 4096),
        ..CheckPolicy::strict(64)
    };
    let plan = check(&image, &policy).unwrap().poke_plan();
    assert_eq!(plan.old, [0x55, 0x48, 0x89, 0xe5, 0x53]);
    assert_eq!(plan.new[0], 0xe9);
    let target = i32::from_le_bytes(plan.new[1..].try_into().unwrap());
    assert_eq!(
        SITE.plus(5).0.wrapping_add_signed(i64::from(target)),
        IMAGE.0
    );
    assert_eq!(plan.ips.to_image(SITE.plus(1)), Some(IMAGE.plus(16)));
    assert_eq!(plan.ips.to_original(IMAGE.plus(19)), Some(SITE.plus(4)));
    assert_eq!(plan.inverse().inverse(), plan);

    let outside = CheckPolicy {
        arena: AvmaRange::new(ARENA, 8),
        ..policy
    };
    let refusal = check(&image, &outside).unwrap_err();
    assert_eq!(refusal.at, IMAGE.plus(11));
}
