//! The instructions that a hook may compute with, beyond those that `step` spells out.
//!
//! Everything here works in user mode without raising an exception, on general-purpose registers, flags and checked
//! memory only; its results become unknown. Left out on purpose: string instructions, `bsf` and `bsr` (undefined
//! results), `cmpxchg16b` (faults when misaligned), what not every x86-64 processor has (BMI, `popcnt`, `movbe`, `rdpid`),
//! everything with vector registers, anything that changes control, segment or model-specific registers.

use iced_x86::Mnemonic;

/// May a hook execute it?
pub(crate) const fn is_allowed(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Mov
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Lea
            | M::Xchg
            | M::Bswap
            | M::Add
            | M::Adc
            | M::Sub
            | M::Sbb
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Cmp
            | M::And
            | M::Or
            | M::Xor
            | M::Not
            | M::Test
            | M::Shl
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Shld
            | M::Shrd
            | M::Mul
            | M::Imul
            | M::Div
            | M::Idiv
            | M::Cbw
            | M::Cwde
            | M::Cdqe
            | M::Cwd
            | M::Cdq
            | M::Cqo
            | M::Bt
            | M::Bts
            | M::Btr
            | M::Btc
            | M::Seto
            | M::Setno
            | M::Setb
            | M::Setae
            | M::Sete
            | M::Setne
            | M::Setbe
            | M::Seta
            | M::Sets
            | M::Setns
            | M::Setp
            | M::Setnp
            | M::Setl
            | M::Setge
            | M::Setle
            | M::Setg
            | M::Cmovo
            | M::Cmovno
            | M::Cmovb
            | M::Cmovae
            | M::Cmove
            | M::Cmovne
            | M::Cmovbe
            | M::Cmova
            | M::Cmovs
            | M::Cmovns
            | M::Cmovp
            | M::Cmovnp
            | M::Cmovl
            | M::Cmovge
            | M::Cmovle
            | M::Cmovg
            | M::Xadd
            | M::Cmpxchg
            | M::Nop
            | M::Endbr64
            | M::Pause
            | M::Lfence
            | M::Mfence
            | M::Sfence
            | M::Rdtsc
            | M::Rdtscp
            | M::Cld
            | M::Clc
            | M::Stc
            | M::Cmc
            | M::Lahf
            | M::Sahf
    )
}
