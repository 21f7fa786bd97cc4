//! System calls and the saving of vector state.

use super::encode::{Form, Map, RegField, Rm};
use super::{Assembler, Mem, Width};

impl Assembler {
    /// SYSCALL: overwrites rcx and r11.
    pub fn syscall(&mut self) {
        self.data(&[0x0f, 0x05]);
    }

    /// CLD: string instructions go up (psABI §3.2.1 demands it at calls).
    pub fn cld(&mut self) {
        self.byte(0xfc);
    }

    /// XSAVE64 m (the 64-byte aligned area at `mem`), components by edx:eax.
    pub fn xsave64(&mut self, mem: Mem) {
        self.state(0xae, 4, mem);
    }

    /// XRSTOR64 m.
    pub fn xrstor64(&mut self, mem: Mem) {
        self.state(0xae, 5, mem);
    }

    /// XSAVEC64 m: the compacted form.
    pub fn xsavec64(&mut self, mem: Mem) {
        self.state(0xc7, 4, mem);
    }

    fn state(&mut self, opcode: u8, digit: u8, mem: Mem) {
        let form = Form::width(Width::W64);
        self.op(form, Map::Two, opcode, RegField::Digit(digit), Rm::Mem(mem));
    }
}
