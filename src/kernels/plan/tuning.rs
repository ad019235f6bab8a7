//! What serves a product best on a card, an algorithm of cuBLASLt or our own tiles: measured once, kept in a file if the
//! caller gives a folder. The file is checked when it is read; anything wrong with it means measuring anew.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sealed::{self, sha256};
use super::{Kind, Tiles};

/// Of the file's form.
const VERSION: u32 = 3;

/// More than any file of ours has.
const MOST_BYTES: u64 = 1 << 20;

/// `[rows, inputs] × [outputs, inputs]ᵀ`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ProductShape {
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// The type of both factors.
    pub(crate) kind: Kind,
    /// The type of what comes out.
    pub(crate) result: Kind,
}

/// What makes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Chosen {
    /// An algorithm as cuBLASLt describes it: opaque, valid for one version of the library.
    Library([u64; 8]),
    /// The same, added to the residual stream.
    Adding([u64; 8]),
    /// Our own kernels.
    Own(Tiles),
}

/// What a choice depends on beside the shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) capability: (i32, i32),
    pub(crate) driver: i32,
    pub(crate) cublaslt: usize,
    /// Which ways were to be tried.
    pub(crate) products: String,
}

/// The choices for one card.
#[derive(Debug)]
pub(crate) struct Tuned {
    card: Card,
    file: Option<PathBuf>,
    products: BTreeMap<ProductShape, Chosen>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    card: Card,
    products: Vec<(ProductShape, Chosen)>,
}

impl Tuned {
    /// What the folder knows of this card; nothing without a folder.
    pub(crate) fn open(card: Card, folder: Option<&Path>) -> Tuned {
        let file = folder.map(|folder| folder.join(file_name(&card)));
        let products = file.as_deref().and_then(|file| read(file, &card));
        Tuned {
            card,
            file,
            products: products.unwrap_or_default(),
        }
    }

    pub(crate) fn get(&self, shape: &ProductShape) -> Option<Chosen> {
        self.products.get(shape).copied()
    }

    /// Keeps a choice, in memory; [`save`](Self::save) writes all of them.
    pub(crate) fn insert(&mut self, shape: ProductShape, chosen: Chosen) {
        self.products.insert(shape, chosen);
    }

    /// Writes the file whole or not at all, with what another process has added meanwhile.
    pub(crate) fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut products = read(file, &self.card).unwrap_or_default();
        products.extend(
            self.products
                .iter()
                .map(|(shape, chosen)| (*shape, *chosen)),
        );
        let stored = Stored {
            version: VERSION,
            card: self.card.clone(),
            products: products.into_iter().collect(),
        };
        sealed::write(file, serde_json::to_string(&stored)?)
    }
}

/// Cards and libraries have files of their own.
fn file_name(card: &Card) -> String {
    let key = format!("{card:?}");
    format!("products-{}.json", &sha256(key.as_bytes())[..16])
}

fn read(file: &Path, card: &Card) -> Option<BTreeMap<ProductShape, Chosen>> {
    let stored: Stored = serde_json::from_str(&sealed::read(file, MOST_BYTES)?).ok()?;
    let ours = stored.version == VERSION && stored.card == *card;
    ours.then(|| stored.products.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn card() -> Card {
        let name = "a card".to_owned();
        Card {
            name,
            capability: (9, 0),
            driver: 13_000,
            cublaslt: 130_100,
            products: "Measured".to_owned(),
        }
    }

    fn shape(rows: usize) -> ProductShape {
        let (kind, result) = (Kind::Bf16, Kind::F32);
        ProductShape {
            rows,
            inputs: 1280,
            outputs: 5120,
            kind,
            result,
        }
    }

    const CHOSEN: Chosen = Chosen::Library([u64::MAX, 1, 2, 3, 4, 5, 6, 7]);
    const OWN: Chosen = Chosen::Own(Tiles {
        columns: 64,
        parts: 3,
    });

    fn saved(folder: &Path) -> PathBuf {
        let mut tuned = Tuned::open(card(), Some(folder));
        tuned.insert(shape(154), CHOSEN);
        tuned.insert(shape(231), OWN);
        tuned.save().unwrap();
        folder.join(file_name(&card()))
    }

    #[test]
    fn what_was_saved_is_read_for_the_same_card_only() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        let again = Tuned::open(card(), Some(folder.path()));
        assert_eq!(again.get(&shape(154)), Some(CHOSEN));
        assert_eq!(again.get(&shape(231)), Some(OWN));
        assert_eq!(again.get(&shape(77)), None);
        let newer = Card {
            cublaslt: 130_200,
            ..card()
        };
        let of_others = Card {
            products: "Own".to_owned(),
            ..card()
        };
        for card in [newer, of_others] {
            let tuned = Tuned::open(card, Some(folder.path()));
            assert_eq!(tuned.get(&shape(154)), None);
        }
        assert_eq!(Tuned::open(card(), None).get(&shape(154)), None);
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside the file");
    }

    #[test]
    fn choices_of_two_processes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = Tuned::open(card(), Some(folder.path()));
        saved(folder.path());
        other.insert(shape(77), CHOSEN);
        other.save().unwrap();
        let again = Tuned::open(card(), Some(folder.path()));
        assert!(again.get(&shape(77)).is_some() && again.get(&shape(154)).is_some());
    }

    #[test]
    fn a_broken_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = saved(folder.path());
        let whole = fs::read(&file).unwrap();
        let moved = String::from_utf8(whole.clone())
            .unwrap()
            .replace("1280", "1281");
        let long = vec![b' '; 2 << 20];
        for broken in [
            &whole[..whole.len() / 2],
            moved.as_bytes(),
            b"",
            b"{}",
            &long[..],
        ] {
            fs::write(&file, broken).unwrap();
            assert_eq!(
                Tuned::open(card(), Some(folder.path())).get(&shape(154)),
                None
            );
        }
        let file_of_another = Card {
            driver: 1,
            ..card()
        };
        fs::write(folder.path().join(file_name(&file_of_another)), &whole).unwrap();
        assert!(
            Tuned::open(file_of_another, Some(folder.path()))
                .get(&shape(154))
                .is_none()
        );
    }
}
