//! What a compiler made of the kernels' text, kept from one run to the next where the caller gives a folder.

use std::path::Path;

use super::sealed::{self, hexadecimal, sha256};

/// More than any file of ours has.
const MOST_BYTES: u64 = 16 << 20;

/// What `compile` makes of a source, or made of it in an earlier run. `by` says what else the result depends on:
/// the compiler's version and options. A folder that cannot be written costs the next run its time, so that
/// is no error.
pub(crate) fn compiled<E>(
    folder: Option<&Path>,
    (source, by): (&str, &str),
    compile: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let Some(folder) = folder else {
        return compile();
    };
    let key = sha256(format!("{by}\n{source}").as_bytes());
    let file = folder.join(format!("kernels-{}.json", &key[..32]));
    if let Some(known) = sealed::read(&file, MOST_BYTES).and_then(|body| read(&body)) {
        return Ok(known);
    }
    let compiled = compile()?;
    let _ = sealed::write(&file, hexadecimal(&compiled));
    Ok(compiled)
}

/// The bytes behind two digits each.
fn read(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    #[test]
    fn a_text_is_compiled_once() {
        let folder = tempfile::tempdir().unwrap();
        let times = Cell::new(0);
        let compile = |folder, source: &str, by: &str| {
            let text = compiled(folder, (source, by), || {
                times.set(times.get() + 1);
                Ok::<_, ()>([source.as_bytes(), &[0, 0xff], by.as_bytes()].concat())
            });
            (text.unwrap(), times.get())
        };
        let kept = Some(folder.path());
        assert_eq!(compile(kept, "a", "13.0"), (b"a\0\xff13.0".to_vec(), 1));
        assert_eq!(compile(kept, "a", "13.0"), (b"a\0\xff13.0".to_vec(), 1));
        assert_eq!(compile(kept, "a", "13.1"), (b"a\0\xff13.1".to_vec(), 2));
        assert_eq!(compile(kept, "b", "13.0"), (b"b\0\xff13.0".to_vec(), 3));
        assert_eq!(compile(None, "a", "13.0"), (b"a\0\xff13.0".to_vec(), 4));
        for file in fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("00ff", "01ff")).unwrap();
        }
        assert_eq!(compile(kept, "a", "13.0"), (b"a\0\xff13.0".to_vec(), 5));
        assert_eq!(compile(kept, "a", "13.0"), (b"a\0\xff13.0".to_vec(), 5));
    }

    #[test]
    fn bytes_are_read_from_their_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(read(&hexadecimal(&all)), Some(all));
        for odd in ["0", "0g", "é"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_fails_is_not_kept_and_a_folder_that_cannot_be_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let failed = compiled(Some(folder.path()), ("a", ""), || Err("broken"));
        assert_eq!(failed, Err("broken"));
        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        let made = compiled(Some(&file), ("a", ""), || Ok::<_, ()>(b"made".to_vec()));
        assert_eq!(made.as_deref(), Ok(&b"made"[..]));
    }
}
