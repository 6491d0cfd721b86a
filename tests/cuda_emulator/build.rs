//! Gives the library the name under which programs look for the CUDA driver, so that once it is loaded by its path, a
//! program that asks the loader for `libcuda.so.1` gets it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    }
}
