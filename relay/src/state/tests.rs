use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

use super::*;

const KEYS: [&str; 6] = [
    CLUSTER_KEY,
    TUNNEL_KEY,
    SSH_HOST_KEY,
    SSH_CA_KEY,
    QUIC_RESET_KEY,
    QUIC_TOKEN_KEY,
];

fn new() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep/state");
    (parent, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns everything that devices and operators trust.
fn identity(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        state.cluster.pkcs8().to_vec(),
        state.tunnel.pkcs8().to_vec(),
        state.ssh_host.public_key().to_openssh().unwrap(),
        state.ssh_ca.public_key().to_openssh().unwrap(),
        *state.quic_reset_key.expose(),
        *state.quic_token_key.expose(),
    )
}

#[test]
fn first_start_creates_the_identity_and_later_ones_keep_it() {
    let (_parent, dir) = new();
    let first = State::create_or_open(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);
    for name in FILES {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    assert!(!dir.join(FIRST_START).exists());
    let made = identity(&first);
    drop(first);
    assert_eq!(identity(&State::create_or_open(&dir).unwrap()), made);
    assert_eq!(identity(&State::open(&dir).unwrap()), made);

    let other = State::create_or_open(&dir.join("other")).unwrap();
    assert_ne!(identity(&other), made);
}

#[test]
fn keys_sign_and_name_themselves() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    let key = SigningKey::random().unwrap();
    let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
    let signature = again.sign(b"roster");
    let public = UnparsedPublicKey::new(&ED25519, key.public().0);
    assert!(public.verify(b"roster", &signature).is_ok());
    assert_eq!(key.fingerprint().0, sha256(&key.public().0));
}

#[test]
fn a_second_relay_is_refused_and_admin_commands_are_not() {
    let (_parent, dir) = new();
    let first = State::create_or_open(&dir).unwrap();
    let error = State::create_or_open(&dir).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(error.starts_with("a relay already serves from"), "{error}");
    assert!(error.contains(&format!("(pid {pid})")), "{error}");
    assert!(State::open(&dir).is_ok());
    drop(first);
    assert!(State::create_or_open(&dir).is_ok());
}

#[test]
fn folder_of_another_account_is_refused_and_left_alone() {
    const OTHER: u32 = 47_110;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (parent, dir) = new();
    fs::create_dir_all(&dir).unwrap();
    set_mode(&dir, 0o755);
    chown(&dir, Some(OTHER), Some(OTHER)).unwrap();
    let refused = |dir: &Path| {
        let error = State::create_or_open(dir).unwrap_err().to_string();
        assert!(error.contains("belongs to user id 47110"), "{error}");
    };
    refused(&dir);
    assert_eq!(
        (mode(&dir), fs::read_dir(&dir).unwrap().count()),
        (0o755, 0)
    );
    set_mode(&dir, 0o700);
    refused(&dir);
    // Nor does another account choose where it is.
    let ours = parent.path().join("ours");
    fs::create_dir(&ours).unwrap();
    let link = parent.path().join("link");
    symlink(&ours, &link).unwrap();
    lchown(&link, Some(OTHER), Some(OTHER)).unwrap();
    refused(&link);
    lchown(&link, Some(0), Some(0)).unwrap();
    drop(State::create_or_open(&link).unwrap());
}

#[test]
fn root_writes_for_the_account_of_the_folder() {
    const OTHER: u32 = 47_110;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (parent, dir) = new();
    drop(State::create_or_open(&dir).unwrap());
    for entry in fs::read_dir(&dir).unwrap() {
        chown(entry.unwrap().path(), Some(OTHER), Some(OTHER)).unwrap();
    }
    chown(&dir, Some(OTHER), Some(OTHER)).unwrap();
    // The account may have put links where root is going to write.
    let victim = parent.path().join("victim");
    fs::write(&victim, "of root's").unwrap();
    symlink(&victim, dir.join("database.tmp")).unwrap();
    let mut state = State::open_exclusively(&dir).unwrap();
    assert!(matches!(
        State::open_exclusively(&dir),
        Err(StateError::Locked { .. })
    ));
    let url = DatabaseUrl::new("postgres://hf@db/x").unwrap();
    state.move_to_server(url).unwrap();
    drop(state);
    for name in ["database", "lock"] {
        let meta = fs::metadata(dir.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (OTHER, OTHER), "{name}");
    }
    fs::remove_file(dir.join("lock")).unwrap();
    symlink(&victim, dir.join("lock")).unwrap();
    assert!(State::open_exclusively(&dir).is_err());
    let meta = fs::metadata(&victim).unwrap();
    assert_eq!((meta.uid(), meta.len()), (0, 9));
}

#[test]
fn a_missing_file_is_an_error_and_never_a_new_identity() {
    for name in FILES {
        let (_parent, dir) = new();
        drop(State::create_or_open(&dir).unwrap());
        fs::remove_file(dir.join(name)).unwrap();
        for opened in [State::create_or_open(&dir), State::open(&dir)] {
            let error = opened.unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("is missing"),
                "{error}"
            );
            assert!(!dir.join(name).exists(), "{name}");
        }
    }
}

#[test]
fn a_damaged_or_cut_file_is_an_error_that_names_it() {
    let (_parent, dir) = new();
    drop(State::create_or_open(&dir).unwrap());
    for name in KEYS {
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        let cut = good[..good.len() - 9].to_vec();
        let long = [good.as_slice(), b"more and more"].concat();
        for bad in [
            Vec::new(),
            cut,
            long,
            vec![b'x'; 20_000],
            vec![0; good.len() + 1],
        ] {
            fs::write(&path, bad).unwrap();
            let error = State::create_or_open(&dir).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("is damaged"),
                "{error}"
            );
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(State::open(&dir).is_ok());
}

#[test]
fn no_flipped_bit_makes_another_signing_key() {
    let good = SigningKey::random().unwrap().pkcs8().to_vec();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(SigningKey::from_pkcs8(&bad).is_none(), "bit {bit}");
    }
}

#[test]
fn no_flipped_bit_makes_another_ssh_key() {
    let (_parent, dir) = new();
    let state = State::create_or_open(&dir).unwrap();
    let made = state.ssh_ca.public_key().key_data().clone();
    let path = dir.join(SSH_CA_KEY);
    let good = fs::read(&path).unwrap();
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        fs::write(&path, &bad).unwrap();
        if let Ok(state) = State::open(&dir) {
            assert_eq!(state.ssh_ca.public_key().key_data(), &made, "byte {byte}");
        }
    }
}

#[test]
fn a_key_of_another_kind_is_refused_with_what_came() {
    let (_parent, dir) = new();
    drop(State::create_or_open(&dir).unwrap());
    let seed = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]);
    let plain = PrivateKey::new(seed.into(), "").unwrap();
    fs::write(
        dir.join(SSH_CA_KEY),
        fs::read(dir.join(CLUSTER_KEY)).unwrap(),
    )
    .unwrap();
    let error = State::open(&dir).unwrap_err().to_string();
    assert!(
        error.contains("expected an Ed25519 key without a passphrase"),
        "{error}"
    );
    let text = plain
        .to_openssh(russh::keys::ssh_key::LineEnding::LF)
        .unwrap();
    fs::write(dir.join(SSH_CA_KEY), text.as_bytes()).unwrap();
    assert!(State::open(&dir).is_ok());
}

#[test]
fn what_others_may_read_is_refused_with_the_remedy() {
    let (_parent, dir) = new();
    drop(State::create_or_open(&dir).unwrap());
    for name in KEYS {
        for loose in [0o640, 0o604, 0o644] {
            set_mode(&dir.join(name), loose);
            let error = State::open(&dir).unwrap_err().to_string();
            let remedy = format!("run `chmod 600 {}`", dir.join(name).display());
            assert!(
                error.contains(&remedy) && error.contains(&format!("{loose:04o}")),
                "{error}"
            );
        }
        set_mode(&dir.join(name), 0o600);
    }
    set_mode(&dir, 0o755);
    let error = State::create_or_open(&dir).unwrap_err().to_string();
    assert!(error.contains("run `chmod 700 "), "{error}");
}

#[test]
fn empty_folder_is_taken_and_a_foreign_one_is_not() {
    let parent = tempfile::tempdir().unwrap();
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set_mode(&empty, 0o755);
    assert!(State::create_or_open(&empty).is_ok());
    assert_eq!(mode(&empty), 0o700);

    let full = parent.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter"), "dear").unwrap();
    set_mode(&full, 0o755);
    assert!(matches!(
        State::create_or_open(&full),
        Err(StateError::Exposed { .. })
    ));
    assert_eq!(mode(&full), 0o755);
}

#[test]
fn a_first_start_that_was_cut_short_is_finished() {
    let (_parent, dir) = new();
    let made = State::create_or_open(&dir).unwrap();
    let cluster = made.cluster.public();
    drop(made);
    fs::write(dir.join(FIRST_START), "").unwrap();
    for name in [SSH_CA_KEY, QUIC_TOKEN_KEY, DATABASE] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    assert!(matches!(State::open(&dir), Err(StateError::NoState(_))));
    let finished = State::create_or_open(&dir).unwrap();
    assert_eq!(finished.cluster.public(), cluster);
    assert!(dir.join(DATABASE).exists() && !dir.join(FIRST_START).exists());
}

#[test]
fn without_a_state_the_sentence_says_how_to_get_one() {
    let parent = tempfile::tempdir().unwrap();
    for dir in [parent.path().to_owned(), parent.path().join("none")] {
        let error = State::open(&dir).unwrap_err().to_string();
        assert!(error.contains("start `relay serve --state"), "{error}");
    }
}

#[test]
fn debug_shows_public_halves_only() {
    let (_parent, dir) = new();
    let state = State::create_or_open(&dir).unwrap();
    let shown = format!("{state:?}");
    assert!(shown.contains(&state.cluster.public().to_string()));
    assert!(shown.contains("Secret(masked)"));
    let secret = |bytes: &[u8]| {
        let list = format!("{bytes:?}");
        shown.contains(&crate::hex::hex(bytes)) || shown.contains(list.trim_matches(['[', ']']))
    };
    assert!(!secret(&state.quic_reset_key.expose()[..8]));
    assert!(!secret(&state.cluster.pkcs8()[16..48]));
    let ssh = state.ssh_ca.key_data().ed25519().unwrap();
    assert!(!secret(&ssh.private.to_bytes()));
}

#[test]
fn host_key_is_replaced_in_two_steps() {
    let (_parent, dir) = new();
    drop(State::create_or_open(&dir).unwrap());
    let known = || fs::read_to_string(dir.join(KNOWN_HOSTS)).unwrap();
    let mut state = State::open(&dir).unwrap();
    let old = state.ssh_host.public_key().clone();
    assert!(!state.use_next_host_key().unwrap(), "there is none");
    let next = state.make_next_host_key().unwrap().public_key().clone();
    assert_ne!(next, old);
    assert_eq!(known().lines().count(), 2);
    // All who open the folder see it, and it is made once.
    let mut other = State::open(&dir).unwrap();
    assert_eq!(*other.make_next_host_key().unwrap().public_key(), next);
    assert!(other.use_next_host_key().unwrap());
    assert_eq!(
        known().lines().count(),
        2,
        "a relay may still show the old one"
    );
    for _ in 0..2 {
        let state = State::create_or_open(&dir).unwrap();
        assert_eq!(*state.ssh_host.public_key(), next);
        assert!(state.ssh_host_next.is_none());
        assert_eq!(known().lines().count(), 1);
    }
    // Cut short between its two writes: both files hold the same key.
    let present = dir.join(SSH_HOST_KEY);
    fs::copy(&present, present.with_extension("next")).unwrap();
    let mut state = State::open(&dir).unwrap();
    assert!(state.ssh_host_next.is_none());
    let again = state.make_next_host_key().unwrap().public_key().clone();
    assert_ne!(again, next);
}
