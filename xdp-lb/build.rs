//! Builds the eBPF programs into the library: `$OUT_DIR/xdp-lb-ebpf` (the director's),
//! `$OUT_DIR/xdp-lb-decap` (the backends') and `$OUT_DIR/xdp-lb-check` (for health checks).

use std::error::Error;

use xdp_lb_ebpf_build::Object;

fn main() -> Result<(), Box<dyn Error>> {
    xdp_lb_ebpf_build::build(
        "xdp-lb-ebpf",
        &[
            Object {
                name: "xdp-lb-ebpf",
                is_unaligned: true,
            },
            Object {
                name: "xdp-lb-decap",
                is_unaligned: false,
            },
            Object {
                name: "xdp-lb-check",
                is_unaligned: false,
            },
        ],
        &["xdp-lb-ebpf", "xdp-lb-common"],
    )
}
