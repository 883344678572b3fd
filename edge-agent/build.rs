//! Hands the target triple on to the program, which names it in its `Hello`.

#![expect(
    clippy::disallowed_macros,
    reason = "this is how a build script speaks to cargo"
)]

fn main() {
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
