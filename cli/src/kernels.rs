//! Where what was compiled and measured for a card is kept from one run to the next.

use std::path::{Path, PathBuf};

/// The folder below the user's cache, wherever the system has that; none if nothing says where. It may not be there
/// yet.
pub(crate) fn folder(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    // A relative path is none (XDG Base Directory Specification).
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || absolute("HOME").map(|home| home.join(".cache"));
    let caches = absolute("XDG_CACHE_HOME").or_else(home);
    let caches = caches.or_else(|| absolute("LOCALAPPDATA"));
    caches.map(|caches| caches.join(Path::new("sd-conditioner").join("kernels")))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Option<PathBuf> {
        folder(|name| {
            let mut all = variables.iter();
            all.find(|(other, _)| *other == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_users_cache_is_found() {
        let below = |caches: &str| Some(PathBuf::from(caches).join("sd-conditioner/kernels"));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("HOME", "/home/a")]), below("/home/a/.cache"));
        let both = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "/fast")];
        assert_eq!(found(&both), below("/fast"));
        let relative = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "fast")];
        assert_eq!(found(&relative), below("/home/a/.cache"));
        assert_eq!(found(&[("HOME", "")]), None);
    }
}
