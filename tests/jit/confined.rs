//! Arena accesses without a proof of bounds: wherever the pointer points, the access is in the window or the slack behind it.

use crate::rig::{Rig, sites, with_arena};

const RDI: u8 = 7;
const RSI: u8 = 6;

/// Where an access of the pointer with this offset lands in a window of this size.
fn landing(pointer: u64, offset: i64, window: u64) -> usize {
    (pointer.wrapping_add_signed(offset) & (window - 1)) as usize
}

#[test]
fn loads_stores_and_atomics_stay_inside() {
    let pointers = [
        0,
        5,
        4095,
        0xfff_ffff,
        0xffff_ffff,
        0x1_0000_0000,
        u64::MAX,
        0x7fff_ffff_fffc,
        0x8000_0000_0000_0000,
    ];
    for window in [1 << 12, 1 << 20, 1 << 31, 1 << 32] {
        for site in sites() {
            for (pointer, offset) in pointers
                .iter()
                .flat_map(|pointer| [(*pointer, 0), (*pointer, -8), (*pointer, 32767)])
            {
                let mut rig = Rig::with_window(window);
                rig.set = vec![(RDI, pointer), (RSI, 0x55)];
                let at = landing(pointer, offset, window);
                rig.arena.bytes_mut()[at] = 0x80;
                // Loads a byte and stores a word there, which may run into the slack; then atomics, which go to a multiple of
                // their size: across two cache lines the kernel would throttle them to seconds (`split_lock_detect`).
                let atomics = format!(
                    "lock add [%r2{offset:+}], %r3\nmov %r5, 3\nlock fetch or [%r2{offset:+}], %r5\n\
                     lock fetch xor [%r2{offset:+}], %r4"
                );
                let body = format!(
                    "mov %r6, %r1\nldxdw %r2, [%r6+112]\naddr_space_cast %r2, %r2, 1\nldxb %r3, [%r2{offset:+}]\n\
                     ldxdw %r4, [%r6+104]\nstxdw [%r2{offset:+}], %r4\n{atomics}\nlddw %r2, arena\n\
                     stxdw [%r2+64], %r3\nmov %r0, 0\nexit"
                );
                rig.run(&with_arena(&site, window, &body), &site);
                let aligned = at & !7;
                let mut model = [0u8; 16];
                model[at - aligned] = 0x55;
                let (first, second) = model.split_at(8);
                let word = u64::from_le_bytes(first.try_into().unwrap());
                let word = (word.wrapping_add(0x80) | 3) ^ 0x55;
                let next = u64::from_le_bytes(second.try_into().unwrap());
                let place = format!("{pointer:#x}{offset:+}, window {window:#x}, {site:x?}");
                let found = (rig.word(aligned), rig.word(aligned + 8), rig.word(64));
                assert_eq!(found, (word, next, 0x80), "{place}");
            }
        }
    }
}
