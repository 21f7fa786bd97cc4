//! Every instruction in every form, as text.

/// Every instruction and form, as assembly text.
pub(crate) fn instruction() -> String {
    let mut text = String::new();
    let mut line = |insn: String| text += &format!("{insn}\n");
    for op in [
        "add", "sub", "mul", "div", "sdiv", "or", "and", "lsh", "rsh", "mod", "smod", "xor", "mov",
        "arsh",
    ] {
        for width in ["", "32"] {
            line(format!("{op}{width} %r1, %r2"));
            line(format!("{op}{width} %r9, 5"));
            line(format!("{op}{width} %r3, -7"));
        }
    }
    for op in ["neg", "neg32"] {
        line(format!("{op} %r4"));
    }
    for op in [
        "movsx832",
        "movsx864",
        "movsx1632",
        "movsx1664",
        "movsx3264",
    ] {
        line(format!("{op} %r5, %r6"));
    }
    for op in ["le", "be", "swap"] {
        for bits in [16, 32, 64] {
            line(format!("{op}{bits} %r7"));
        }
    }
    line("addr_space_cast %r1, %r2, 1".to_owned());
    line("addr_space_cast %r1, %r2, 0x10000".to_owned());
    line("lddw %r1, 0x123456789abcdef0".to_owned());
    line("lddw %r1, -2".to_owned());
    for size in ["b", "h", "w", "dw"] {
        line(format!("ldx{size} %r1, [%r2+16]"));
        line(format!("ldx{size} %r1, [%r10-16]"));
        line(format!("stx{size} [%r2+0], %r3"));
        line(format!("st{size} [%r10-32768], -5"));
        line(format!("st{size} [%r10+32767], 0x7fffffff"));
        line(format!("load_acquire {size} %r1, [%r2+16]"));
        line(format!("store_release {size} [%r10-8], %r3"));
    }
    for size in ["b", "h", "w"] {
        line(format!("ldxs{size} %r1, [%r2-2]"));
    }
    for op in ["add", "or", "and", "xor"] {
        for width in ["", "32"] {
            line(format!("lock {op}{width} [%r1+8], %r2"));
            line(format!("lock fetch {op}{width} [%r1-8], %r2"));
        }
    }
    for op in ["xchg", "xchg32", "cmpxchg", "cmpxchg32"] {
        line(format!("lock {op} [%r1+0], %r2"));
    }
    for op in [
        "jeq", "jne", "jgt", "jge", "jlt", "jle", "jsgt", "jsge", "jslt", "jsle", "jset",
    ] {
        for width in ["", "32"] {
            line(format!("{op}{width} %r1, %r2, +1"));
            line(format!("{op}{width} %r1, -9, -3"));
        }
    }
    line("ja +0".to_owned());
    line("may_goto -1".to_owned());
    line("call 5".to_owned());
    line("call bpf_loop".to_owned());
    line("call local f".to_owned());
    line("lddw %r2, func f".to_owned());
    line("exit".to_owned());
    line("f: exit".to_owned());
    text
}
