//! Random instructions, read back by an independent disassembler.
//!
//! Each encoding method is called with random operands beside a description of what it should be; iced-x86 decodes the
//! bytes, and mnemonic, operands, widths, addresses and immediates must be those.

use iced_x86::{Decoder, DecoderOptions, Instruction, MemorySize, OpKind, Register};
use proptest::prelude::*;

use super::*;
use crate::patch::FixupKind;

/// An operand as iced should see it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Expected {
    Reg(Gpr, u32),
    Mem(Mem, u32),
    Imm(i64),
    Label(u64),
    Out,
    Cl,
}

fn gpr() -> impl Strategy<Value = Gpr> {
    (0u8..16).prop_map(|number| Gpr::new(number).unwrap())
}

fn mem() -> impl Strategy<Value = Mem> {
    let index = prop_oneof![
        Just(None),
        gpr().prop_map(|reg| (reg != Gpr::Rsp).then_some(reg))
    ];
    let disp = prop_oneof![Just(0), -130..130, any::<i32>()];
    (gpr(), index, disp).prop_map(|(base, index, disp)| Mem { base, index, disp })
}

fn imm() -> impl Strategy<Value = i32> {
    prop_oneof![-130..130, any::<i32>()]
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::W32), Just(Width::W64)]
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![Just(Size::B), Just(Size::H), Just(Size::W), Just(Size::DW)]
}

fn bits(width: Width) -> u32 {
    match width {
        Width::W32 => 32,
        Width::W64 => 64,
    }
}

/// iced's register of this number and width.
fn iced(reg: Gpr, bits: u32) -> Register {
    let all = match bits {
        8 => Register::AL,
        16 => Register::AX,
        32 => Register::EAX,
        _ => Register::RAX,
    };
    // In iced's order AH to BH stand between BL and SPL.
    let number = u32::from(reg.number());
    let skip = if bits == 8 && number >= 4 { 4 } else { 0 };
    all + number + skip
}

fn operand(insn: &Instruction, index: u32, expected: Expected) -> Result<(), String> {
    let fail = |what: String| Err(format!("operand {index}: {what}, wanted {expected:?}"));
    match expected {
        Expected::Reg(reg, bits) => {
            let found = insn.op_register(index);
            if insn.op_kind(index) == OpKind::Register && found == iced(reg, bits) {
                Ok(())
            } else {
                fail(format!("{found:?}"))
            }
        }
        Expected::Cl => {
            if insn.op_register(index) == Register::CL {
                Ok(())
            } else {
                fail("not cl".to_owned())
            }
        }
        Expected::Mem(mem, bits) => {
            let index_reg = mem.index.map_or(Register::None, |reg| iced(reg, 64));
            // An unscaled index and a base are interchangeable to the reader, not to the encoding.
            let place = insn.memory_base() == iced(mem.base, 64)
                && insn.memory_index() == index_reg
                && insn.memory_index_scale() == 1
                && insn.memory_displacement64() == i64::from(mem.disp) as u64;
            let size = insn.memory_size();
            let fits = bits == 0 || size == MemorySize::Unknown || size.size() as u32 * 8 == bits;
            if insn.op_kind(index) == OpKind::Memory && place && fits {
                Ok(())
            } else {
                fail(format!("{insn:?} {size:?}"))
            }
        }
        Expected::Imm(value) => {
            let found = insn.immediate(index);
            let bytes = match insn.op0_kind() {
                OpKind::Register => insn.op0_register().size(),
                _ => insn.memory_size().size(),
            };
            // Short forms are shown sign-extended to 64 bits whatever the operation's width is.
            let unused = 64 - 8 * bytes as u32;
            if found << unused == (value as u64) << unused {
                Ok(())
            } else {
                fail(format!("{found:#x}"))
            }
        }
        Expected::Label(at) => {
            let found = if insn.is_ip_rel_memory_operand() {
                insn.ip_rel_memory_address()
            } else {
                insn.near_branch_target()
            };
            if found == at {
                Ok(())
            } else {
                fail(format!("{found:#x}"))
            }
        }
        Expected::Out => Ok(()),
    }
}

/// Emits one instruction and compares; returns what iced saw.
fn check(mnemonic: &str, operands: &[Expected], emit: impl FnOnce(&mut Assembler)) -> Instruction {
    let mut asm = Assembler::new();
    emit(&mut asm);
    let (bytes, _) = asm.finish();
    let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
    let insn = decoder.decode();
    let name = format!("{:?}", insn.mnemonic()).to_lowercase();
    assert_eq!(name, mnemonic, "{bytes:02x?}");
    assert_eq!(
        insn.len(),
        bytes.len(),
        "{bytes:02x?} is not one instruction"
    );
    for (index, expected) in (0..).zip(operands) {
        if let Err(wrong) = operand(&insn, index, *expected) {
            panic!("{mnemonic} {bytes:02x?}: {wrong}");
        }
    }
    insn
}

const ARITH: [(Arith, &str); 6] = [
    (Arith::Add, "add"),
    (Arith::Or, "or"),
    (Arith::And, "and"),
    (Arith::Sub, "sub"),
    (Arith::Xor, "xor"),
    (Arith::Cmp, "cmp"),
];
const SHIFTS: [(Shift, &str); 5] = [
    (Shift::Rol, "rol"),
    (Shift::Ror, "ror"),
    (Shift::Shl, "shl"),
    (Shift::Shr, "shr"),
    (Shift::Sar, "sar"),
];
const CONDITIONS: [(Cond, &str); 10] = [
    (Cond::B, "jb"),
    (Cond::Ae, "jae"),
    (Cond::E, "je"),
    (Cond::Ne, "jne"),
    (Cond::Be, "jbe"),
    (Cond::A, "ja"),
    (Cond::L, "jl"),
    (Cond::Ge, "jge"),
    (Cond::Le, "jle"),
    (Cond::G, "jg"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arithmetic((op, name) in prop::sample::select(&ARITH[..]), w in width(), a in gpr(), b in gpr(), m in mem(), i in imm()) {
        use Expected::{Imm, Mem, Reg};
        let n = bits(w);
        check(name, &[Reg(a, n), Reg(b, n)], |asm| asm.arith_rr(op, w, a, b));
        check(name, &[Reg(a, n), Imm(i64::from(i))], |asm| asm.arith_ri(op, w, a, i));
        check(name, &[Reg(a, n), Mem(m, n)], |asm| asm.arith_rm(op, w, a, m));
        check(name, &[Mem(m, n), Reg(a, n)], |asm| asm.arith_mr(op, w, m, a));
        check(name, &[Mem(m, n), Imm(i64::from(i))], |asm| asm.arith_mi(op, w, m, i));
        if op != Arith::Cmp {
            let insn = check(name, &[Mem(m, n), Reg(a, n)], |asm| asm.lock_arith_mr(op, w, m, a));
            prop_assert!(insn.has_lock_prefix());
            let insn = check(name, &[Mem(m, n), Imm(i64::from(i))], |asm| asm.lock_arith_mi(op, w, m, i));
            prop_assert!(insn.has_lock_prefix());
        }
    }

    #[test]
    fn other_arithmetic(w in width(), a in gpr(), b in gpr(), m in mem(), i in imm(), s in size(), c in any::<i8>()) {
        use Expected::{Imm, Mem, Reg};
        let n = bits(w);
        check("test", &[Reg(a, n), Reg(b, n)], |asm| asm.test_rr(w, a, b));
        check("test", &[Reg(a, n), Imm(i64::from(i))], |asm| asm.test_ri(w, a, i));
        check("imul", &[Reg(a, n), Reg(b, n)], |asm| asm.imul_rr(w, a, b));
        check("imul", &[Reg(a, n), Reg(b, n), Imm(i64::from(i))], |asm| asm.imul_rri(w, a, b, i));
        check("not", &[Reg(a, n)], |asm| asm.not(w, a));
        check("neg", &[Reg(a, n)], |asm| asm.neg(w, a));
        check("mul", &[Reg(a, n)], |asm| asm.mul(w, a));
        check("div", &[Reg(a, n)], |asm| asm.div(w, a));
        check("idiv", &[Reg(a, n)], |asm| asm.idiv(w, a));
        check(if n == 64 { "cqo" } else { "cdq" }, &[], |asm| asm.sign_into_rdx(w));
        check("bswap", &[Reg(a, n)], |asm| asm.bswap(w, a));
        check("rol", &[Reg(a, 16), Imm(8)], |asm| asm.swap_bytes16(a));
        check("xchg", &[Mem(m, n), Reg(a, n)], |asm| asm.xchg_mr(w, m, a));
        let insn = check("xadd", &[Mem(m, n), Reg(a, n)], |asm| asm.lock_xadd(w, m, a));
        prop_assert!(insn.has_lock_prefix());
        let insn = check("cmpxchg", &[Mem(m, n), Reg(a, n)], |asm| asm.lock_cmpxchg(w, m, a));
        prop_assert!(insn.has_lock_prefix());
        let n = u32::from(s.bytes()) * 8;
        check("cmp", &[Mem(m, n), Imm(i64::from(c))], |asm| asm.cmp_mi(s, m, c));
    }

    #[test]
    fn shifts((op, name) in prop::sample::select(&SHIFTS[..]), w in width(), a in gpr(), count in 0u8..64) {
        let n = bits(w);
        check(name, &[Expected::Reg(a, n), Expected::Imm(count.into())], |asm| asm.shift_ri(op, w, a, count));
        check(name, &[Expected::Reg(a, n), Expected::Cl], |asm| asm.shift_cl(op, w, a));
    }

    #[test]
    fn moves(w in width(), s in size(), signed in any::<bool>(), a in gpr(), b in gpr(), m in mem(), i in imm(), value in any::<u64>()) {
        use Expected::{Imm, Mem, Reg};
        let n = bits(w);
        check("mov", &[Reg(a, n), Reg(b, n)], |asm| asm.mov_rr(w, a, b));
        for value in [value, value >> 33, i64::from(i) as u64] {
            let insn = check("mov", &[], |asm| asm.mov_ri(a, value));
            prop_assert_eq!(insn.immediate(1), value);
            prop_assert_eq!(insn.op0_register().full_register(), iced(a, 64));
        }
        let from = u32::from(s.bytes()) * 8;
        let (name, to) = match (s, signed) {
            (Size::DW, _) => ("mov", 64),
            (Size::W, false) => ("mov", 32),
            (Size::W, true) => ("movsxd", 64),
            (_, false) => ("movzx", 32),
            (_, true) => ("movsx", 64),
        };
        check(name, &[Reg(a, to), Mem(m, from)], |asm| asm.load(s, signed, a, m));
        check(name, &[Reg(a, to), Reg(b, from)], |asm| asm.extend_rr(s, signed, a, b));
        check("movsx", &[Reg(a, 32), Reg(b, 16)], |asm| asm.movsx32_rr(true, a, b));
        check("movsx", &[Reg(a, 32), Reg(b, 8)], |asm| asm.movsx32_rr(false, a, b));
        check("mov", &[Mem(m, from), Reg(a, from)], |asm| asm.store(s, m, a));
        check("mov", &[Mem(m, from), Imm(i64::from(i))], |asm| asm.store_imm(s, m, i));
        check("lea", &[Reg(a, n), Mem(m, 0)], |asm| asm.lea(w, a, m));
        check("xchg", &[Reg(a, 64), Reg(b, 64)], |asm| asm.xchg_rr(a, b));
        check("push", &[Reg(a, 64)], |asm| asm.push(a));
        check("pop", &[Reg(a, 64)], |asm| asm.pop(a));
        let insn = check("push", &[], |asm| asm.push_imm(i));
        prop_assert_eq!(insn.immediate(0) as i64, i64::from(i));
        prop_assert_eq!(insn.stack_pointer_increment(), -8);
        let insn = check("mov", &[Reg(a, 64)], |asm| asm.load_thread_pointer(a));
        prop_assert_eq!(insn.memory_segment(), Register::FS);
        prop_assert_eq!((insn.memory_base(), insn.memory_index()), (Register::None, Register::None));
        prop_assert_eq!(insn.memory_displacement64(), 0);
        check("mov", &[Reg(a, 64), Imm(0)], |asm| asm.mov_address(a, FixupKind::Site));
        check("xsave64", &[Mem(m, 0)], |asm| asm.xsave64(m));
        check("xsavec64", &[Mem(m, 0)], |asm| asm.xsavec64(m));
        check("xrstor64", &[Mem(m, 0)], |asm| asm.xrstor64(m));
        check("call", &[Reg(a, 64)], |asm| asm.call_reg(a));
    }

    /// Labels before and behind, near and far.
    #[test]
    fn jumps((cond, name) in prop::sample::select(&CONDITIONS[..]), padding in 0usize..300, a in gpr()) {
        type Emit<'a> = (&'a str, Box<dyn Fn(&mut Assembler, Label)>);
        let emits: [Emit; 4] = [
            (name, Box::new(move |asm, label| asm.jcc(cond, label))),
            ("jmp", Box::new(|asm, label| asm.jmp(label))),
            ("call", Box::new(|asm, label| asm.call(label))),
            ("lea", Box::new(move |asm, label| asm.lea_label(a, label))),
        ];
        for (name, emit) in emits {
            let mut asm = Assembler::new();
            let back = asm.here();
            let ahead = asm.label();
            asm.data(&vec![0x90; padding]);
            let first = asm.len();
            emit(&mut asm, back);
            let second = asm.len();
            emit(&mut asm, ahead);
            asm.data(&vec![0x90; padding]);
            asm.bind(ahead);
            let end = asm.len();
            let (bytes, _) = asm.finish();
            for (at, target) in [(first, 0), (second, end)] {
                let insn = Decoder::with_ip(64, &bytes[at..], at as u64, DecoderOptions::NONE).decode();
                prop_assert_eq!(format!("{:?}", insn.mnemonic()).to_lowercase(), name);
                let operand_index = u32::from(name == "lea");
                operand(&insn, operand_index, Expected::Label(target as u64)).unwrap();
            }
        }
    }
}

#[test]
fn without_operands() {
    check("ret", &[], Assembler::ret);
    check("ud2", &[], Assembler::ud2);
    check("syscall", &[], Assembler::syscall);
    check("cld", &[], Assembler::cld);
    check("pushfq", &[], Assembler::pushfq);
    check("popfq", &[], Assembler::popfq);
    check("jmp", &[Expected::Out], |asm| {
        asm.jmp_out(FixupKind::Continue)
    });
    check("je", &[Expected::Out], |asm| {
        asm.jcc_out(Cond::E, FixupKind::Continue)
    });
    check("nop", &[], Assembler::nop);
}

/// A fixup names the field of its instruction.
#[test]
fn fixups_are_fields() {
    let mut asm = Assembler::new();
    asm.mov_address(Gpr::R9, FixupKind::Arena(5));
    asm.jmp_out(FixupKind::Continue);
    let (bytes, fixups) = asm.finish();
    let places: Vec<usize> = fixups.iter().map(|fixup| fixup.at).collect();
    assert_eq!((bytes.len(), places), (15, vec![2, 11]));
}
