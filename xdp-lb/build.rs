//! Builds the eBPF programs into the library: `$OUT_DIR/xdp-lb-ebpf` (the director's),
//! `$OUT_DIR/xdp-lb-decap` (the backends') and `$OUT_DIR/xdp-lb-check` (for health checks).

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    xdp_lb_ebpf_build::build(
        "xdp-lb-ebpf",
        &["xdp-lb-ebpf", "xdp-lb-decap", "xdp-lb-check"],
        &["xdp-lb-ebpf", "xdp-lb-common"],
    )
}
