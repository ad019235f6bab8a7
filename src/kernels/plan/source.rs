//! The kernels' text for one type of numbers, and how many blocks and threads each is started with.

use super::{Kind, MOST_ROWS};

const COMMON: &str = include_str!("../cuda/common.cu");
const ACTIVATION: &str = include_str!("../cuda/activation.cu");

/// What is compiled for cards, and by a test for the CPU, in this order.
const FUSED: [&str; 5] = [
    COMMON,
    include_str!("../cuda/norms.cu"),
    ACTIVATION,
    include_str!("../cuda/attention.cu"),
    include_str!("../cuda/entries.cu"),
];
const MANY: [&str; 5] = [
    COMMON,
    include_str!("../cuda/norms.cu"),
    ACTIVATION,
    include_str!("../cuda/many_rows.cu"),
    include_str!("../cuda/many_entries.cu"),
];
const PRODUCTS: [&str; 4] = [
    COMMON,
    ACTIVATION,
    include_str!("../cuda/few_rows.cu"),
    include_str!("../cuda/product_entries.cu"),
];

/// Kernels that are compiled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// What every forward needs.
    Fused,
    /// What takes the place of some of it where there are more rows than [`MOST_ROWS`].
    Many,
    /// Our own products, which only pay if they are used often.
    Products,
}

/// Threads of the element-wise kernels (`__launch_bounds__` in `entries.cu` and `many_entries.cu`).
const ELEMENT_THREADS: usize = 128;

/// Rows that a thread of the one for many rows takes (`bias_activate<T, 4>` there).
const ELEMENT_ROWS: usize = 4;

/// Rows of a block where a warp has a row (`ROW_WARPS` in `many_rows.cu`).
const ROW_WARPS: usize = 4;

/// Channels of rows that a warp takes: one kernel for each (`many_entries.cu`).
pub(crate) const ROW_CHANNELS: [usize; 5] = [128, 256, 768, 1024, 1280];

/// Warps of the two attention kernels (`PLAIN_WARPS` and `TENSOR_WARPS` in `attention.cu`).
const ATTENTION_WARPS: [usize; 2] = [8, 5];

/// The most threads a block may have.
const MOST_THREADS: usize = 1024;

/// Blocks in two dimensions and threads in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) blocks: (u32, u32),
    pub(crate) threads: u32,
    /// Bytes of shared memory beside what a kernel declares.
    pub(crate) shared: u32,
}

/// The text to compile for matrices of one type.
pub(crate) fn source(text: Text, kind: Kind) -> String {
    let name = kind.suffix().to_uppercase();
    let parts = match text {
        Text::Fused => FUSED.join("\n"),
        Text::Many => MANY.join("\n"),
        Text::Products => PRODUCTS.join("\n"),
    };
    format!("#define ONLY_{name} 1\n{parts}")
}

/// One block a row, four channels a thread. `None` if a row is too wide, or not a whole number of fours.
pub(crate) fn row_blocks(rows: usize, width: usize) -> Option<Launch> {
    let threads = (width / 4).next_multiple_of(32);
    let fits = width > 0 && width.is_multiple_of(4) && threads <= MOST_THREADS;
    fits.then(|| launch(rows, 1, threads)).flatten()
}

/// A warp for each of many rows, and which of [`ROW_CHANNELS`] they have. `None` where no kernel is for them, or
/// there are few.
pub(crate) fn row_warps(rows: usize, width: usize) -> Option<(Launch, usize)> {
    let place = ROW_CHANNELS.iter().position(|channels| *channels == width);
    let place = place.filter(|_| rows > MOST_ROWS)?;
    let launch = launch(rows.div_ceil(ROW_WARPS), 1, 32 * ROW_WARPS)?;
    Some((launch, place))
}

/// Eight values a thread; of several rows where there are many (true).
pub(crate) fn eights(rows: usize, width: usize) -> Option<(Launch, bool)> {
    let many = rows > MOST_ROWS;
    let down = if many {
        rows.div_ceil(ELEMENT_ROWS)
    } else {
        rows
    };
    let across = (width / 8).div_ceil(ELEMENT_THREADS);
    // The kernel counts channels with an int, those behind the last of a row, too.
    i32::try_from(across.checked_mul(8 * ELEMENT_THREADS)?).ok()?;
    let launch = launch(across, down, ELEMENT_THREADS)?;
    width.is_multiple_of(8).then_some((launch, many))
}

/// One block a head of a window.
pub(crate) fn attention(windows: usize, heads: usize, tensor_cores: bool) -> Option<Launch> {
    launch(
        heads,
        windows,
        32 * ATTENTION_WARPS[usize::from(tensor_cores)],
    )
}

/// So many blocks of so many threads.
pub(super) fn launch(across: usize, down: usize, threads: usize) -> Option<Launch> {
    let blocks = (
        u32::try_from(across).ok()?,
        u16::try_from(down).ok()?.into(),
    );
    let fits = across > 0 && down > 0 && blocks.0 <= i32::MAX.unsigned_abs();
    fits.then_some(Launch {
        blocks,
        threads: u32::try_from(threads).ok()?,
        shared: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plan::WINDOW;

    #[test]
    fn the_numbers_are_those_of_the_kernels() {
        for line in [
            "constexpr int PLAIN_WARPS = 8;",
            "constexpr int TENSOR_WARPS = 5;",
            &format!("__launch_bounds__({ELEMENT_THREADS}) bias_activate_"),
            &format!("constexpr int WINDOW = {WINDOW};"),
        ] {
            assert!(source(Text::Fused, Kind::F16).contains(line), "{line}");
        }
        for line in [
            format!("__launch_bounds__({ELEMENT_THREADS}) bias_activate_many_"),
            format!("bias_activate<T, {ELEMENT_ROWS}>("),
            format!("constexpr int ROW_WARPS = {ROW_WARPS};"),
        ] {
            assert!(source(Text::Many, Kind::F16).contains(&line), "{line}");
        }
        for channels in ROW_CHANNELS {
            let line = format!("FOR_CHANNELS({}, {channels}, T, NAME)", channels / 128);
            assert!(source(Text::Many, Kind::F16).contains(&line), "{line}");
        }
    }

    #[test]
    fn a_row_has_a_thread_for_every_four_channels() {
        for (width, threads) in [
            (768, 192),
            (1024, 256),
            (1280, 320),
            (192, 64),
            (4096, 1024),
        ] {
            let launch = row_blocks(154, width).unwrap();
            assert_eq!((launch.blocks, launch.threads), ((154, 1), threads));
        }
        for width in [0, 6, 4100] {
            assert_eq!(row_blocks(154, width), None, "{width}");
        }
    }

    #[test]
    fn every_element_has_a_thread() {
        for (rows, width) in [
            (154, 5120),
            (77, 3072),
            (1, 8),
            (616, 136),
            (617, 768),
            (9856, 4096),
        ] {
            let (launch, many) = eights(rows, width).unwrap();
            assert_eq!(many, rows > 8 * WINDOW);
            let each = if many { ELEMENT_ROWS } else { 1 };
            let (across, down) = (launch.blocks.0 as usize, launch.blocks.1 as usize);
            assert!(across * 128 * 8 >= width && across * 128 * 8 - width < 1024);
            assert!(down * each >= rows && down * each - rows < each);
        }
        assert_eq!(eights(3, 12), None);
        assert_eq!(eights(usize::MAX, 8), None);
    }

    #[test]
    fn every_one_of_many_rows_has_a_warp() {
        for (rows, width) in [(617, 128), (9856, 768), (9855, 1280)] {
            let (launch, place) = row_warps(rows, width).unwrap();
            assert_eq!(ROW_CHANNELS[place], width);
            let warps = launch.blocks.0 as usize * launch.threads as usize / 32;
            assert!(warps >= rows && warps - rows < ROW_WARPS);
        }
        assert_eq!(
            row_warps(616, 768),
            None,
            "few rows have blocks of their own"
        );
        for width in [0, 192, 1284] {
            assert_eq!(row_warps(9856, width), None, "{width}");
        }
    }

    #[test]
    fn attention_has_a_block_for_every_head() {
        let plain = attention(2, 20, false).unwrap();
        assert_eq!((plain.blocks, plain.threads), ((20, 2), 256));
        assert_eq!(attention(128, 12, true).unwrap().threads, 160);
        assert_eq!(attention(70_000, 12, true), None);
    }

    #[test]
    fn one_type_is_compiled() {
        for (text, kernel) in [
            (Text::Fused, "attention_"),
            (Text::Many, "norm_many_"),
            (Text::Products, "product_"),
        ] {
            let source = source(text, Kind::Bf16);
            assert!(source.starts_with("#define ONLY_BF16 1\n"));
            assert!(source.contains("defined(ONLY_F32)"));
            assert!(
                source.contains(&format!("{kernel}##"))
                    || source.contains(&format!("{kernel}plain_##"))
            );
        }
    }
}
