use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use russh::keys::PublicKey;
use russh::keys::ssh_key::HashAlg;

use super::*;

const MANY: usize = 1 << 16;

/// Bytes in SSH's encoding.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn string(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap();
        self.raw(&length.to_be_bytes()).raw(bytes)
    }

    fn u64(self, number: u64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn section(self, kind: u8, inner: &Self) -> Self {
        self.raw(&[kind]).string(&inner.0)
    }
}

fn header() -> Bytes {
    let header = Bytes::default().raw(MAGIC).raw(&1_u32.to_be_bytes());
    header
        .u64(7)
        .u64(1_700_000_000)
        .u64(0)
        .string(b"")
        .string(b"a comment")
}

fn of_any(kind: u8, inner: &Bytes) -> Bytes {
    let certificates = Bytes::default().string(b"").string(b"");
    header().section(CERTIFICATES, &certificates.section(kind, inner))
}

#[track_caller]
fn entries(bytes: &Bytes) -> Vec<KrlEntry> {
    parse(&bytes.0, MANY).unwrap().entries
}

fn serials(range: RangeInclusive<u64>) -> KrlEntry {
    KrlEntry::Serials(None, range)
}

#[test]
fn each_section_is_read() {
    let authority = Bytes::default().string(b"blob").string(b"");
    let list = Bytes::default().u64(3).u64(5);
    let ids = Bytes::default().string(b"a").string(b"");
    let authority = authority.section(SERIAL_LIST, &list).section(KEY_IDS, &ids);
    let keys = Bytes::default().string(b"k1").string(b"k2");
    let krl = header()
        .section(CERTIFICATES, &authority)
        .section(EXPLICIT_KEYS, &keys)
        .section(SHA1_FINGERPRINTS, &Bytes::default().string(&[1; 20]))
        .section(SHA256_FINGERPRINTS, &Bytes::default().string(&[2; 32]));
    let parsed = parse(&krl.0, MANY).unwrap();
    assert_eq!((parsed.version, parsed.generated), (7, 1_700_000_000));
    let blob: KrlAuthority = Some(b"blob".as_slice().into());
    let expected = [
        KrlEntry::Serials(blob.clone(), 3..=3),
        KrlEntry::Serials(blob.clone(), 5..=5),
        KrlEntry::KeyId(blob.clone(), b"a".to_vec()),
        KrlEntry::KeyId(blob, vec![]),
        KrlEntry::Key(b"k1".to_vec()),
        KrlEntry::Key(b"k2".to_vec()),
        KrlEntry::Sha1([1; 20]),
        KrlEntry::Sha256([2; 32]),
    ];
    assert_eq!(parsed.entries, expected);
    assert_eq!(parse(&krl.0, 7), Err(KrlError::TooMany(7)));
}

#[test]
fn a_bitmap_is_the_ranges_of_its_bits() {
    let bitmap = |offset, bits: &[u8]| {
        let inner = Bytes::default().u64(offset).string(bits);
        parse(&of_any(SERIAL_BITMAP, &inner).0, MANY).map(|krl| krl.entries)
    };
    assert_eq!(
        bitmap(10, &[0b0000_0101]),
        Ok(vec![serials(10..=10), serials(12..=12)])
    );
    assert_eq!(bitmap(10, &[0, 0xff]), Ok(vec![serials(10..=17)]));
    assert_eq!(bitmap(1, &[0x01, 0x80]), Ok(vec![serials(8..=9)]));
    assert_eq!(bitmap(1, &[]), Ok(vec![]));
    assert_eq!(
        bitmap(u64::MAX, &[0x01]),
        Ok(vec![serials(u64::MAX..=u64::MAX)])
    );
    assert_eq!(bitmap(u64::MAX, &[0x02]), Err(KrlError::Serials));
    assert_eq!(bitmap(0, &[0x01]), Err(KrlError::Serials));
    assert_eq!(
        bitmap(1, &[0x80]),
        Err(KrlError::Damaged),
        "a negative number"
    );
}

#[test]
fn what_is_not_understood_is_refused_as_a_whole() {
    let extension = |critical: u8| Bytes::default().string(b"x").raw(&[critical]).string(b"y");
    let range = |first, last| of_any(SERIAL_RANGE, &Bytes::default().u64(first).u64(last));
    let signed = |after: Bytes| {
        let krl = header()
            .raw(&[SIGNATURE])
            .string(b"key")
            .string(b"signature");
        krl.raw(&after.0)
    };
    let keys = Bytes::default().section(EXPLICIT_KEYS, &Bytes::default().string(b"k"));
    let future = Bytes::default().raw(MAGIC).raw(&2_u32.to_be_bytes());
    let table = [
        (Bytes::default(), Err(KrlError::NotOne)),
        (
            Bytes::default().raw(b"ssh-ed25519 AAAA"),
            Err(KrlError::NotOne),
        ),
        (future, Err(KrlError::Format(2))),
        (Bytes::default().raw(MAGIC), Err(KrlError::Damaged)),
        (header(), Ok(0)),
        (header().raw(&[EXPLICIT_KEYS]), Err(KrlError::Damaged)),
        (
            header().raw(&[EXPLICIT_KEYS, 0xff, 0xff, 0xff, 0xff]),
            Err(KrlError::Damaged),
        ),
        (
            header().section(9, &Bytes::default()),
            Err(KrlError::Section(9)),
        ),
        (
            of_any(0x24, &Bytes::default()),
            Err(KrlError::Section(0x24)),
        ),
        (header().section(EXTENSION, &extension(0)), Ok(0)),
        (
            header().section(EXTENSION, &extension(1)),
            Err(KrlError::Extension),
        ),
        (of_any(CERTIFICATE_EXTENSION, &extension(0)), Ok(0)),
        (
            of_any(CERTIFICATE_EXTENSION, &extension(1)),
            Err(KrlError::Extension),
        ),
        (range(1, 1), Ok(1)),
        (range(1, u64::MAX), Ok(1)),
        (range(0, 1), Err(KrlError::Serials)),
        (range(2, 1), Err(KrlError::Serials)),
        (
            header().section(SHA256_FINGERPRINTS, &Bytes::default().string(&[0; 20])),
            Err(KrlError::Damaged),
        ),
        (signed(Bytes::default()), Ok(0)),
        (signed(keys), Err(KrlError::AfterSignature)),
        (
            signed(Bytes::default().raw(&[SIGNATURE]).string(b"").string(b"")),
            Ok(0),
        ),
    ];
    for (krl, expected) in table {
        let parsed = parse(&krl.0, MANY).map(|krl| krl.entries.len());
        assert_eq!(parsed, expected, "{}", krl.0.escape_ascii());
    }
}

/// Runs the real `ssh-keygen` in a folder.
#[track_caller]
fn keygen(folder: &Path, args: &[&str]) {
    let output = Command::new("ssh-keygen")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn public(folder: &Path, name: &str) -> PublicKey {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    PublicKey::from_openssh(text.trim()).unwrap()
}

#[test]
fn what_ssh_keygen_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["ca", "one", "two"] {
        keygen(
            path,
            &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name],
        );
    }
    let (one, two) = (public(path, "one.pub"), public(path, "two.pub"));
    let sha256 = two.fingerprint(HashAlg::Sha256);
    let spec = format!(
        "serial: 4\nserial: 100-200\nserial: 1001\nserial: 1003\nserial: 1005\nserial: 1006\n\
         id: alice laptop\nhash: {sha256}\n"
    );
    std::fs::write(path.join("spec"), spec).unwrap();
    keygen(
        path,
        &[
            "-k", "-z", "42", "-f", "krl", "-s", "ca.pub", "spec", "one.pub",
        ],
    );
    let krl = parse(&std::fs::read(path.join("krl")).unwrap(), MANY).unwrap();
    assert_eq!(krl.version, 42);
    let ca: KrlAuthority = Some(public(path, "ca.pub").to_bytes().unwrap().as_slice().into());
    let revoked = |serial: u64| {
        krl.entries.iter().any(|entry| match entry {
            KrlEntry::Serials(authority, range) => *authority == ca && range.contains(&serial),
            _ => false,
        })
    };
    let wanted = [4, 100, 150, 200, 1001, 1003, 1005, 1006];
    let others = [1, 3, 5, 99, 201, 1000, 1002, 1004, 1007];
    assert!(wanted.into_iter().all(revoked), "{krl:?}");
    assert!(!others.into_iter().any(revoked), "{krl:?}");
    let rest: Vec<&KrlEntry> = krl
        .entries
        .iter()
        .filter(|entry| !matches!(entry, KrlEntry::Serials(..)))
        .collect();
    let expected = [
        KrlEntry::KeyId(ca.clone(), b"alice laptop".to_vec()),
        KrlEntry::Key(one.to_bytes().unwrap()),
        KrlEntry::Sha256(sha256.sha256().unwrap()),
    ];
    assert_eq!(rest, expected.iter().collect::<Vec<_>>());

    // By SHA-1, and of any authority.
    let line = std::fs::read_to_string(path.join("one.pub")).unwrap();
    std::fs::write(path.join("spec"), format!("sha1: {line}serial: 9\n")).unwrap();
    keygen(path, &["-k", "-f", "krl1", "-s", "none", "spec"]);
    let krl = parse(&std::fs::read(path.join("krl1")).unwrap(), MANY).unwrap();
    let blob = one.to_bytes().unwrap();
    let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &blob);
    let sha1 = KrlEntry::Sha1(sha1.as_ref().try_into().unwrap());
    assert!(krl.entries.contains(&sha1), "{krl:?}");
    assert!(krl.entries.contains(&serials(9..=9)), "{krl:?}");

    // Cut off anywhere it is refused, or it is a shorter list that ends with a section.
    let whole = std::fs::read(path.join("krl")).unwrap();
    for length in 0..whole.len() {
        if let Ok(krl) = parse(&whole[..length], MANY) {
            assert!(krl.entries.len() < rest.len() + 8);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes, MANY);
        let _ = parse(&header().raw(&bytes).0, MANY);
        let certificates = Bytes::default().string(b"").string(b"").raw(&bytes);
        let _ = parse(&header().section(CERTIFICATES, &certificates).0, MANY);
    }

    #[test]
    fn a_damaged_list_never_panics(place in 0usize..200, byte: u8, cut in 0usize..200) {
        let inner = Bytes::default().u64(3).string(&[0x01, 0x80, 0xf0]);
        let mut krl = of_any(SERIAL_BITMAP, &inner).0;
        let place = place % krl.len();
        krl[place] = byte;
        krl.truncate(krl.len() - cut % krl.len());
        let _ = parse(&krl, MANY);
    }

    /// Compares with the naive reading: every bit by itself.
    #[test]
    fn a_bitmap_revokes_exactly_its_bits(
        offset in 1u64..1_000,
        bits in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let positive = [&[0], bits.as_slice()].concat();
        let inner = Bytes::default().u64(offset).string(&positive);
        let all = entries(&of_any(SERIAL_BITMAP, &inner));
        for n in 0..8 * positive.len() {
            let set = positive[positive.len() - 1 - n / 8] >> (n % 8) & 1 == 1;
            let serial = offset + n as u64;
            let named = all.iter().filter(|entry| match entry {
                KrlEntry::Serials(None, range) => range.contains(&serial),
                _ => false,
            });
            prop_assert_eq!(named.count(), usize::from(set));
        }
    }
}
