//! The projection: the one tensor that stands beside the root, and the one whose orientation
//! depends on how it is spelt. It is square in L, H and G, so only the name can tell.

use super::names::{PROJECTION, Part};
use super::{Style, Tower, huggingface};
use crate::error::{ErrorKind, Result};
use crate::weights::EncoderId;
use crate::weights::format::archive::{Archive, Entry};
use crate::weights::format::decode;

const LINEAR: &str = "text_projection.weight";
const BARE: &str = "text_projection";

/// Looks for a projection and takes it in. Its absence is no problem here: only G needs one.
pub(super) fn add(tower: &mut Tower, archive: &Archive) -> Result<()> {
    let candidates = candidates(tower.found.style, &tower.found.root);
    let mut there = candidates
        .iter()
        .filter(|(name, _)| archive.entries.contains_key(name));
    let Some((name, transposed)) = there.next() else {
        return Ok(());
    };
    let entry = &archive.entries[name];
    if let Some((other, _)) = there.find(|(_, other)| other != transposed) {
        compare(tower, archive, entry, &archive.entries[other])?;
        tower.used.insert(other.clone());
    }
    refuse_bias(tower, archive, name);
    if tower.found.encoder == EncoderId::OpenClipH && is_constant(archive, entry)? {
        tower.used.insert(name.clone());
        tower.notes.push(no_projection(entry));
        return Ok(());
    }
    tower.place(PROJECTION, name, entry, Part::Whole, *transposed);
    Ok(())
}

fn no_projection(constant: &Entry) -> String {
    format!(
        "`{}` holds one value only, as kohya's sd-scripts write for SD 2.x: there is no \
         projection",
        constant.file_name
    )
}

/// A bias beside the projection `name` is a problem.
fn refuse_bias(tower: &mut Tower, archive: &Archive, name: &str) {
    let bias = format!("{}.bias", name.strip_suffix(".weight").unwrap_or(name));
    if let Some(bias) = archive.entries.get(&bias) {
        let text = "a projection with a bias is SigLIP's, not CLIP's".to_owned();
        tower.problem(ErrorKind::Unsupported, bias.file_name.clone(), text);
    }
}

/// The names under which a projection may be, best first, with true where the file has
/// `[width, projected]`. A bare parameter is `open_clip`'s, applied as `x @ projection`, even in
/// files of transformers' style (old ComfyUI wrote those); a `.weight` is a linear layer's.
pub(crate) fn candidates(style: Style, root: &str) -> Vec<(String, bool)> {
    let beside = root.strip_suffix(huggingface::ROOT).unwrap_or(root);
    let above = beside.strip_suffix("transformer.").unwrap_or(beside);
    let places: &[&str] = match style {
        Style::HuggingFace => &[beside, root, above],
        Style::OpenClip => &[root],
    };
    let all = |leaf: &str| -> Vec<String> {
        places
            .iter()
            .map(|place| format!("{place}{leaf}"))
            .collect()
    };
    let linear = all(LINEAR).into_iter().map(|name| (name, false));
    linear
        .chain(all(BARE).into_iter().map(|name| (name, true)))
        .collect()
}

/// Both spellings at once: one should be the transpose of the other.
fn compare(tower: &mut Tower, archive: &Archive, linear: &Entry, bare: &Entry) -> Result<()> {
    let how = if is_transpose(archive, linear, bare)? {
        "agree"
    } else {
        "differ; the first is used"
    };
    tower.notes.push(format!(
        "`{}` and `{}` {how}",
        linear.file_name, bare.file_name
    ));
    Ok(())
}

/// True if one matrix is the other with rows and columns changed over, bit for bit.
fn is_transpose(archive: &Archive, one: &Entry, other: &Entry) -> Result<bool> {
    let ([rows, columns], [other_rows, other_columns]) = (&one.shape[..], &other.shape[..]) else {
        return Ok(false);
    };
    if rows != other_columns || columns != other_rows {
        return Ok(false);
    }
    let numbers = |entry: &Entry| decode::numbers(&archive.read_all(entry)?, entry.stored);
    let (one, other) = (numbers(one)?, numbers(other)?);
    let mut cells = (0..*rows).flat_map(|row| (0..*columns).map(move |column| (row, column)));
    Ok(cells.all(|(row, column)| {
        one[row * columns + column].to_bits() == other[column * rows + row].to_bits()
    }))
}

/// True if all values are equal. Of an ordinary projection only one row is read.
fn is_constant(archive: &Archive, entry: &Entry) -> Result<bool> {
    let n_rows = entry.shape.first().copied().unwrap_or(0) as u64;
    if !entry.stored.is_weight() || n_rows == 0 {
        return Ok(false);
    }
    let row = archive.read(entry, 0..entry.n_bytes / n_rows)?;
    let constant = |bytes: &[u8]| -> Result<bool> {
        let values = decode::numbers(bytes, entry.stored)?;
        let first = values.first().map(|value| value.to_bits());
        Ok(values.iter().all(|value| Some(value.to_bits()) == first))
    };
    Ok(constant(&row)? && constant(&archive.read_all(entry)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transformers_candidates_in_order() {
        let found = candidates(Style::HuggingFace, "clip_g.transformer.text_model.");
        let want = [
            ("clip_g.transformer.text_projection.weight", false),
            (
                "clip_g.transformer.text_model.text_projection.weight",
                false,
            ),
            ("clip_g.text_projection.weight", false),
            ("clip_g.transformer.text_projection", true),
            ("clip_g.transformer.text_model.text_projection", true),
            ("clip_g.text_projection", true),
        ];
        let want: Vec<_> = want.map(|(name, bare)| (name.to_owned(), bare)).into();
        assert_eq!(found, want);
    }

    #[test]
    fn open_clip_candidates_in_order() {
        let found = candidates(Style::OpenClip, "conditioner.embedders.1.model.");
        let names: Vec<_> = found
            .iter()
            .map(|(name, bare)| (name.as_str(), *bare))
            .collect();
        let root = "conditioner.embedders.1.model.";
        assert_eq!(
            names,
            [
                (&*format!("{root}text_projection.weight"), false),
                (&*format!("{root}text_projection"), true)
            ]
        );
    }
}
