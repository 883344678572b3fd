use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const SHA256: &str = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";
const SHA1: &str = "SHA1:Z1PfE2457ue6HfxSfpVRLrGieO8";

fn parsed(text: &str) -> Result<Vec<RevokedThing>, String> {
    parse("stdin", text.as_bytes(), false).map_err(|error| error.to_string())
}

#[test]
fn lines_are_keys_or_fingerprints() {
    let text = format!("# stolen\n\n{KEY} a comment\n  {SHA1}\r\n{SHA256}\n");
    let key = |print: &str| RevokedThing::Key(print.to_owned());
    assert_eq!(parsed(&text), Ok(vec![key(SHA256), key(SHA1), key(SHA256)]));
}

#[test]
fn what_is_not_understood_revokes_nothing() {
    let line = |number: usize| {
        Err(format!(
            "stdin line {number}: expected a public key, SHA256:… or SHA1:…; for certificates, make a list with `ssh-keygen -k`"
        ))
    };
    let table = [
        (format!("{KEY}\nserial: 5\n"), line(2)),
        (KEY[..40].to_owned(), line(1)),
        ("SHA256:short".to_owned(), line(1)),
        ("SHA1:short".to_owned(), line(1)),
        (format!("SHA1:{}", "\u{1b}".repeat(27)), line(1)),
        (format!("MD5:{}", "ab:".repeat(16)), line(1)),
        (format!("no-pty {KEY}"), line(1)),
    ];
    for (text, expected) in table {
        assert_eq!(parsed(&text), expected, "{text:?}");
    }
    assert!(
        parsed("# nothing\n")
            .unwrap_err()
            .starts_with("stdin revokes nothing")
    );
    assert_eq!(parse("empty.txt", b"", true), Ok(vec![]));
    assert_eq!(parse("empty.txt", b"# nothing\n", true), Ok(vec![]));
    let private = parsed("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n").unwrap_err();
    assert!(private.starts_with("stdin is a private key") && !private.contains("secret"));
    let many = format!("{SHA1}\n").repeat(MAX_REVOCATIONS + 1);
    assert!(parsed(&many).unwrap_err().contains("has more than"));
    let krl = parse("a\u{1b}b", b"SSHKRL\n\0", true)
        .unwrap_err()
        .to_string();
    assert_eq!(
        krl,
        "a\\u{1b}b cannot be used: it is damaged or cut off: copy the whole file"
    );
}

#[test]
fn a_list_names_its_authority_by_fingerprint() {
    let blob = PublicKey::from_openssh(KEY).unwrap().to_bytes().unwrap();
    let authority = Some(SHA256.to_owned());
    let of: krl::KrlAuthority = Some(blob.as_slice().into());
    let table = [
        (KrlEntry::Key(blob), RevokedThing::Key(SHA256.to_owned())),
        (
            KrlEntry::Serials(of.clone(), 3..=4),
            RevokedThing::Serials {
                authority: authority.clone(),
                serials: 3..=4,
            },
        ),
        (
            KrlEntry::KeyId(of, b"laptop".to_vec()),
            RevokedThing::KeyId {
                authority,
                id: "laptop".to_owned(),
            },
        ),
        (
            KrlEntry::KeyId(None, b"laptop".to_vec()),
            RevokedThing::KeyId {
                authority: None,
                id: "laptop".to_owned(),
            },
        ),
    ];
    for (entry, expected) in table {
        assert_eq!(thing("stdin", entry), Ok(expected));
    }
    let long = thing("stdin", KrlEntry::KeyId(None, vec![b'x'; MAX_KEY_ID + 1]));
    assert!(long.is_err());
}
