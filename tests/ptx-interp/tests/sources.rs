//! The committed PTX belongs to the sources beside it.

use std::path::Path;

use sha2::{Digest, Sha256};

#[test]
fn ptx_holds_the_hash_of_its_sources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let read =
        |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for name in [
        "attention",
        "basics",
        "chain90",
        "emitted",
        "gemm",
        "gemm90",
    ] {
        let mut hash = Sha256::new();
        hash.update(read("prelude.h"));
        hash.update(read(&format!("{name}.cu")));
        let digest: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let ptx = String::from_utf8(read(&format!("{name}.ptx"))).expect("PTX is text");
        let first = ptx.lines().next().unwrap_or_default();
        assert_eq!(
            first,
            format!("// sources: sha256 {digest}"),
            "{name}: run ci/ptx.sh"
        );
    }
}
