//! Text that an operator pastes, and names that a client types.
#![no_main]

use holdfast_protocol::escape::EscapedBytes;
use holdfast_protocol::identity::token::Token;
use holdfast_protocol::ids::{DeviceName, LabelKey, LabelValue, Login, UserName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(
        !EscapedBytes(bytes)
            .to_string()
            .chars()
            .any(char::is_control)
    );
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // One token has one spelling: what parses prints as it was.
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.expose(), text);
    }
    // A name that is accepted is kept as it is, and fits on one line.
    let kept = [
        DeviceName::new(text)
            .ok()
            .map(|name| name.as_str().to_owned()),
        UserName::new(text)
            .ok()
            .map(|name| name.as_str().to_owned()),
        Login::new(text).ok().map(|name| name.as_str().to_owned()),
        LabelKey::new(text)
            .ok()
            .map(|name| name.as_str().to_owned()),
        LabelValue::new(text)
            .ok()
            .map(|name| name.as_str().to_owned()),
    ];
    for name in kept.into_iter().flatten() {
        assert_eq!(name, text);
        assert!(!name.chars().any(char::is_control));
    }
});
