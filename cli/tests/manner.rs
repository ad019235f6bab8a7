//! `--profile` and the flags that override one choice of it, and the same keys in request files.

use sd_conditioner::encoder::Gelu;
use sd_conditioner::profile::{EqualLengths, split_named};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Dialect, Emphasis, Family, Profile, Request};
use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::{encode, floats, read};

const PROMPT: &str = "a (cat:1.4) [dog], (red+ hat)1.3 BREAK fog";

/// Flags and keys of one job, and the library's words for the same.
type Case = (&'static str, fn(Request<'_>) -> Request<'_>);

fn cases() -> Vec<Case> {
    vec![
        ("profile=comfyui", |all| all.profile(Profile::ComfyUi)),
        ("profile=a1111", |all| all.profile(Profile::A1111)),
        ("profile=forge", |all| all.profile(Profile::Forge)),
        ("profile=diffusers", |all| all.profile(Profile::Diffusers)),
        ("profile=compel", |all| all.profile(Profile::Compel)),
        ("profile=invokeai", |all| all.profile(Profile::InvokeAi)),
        ("profile=sd-cpp", |all| all.profile(Profile::SdCpp)),
        ("profile=plain", |all| all.profile(Profile::Plain)),
        ("dialect=comfyui", |all| all.dialect(Dialect::ComfyUi)),
        ("dialect=a1111 emphasis=comfyui", |all| {
            all.dialect(Dialect::A1111).emphasis(Emphasis::ComfyUi)
        }),
        ("profile=a1111 emphasis=adv:length+mean:comfy++", |all| {
            let emphasis = Emphasis::named("adv:length+mean:comfy++").unwrap();
            all.profile(Profile::A1111).emphasis(emphasis)
        }),
        ("profile=comfyui emphasis=none", |all| {
            all.profile(Profile::ComfyUi).emphasis(Emphasis::None)
        }),
        ("profile=compel split=words+merge", |all| {
            let (split, ends) = split_named("words+merge").unwrap();
            all.profile(Profile::Compel).split(split).end_rows(ends)
        }),
        ("profile=comfyui least_windows=9", |all| {
            all.profile(Profile::ComfyUi).least_windows(9)
        }),
        ("profile=a1111 equal_lengths=zeros", |all| {
            all.profile(Profile::A1111)
                .equal_lengths(EqualLengths::Zeros)
        }),
    ]
}

fn pairs(settings: &str) -> Vec<(&str, &str)> {
    let pairs = settings.split(' ');
    pairs.map(|pair| pair.split_once('=').unwrap()).collect()
}

fn flags(settings: &str) -> Vec<String> {
    let pairs = pairs(settings).into_iter();
    let flags = pairs.flat_map(|(key, value)| {
        let flag = format!("--{}", key.replace('_', "-"));
        [flag, value.to_owned()]
    });
    flags.collect()
}

fn keys(id: usize, settings: &str) -> String {
    let mut line = serde_json::json!({ "id": id });
    for (key, value) in pairs(settings) {
        let number = value.parse::<u64>().map(Into::into);
        line[key] = number.unwrap_or_else(|_| value.into());
    }
    line.to_string()
}

#[test]
fn flags_and_keys_are_the_librarys_choices() {
    let folder = tempdir().unwrap();
    let text = Conditioner::builder()
        .random_weights(Family::Sd1, SyntheticSize::Tiny, 73)
        .unwrap();
    let long = format!("{PROMPT} {}", "one, two. ".repeat(40));
    let texts = ["--positive", &long, "--negative", "(fog:1.2)"];
    let lines: Vec<String> = cases()
        .iter()
        .enumerate()
        .map(|(id, (settings, _))| keys(id, settings))
        .collect();
    requests(folder.path(), "sd1", &lines.join("\n"), &texts).expect(0);
    for (id, (settings, manner)) in cases().into_iter().enumerate() {
        let guidance = text
            .encode_pair(
                manner(Request::new(&long)),
                manner(Request::new("(fog:1.2)")),
            )
            .unwrap();
        let out = folder.path().join("single");
        let flags = flags(settings);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        encode("sd1", &[&texts[..], &flags].concat(), &out).expect(0);
        let batch = folder.path().join(format!("out/{id}.safetensors"));
        assert_eq!(std::fs::read(&batch).unwrap(), std::fs::read(&out).unwrap());
        let file = read(&out);
        let sides = [guidance.positive(), guidance.negative()];
        for (name, side) in ["prompt_embeds", "negative_prompt_embeds"]
            .iter()
            .zip(sides)
        {
            assert!(
                file.floats(name) == floats(side.context()),
                "{settings}: {name}"
            );
        }
        for (key, value) in pairs(settings) {
            assert_eq!(file.metadata[key], value, "{settings}");
        }
    }
}

#[test]
fn lines_override_the_command_line_and_null_gives_the_profile_back() {
    let folder = tempdir().unwrap();
    let lines = [
        r#"{"id":"command"}"#,
        r#"{"id":"line","emphasis":"a1111-original","split":"brutal"}"#,
        r#"{"id":"null","emphasis":null,"dialect":null}"#,
    ];
    let more = [
        "--positive",
        "a (cat:1.5)",
        "--profile",
        "a1111",
        "--emphasis",
        "comfyui",
        "--dialect",
        "comfyui",
    ];
    requests(folder.path(), "sd1", &lines.join("\n"), &more).expect(0);
    let metadata = |id: &str| read(&folder.path().join(format!("out/{id}.safetensors"))).metadata;
    assert_eq!(metadata("command")["emphasis"], "comfyui");
    assert_eq!(metadata("line")["emphasis"], "a1111-original");
    assert_eq!(metadata("line")["split"], "brutal");
    let null = metadata("null");
    assert!(!null.contains_key("emphasis") && !null.contains_key("dialect"));
    assert_eq!(null["profile"], "a1111");
}

#[test]
fn unknown_names_are_answered_with_the_choices() {
    let folder = tempdir().unwrap();
    // Key, value, what the error must list.
    let cases = [
        ("profile", r#""x""#, "sd-cpp"),
        ("dialect", r#""a1112""#, "lpw-sdxl"),
        (
            "emphasis",
            r#""adv:mean""#,
            "adv:<none|mean|length|length+mean>",
        ),
        ("split", r#""groups+merge""#, "sentences"),
        (
            "equal_lengths",
            r#""longest""#,
            "empty-windows, repeat, zeros, last-row",
        ),
        ("cleaner", r#""x""#, "hf-slow-ftfy"),
        ("gelu", r#""exact""#, "own, tanh"),
        ("steps", "0", "1 to 2000"),
        ("hires_steps", "7", "needs `steps`"),
        ("embeddings", r#""a.safetensors""#, "sequence"),
        ("embeddings", r#"[{"path":"a"}]"#, "`file`"),
    ];
    let line = |(key, value, _): &(&str, &str, &str)| {
        format!(r#"{{"id":"{key}","positive":"a","{key}":{value}}}"#)
    };
    let mut lines: Vec<String> = cases.iter().map(line).collect();
    lines.push(r#"{"id":"good","positive":"a"}"#.to_owned());
    let ran = requests(folder.path(), "sd1", &lines.join("\n"), &[]).expect(1);
    assert_eq!(written(folder.path()), ["good.safetensors"]);
    for ((key, value, want), number) in cases.iter().zip(1..) {
        let place = format!("line {number}: ");
        let mut errors = ran.stderr.lines().filter(|line| line.contains(&place));
        let error = errors.next().unwrap();
        assert!(error.contains(want), "{key}: {value}: {error}");
    }
}

#[test]
fn plain_operations_give_the_same_numbers() {
    let folder = tempdir().unwrap();
    let states = |kernels: &str| {
        let out = folder.path().join(format!("{kernels}.safetensors"));
        let more = ["--positive", "a (lighthouse:1.3)", "--kernels", kernels];
        encode("sdxl", &more, &out).expect(0);
        read(&out).floats("prompt_embeds")
    };
    let plain = states("plain");
    let largest = plain
        .iter()
        .fold(0.0, |most: f32, value| most.max(value.abs()));
    for kernels in ["fastest", "steady"] {
        let both = states(kernels);
        let differences = both.iter().zip(&plain).map(|(a, b)| (a - b).abs());
        assert!(
            differences.fold(0.0, f32::max) <= 1e-5 * largest,
            "{kernels}"
        );
    }
    let more = ["--positive", "x", "--kernels", "slow"];
    let wrong = encode("sd1", &more, &folder.path().join("x")).expect(2);
    assert!(wrong.error().contains("slow"), "{}", wrong.error());
}

/// `ViT-bigG` has one of two, side by side in one run; what was made in one is not taken for the other.
#[test]
fn a_gelu_is_part_of_what_is_asked_for() {
    let folder = tempdir().unwrap();
    let text = Conditioner::builder()
        .random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)
        .unwrap();
    let cases = [
        ("tool", r#""profile":"sd-cpp""#, Profile::SdCpp, Gelu::Tanh),
        (
            "own",
            r#""profile":"sd-cpp","gelu":"own""#,
            Profile::SdCpp,
            Gelu::Own,
        ),
        (
            "tanh",
            r#""profile":"plain","gelu":"tanh""#,
            Profile::Plain,
            Gelu::Tanh,
        ),
        ("plain", r#""profile":"plain""#, Profile::Plain, Gelu::Own),
    ];
    let line = |(id, keys, ..): &(&str, &str, Profile, Gelu)| format!(r#"{{"id":"{id}",{keys}}}"#);
    let lines = cases.iter().map(line).collect::<Vec<_>>().join("\n");
    let texts = ["--positive", "a cat", "--negative", "fog", "--resume"];
    requests(folder.path(), "sdxl", &lines, &texts).expect(0);
    let out = |id: &str| folder.path().join(format!("out/{id}.safetensors"));
    let mut asked = std::collections::HashSet::new();
    for (id, _, profile, gelu) in cases {
        let request = Request::new("a cat").profile(profile).gelu(gelu);
        let guidance = text.encode_pair(request, "fog").unwrap();
        let file = read(&out(id));
        let want = floats(guidance.positive().context());
        assert!(file.floats("prompt_embeds") == want, "{id}");
        let named = file.metadata.get("gelu").map(String::as_str);
        assert_eq!(named, ["own", "tanh"].into_iter().find(|name| *name == id));
        asked.insert(file.metadata["request"].clone());
    }
    assert_eq!(asked.len(), cases.len());
    let changed = lines.replace(r#","gelu":"own""#, "");
    let ran = requests(folder.path(), "sdxl", &changed, &texts).expect(0);
    let words = "1 written, 0 failed, 3 done before";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    let [one, other] = ["own", "tool"].map(|id| std::fs::read(out(id)).unwrap());
    assert!(one == other);
}
