//! Parses the account and device that an operator asks for: any user name of an SSH connection, any host and port of a
//! forward. What is accepted has one name; a refusal never carries a control character to a terminal.
#![no_main]

// The file alone: with the whole relay behind it a smoke run would compile for minutes.
#[expect(dead_code, reason = "the fuzzer uses the parsers only")]
#[path = "../../relay/src/session/client/target.rs"]
mod target;

use holdfast_protocol::ids::DeviceName;
use libfuzzer_sys::fuzz_target;
use target::{SshTarget, TargetError, device_name, forward};

fuzz_target!(|input: (&str, &str, u32)| {
    let (user, host, port) = input;
    match user.parse::<SshTarget>() {
        Ok(SshTarget::Device(login, device)) => {
            assert!(user.starts_with(login.as_str()));
            accepted(device);
        }
        Ok(_) => {}
        Err(error) => refused(&error),
    }
    match forward(host, port) {
        Ok(device) => accepted(device),
        Err(error) => refused(&error),
    }
});

fn accepted(device: DeviceName) {
    assert_eq!(device_name(device.as_str()), Ok(device));
}

fn refused(error: &TargetError) {
    assert!(!error.to_string().chars().any(char::is_control));
}
