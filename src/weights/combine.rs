//! Several files → the encoders of one family.

use super::checkpoint::Checkpoint;
use super::layout::family;
use super::{EncoderId, Family, TensorSource};
use crate::error::{Error, ErrorKind, Result};

/// A family and its encoders, in the order in which their channels are joined.
pub type Encoders = Vec<(EncoderId, Box<dyn TensorSource>)>;

/// The encoders of one family from one checkpoint or from separate files, such as `clip_l` and
/// `clip_g` for SDXL. Their order does not matter: every encoder is known by its size.
///
/// Where the files leave a choice and none is `wanted`, one L is SD 1.x and one G is the refiner.
/// G must have its projection, without which SDXL and the refiner have no pooled output.
pub fn combine(parts: &[Checkpoint], wanted: Option<Family>) -> Result<(Family, Encoders)> {
    let holders = holders(parts)?;
    let family = family(parts, &holders, wanted)?;
    let mut encoders = Vec::new();
    for encoder in family.encoders() {
        let Some((_, part)) = holders.iter().find(|(held, _)| held == encoder) else {
            return Err(missing(family, *encoder, &holders, parts));
        };
        encoders.push((*encoder, part.encoder(*encoder)?));
        if *encoder == EncoderId::OpenClipG && !part.has_projection(*encoder) {
            let message =
                "clip_g has no `text_projection`, without which there is no pooled output";
            return Err(Error::new(ErrorKind::MissingTensor, message).at_path(part.path()));
        }
    }
    let surplus = holders
        .iter()
        .find(|(held, _)| !family.encoders().contains(held));
    if let Some((encoder, part)) = surplus.filter(|_| parts.len() > 1) {
        let message = format!("{family} has no text encoder {encoder}");
        return Err(Error::new(ErrorKind::Mismatch, message).at_path(part.path()));
    }
    Ok((family, encoders))
}

type Holders<'a> = Vec<(EncoderId, &'a Checkpoint)>;

/// Which part holds which encoder; no encoder may come twice.
fn holders(parts: &[Checkpoint]) -> Result<Holders<'_>> {
    let mut holders: Holders<'_> = Vec::new();
    for part in parts {
        for encoder in part.encoders() {
            if let Some((_, other)) = holders.iter().find(|(held, _)| *held == encoder) {
                let message = format!(
                    "two files for {encoder}: the other is {}",
                    other.path().display()
                );
                return Err(Error::new(ErrorKind::Mismatch, message).at_path(part.path()));
            }
            holders.push((encoder, part));
        }
    }
    holders.sort_by_key(|(encoder, _)| *encoder);
    Ok(holders)
}

/// The family that is wanted, or that the parts decide, or the default of what they may be.
fn family(parts: &[Checkpoint], holders: &Holders<'_>, wanted: Option<Family>) -> Result<Family> {
    let known = match parts {
        [] => return Err(Error::new(ErrorKind::Request, "no file given")),
        [only] => (only.family(), only.candidates().to_vec()),
        _ => {
            let encoders: Vec<_> = holders.iter().map(|(encoder, _)| *encoder).collect();
            let decision = family::of_encoders(&encoders);
            (decision.family, decision.candidates)
        }
    };
    let path = parts[0].path();
    match (wanted, known) {
        (Some(wanted), (Some(found), _)) if wanted != found => {
            let message = format!("this is {found}, but {wanted} was asked for");
            Err(Error::new(ErrorKind::Mismatch, message).at_path(path))
        }
        (Some(family), _) | (None, (Some(family), _)) => Ok(family),
        (None, (None, candidates)) => candidates.first().copied().ok_or_else(|| {
            let message = format!("no supported family has the encoders {}", tags(holders));
            let error = Error::new(ErrorKind::Unsupported, message).at_path(path);
            error.hint("name the family to use them for, or give other files")
        }),
    }
}

fn tags(holders: &Holders<'_>) -> String {
    let tags: Vec<_> = holders.iter().map(|(encoder, _)| encoder.tag()).collect();
    tags.join(" and ")
}

fn missing(
    family: Family,
    encoder: EncoderId,
    holders: &Holders<'_>,
    parts: &[Checkpoint],
) -> Error {
    let message = format!(
        "{family} needs the text encoder {encoder}; there is {}",
        tags(holders)
    );
    let error = Error::new(ErrorKind::MissingTensor, message).at_path(parts[0].path());
    error.hint(format!("give a file with {encoder} too"))
}
