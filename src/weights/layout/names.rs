//! Canonical names, the shapes they must have, and how a naming style spells them.

/// The sizes that fix every shape of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dimensions {
    /// Hidden size.
    pub(crate) width: usize,
    /// Transformer blocks.
    pub(crate) n_layers: usize,
    /// Rows of the token embedding.
    pub(crate) vocabulary: usize,
    /// Rows of the position embedding.
    pub(crate) positions: usize,
}

impl Dimensions {
    /// What shape a canonical tensor must have; the projection is square in every supported tower.
    pub(crate) fn shape_of(&self, canonical: &str) -> Option<Vec<usize>> {
        let width = self.width;
        if let Some((layer, rest)) = split_numbered(canonical, LAYERS) {
            return if layer < self.n_layers {
                layer_shape(rest, width)
            } else {
                None
            };
        }
        match canonical {
            "token_embedding" => Some(vec![self.vocabulary, width]),
            "position_embedding" => Some(vec![self.positions, width]),
            "final_ln.weight" | "final_ln.bias" => Some(vec![width]),
            PROJECTION => Some(vec![width, width]),
            _ => None,
        }
    }

    /// Every canonical name of the tower but the projection: embeddings, layers in order, last norm.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![
            "token_embedding".to_owned(),
            "position_embedding".to_owned(),
        ];
        for layer in 0..self.n_layers {
            names.extend(
                LAYER_PARTS
                    .iter()
                    .map(|part| format!("{LAYERS}{layer}.{part}")),
            );
        }
        names.extend(["final_ln.weight".to_owned(), "final_ln.bias".to_owned()]);
        names
    }
}

/// The canonical name of the projection.
pub(crate) const PROJECTION: &str = "projection";

/// What canonical layer names begin with.
pub(crate) const LAYERS: &str = "layers.";

/// The 16 tensors of a layer after the number.
pub(crate) const LAYER_PARTS: [&str; 16] = [
    "ln1.weight",
    "ln1.bias",
    "q.weight",
    "q.bias",
    "k.weight",
    "k.bias",
    "v.weight",
    "v.bias",
    "out.weight",
    "out.bias",
    "ln2.weight",
    "ln2.bias",
    "fc1.weight",
    "fc1.bias",
    "fc2.weight",
    "fc2.bias",
];

fn layer_shape(part: &str, width: usize) -> Option<Vec<usize>> {
    match part {
        "q.weight" | "k.weight" | "v.weight" | "out.weight" => Some(vec![width, width]),
        "fc1.weight" => Some(vec![4 * width, width]),
        "fc1.bias" => Some(vec![4 * width]),
        "fc2.weight" => Some(vec![width, 4 * width]),
        other if LAYER_PARTS.contains(&other) => Some(vec![width]),
        _ => None,
    }
}

/// `prefix` + number + `.` + rest, taken apart. The number must be written as a number is: no sign,
/// no leading zero.
pub(crate) fn split_numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (digits, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

/// How much of a file's tensor a canonical tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// One third of its rows: 0 is q, 1 is k, 2 is v.
    Third(usize),
}

/// One naming style: tables from canonical names to the names in a file, below the tower's root.
#[derive(Debug)]
pub(crate) struct Naming {
    /// Tensors outside the layers: canonical, file.
    pub(crate) outer: &'static [(&'static str, &'static str)],
    /// What stands before a layer's number.
    pub(crate) layers: &'static str,
    /// Tensors of a layer: canonical, file, which part.
    pub(crate) layer: &'static [(&'static str, &'static str, Part)],
    /// Another spelling of some of them, for query, key and value in one.
    pub(crate) fused: &'static [(&'static str, &'static str, Part)],
    /// First words below the root that belong to the tower when the root is empty.
    pub(crate) territory: &'static [&'static str],
}

impl Naming {
    /// Where a canonical tensor (not the projection) is in a file of this style.
    pub(crate) fn file_name(&self, canonical: &str) -> Option<(String, Part)> {
        if let Some((layer, rest)) = split_numbered(canonical, LAYERS) {
            let (_, file, part) = self.layer.iter().find(|(name, ..)| *name == rest)?;
            return Some((format!("{}{layer}.{file}", self.layers), *part));
        }
        let (_, file) = self.outer.iter().find(|(name, _)| *name == canonical)?;
        Some(((*file).to_owned(), Part::Whole))
    }

    /// Where a query, key or value is if the three are one tensor in a style that usually splits
    /// them.
    pub(crate) fn fused_name(&self, canonical: &str) -> Option<(String, Part)> {
        let (layer, rest) = split_numbered(canonical, LAYERS)?;
        let (_, file, part) = self.fused.iter().find(|(name, ..)| *name == rest)?;
        Some((format!("{}{layer}.{file}", self.layers), *part))
    }

    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the table's way back, for writing files")
    )]
    /// Which canonical tensors (three for a fused one, none for a stranger) a file's tensor holds.
    pub(crate) fn canonical_names(&self, file: &str) -> Vec<String> {
        if let Some((layer, rest)) = split_numbered(file, self.layers) {
            let parts = self.layer.iter().filter(|(_, name, _)| *name == rest);
            return parts
                .map(|(canonical, ..)| format!("{LAYERS}{layer}.{canonical}"))
                .collect();
        }
        let outer = self.outer.iter().filter(|(_, name)| *name == file);
        outer
            .map(|(canonical, _)| (*canonical).to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Style;
    use super::*;

    const TOWER: Dimensions = Dimensions {
        width: 128,
        n_layers: 12,
        vocabulary: 49408,
        positions: 77,
    };

    #[test]
    fn tables_are_one_to_one_in_both_directions() {
        for style in [Style::HuggingFace, Style::OpenClip] {
            let naming = style.naming();
            for canonical in TOWER.names() {
                let (file, part) = naming.file_name(&canonical).unwrap();
                let back = naming.canonical_names(&file);
                assert!(
                    back.contains(&canonical),
                    "{canonical} -> {file} -> {back:?}"
                );
                assert_eq!(back.len(), if part == Part::Whole { 1 } else { 3 });
                assert!(TOWER.shape_of(&canonical).is_some());
            }
        }
    }

    #[test]
    fn numbers_are_read_strictly() {
        assert_eq!(
            split_numbered("layers.11.q.weight", "layers."),
            Some((11, "q.weight"))
        );
        for bad in [
            "layers.01.q",
            "layers.+1.q",
            "layers..q",
            "layers.1",
            "layers.-1.q",
            "layers",
        ] {
            assert_eq!(split_numbered(bad, "layers."), None, "{bad}");
        }
        let huge = format!("layers.{}.q", "9".repeat(40));
        assert_eq!(split_numbered(&huge, "layers."), None);
    }
}
