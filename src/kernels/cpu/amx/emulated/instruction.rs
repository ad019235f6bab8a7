//! The bytes of the unit's instructions.

use super::registers::{Memory, Registers};

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    Configure(usize),
    Release,
    Zero(usize),
    Load(usize, Memory),
    Store(usize, Memory),
    Multiply([usize; 3]),
}

/// What is read at an instruction: its bytes, front to back.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    /// A displacement of one byte or of four.
    fn displacement(&mut self, mode: u8) -> Option<usize> {
        Some(match mode {
            0 => 0,
            1 => self.next()?.cast_signed() as isize as usize,
            _ => {
                let bytes = [self.next()?, self.next()?, self.next()?, self.next()?];
                i32::from_le_bytes(bytes) as isize as usize
            }
        })
    }
}

/// The fields of a three-byte VEX prefix, and of the byte behind the opcode.
struct Fields {
    /// Third bits of the numbers of base and index.
    high_base: u8,
    high_index: u8,
    /// The prefix that it stands for: none, 66, F3, F2.
    prefix: u8,
    third: usize,
    opcode: u8,
    mode: u8,
    register: usize,
    other: u8,
}

impl Fields {
    fn read(bytes: &mut Bytes<'_>) -> Option<Fields> {
        let (vex, first, second) = (bytes.next()?, bytes.next()?, bytes.next()?);
        let (opcode, behind) = (bytes.next()?, bytes.next()?);
        // Map 0F38, W0, 128 bits.
        let ours = vex == 0xc4 && first & 0x1f == 2 && second & 0x84 == 0;
        ours.then_some(Fields {
            high_base: !first >> 2 & 8,
            high_index: !first >> 3 & 8,
            prefix: second & 3,
            third: usize::from(!second >> 3 & 15),
            opcode,
            mode: behind >> 6,
            register: usize::from(behind >> 3 & 7),
            other: behind & 7,
        })
    }
}

impl Instruction {
    /// What these bytes are, and how many of them, if they are one of the unit's; `general` tells a general
    /// register by its number.
    pub(super) fn read(code: &[u8], general: impl Fn(u8) -> usize) -> Option<(Instruction, usize)> {
        let mut bytes = Bytes(code.iter());
        let fields = Fields::read(&mut bytes)?;
        let Fields {
            register, third, ..
        } = fields;
        let instruction = match (fields.opcode, fields.prefix, fields.mode) {
            (0x49, 0, 3) if (register, fields.other) == (0, 0) => Instruction::Release,
            (0x49, 3, 3) if fields.other == 0 => Instruction::Zero(register),
            (0x5c, 2, 3) => Instruction::Multiply([register, usize::from(fields.other), third]),
            (0x49, 0, _) if register == 0 => {
                Instruction::Configure(memory(&fields, &mut bytes, general)?.address)
            }
            // A load that is needed once (66) does the same.
            (0x4b, 1 | 3, mode) if mode < 3 && fields.other == 4 => {
                Instruction::Load(register, memory(&fields, &mut bytes, general)?)
            }
            (0x4b, 2, mode) if mode < 3 && fields.other == 4 => {
                Instruction::Store(register, memory(&fields, &mut bytes, general)?)
            }
            _ => return None,
        };
        Some((instruction, code.len() - bytes.0.len()))
    }

    /// Does it; false if it is not allowed.
    ///
    /// # Safety
    ///
    /// What it reads and writes is there.
    pub(super) unsafe fn run(self, registers: &mut Registers) -> bool {
        match self {
            Instruction::Configure(address) => registers.configure(&*(address as *const [u8; 64])),
            Instruction::Release => {
                registers.release();
                true
            }
            Instruction::Zero(tile) => registers.zero(tile),
            Instruction::Load(tile, from) => registers.load(tile, from),
            Instruction::Store(tile, to) => registers.store(tile, to),
            Instruction::Multiply(tiles) => registers.multiply(tiles),
        }
    }
}

/// Base, index, scale and displacement → address and stride.
fn memory(fields: &Fields, bytes: &mut Bytes<'_>, general: impl Fn(u8) -> usize) -> Option<Memory> {
    if fields.other != 4 {
        let base = general(fields.other | fields.high_base);
        let relative = fields.mode == 0 && fields.other == 5;
        let address = base.wrapping_add(bytes.displacement(fields.mode)?);
        return (!relative).then_some(Memory { address, stride: 0 });
    }
    let parts = bytes.next()?;
    let (base, index) = (
        parts & 7 | fields.high_base,
        parts >> 3 & 7 | fields.high_index,
    );
    let absolute = fields.mode == 0 && base & 7 == 5;
    let stride = if index == 4 {
        0
    } else {
        general(index) << (parts >> 6)
    };
    let from = if absolute { 0 } else { general(base) };
    let address = from.wrapping_add(bytes.displacement(if absolute { 2 } else { fields.mode })?);
    Some(Memory { address, stride })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// General registers hold a thousand times their number.
    fn read(code: &[u8]) -> Option<(Instruction, usize)> {
        Instruction::read(code, |number| 1000 * usize::from(number))
    }

    /// As an assembler writes them.
    #[test]
    fn every_instruction_is_known_by_its_bytes() {
        let memory = |address, stride| Memory { address, stride };
        let cases: [(&[u8], Instruction); 9] = [
            (&[0xc4, 0xe2, 0x78, 0x49, 0x00], Instruction::Configure(0)),
            (
                &[0xc4, 0xc2, 0x78, 0x49, 0x44, 0x24, 0x10],
                Instruction::Configure(12016),
            ),
            (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Instruction::Release),
            (&[0xc4, 0xe2, 0x7b, 0x49, 0xd8], Instruction::Zero(3)),
            (
                &[0xc4, 0xe2, 0x7b, 0x4b, 0x24, 0x0e],
                Instruction::Load(4, memory(6000, 1000)),
            ),
            (
                &[0xc4, 0x82, 0x7b, 0x4b, 0xbc, 0xc8, 0x00, 0x04, 0x00, 0x00],
                Instruction::Load(7, memory(9024, 72_000)),
            ),
            (
                &[0xc4, 0xe2, 0x79, 0x4b, 0x34, 0x0a],
                Instruction::Load(6, memory(2000, 1000)),
            ),
            (
                &[0xc4, 0xe2, 0x7a, 0x4b, 0x4c, 0x0f, 0xf0],
                Instruction::Store(1, memory(6984, 1000)),
            ),
            (
                &[0xc4, 0xe2, 0x42, 0x5c, 0xd5],
                Instruction::Multiply([2, 5, 7]),
            ),
        ];
        for (code, instruction) in cases {
            let longer = [code, &[0x90; 4]].concat();
            assert_eq!(read(&longer), Some((instruction, code.len())), "{code:x?}");
        }
        // `ud2`, and an `andn`.
        assert_eq!(read(&[0x0f, 0x0b, 0x90, 0x90, 0x90]), None);
        assert_eq!(read(&[0xc4, 0xe2, 0x78, 0xf2, 0xc1]), None);
    }
}
