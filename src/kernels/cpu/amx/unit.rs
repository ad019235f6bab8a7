//! The matrix unit: whether it is there, and its instructions. Eight registers of sixteen rows of 64
//! bytes; four hold sums, two a piece of the matrix, two a piece of the panels.
//!
//! Intel's "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18, and
//! Linux's `Documentation/arch/x86/xstate.rst`, which says how a process asks for it.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

/// Rows of a register, and f32 values of a row of sums.
pub(in super::super) const SIDE: usize = 16;

/// bf16 values of a register's row: as much of a product's depth as one instruction takes.
pub(in super::super) const DEEP: usize = 32;

/// bf16 values of a register.
pub(in super::super) const VALUES: usize = SIDE * DEEP;

/// Bits 17 and 18 of XCR0: the system saves the unit's registers.
const SAVED: u64 = 0b11 << 17;

/// Bits 22 and 24 of EDX in leaf 7: bf16 products, and registers.
const PRODUCTS: u32 = 1 << 22 | 1 << 24;

/// Values of the four registers of sums.
pub(super) const SUMS: usize = 4 * SIDE * SIDE;

/// Two registers of a matrix's rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) first: *const u16,
    pub(super) second: *const u16,
    /// Bytes from a row to the next.
    pub(super) stride: usize,
}

/// Linux's `arch_prctl` and what it is asked: the use of state component 18.
const ARCH_PRCTL: i64 = 158;
const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
const XFEATURE_XTILEDATA: i64 = 18;

/// True if the unit is there and this process may use it, from now on and in all threads.
pub(super) fn permitted() -> bool {
    if !vectors() || !cfg!(target_os = "linux") {
        return false;
    }
    // SAFETY: every processor with AVX-512 has leaf 7 and XCR0.
    let there = unsafe { __cpuid_count(7, 0).edx & PRODUCTS == PRODUCTS && saved() };
    there && asked()
}

/// The vector instructions that go with it.
pub(super) fn vectors() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
}

#[target_feature(enable = "xsave")]
unsafe fn saved() -> bool {
    _xgetbv(0) & SAVED == SAVED
}

/// Asks the system; without its leave the first instruction would end the process.
fn asked() -> bool {
    let mut answer = ARCH_PRCTL;
    // SAFETY: this call of Linux's reads and writes no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inout("rax") answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Shapes of the eight registers.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = Shapes {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The unit, in use by this thread until it is dropped. Not `Send`.
pub(super) struct Unit(std::marker::PhantomData<*const ()>);

#[expect(
    clippy::unused_self,
    reason = "the registers belong to the one who holds the unit"
)]
impl Unit {
    /// # Safety
    ///
    /// [`permitted`] was true.
    pub(super) unsafe fn begin() -> Unit {
        asm!("ldtilecfg [{0}]", in(reg) &raw const SHAPES, options(nostack, readonly));
        Unit(std::marker::PhantomData)
    }

    /// All sums become zero.
    #[inline(always)]
    pub(super) unsafe fn clear(&self) {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        );
    }

    /// Adds the four products of two registers of the matrix with two of the panels. Each is loaded
    /// right before it is needed: products wait for the loads in front of them.
    #[inline(always)]
    pub(super) unsafe fn multiply(&self, rows: Pair, panels: *const u16) {
        asm!(
            "tileloadd tmm4, [{0} + {2}*1]",
            "tileloadd tmm6, [{3} + {4}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{3} + {4}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{1} + {2}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            in(reg) rows.first,
            in(reg) rows.second,
            in(reg) rows.stride,
            in(reg) panels,
            in(reg) 64_usize,
            options(nostack, readonly)
        );
    }

    /// The same where the panels are those of the last call.
    #[inline(always)]
    pub(super) unsafe fn other_rows(&self, rows: Pair) {
        asm!(
            "tileloadd tmm4, [{0} + {2}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{1} + {2}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            in(reg) rows.first,
            in(reg) rows.second,
            in(reg) rows.stride,
            options(nostack, readonly)
        );
    }

    /// The same where the rows are those of the last call.
    #[inline(always)]
    pub(super) unsafe fn other_panels(&self, panels: *const u16) {
        asm!(
            "tileloadd tmm6, [{0} + {1}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{0} + {1}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            in(reg) panels,
            in(reg) 64_usize,
            options(nostack, readonly)
        );
    }

    /// The sums as four blocks of 16×16 values, one after the other: first rows with first columns,
    /// first rows with second columns, and so on.
    #[inline(always)]
    pub(super) unsafe fn store(&self, to: *mut f32) {
        asm!(
            "tilestored [{0} + {1}*1], tmm0",
            "tilestored [{0} + {1}*1 + 1024], tmm1",
            "tilestored [{0} + {1}*1 + 2048], tmm2",
            "tilestored [{0} + {1}*1 + 3072], tmm3",
            in(reg) to,
            in(reg) 64_usize,
            options(nostack)
        );
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: the unit was configured by `begin` on this thread, which this type never leaves.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}
