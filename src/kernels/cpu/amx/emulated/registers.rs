//! What the unit holds for a thread, and what its instructions do with it.

/// Bytes of a register's row at most, and rows.
const ROW: usize = 64;
const ROWS: usize = 16;

/// What a thread has.
pub(super) struct Registers {
    configured: bool,
    /// Rows and bytes of a row.
    shapes: [(usize, usize); 8],
    tiles: [[[u8; ROW]; ROWS]; 8],
}

/// Rows in memory: the first one's address and the bytes from a row to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) address: usize,
    pub(super) stride: usize,
}

impl Registers {
    /// Nothing may be done with them.
    pub(super) const UNCONFIGURED: Registers = Registers {
        configured: false,
        shapes: [(0, 0); 8],
        tiles: [[[0; ROW]; ROWS]; 8],
    };

    /// `ldtilecfg`: shapes from 64 bytes. False if they are none.
    pub(super) fn configure(&mut self, bytes: &[u8; 64]) -> bool {
        *self = Registers::UNCONFIGURED;
        let of = |tile: usize| {
            let across = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]);
            (usize::from(bytes[48 + tile]), usize::from(across))
        };
        let fits = |(rows, across): (usize, usize)| rows <= ROWS && across <= ROW;
        // Palette 1, from the first row on; the rest is reserved.
        let plain = bytes[0] == 1 && bytes[1..16].iter().all(|byte| *byte == 0);
        let spare = bytes[32..48].iter().chain(&bytes[56..]);
        self.shapes = std::array::from_fn(of);
        self.configured =
            plain && self.shapes.into_iter().all(fits) && spare.copied().all(|byte| byte == 0);
        self.configured
    }

    /// `tilerelease`
    pub(super) fn release(&mut self) {
        *self = Registers::UNCONFIGURED;
    }

    /// A tile's rows and bytes of a row, if it may be used.
    fn shape(&self, tile: usize) -> Option<(usize, usize)> {
        let (rows, across) = self.shapes[tile];
        (self.configured && rows > 0 && across > 0).then_some((rows, across))
    }

    /// `tilezero`. False if there is no such tile, as in all that follow.
    pub(super) fn zero(&mut self, tile: usize) -> bool {
        self.tiles[tile] = [[0; ROW]; ROWS];
        self.shape(tile).is_some()
    }

    /// `tileloadd`
    ///
    /// # Safety
    ///
    /// The rows can be read.
    pub(super) unsafe fn load(&mut self, tile: usize, from: Memory) -> bool {
        let Some((rows, across)) = self.shape(tile) else {
            return false;
        };
        self.tiles[tile] = [[0; ROW]; ROWS];
        for (number, row) in self.tiles[tile][..rows].iter_mut().enumerate() {
            let from = from.address.wrapping_add(number * from.stride) as *const u8;
            from.copy_to_nonoverlapping(row.as_mut_ptr(), across);
        }
        true
    }

    /// `tilestored`
    ///
    /// # Safety
    ///
    /// The rows can be written.
    pub(super) unsafe fn store(&self, tile: usize, to: Memory) -> bool {
        let Some((rows, across)) = self.shape(tile) else {
            return false;
        };
        for (number, row) in self.tiles[tile][..rows].iter().enumerate() {
            let to = to.address.wrapping_add(number * to.stride) as *mut u8;
            to.copy_from_nonoverlapping(row.as_ptr(), across);
        }
        true
    }

    /// `tdpbf16ps`: `sums += left · right`, where a row of `right` holds two of the depth side by side.
    /// Even and odd places of the depth are summed by themselves.
    pub(super) fn multiply(&mut self, [sums, left, right]: [usize; 3]) -> bool {
        let shapes = [sums, left, right].map(|tile| self.shape(tile));
        let [Some((rows, across)), Some(of_left), Some(of_right)] = shapes else {
            return false;
        };
        let alike = of_left.0 == rows && of_right.1 == across && of_left.1 == 4 * of_right.0;
        if !alike || sums == left || sums == right || left == right {
            return false;
        }
        let [left, right] = [left, right].map(|tile| self.tiles[tile].map(bf16));
        for (row, left) in self.tiles[sums][..rows].iter_mut().zip(left) {
            add_products(&mut row[..across], &left, &right[..of_right.0]);
        }
        true
    }
}

/// A row of sums and one of `left`.
fn add_products(row: &mut [u8], left: &[f32], right: &[[f32; ROW / 2]]) {
    let mut both = [0.0_f32; ROW / 2];
    for (left, right) in left.chunks_exact(2).zip(right) {
        for (sums, right) in both.chunks_exact_mut(2).zip(right.chunks_exact(2)) {
            sums[0] += left[0] * right[0];
            sums[1] += left[1] * right[1];
        }
    }
    let places = row.as_chunks_mut().0.iter_mut();
    for (place, both) in places.zip(both.chunks_exact(2)) {
        let before = f32::from_le_bytes(*place);
        *place = (before + (both[0] + both[1])).to_le_bytes();
    }
}

/// A row's values. Products of two such are exact in f32.
fn bf16(row: [u8; ROW]) -> [f32; ROW / 2] {
    let bits = |place: usize| u16::from_le_bytes([row[2 * place], row[2 * place + 1]]);
    std::array::from_fn(|place| f32::from_bits(u32::from(bits(place)) << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight tiles of so many rows and bytes.
    fn shapes(rows: u8, across: u8) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for tile in 0..8 {
            bytes[16 + 2 * tile] = across;
            bytes[48 + tile] = rows;
        }
        bytes
    }

    #[test]
    fn what_the_unit_does_not_allow_is_refused() {
        let mut registers = Registers::UNCONFIGURED;
        assert!(!registers.zero(0) && !registers.multiply([0, 1, 2]));
        assert!(!registers.configure(&shapes(17, 64)) && !registers.configure(&shapes(16, 65)));
        assert!(!registers.configure(&[0; 64]) && !registers.zero(0));
        assert!(registers.configure(&shapes(16, 64)) && registers.zero(7));
        assert!(registers.multiply([0, 1, 2]) && !registers.multiply([0, 1, 1]));
        // Sixteen rows of the one take 32 values of the other's depth, not eight.
        assert!(registers.configure(&shapes(16, 16)) && !registers.multiply([0, 1, 2]));
        registers.release();
        assert!(!registers.multiply([0, 1, 2]));
    }
}
