#![no_main]

mod files;

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// Names of a small text encoder as transformers stores it, and the shapes of its tensors.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let root = "text_model.";
    let mut all = vec![
        (format!("{root}embeddings.token_embedding.weight"), vec![49408, 64]),
        (format!("{root}embeddings.position_embedding.weight"), vec![77, 64]),
        (format!("{root}final_layer_norm.weight"), vec![64]),
        (format!("{root}final_layer_norm.bias"), vec![64]),
    ];
    let layer = format!("{root}encoder.layers.0.");
    for name in ["q", "k", "v", "out"] {
        all.push((format!("{layer}self_attn.{name}_proj.weight"), vec![64, 64]));
        all.push((format!("{layer}self_attn.{name}_proj.bias"), vec![64]));
    }
    for (name, [rows, depth]) in [("fc1", [256, 64]), ("fc2", [64, 256])] {
        all.push((format!("{layer}mlp.{name}.weight"), vec![rows, depth]));
        all.push((format!("{layer}mlp.{name}.bias"), vec![rows]));
    }
    for name in ["layer_norm1", "layer_norm2"] {
        all.push((format!("{layer}{name}.weight"), vec![64]));
        all.push((format!("{layer}{name}.bias"), vec![64]));
    }
    all
}

/// A folder with two shards that hold every second tensor each; they stay from one input to the next.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    for parity in [0, 1] {
        let name = format!("model-{:05}-of-00002.safetensors", parity + 1);
        fs::write(folder.path().join(name), shard(parity)).expect("a file");
    }
    folder
});

fn shard(parity: usize) -> Vec<u8> {
    let (mut header, mut length) = (Vec::new(), 0);
    for (name, shape) in tensors().iter().skip(parity).step_by(2) {
        let end = length + 2 * shape.iter().product::<usize>();
        header.push(format!(
            r#""{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{length},{end}]}}"#
        ));
        length = end;
    }
    let header = format!("{{{}}}", header.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + length, 0);
    file
}

// The two JSON files of a folder, one after the other: the index of shards, and the configuration.
fuzz_target!(|bytes: &[u8]| {
    let folder = FOLDER.path();
    let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (index, config) = bytes.split_at(middle);
    let config = config.get(1..).unwrap_or_default();
    fs::write(folder.join("model.safetensors.index.json"), index).expect("a file");
    fs::write(folder.join("config.json"), config).expect("a file");
    files::open(folder);
});
