//! Reading and writing the program's memory: what is there, what isn't, and what ends at a page's end.

use upatch_tests::native::Mapping;

use crate::rig::{Rig, of_kind, sites};

const EFAULT: i64 = -14;

/// Two pages, of which only the first can be read.
struct Edge {
    pages: Mapping,
}

impl Edge {
    fn new() -> Self {
        let pages = Mapping::new(8192, 4096).unwrap();
        // SAFETY: the second page is this mapping's, and nothing refers to its content.
        let done = unsafe {
            libc::mprotect(
                (pages.address() + 4096) as *mut libc::c_void,
                4096,
                libc::PROT_NONE,
            )
        };
        assert_eq!(done, 0);
        Self { pages }
    }

    /// Puts `text` so that its last byte is the first page's last; where it begins.
    fn put_last(&mut self, text: &[u8]) -> u64 {
        let at = self.pages.address() + 4096 - text.len() as u64;
        for (offset, byte) in text.iter().enumerate() {
            // SAFETY: within the first page, which is writable.
            unsafe { ((at as *mut u8).add(offset)).write(*byte) };
        }
        at
    }
}

const RDI: u8 = 7;

/// Reads `size` bytes at ctx's rdi to the arena or the stack, copies r0 to the arena's first word.
fn read(helper: &str, size: usize, address: u64) -> Vec<(i64, Vec<u8>)> {
    let mut results = Vec::new();
    for site in sites() {
        let mut rig = Rig::new();
        rig.arena.bytes_mut()[..1024].fill(0xaa);
        rig.set = vec![(RDI, address)];
        let body = format!(
            "ldxdw %r3, [%r1+112]\nlddw %r1, arena+64\nmov %r2, {size}\ncall {helper}\n\
             lddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit"
        );
        rig.run(&of_kind(&site, &body), &site);
        assert_eq!(
            rig.arena.bytes()[64 + size],
            0xaa,
            "written behind the buffer"
        );
        results.push((
            rig.word(0).cast_signed(),
            rig.arena.bytes()[64..64 + size].to_vec(),
        ));
    }
    assert!(
        results.windows(2).all(|two| two[0] == two[1]),
        "{results:?}"
    );
    results.truncate(1);
    results
}

#[test]
fn probe_read_user() {
    let bytes: Vec<u8> = (1..=100).collect();
    for size in [1, 4, 8, 100] {
        let wanted = (0, bytes[..size].to_vec());
        assert_eq!(
            read("bpf_probe_read_user", size, bytes.as_ptr() as u64),
            [wanted]
        );
    }
    for bad in [0, 1, u64::MAX, 0x8000_0000_0000, 0x7fff_ffff_f000 - 4] {
        assert_eq!(read("bpf_probe_read_user", 8, bad), [(EFAULT, vec![0; 8])]);
    }
    // Half of it can be read: none of it is given.
    let mut edge = Edge::new();
    let at = edge.put_last(b"1234");
    assert_eq!(read("bpf_probe_read_user", 8, at), [(EFAULT, vec![0; 8])]);
    assert_eq!(read("bpf_probe_read_user", 4, at), [(0, b"1234".to_vec())]);
}

#[test]
fn probe_read_user_to_the_stack() {
    let bytes: Vec<u8> = (1..=64).collect();
    for site in sites() {
        let mut rig = Rig::new();
        rig.set = vec![(RDI, bytes.as_ptr() as u64)];
        let body = "ldxdw %r3, [%r1+112]\nmov %r1, %r10\nadd %r1, -64\nmov %r2, 64\ncall bpf_probe_read_user\n\
             lddw %r1, arena\nldxdw %r2, [%r10-8]\nstxdw [%r1+0], %r2\nmov %r0, 0\nexit";
        rig.run(&of_kind(&site, body), &site);
        assert_eq!(rig.word(0).to_le_bytes(), bytes[56..64]);
    }
}

#[test]
fn probe_read_user_str() {
    let helper = "bpf_probe_read_user_str";
    let text = b"hello\0garbage";
    let at = text.as_ptr() as u64;
    assert_eq!(
        read(helper, 16, at),
        [(6, b"hello\0\0\0\0\0\0\0\0\0\0\0".to_vec())]
    );
    assert_eq!(read(helper, 6, at), [(6, b"hello\0".to_vec())]);
    assert_eq!(read(helper, 5, at), [(5, b"hell\0".to_vec())]);
    assert_eq!(read(helper, 1, at), [(1, b"\0".to_vec())]);
    assert_eq!(read(helper, 8, 0), [(EFAULT, vec![0; 8])]);
    // Ends with the page: what is behind is not touched.
    let mut edge = Edge::new();
    let at = edge.put_last(b"end\0");
    assert_eq!(
        read(helper, 16, at),
        [(4, b"end\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec())]
    );
    // Runs into the page that can't be read.
    let at = edge.put_last(b"open");
    assert_eq!(read(helper, 16, at), [(EFAULT, vec![0; 16])]);
    assert_eq!(read(helper, 4, at), [(4, b"ope\0".to_vec())]);
    // Crosses into a page that can be read.
    let mut two = Mapping::new(8192, 4096).unwrap();
    two.bytes_mut()[4090..4102].copy_from_slice(b"across pages");
    let wanted = (13, b"across pages\0\0\0\0".to_vec());
    assert_eq!(read(helper, 16, two.address() + 4090), [wanted]);
}

#[test]
fn probe_write_user() {
    for site in sites() {
        let mut target = Mapping::new(4096, 4096).unwrap();
        target.bytes_mut()[..16].fill(0x11);
        for (address, wanted) in [
            (target.address(), 0),
            (0, EFAULT),
            (target.address() + 4090, EFAULT),
        ] {
            let mut rig = Rig::new();
            rig.set = vec![(RDI, address)];
            let body = "ldxdw %r1, [%r1+112]\nlddw %r2, 0x1122334455667788\nstxdw [%r10-8], %r2\nmov %r2, %r10\nadd %r2, -8\n\
                 mov %r3, 8\ncall bpf_probe_write_user\nlddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit";
            // One byte behind the mapping may well be somebody's: only the hole at 0 and the mapping itself are certain.
            if address == target.address() + 4090 {
                continue;
            }
            rig.run(&of_kind(&site, body), &site);
            assert_eq!(rig.word(0).cast_signed(), wanted);
        }
        assert_eq!(target.bytes()[..8], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!(target.bytes()[8], 0x11);
    }
}
