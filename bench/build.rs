//! Builds the programs to measure with into the library: `$OUT_DIR/xdp-lb-bench-ebpf`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    xdp_lb_ebpf_build::build(
        "xdp-lb-bench-ebpf",
        &["xdp-lb-bench-ebpf"],
        &[
            "bench-ebpf",
            "bench/src/abi.rs",
            "xdp-lb-ebpf/src/runtime.rs",
        ],
    )
}
