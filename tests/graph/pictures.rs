//! Workflows in pictures.

use std::io::Write as _;

use sd_conditioner::ErrorKind;
use sd_conditioner::graph::Workflow;

use super::support::simple;

fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(data.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(kind);
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&[0; 4]); // nobody reads the checksum
    bytes
}

fn picture(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend(chunk(b"IHDR", &[0; 13]));
    bytes.extend(chunks.concat());
    bytes.extend(chunk(b"IDAT", &[1; 100]));
    bytes.extend(chunk(b"IEND", &[]));
    bytes
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The text of the only prompt is a part of what is found.
fn found(bytes: &[u8]) -> String {
    format!("{:?}", Workflow::from_bytes(bytes).unwrap())
}

#[test]
fn every_kind_of_text_chunk() {
    let json = simple("a grün cat").to_string();
    let escaped = json.replace('ü', "\\u00fc");
    let latin: Vec<u8> = json
        .chars()
        .map(|one| u8::try_from(u32::from(one)).unwrap())
        .collect();
    let named = |name: &str, rest: &[u8]| [name.as_bytes(), b"\0", rest].concat();
    let plain = chunk(b"tEXt", &named("prompt", escaped.as_bytes()));
    let cases = [
        plain.clone(),
        chunk(b"tEXt", &named("prompt", json.as_bytes())),
        chunk(b"tEXt", &named("prompt", &latin)),
        chunk(
            b"zTXt",
            &named("prompt", &[b"\0", &deflated(json.as_bytes())[..]].concat()),
        ),
        chunk(
            b"iTXt",
            &named("prompt", &[b"\0\0de\0Eingabe\0", json.as_bytes()].concat()),
        ),
        chunk(
            b"iTXt",
            &named(
                "prompt",
                &[b"\x01\0\0\0", &deflated(json.as_bytes())[..]].concat(),
            ),
        ),
        chunk(b"tEXt", &named("workflow", escaped.as_bytes())),
    ];
    for (place, case) in cases.iter().enumerate() {
        let other = chunk(b"tEXt", &named("Comment", b"prompt"));
        let text = found(&picture(&[other, case.clone()]));
        assert!(text.contains("a grün cat"), "{place}: {text}");
    }
    // Of several the first is read, and no other looked into.
    let broken = chunk(b"zTXt", &named("prompt", b"\0not deflated"));
    let parts = [plain.clone(), broken.clone(), broken];
    assert!(found(&picture(&parts)).contains("grün"));
    // What was run goes before what was drawn, wherever it stands.
    let drawn = chunk(b"tEXt", &named("workflow", b"broken"));
    assert!(found(&picture(&[drawn, plain])).contains("grün"));
}

#[test]
fn broken_pictures_are_refused() {
    let json = simple("a").to_string();
    let text = |kind: &[u8], rest: &[u8]| chunk(kind, &[b"prompt\0", rest].concat());
    let whole = picture(&[text(b"tEXt", json.as_bytes())]);
    let bomb = deflated(&vec![b' '; (8 << 20) + 1]);
    let cases = [
        (picture(&[]), "without a workflow"),
        (whole[..60].to_vec(), "ends within a chunk"),
        ([&whole[..8], &[0xff; 8]].concat(), "ends within a chunk"),
        (picture(&[text(b"tEXt", b"{")]), "not JSON"),
        (
            picture(&[text(b"zTXt", b"\0not deflated")]),
            "cannot be inflated",
        ),
        (
            picture(&[text(b"zTXt", &[b"\0", &bomb[..]].concat())]),
            "more than 8388608 bytes",
        ),
        (picture(&[text(b"iTXt", b"\0")]), "ends too early"),
        (
            picture(&[text(b"iTXt", b"\0\0only a language")]),
            "ends too early",
        ),
        (picture(&[text(b"iTXt", b"\0\0\0\0\xff")]), "not in UTF-8"),
    ];
    for (bytes, part) in cases {
        let error = Workflow::from_bytes(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Workflow);
        assert!(error.message().contains(part), "{part}: {error}");
    }
}
