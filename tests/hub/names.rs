//! Names, checksums, the catalog, and the variables.

use std::fs;
use std::path::Path;

use sd_conditioner::hub::{Catalog, FileName, Hub, HubOptions, RepoId, Revision, Sha256};
use sd_conditioner::{ErrorKind, Family};

#[test]
fn the_published_catalog_has_every_name() {
    let catalog = Catalog::published();
    let names: Vec<&str> = catalog
        .entries()
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    let wanted = [
        "sd15",
        "sd21",
        "sd21-base",
        "sd-turbo",
        "sdxl",
        "sdxl-turbo",
        "sdxl-refiner",
        "clip-l",
        "open-clip-h",
    ];
    assert_eq!(names, wanted);
    for entry in catalog.entries() {
        assert!(entry.revision.is_commit(), "{} is not pinned", entry.name);
        assert!(entry.licence.is_some(), "{} has no licence", entry.name);
    }
}

#[test]
fn removed_repositories_are_never_asked() {
    for entry in Catalog::published().entries() {
        let asked = entry
            .mirrors
            .iter()
            .map(|mirror| &mirror.repo)
            .chain([&entry.repo]);
        for repo in asked {
            assert!(!repo.as_str().starts_with("runwayml/"), "{repo}");
            assert!(
                !repo.as_str().starts_with("stabilityai/stable-diffusion-2"),
                "{repo}"
            );
            assert!(!entry.former.contains(repo), "{repo}");
        }
    }
    let catalog = Catalog::published();
    let former = |name: &str| catalog.get(name).unwrap().former[0].to_string();
    assert_eq!(former("sd15"), "runwayml/stable-diffusion-v1-5");
    assert_eq!(former("sd21"), "stabilityai/stable-diffusion-2-1");
}

#[test]
fn sdxl_is_two_files_in_the_family_s_order() {
    let catalog = Catalog::published();
    let entry = catalog.get("sdxl").unwrap();
    assert_eq!(entry.family, Family::Sdxl);
    let sizes: Vec<_> = entry.files.iter().map(|file| file.bytes).collect();
    assert_eq!(sizes, [Some(246_144_152), Some(1_389_382_176)]);
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let error = Hub::new(HubOptions::default())
        .fetch("sd16", &mut |_| {})
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Hub);
    super::assert_has(&error.to_string(), &["sd16", "sd15", "open-clip-h"]);
}

#[test]
fn repositories_have_two_plain_parts() {
    for good in [
        "a/b",
        "openai/clip-vit-large-patch14",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "a_/b.c",
    ] {
        assert_eq!(RepoId::new(good).unwrap().as_str(), good);
    }
    let long = format!("a/{}", "b".repeat(95));
    for bad in [
        "",
        "a",
        "/",
        "a/",
        "/b",
        "a/b/c",
        "a b/c",
        "a/b ",
        "../b",
        "a/..",
        "a/b..c",
        "./b",
        "a/.b",
        "-a/b",
        "a/b-",
        "a/b--c",
        "/etc/passwd",
        "a\\b",
        "C:/b",
        "a/b\n",
        "a/b\0",
        "a/b?c",
        "a/b#c",
        "a/b%2f",
        "a/ä",
        "https://x/y",
        "a/b@c",
        &long,
    ] {
        let error = RepoId::new(bad).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Hub, "{bad:?}");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("owner/name")),
            "{bad:?}"
        );
    }
}

#[test]
fn files_stay_inside_their_repository() {
    for good in [
        "model.safetensors",
        "text_encoder/model.fp16.safetensors",
        ".gitattributes",
        "a/b/c",
    ] {
        assert_eq!(FileName::new(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a/.",
        "a//b",
        "a/",
        "a b",
        "a\\b",
        "C:\\x",
        "a:b",
        "a?b",
        "a#b",
        "a%2e",
        "a\0",
        "a\n",
        "~/x y",
        "../../../../../../../etc/passwd",
    ] {
        assert!(FileName::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn revisions_are_branches_tags_or_commits() {
    for good in ["main", "fp16", "refs/pr/1", "v1.0", super::COMMIT] {
        assert_eq!(Revision::new(good).unwrap().as_str(), good);
    }
    for bad in [
        "", "..", "../main", "a/../b", "/main", "main/", "a b", "-x", ".hidden", "a\\b", "a?b",
    ] {
        assert!(Revision::new(bad).is_err(), "{bad:?}");
    }
    assert!(Revision::new(super::COMMIT).unwrap().is_commit());
    assert!(!Revision::main().is_commit());
}

#[test]
fn checksums_are_64_lower_case_digits() {
    assert!(Sha256::new(&"0f".repeat(32)).is_ok());
    for bad in [
        "",
        "0f",
        &"0F".repeat(32),
        &"0g".repeat(32),
        &"0f".repeat(33),
    ] {
        assert!(Sha256::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_hostile_name_is_shown_short_and_without_control_characters() {
    let error = RepoId::new(&format!("\u{1b}[2J{}", "x".repeat(10_000)))
        .unwrap_err()
        .to_string();
    assert!(error.len() < 400 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn a_broken_catalog_says_what_is_wrong() {
    let file = "[[checkpoint.files]]\nencoders = [\"clip_l\"]\npath = \"m\"";
    let entry =
        |lines: &str, file: &str| format!("[[checkpoint]]\nname = \"t\"\n{lines}\n{file}\n");
    let good = entry("family = \"sd1\"\nrepo = \"a/b\"", file);
    assert!(Catalog::parse(&good).is_ok());
    assert_eq!(Catalog::parse("").unwrap().entries().len(), 0);
    for (text, word) in [
        ("[[checkpoint]".to_owned(), "catalog"),
        (entry("family = \"sd1\"", file), "repo"),
        (entry("family = \"sd9\"\nrepo = \"a/b\"", file), "sd9"),
        (
            entry("family = \"sd1\"\nrepo = \"a/b\"\nmiror = []", file),
            "miror",
        ),
        (entry("family = \"sd1\"\nrepo = \"a/b/c\"", file), "a/b/c"),
        (
            entry("family = \"sd1\"\nrepo = \"a/b\"\nrevision = \"..\"", file),
            "..",
        ),
        (
            entry(
                "family = \"sd1\"\nrepo = \"a/b\"\nmirrors = [{ repo = \"../x\" }]",
                file,
            ),
            "../x",
        ),
        (
            entry(
                "family = \"sd1\"\nrepo = \"a/b\"",
                &file.replace("\"m\"", "\"../m\""),
            ),
            "../m",
        ),
        (
            entry(
                "family = \"sd1\"\nrepo = \"a/b\"",
                &file.replace("clip_l", "clip_x"),
            ),
            "clip_x",
        ),
        (entry("family = \"sd2\"\nrepo = \"a/b\"", file), "clip_h"),
        (
            entry(
                "family = \"sd1\"\nrepo = \"a/b\"",
                &format!("{file}\nsha256 = \"00\""),
            ),
            "sha256",
        ),
        (
            entry(
                "family = \"sd1\"\nrepo = \"a/b\"",
                &format!("{file}\nbytes = -1"),
            ),
            "bytes",
        ),
        (format!("{good}{good}"), "twice"),
    ] {
        let error = Catalog::parse(&text).expect_err(&text).to_string();
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

fn from(variables: &[(&str, &str)]) -> HubOptions {
    HubOptions::from_variables(|name| {
        variables
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

#[test]
fn the_cache_directory_follows_the_order_of_the_variables() {
    let all = [
        ("HF_HUB_CACHE", "/1"),
        ("HUGGINGFACE_HUB_CACHE", "/2"),
        ("HF_HOME", "/3"),
        ("XDG_CACHE_HOME", "/4"),
        ("HOME", "/5"),
    ];
    let wanted = [
        "/1",
        "/2",
        "/3/hub",
        "/4/huggingface/hub",
        "/5/.cache/huggingface/hub",
    ];
    for (first, wanted) in wanted.iter().enumerate() {
        assert_eq!(
            from(&all[first..]).cache_dir.as_deref(),
            Some(Path::new(wanted))
        );
    }
    assert_eq!(from(&[]).cache_dir, None);
    assert_eq!(
        from(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/3")])
            .cache_dir
            .unwrap(),
        Path::new("/3/hub")
    );
    assert_eq!(
        from(&[("HF_HUB_CACHE", "~/x"), ("HOME", "/5")])
            .cache_dir
            .unwrap(),
        Path::new("/5/x")
    );
}

#[test]
fn offline_is_said_in_four_words() {
    for (value, wanted) in [
        ("1", true),
        ("true", true),
        ("YES", true),
        ("on", true),
        ("0", false),
        ("", false),
        ("no", false),
    ] {
        assert_eq!(
            from(&[("HF_HUB_OFFLINE", value)]).offline,
            wanted,
            "{value}"
        );
        assert_eq!(
            from(&[("TRANSFORMERS_OFFLINE", value)]).offline,
            wanted,
            "{value}"
        );
    }
    // As in Python: what the hub's own variable says counts before transformers'.
    let set = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
    assert!(!from(&set).offline);
}

#[test]
fn the_token_comes_from_a_variable_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    fs::write(folder.path().join("token"), "hf_home\n").unwrap();
    let other = folder.path().join("other");
    fs::write(&other, " hf_other ").unwrap();
    let other = other.to_str().unwrap();
    let token = |variables: &[(&str, &str)]| from(variables).token;
    assert_eq!(
        token(&[("HF_TOKEN", "hf_x"), ("HF_TOKEN_PATH", other)]).as_deref(),
        Some("hf_x")
    );
    assert_eq!(
        token(&[("HF_TOKEN_PATH", other), ("HF_HOME", home)]).as_deref(),
        Some("hf_other")
    );
    let older = ("HUGGING_FACE_HUB_TOKEN", "hf_older");
    let found = token(&[older, ("HF_TOKEN_PATH", other)]);
    assert_eq!(found.as_deref(), Some("hf_older"));
    let found = token(&[older, ("HF_TOKEN", "hf_x")]);
    assert_eq!(found.as_deref(), Some("hf_x"));
    assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_home"));
    assert_eq!(token(&[("HF_TOKEN_PATH", "/no/such/file")]), None);
    assert_eq!(token(&[]), None);
}

#[test]
fn an_unreadable_token_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let error = HubOptions::from_variables(|name| (name == "HF_TOKEN_PATH").then(|| path.clone()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), Some(folder.path()));
}

#[cfg(unix)]
#[test]
fn a_token_file_that_is_a_pipe_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("token");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let path = pipe.to_str().unwrap().to_owned();
    let error = HubOptions::from_variables(|name| (name == "HF_TOKEN_PATH").then(|| path.clone()))
        .unwrap_err();
    assert_eq!(error.path(), Some(pipe.as_path()));
}

#[test]
fn the_token_is_never_shown() {
    let options = HubOptions {
        token: Some("hf_secret".to_owned()),
        ..HubOptions::default()
    };
    assert!(!format!("{options:?}").contains("secret"));
    assert!(!format!("{:?}", Hub::new(options)).contains("secret"));
}
