//! Headers as balancers write them, and all that are none.

use proptest::prelude::*;

use super::*;

const MOST: usize = 1_024;

/// Returns a header of this version and command, this family, and what follows the length.
fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE, &[command, family][..], &length, body].concat()
}

/// Reads as a connection is read: only as many bytes as were asked for. Returns how many were read.
fn read_all(bytes: &[u8]) -> (usize, Result<Option<Origin>, HeaderError>) {
    let mut asked = FIXED;
    loop {
        let Some(came) = bytes.get(..asked) else {
            return (bytes.len(), read(bytes, MOST).map(|_| None));
        };
        match read(came, MOST) {
            Ok(Progress::Needs(more)) => {
                assert!(more > asked && more <= MOST, "{more} behind {asked}");
                asked = more;
            }
            Ok(Progress::Whole(origin)) => return (asked, Ok(Some(origin))),
            Err(error) => return (asked, Err(error)),
        }
    }
}

fn client(client: &str, server: &str) -> Option<Origin> {
    Some(Origin::Client {
        client: client.parse().unwrap(),
        server: server.parse().unwrap(),
    })
}

#[test]
fn headers_say_whose_connection_it_is() {
    let v4 = [198, 51, 100, 7, 203, 0, 113, 9, 0xc3, 0x50, 0, 22];
    let with_facts = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let v6 = |from: &str| {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let (from, to) = (address(from), address("2001:db8::2"));
        [&from[..], &to, &[0xc3, 0x50, 0, 22]].concat()
    };
    let here = client("198.51.100.7:50000", "203.0.113.9:22");
    for (bytes, origin) in [
        (header(0x21, 0x11, &v4), here),
        (header(0x21, 0x11, &with_facts), here),
        (
            header(0x21, 0x21, &v6("2001:db8::1")),
            client("[2001:db8::1]:50000", "[2001:db8::2]:22"),
        ),
        (
            header(0x21, 0x21, &v6("::ffff:198.51.100.7")),
            client("198.51.100.7:50000", "[2001:db8::2]:22"),
        ),
        // A health check, with and without addresses, and one without a family.
        (header(0x20, 0x00, &[]), Some(Origin::Balancer)),
        (header(0x20, 0x11, &v4), Some(Origin::Balancer)),
        (header(0x20, 0x77, &[1]), Some(Origin::Balancer)),
        (header(0x21, 0x00, &[]), Some(Origin::Balancer)),
        (header(0x21, 0x00, &[9; 20]), Some(Origin::Balancer)),
    ] {
        let behind = [&bytes[..], b"SSH-2.0-OpenSSH_9.2\r\n"].concat();
        assert_eq!(read_all(&behind), (bytes.len(), Ok(origin)));
        for end in 0..bytes.len() {
            assert_eq!(read_all(&bytes[..end]), (end, Ok(None)), "{end}");
        }
    }
}

#[test]
fn what_is_no_header_is_named() {
    let error = |bytes: &[u8]| read_all(bytes).1.unwrap_err().to_string();
    for (bytes, said) in [
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            "version 1",
        ),
        (
            b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(),
            "greeting of an SSH client",
        ),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "474554202f20"),
        (
            b"\r\n\r\n\0\r\nQUIT\r0123".to_vec(),
            "0d0a0d0a000d0a515549540d",
        ),
        (header(0x31, 0x11, &[0; 12]), "version 3"),
        (header(0x22, 0x11, &[0; 12]), "the command 2"),
        (header(0x21, 0x12, &[0; 12]), "family 0x12"),
        (header(0x21, 0x31, &[0; 216]), "family 0x31"),
        (header(0x21, 0x11, &[0; 11]), "11 bytes are too few"),
        (header(0x21, 0x21, &[0; 35]), "35 bytes are too few"),
        (
            header(0x21, 0x11, &[0; 1_009]),
            "1025 bytes, and the maximum is 1024",
        ),
    ] {
        let error = error(&bytes);
        assert!(error.contains(said), "{error}");
        assert!(!error.chars().any(char::is_control), "{error}");
    }
    assert!(begins(&SIGNATURE) && begins(&SIGNATURE[..5]) && begins(b"PROXY TCP4 "));
    for client in [&b"SSH-2.0-x\r\n"[..], b"", b"\r\n\r\n", b"PROXYX"] {
        assert!(!begins(client), "{client:?}");
    }
}

proptest! {
    /// Checks that any address comes back, with anything behind it.
    #[test]
    fn addresses_come_back(from: [u8; 4], to: [u8; 4], ports: [u8; 4], facts in proptest::collection::vec(any::<u8>(), 0..200)) {
        let body = [&from[..], &to, &ports, &facts].concat();
        let bytes = header(0x21, 0x11, &body);
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        let origin = Origin::Client {
            client: SocketAddr::new(Ipv4Addr::from(from).into(), port(0)),
            server: SocketAddr::new(Ipv4Addr::from(to).into(), port(2)),
        };
        prop_assert_eq!(read_all(&bytes), (bytes.len(), Ok(Some(origin))));
    }

    /// Checks that reading ends within the bound, whatever comes.
    #[test]
    fn any_bytes_are_read_within_the_bound(bytes in proptest::collection::vec(any::<u8>(), 0..1_200), valid: bool) {
        let bytes = if valid { [&SIGNATURE[..], &[0x21], &bytes].concat() } else { bytes };
        let (asked, read) = read_all(&bytes);
        prop_assert!(asked <= MOST.max(bytes.len()));
        if let Ok(Some(_)) = read {
            prop_assert!(bytes.starts_with(&SIGNATURE) && asked <= MOST);
        }
    }
}
