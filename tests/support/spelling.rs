//! How transformers and `open_clip` spell an encoder's tensors; written anew here, so that the
//! library's tables are tested against other ones.

use sd_conditioner::weights::{Synthetic, TensorSource};

use super::entries::{Entry, Stored};

/// How the projection is spelt, if it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    None,
    /// `text_projection.weight`, `[projected, width]`.
    Linear,
    /// `text_projection`, `[width, projected]`.
    Bare,
}

/// transformers' names.
pub(crate) fn huggingface(
    source: &Synthetic,
    prefix: &str,
    root: &str,
    projection: Projection,
    stored: Stored,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for canonical in source.names() {
        if canonical == "projection" {
            entries.extend(projected(source, prefix, projection, stored));
            continue;
        }
        let name = match canonical
            .strip_prefix("layers.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((layer, rest)) => format!("encoder.layers.{layer}.{}", huggingface_part(rest)),
            None => match canonical.as_str() {
                "token_embedding" | "position_embedding" => {
                    format!("embeddings.{canonical}.weight")
                }
                last => last.replace("final_ln", "final_layer_norm"),
            },
        };
        entries.push(one(
            source,
            &format!("{prefix}{root}{name}"),
            &canonical,
            stored,
        ));
    }
    entries
}

fn huggingface_part(part: &str) -> String {
    let (module, leaf) = part.split_once('.').expect("module.leaf");
    let module = match module {
        "ln1" => "layer_norm1",
        "ln2" => "layer_norm2",
        "fc1" | "fc2" => return format!("mlp.{part}"),
        attention => return format!("self_attn.{attention}_proj.{leaf}"),
    };
    format!("{module}.{leaf}")
}

/// `open_clip`'s names.
pub(crate) fn open_clip(
    source: &Synthetic,
    prefix: &str,
    projection: Projection,
    stored: Stored,
) -> Vec<Entry> {
    let mut entries = vec![Entry::filled(
        &format!("{prefix}logit_scale"),
        stored,
        &[],
        4.6055,
    )];
    for canonical in source.names() {
        let name = match canonical
            .strip_prefix("layers.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((layer, rest)) if rest.starts_with("q.") => {
                let leaf = &rest[2..];
                let name = format!("{prefix}transformer.resblocks.{layer}.attn.in_proj_{leaf}");
                entries.push(fused(source, &name, layer, leaf, stored));
                continue;
            }
            Some((_, rest)) if rest.starts_with("k.") || rest.starts_with("v.") => continue,
            Some((layer, rest)) => {
                format!("transformer.resblocks.{layer}.{}", open_clip_part(rest))
            }
            None => match canonical.as_str() {
                "projection" => {
                    entries.extend(projected(source, prefix, projection, stored));
                    continue;
                }
                "token_embedding" => "token_embedding.weight".to_owned(),
                "position_embedding" => "positional_embedding".to_owned(),
                last => last.replace("final_ln", "ln_final"),
            },
        };
        entries.push(one(source, &format!("{prefix}{name}"), &canonical, stored));
    }
    entries
}

fn open_clip_part(part: &str) -> String {
    let (module, leaf) = part.split_once('.').expect("module.leaf");
    let module = match module {
        "ln1" => "ln_1",
        "ln2" => "ln_2",
        "fc1" => "mlp.c_fc",
        "fc2" => "mlp.c_proj",
        "out" => "attn.out_proj",
        other => panic!("{other} has no name of its own"),
    };
    format!("{module}.{leaf}")
}

fn one(source: &Synthetic, name: &str, canonical: &str, stored: Stored) -> Entry {
    let shape = source.info(canonical).expect("a canonical name").shape;
    let (source, canonical) = (source.clone(), canonical.to_owned());
    Entry::new(name, stored, &shape, move || {
        source.values(&canonical).expect("a canonical name")
    })
}

fn fused(source: &Synthetic, name: &str, layer: &str, leaf: &str, stored: Stored) -> Entry {
    let parts = ["q", "k", "v"].map(|part| format!("layers.{layer}.{part}.{leaf}"));
    let mut shape = source.info(&parts[0]).expect("a canonical name").shape;
    shape[0] *= 3;
    let source = source.clone();
    Entry::new(name, stored, &shape, move || {
        parts
            .iter()
            .flat_map(|part| source.values(part).expect("a canonical name"))
            .collect()
    })
}

fn projected(
    source: &Synthetic,
    prefix: &str,
    projection: Projection,
    stored: Stored,
) -> Option<Entry> {
    match projection {
        Projection::None => None,
        Projection::Linear => Some(one(
            source,
            &format!("{prefix}text_projection.weight"),
            "projection",
            stored,
        )),
        Projection::Bare => {
            let source = source.clone();
            let width = source.info("projection")?.shape[0];
            let name = format!("{prefix}text_projection");
            Some(Entry::new(&name, stored, &[width, width], move || {
                let values = source.values("projection").expect("a projection");
                (0..width * width)
                    .map(|cell| values[cell % width * width + cell / width])
                    .collect()
            }))
        }
    }
}
