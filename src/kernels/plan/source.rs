//! The kernels' text for one type of numbers, and how many blocks and threads each is started with.

use super::Kind;

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
    /// Our own products, which only pay if they are used often.
    Products,
}

/// Threads of the element-wise kernel (`__launch_bounds__` in `entries.cu`).
const ELEMENT_THREADS: usize = 256;

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

/// Eight values a thread, and how many eights there are.
pub(crate) fn eights(rows: usize, width: usize) -> Option<(Launch, u64)> {
    let n_eights = rows.checked_mul(width)? / 8;
    let launch = launch(n_eights.div_ceil(ELEMENT_THREADS), 1, ELEMENT_THREADS)?;
    width.is_multiple_of(8).then_some((launch, n_eights as u64))
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
            "__launch_bounds__(256) bias_activate_",
            &format!("constexpr int WINDOW = {WINDOW};"),
        ] {
            assert!(source(Text::Fused, Kind::F16).contains(line), "{line}");
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
        for (rows, width) in [(154, 5120), (77, 3072), (1, 8)] {
            let (launch, n_eights) = eights(rows, width).unwrap();
            assert_eq!(n_eights * 8, (rows * width) as u64);
            let threads = u64::from(launch.blocks.0) * u64::from(launch.threads);
            assert!(threads >= n_eights && threads - n_eights < 256);
        }
        assert_eq!(eights(3, 12), None);
        assert_eq!(eights(usize::MAX, 8), None);
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
        for (text, kernel) in [(Text::Fused, "attention_"), (Text::Products, "product_")] {
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
