//! What a compiler made of the kernels' text, kept from one run to the next where the caller gives a folder.

use std::path::Path;

use super::sealed::{self, sha256};

/// More than any compiled text of ours has.
const MOST_BYTES: u64 = 16 << 20;

/// What `compile` makes of a source, or made of it in an earlier run. `by` says what else the result depends on:
/// the compiler's version and options. A folder that cannot be written costs the next run its time, so that
/// is no error.
pub(crate) fn compiled<E>(
    folder: Option<&Path>,
    (source, by): (&str, &str),
    compile: impl FnOnce() -> Result<String, E>,
) -> Result<String, E> {
    let Some(folder) = folder else {
        return compile();
    };
    let key = sha256(format!("{by}\n{source}").as_bytes());
    let file = folder.join(format!("kernels-{}.json", &key[..32]));
    if let Some(known) = sealed::read(&file, MOST_BYTES) {
        return Ok(known);
    }
    let text = compile()?;
    let _ = sealed::write(&file, text.clone());
    Ok(text)
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
                Ok::<_, ()>(format!("{source} by {by}"))
            });
            (text.unwrap(), times.get())
        };
        let kept = Some(folder.path());
        assert_eq!(compile(kept, "a", "13.0"), ("a by 13.0".to_owned(), 1));
        assert_eq!(compile(kept, "a", "13.0"), ("a by 13.0".to_owned(), 1));
        assert_eq!(compile(kept, "a", "13.1"), ("a by 13.1".to_owned(), 2));
        assert_eq!(compile(kept, "b", "13.0"), ("b by 13.0".to_owned(), 3));
        assert_eq!(compile(None, "a", "13.0"), ("a by 13.0".to_owned(), 4));
        for file in fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("by", "my")).unwrap();
        }
        assert_eq!(compile(kept, "a", "13.0"), ("a by 13.0".to_owned(), 5));
        assert_eq!(compile(kept, "a", "13.0"), ("a by 13.0".to_owned(), 5));
    }

    #[test]
    fn what_fails_is_not_kept_and_a_folder_that_cannot_be_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let failed = compiled(Some(folder.path()), ("a", ""), || Err("broken"));
        assert_eq!(failed, Err("broken"));
        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        let made = compiled(Some(&file), ("a", ""), || Ok::<_, ()>("made".to_owned()));
        assert_eq!(made.as_deref(), Ok("made"));
    }
}
