//! CHARACTER → WAS IT THERE? What Unicode 14.0 did not know yet, and what normalizing by Unicode 9.0 leaves alone.

/// True for a code point that Unicode 14.0 has not assigned but a later version has. That is the
/// `unicodedata` of Python 3.11, with which the reference ids were made; Python 3.12 knows 15.0.
pub(super) fn is_later_than_14(letter: char) -> bool {
    is_in(ASSIGNED_LATER, letter)
}

/// True for a code point that takes part in normalization since a version after 9.0: before that it is neither put
/// in order nor composed with another. The tables of the `tokenizers` crate (`unicode-normalization-alignments`)
/// are of that version.
pub(super) fn is_normalized_since_9(letter: char) -> bool {
    is_in(NORMALIZED_LATER, letter)
}

fn is_in(ranges: &[(char, char)], letter: char) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= letter);
    after > 0 && letter <= ranges[after - 1].1
}

/// First and last of each range (DerivedAge.txt of the Unicode Character Database). A range may
/// cover code points that no version has assigned.
#[rustfmt::skip]
const ASSIGNED_LATER: &[(char, char)] = &[
    ('\u{558}', '\u{558}'), ('\u{58b}', '\u{58c}'), ('\u{5c8}', '\u{5c9}'), ('\u{88f}', '\u{88f}'),
    ('\u{897}', '\u{897}'), ('\u{b53}', '\u{b54}'), ('\u{c5c}', '\u{c5c}'), ('\u{cdc}', '\u{cdc}'),
    ('\u{cf3}', '\u{cf3}'), ('\u{ece}', '\u{ece}'), ('\u{1acf}', '\u{1af0}'),
    ('\u{1b4e}', '\u{1b4f}'), ('\u{1b7f}', '\u{1b7f}'), ('\u{1c89}', '\u{1c8a}'),
    ('\u{208f}', '\u{208f}'), ('\u{209d}', '\u{209f}'), ('\u{20c1}', '\u{20c4}'),
    ('\u{2427}', '\u{2429}'), ('\u{2b96}', '\u{2b96}'), ('\u{2e60}', '\u{2e63}'),
    ('\u{2ffc}', '\u{2fff}'), ('\u{31e4}', '\u{31ef}'), ('\u{a7cb}', '\u{a7cf}'),
    ('\u{a7d2}', '\u{a7d2}'), ('\u{a7d4}', '\u{a7d4}'), ('\u{a7da}', '\u{a7f1}'),
    ('\u{ab6c}', '\u{ab6d}'), ('\u{fbc3}', '\u{fbd2}'), ('\u{fd90}', '\u{fd91}'),
    ('\u{fdc8}', '\u{fdce}'), ('\u{105c0}', '\u{105f3}'), ('\u{107bb}', '\u{107bf}'),
    ('\u{10940}', '\u{10959}'), ('\u{10d40}', '\u{10d8f}'), ('\u{10ec2}', '\u{10eff}'),
    ('\u{1123f}', '\u{11241}'), ('\u{11380}', '\u{113e2}'), ('\u{116d0}', '\u{116e3}'),
    ('\u{11b00}', '\u{11bf9}'), ('\u{11db0}', '\u{11df1}'), ('\u{11f00}', '\u{11f5a}'),
    ('\u{1246f}', '\u{1246f}'), ('\u{12475}', '\u{1247f}'), ('\u{12550}', '\u{12686}'),
    ('\u{1342f}', '\u{1342f}'), ('\u{13439}', '\u{143fa}'), ('\u{16100}', '\u{16139}'),
    ('\u{16d40}', '\u{16d79}'), ('\u{16ea0}', '\u{16ed3}'), ('\u{16ff2}', '\u{16ff6}'),
    ('\u{187f8}', '\u{187ff}'), ('\u{18cd6}', '\u{18cff}'), ('\u{18d09}', '\u{191d2}'),
    ('\u{1b123}', '\u{1b132}'), ('\u{1b155}', '\u{1b155}'), ('\u{1b168}', '\u{1b168}'),
    ('\u{1cc00}', '\u{1cefd}'), ('\u{1d127}', '\u{1d128}'), ('\u{1d1eb}', '\u{1d1ff}'),
    ('\u{1d250}', '\u{1d2d3}'), ('\u{1d6a6}', '\u{1d6a6}'), ('\u{1db00}', '\u{1db1c}'),
    ('\u{1df1f}', '\u{1dfff}'), ('\u{1e030}', '\u{1e08f}'), ('\u{1e4d0}', '\u{1e6ff}'),
    ('\u{1f1ae}', '\u{1f1ae}'), ('\u{1f6d8}', '\u{1f6dc}'), ('\u{1f774}', '\u{1f77f}'),
    ('\u{1f7d9}', '\u{1f7db}'), ('\u{1f7f1}', '\u{1f7ff}'), ('\u{1f8b2}', '\u{1f8d8}'),
    ('\u{1fa54}', '\u{1fa57}'), ('\u{1fa75}', '\u{1fa77}'), ('\u{1fa87}', '\u{1fa8f}'),
    ('\u{1faad}', '\u{1faaf}'), ('\u{1fabb}', '\u{1fabf}'), ('\u{1fac6}', '\u{1facf}'),
    ('\u{1fada}', '\u{1fadf}'), ('\u{1fae8}', '\u{1faef}'), ('\u{1faf7}', '\u{1fafa}'),
    ('\u{1fbcb}', '\u{1fbef}'), ('\u{1fbfa}', '\u{1fbfa}'), ('\u{2b739}', '\u{2b73f}'),
    ('\u{2b81e}', '\u{2b81e}'), ('\u{2cea2}', '\u{2cead}'), ('\u{2ebf0}', '\u{2ee5d}'),
    ('\u{31350}', '\u{3fc3f}'),
];

/// First and last of each range: marks with a combining class, and the parts of pairs that are composed (of those,
/// what lies between).
#[rustfmt::skip]
const NORMALIZED_LATER: &[(char, char)] = &[
    ('\u{5c8}', '\u{5c9}'), ('\u{7fd}', '\u{7fd}'), ('\u{897}', '\u{89f}'), ('\u{8ca}', '\u{8d3}'),
    ('\u{9fe}', '\u{9fe}'), ('\u{c3c}', '\u{c3c}'), ('\u{d3b}', '\u{d3c}'), ('\u{eba}', '\u{eba}'),
    ('\u{1715}', '\u{1715}'), ('\u{1abf}', '\u{1af0}'), ('\u{1df6}', '\u{1dfa}'),
    ('\u{a82c}', '\u{a82c}'), ('\u{105d2}', '\u{105da}'), ('\u{10d24}', '\u{10d27}'),
    ('\u{10d69}', '\u{10d6d}'), ('\u{10eab}', '\u{10eac}'), ('\u{10ecb}', '\u{10ecf}'),
    ('\u{10ef0}', '\u{10efb}'), ('\u{10efd}', '\u{10eff}'), ('\u{10f46}', '\u{10f50}'),
    ('\u{10f82}', '\u{10f85}'), ('\u{11070}', '\u{11070}'), ('\u{1133b}', '\u{1133b}'),
    ('\u{11382}', '\u{113c9}'), ('\u{113ce}', '\u{113d0}'), ('\u{1145e}', '\u{1145e}'),
    ('\u{11839}', '\u{1183a}'), ('\u{11930}', '\u{11935}'), ('\u{1193d}', '\u{1193e}'),
    ('\u{11943}', '\u{11943}'), ('\u{119e0}', '\u{119e0}'), ('\u{11a34}', '\u{11a34}'),
    ('\u{11a47}', '\u{11a47}'), ('\u{11a99}', '\u{11a99}'), ('\u{11d42}', '\u{11d42}'),
    ('\u{11d44}', '\u{11d45}'), ('\u{11d97}', '\u{11d97}'), ('\u{11f41}', '\u{11f42}'),
    ('\u{1611e}', '\u{16129}'), ('\u{1612f}', '\u{1612f}'), ('\u{16d63}', '\u{16d69}'),
    ('\u{16ff0}', '\u{16ff1}'), ('\u{1d127}', '\u{1d128}'), ('\u{1d250}', '\u{1d252}'),
    ('\u{1d25b}', '\u{1d25c}'), ('\u{1d25f}', '\u{1d25f}'), ('\u{1d280}', '\u{1d281}'),
    ('\u{1e08f}', '\u{1e08f}'), ('\u{1e130}', '\u{1e136}'), ('\u{1e2ae}', '\u{1e2ae}'),
    ('\u{1e2ec}', '\u{1e2ef}'), ('\u{1e4ec}', '\u{1e4ef}'), ('\u{1e5ee}', '\u{1e5ef}'),
    ('\u{1e6e3}', '\u{1e6e3}'), ('\u{1e6e6}', '\u{1e6e6}'), ('\u{1e6ee}', '\u{1e6ef}'),
    ('\u{1e6f5}', '\u{1e6f5}'),
];
