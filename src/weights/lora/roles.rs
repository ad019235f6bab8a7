//! TENSOR NAMES → MODULE AND ROLE. What a tensor of a LoRA file is to its module, told by how its
//! name ends.

/// What a tensor is for. The kinds of change are made of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Down,
    Up,
    UpBias,
    Mid,
    Alpha,
    /// Replaces alpha over rank.
    Scale,
    /// The lengths of `DoRA`.
    Magnitude,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    GloraA1,
    GloraA2,
    GloraB1,
    GloraB2,
    Diff,
    DiffBias,
    NormWeight,
    NormBias,
    SetWeight,
    /// A bare `.weight`: of (IA)³ where `.on_input` is beside it.
    Weight,
    OnInput,
    OftBlocks,
    Rescale,
    EmbeddingA,
    EmbeddingB,
    Reshape,
    SparseBias,
}

/// Endings and their roles. The first that fits counts, so longer ones stand before their own ends.
const ENDINGS: [(&str, Role); 58] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_up.bias", Role::UpBias),
    (".lora_mid.weight", Role::Mid),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_B.default.bias", Role::UpBias),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_B.bias", Role::UpBias),
    (".lora_A", Role::Down),
    (".lora_B", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_linear_layer.alpha", Role::Alpha),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".scale", Role::Scale),
    (".dora_scale", Role::Magnitude),
    (".lora_magnitude_vector.default.weight", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".hada_w1_a", Role::HadaW1A),
    (".hada_w1_b", Role::HadaW1B),
    (".hada_w2_a", Role::HadaW2A),
    (".hada_w2_b", Role::HadaW2B),
    (".hada_t1", Role::HadaT),
    (".hada_t2", Role::HadaT),
    (".lokr_w1", Role::LokrW1),
    (".lokr_w1_a", Role::LokrW1A),
    (".lokr_w1_b", Role::LokrW1B),
    (".lokr_w2", Role::LokrW2),
    (".lokr_w2_a", Role::LokrW2A),
    (".lokr_w2_b", Role::LokrW2B),
    (".lokr_t2", Role::LokrT2),
    (".a1.weight", Role::GloraA1),
    (".a2.weight", Role::GloraA2),
    (".b1.weight", Role::GloraB1),
    (".b2.weight", Role::GloraB2),
    (".diff", Role::Diff),
    (".diff_b", Role::DiffBias),
    (".w_norm", Role::NormWeight),
    (".b_norm", Role::NormBias),
    (".set_weight", Role::SetWeight),
    (".on_input", Role::OnInput),
    (".oft_blocks", Role::OftBlocks),
    (".oft_diag", Role::OftBlocks),
    (".rescale", Role::Rescale),
    (".lora_embedding_A", Role::EmbeddingA),
    (".lora_embedding_B", Role::EmbeddingB),
    (".reshape_weight", Role::Reshape),
    (".bias_indices", Role::SparseBias),
    (".bias_values", Role::SparseBias),
    (".bias_size", Role::SparseBias),
    (".weight", Role::Weight),
];

/// The module's name and the tensor's role; `None` if the end is none of a LoRA.
pub(super) fn split(name: &str) -> Option<(&str, Role)> {
    ENDINGS.iter().find_map(|(ending, role)| {
        let module = name.strip_suffix(ending).filter(|rest| !rest.is_empty())?;
        Some((module, *role))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_names() {
        let check =
            |name: &str, want: Option<(&str, Role)>| assert_eq!(split(name), want, "{name}");
        check("x.lora_down.weight", Some(("x", Role::Down)));
        check("x.lora_A.weight", Some(("x", Role::Down)));
        check("x.lora_B.default.weight", Some(("x", Role::Up)));
        check("x.lora_B", Some(("x", Role::Up)));
        check("x.to_q_lora.down.weight", Some(("x.to_q", Role::Down)));
        check("x.lora_linear_layer.up.weight", Some(("x", Role::Up)));
        check(
            "x.lora_magnitude_vector.weight",
            Some(("x", Role::Magnitude)),
        );
        check("x.weight", Some(("x", Role::Weight)));
        check("x.bias", None);
        check(".alpha", None);
    }

    /// An ending that stands behind one of its own ends would never be reached.
    #[test]
    fn every_ending_is_reachable() {
        for (ending, role) in ENDINGS {
            let name = format!("module{ending}");
            assert_eq!(split(&name), Some(("module", role)), "{ending}");
        }
    }
}
