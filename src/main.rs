//! The command `tlm`; everything is in the library.

fn main() -> std::process::ExitCode {
    tlm::cli::main()
}
