//! Builds the programs to measure with into the library: `$OUT_DIR/xdp-lb-bench-ebpf`.

use std::error::Error;

use xdp_lb_ebpf_build::Object;

fn main() -> Result<(), Box<dyn Error>> {
    xdp_lb_ebpf_build::build(
        "xdp-lb-bench-ebpf",
        &[Object {
            name: "xdp-lb-bench-ebpf",
            is_unaligned: true,
        }],
        &[
            "bench-ebpf",
            "bench/src/abi.rs",
            "xdp-lb-common",
            "xdp-lb-ebpf/src/runtime.rs",
        ],
    )
}
