use super::*;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti alice@laptop";
const FINGERPRINT: &str = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";

fn problem(text: &str) -> String {
    parse("FILE", text.as_bytes()).unwrap_err().to_string()
}

/// Returns a key of the given type, of fields that are numbers or texts.
fn line(kind: &str, fields: &[&[u8]]) -> String {
    use base64::Engine as _;
    let mut blob = Vec::new();
    for field in [kind.as_bytes()].iter().chain(fields) {
        blob.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        blob.extend_from_slice(field);
    }
    format!(
        "{kind} {}",
        base64::engine::general_purpose::STANDARD.encode(blob)
    )
}

fn rsa(bits: usize) -> String {
    let mut modulus = vec![0xff_u8; bits.div_ceil(8)];
    modulus[0] = 0xff >> (modulus.len() * 8 - bits);
    if modulus[0] & 0x80 != 0 {
        modulus.insert(0, 0);
    }
    line("ssh-rsa", &[&[1, 0, 1], &modulus])
}

#[test]
fn keys_are_read_whatever_the_spaces_comments_and_repeats() {
    let text = format!(
        "\n# mine\n  {ED25519}\r\n{}\n{}\n",
        ED25519.replace(' ', "\t"),
        rsa(2048)
    );
    let keys = parse("FILE", text.as_bytes()).unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].fingerprint, FINGERPRINT);
    assert_eq!(keys[0].comment, "alice@laptop");
    assert_eq!(keys[0].public_key, ED25519.rsplit_once(' ').unwrap().0);
    assert_eq!(keys[1].public_key, rsa(2048));
}

#[test]
fn every_type_that_the_relay_takes_is_read() {
    let point = [[4_u8; 1].as_slice(), &[7; 64]].concat();
    for key in [
        line("ecdsa-sha2-nistp256", &[b"nistp256", &point]),
        line("sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]),
        line(
            "sk-ecdsa-sha2-nistp256@openssh.com",
            &[b"nistp256", &point, b"ssh:"],
        ),
        rsa(3072),
        rsa(16_384),
    ] {
        let keys = parse("FILE", key.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(keys.unwrap()[0].public_key, key);
    }
}

#[test]
fn each_wrong_file_gets_its_own_sentence() {
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n";
    assert!(problem(private).starts_with("FILE is a private key: give the public one"));
    assert!(!problem(private).contains("b3Blbn"));
    let putty = "PuTTY-User-Key-File-3: ssh-ed25519\n";
    assert!(problem(putty).starts_with("FILE is a private key"));
    let foreign = "---- BEGIN SSH2 PUBLIC KEY ----\n";
    assert!(problem(foreign).contains("ssh-keygen -i"));
    for empty in ["", "\n\n", "# nothing"] {
        assert!(
            problem(empty).starts_with("FILE holds no key: expected"),
            "{empty}"
        );
    }
    let many: String = (0..=64_u8)
        .map(|n| line("ssh-ed25519", &[&[n; 32]]) + "\n")
        .collect();
    assert!(problem(&many).contains("more than 64 keys"));
}

#[test]
fn each_wrong_line_says_what_was_expected_and_what_came() {
    let says = |text: &str, expected: &str| {
        let said = problem(&format!("# head\n{text}"));
        assert!(
            said.starts_with("FILE line 2: ") && said.contains(expected),
            "{said}"
        );
    };
    says(&rsa(2047), "2048 to 16384 bits, this one has 2047");
    says(&rsa(1024), "this one has 1024");
    says(&rsa(16_385), "this one has 16385");
    says(
        &line("ssh-dss", &[&[1], &[1], &[1], &[1]]),
        "DSA keys are broken",
    );
    says(&ED25519[..60], "the Ed25519 key is damaged or cut off");
    says(
        &ED25519.replace("AAAAC3", "AAAAC4"),
        "the Ed25519 key is damaged",
    );
    says(
        &ED25519.replace("ssh-ed25519", "ssh-rsa"),
        "the RSA key is damaged",
    );
    says("ssh-ed25519 !!!! x", "damaged");
    says("ssh-ed25519", "found something else");
    says("hello world", "found something else");
    says(
        &format!("command=\"ls\" {ED25519}"),
        "options before a key are not supported",
    );
    says(
        &line("ssh-ed25519-cert-v01@openssh.com", &[b"x"]),
        "a certificate is not a key",
    );
    says("x\u{1b}[2J AAAA", "found type \"x\\u{1b}[2J\"");
}

#[test]
fn a_files_name_cannot_drive_the_terminal() {
    let error = parse("a\u{1b}[2J", b"").unwrap_err().to_string();
    assert!(error.starts_with("a\\u{1b}[2J holds no key"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_the_parser(bytes: Vec<u8>, kind in "(ssh-ed25519|ssh-rsa|ssh-dss|ecdsa-sha2-nistp256) AAAA[A-Za-z0-9+/]{0,60}") {
        let _ = parse("FILE", &bytes);
        let _ = parse("FILE", kind.as_bytes());
    }
}
