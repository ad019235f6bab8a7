//! Does a text look like mojibake? Juxtapositions that people do not write.
//!
//! The classes of characters and which of them may not meet are ftfy's (`ftfy/badness.py` of ftfy
//! 6.3.1, Copyright 2023 Robyn Speer, Apache-2.0); see `README.md` in this folder.

use std::sync::LazyLock;

use regex::Regex;

/// Classes of characters, as they stand between the brackets of a regular expression.
const CLASSES: &[(&str, &str)] = &[
    ("space", r"\s\x1c-\x1f"),
    ("word", r"\p{L}\p{N}_"),
    ("common", "\u{a0}\u{ad}´·–—―’…"),
    ("c1", "\u{80}-\u{9f}"),
    ("bad", "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}"),
    ("law", "§¶"),
    ("currency", "¢£¥₧€"),
    ("opening", "¡©«¿΄΅‘‚“„•‹\u{f8ff}"),
    ("closing", "®»˝”›™"),
    ("numeric", "±²³µ¹¼½¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥"),
    ("face", "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ"),
    ("upper", "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"),
    ("lower", "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ"),
    ("UPPER", "ÞΆΈΉΊΌΎΏΑ-ΫЁ-Я"),
    ("LOWER", "ά-ωа-џ"),
    ("box", "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓"),
];

/// What does not occur in good text. `{name}` is a class of [`CLASSES`].
const RULES: &[&str] = &[
    // Control characters, and signs that hardly anyone uses, beside others.
    "[{c1}]",
    "[{bad}{lower}{upper}{box}{opening}{closing}{currency}{numeric}{law}][{bad}]",
    "[{bad}][{lower}{upper}{box}{opening}{closing}{currency}{numeric}{law}]",
    "[a-zA-Z][{LOWER}{UPPER}][{bad}]",
    // A capital after what ends a word, a letter after what stands alone.
    "[{lower}{LOWER}{box}{closing}{currency}{numeric}][{upper}]",
    "[{box}{closing}{currency}{numeric}][{lower}]",
    // Signs on the wrong side of a letter or of each other.
    "[{lower}{box}{closing}][{currency}]",
    "[{space}][{upper}][{currency}]",
    "[{upper}{box}][{numeric}{law}]",
    "[{lower}{upper}{box}{currency}{closing}][{opening}][{numeric}]",
    "[{lower}{upper}{currency}{numeric}{box}{law}][{closing}][{opening}]",
    "[{currency}{numeric}{box}][{opening}]",
    "[a-z][{upper}][{opening}{currency}]",
    "[{box}][{face}]",
    "[{lower}{upper}{currency}{numeric}{opening}{closing}{law}][{box}]",
    "[{box}][{closing}]",
    "[{lower}{upper}][{opening}{closing}][{word}]",
    "[Œœ][^A-Za-z]",
    "[{upper}]°",
    // UTF-8 read as Windows-1252.
    "[ÂÃÎÐ][€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»{opening}{closing}–—´]",
    "×[²³]",
    "[ØÙ][{common}{currency}{bad}{numeric}{opening}ŸŠ®°µ»][ØÙ][{common}{currency}{bad}{numeric}{opening}ŸŠ®°µ»]",
    "à[²µ¹¼½¾]",
    "Ã[\u{a0}¡]",
    "[a-z][{space}]?[ÃÂ] ",
    "^[ÃÂ] ",
    "[a-z.,?!{closing}]Â[ {opening}{closing}]",
    // UTF-8 read as Mac OS Roman.
    "√[±∂†≠®™´≤≥¥µø]",
    "≈[°¢]",
    "‚Ä[ìîïòôúùû†°¢π]",
    "‚[âó][àä°ê]",
    // UTF-8 read as Windows-1251, -1253, -1257.
    "вЂ",
    "[ВГРС][{c1}{bad}{opening}{closing}{currency}°µ][ВГРС]",
    "ГўВЂВ.[A-Za-z ]",
    "β€[™\u{a0}Ά\u{ad}®°]",
    "[ΒΓΞΟ][{c1}{bad}{opening}{closing}{currency}°][ΒΓΞΟ]",
    "ā€",
];

static BAD: LazyLock<Regex> = LazyLock::new(|| {
    let mut rules = RULES.join("|");
    for (name, characters) in CLASSES {
        rules = rules.replace(&format!("{{{name}}}"), characters);
    }
    Regex::new(&rules).expect("a constant that a test compiles")
});

/// True where some juxtaposition in the text looks like mojibake (`is_bad`, `ftfy/badness.py`).
pub(super) fn is_bad(text: &str) -> bool {
    !text.is_ascii() && BAD.is_match(text)
}
