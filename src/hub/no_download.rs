//! What stands in for downloads in a build without the feature `hub`.

use std::path::{Path, PathBuf};

use super::{EncoderFile, Failure, HubOptions, Place, Watch};
use crate::error::{Error, ErrorKind};

/// Says that this build cannot.
pub(super) fn download(
    root: &Path,
    _options: &HubOptions,
    place: Place<'_>,
    file: &EncoderFile,
    _watch: &mut Watch<'_>,
) -> Result<PathBuf, Failure> {
    let Place { repo, revision, .. } = place;
    let path = &file.path;
    let message = format!(
        "this build cannot download: repository {repo}, file {path}, revision {revision} is not in \
         the cache directory {}",
        root.display()
    );
    let hint = format!(
        "build with the feature `hub`, or fill the cache: hf download {repo} {path} --revision {revision}"
    );
    let error = Error::new(ErrorKind::Unsupported, message).hint(hint);
    Err(Failure::Failed(error))
}
