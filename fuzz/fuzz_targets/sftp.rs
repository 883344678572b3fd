//! Reads the stream of an SFTP client. It is cut into packets of bounded length, and each of them is understood,
//! answered as unclear, or the end of the stream; nothing that it names is larger than the packet.
#![no_main]

use holdfast_protocol::sftp::{
    Attributes, ClientPacket, MAX_PACKET, SftpAnswers, SftpRequest, decode, next_packet,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = bytes;
    while let Ok(Some(packet)) = next_packet(&mut input) {
        assert!(packet.len() <= MAX_PACKET);
        read(packet);
    }
    // The fuzzer need not find a length first.
    read(bytes);
});

fn read(packet: &[u8]) {
    let Ok(ClientPacket::Request { id, request }) = decode(packet) else {
        return;
    };
    let within = |fields: &[&[u8]]| {
        let length: usize = fields.iter().map(|field| field.len()).sum();
        assert!(length < packet.len());
    };
    if let Ok(request) = &request {
        // What is written of a request is read as the same one.
        let written = request.packet(id);
        let again = next_packet(&mut written.as_slice());
        let again = decode(
            again
                .expect("no packet is too long")
                .expect("a whole packet"),
        );
        let same = ClientPacket::Request {
            id,
            request: Ok(request.clone()),
        };
        assert_eq!(again, Ok(same));
    }
    match request {
        Ok(SftpRequest::Write { handle, data, .. }) => within(&[handle, data]),
        Ok(SftpRequest::OpenAs { handle, path, .. }) => within(&[handle, path]),
        Ok(SftpRequest::Release(handle)) => within(&[handle]),
        Ok(SftpRequest::Symlink { target, link }) => within(&[target, link]),
        Ok(SftpRequest::CopyData { from, to, .. }) => within(&[from, to]),
        Ok(SftpRequest::Realpath(path)) => {
            within(&[path]);
            echo(id, path);
        }
        _ => {}
    }
}

/// Checks that an answer with any name is one packet.
fn echo(id: u32, path: &[u8]) {
    let mut answers = SftpAnswers::default();
    let named = answers.names(id, |names| {
        names.push(path, path, &Attributes::default());
        Ok::<_, ()>(())
    });
    assert_eq!(named, Ok(1));
    let bytes = answers.bytes();
    let length = u32::try_from(bytes.len() - 4).expect("a packet is short");
    assert_eq!(bytes[..4], length.to_be_bytes());
}
