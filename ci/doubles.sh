# Sourced. Builds the doubles of NVIDIA's libraries (tests/vgpu), and names in $doubles the folder where programs find them:
# LD_LIBRARY_PATH=$doubles PROGRAM.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# With the features of the whole workspace, as its tests have built them: `-p vgpu` has others, and would build them again.
cargo test -q --workspace --lib --no-run
doubles=$target/ci/doubles
mkdir -p "$doubles"
ln -sf "$target/debug/deps/libvgpu_cuda.so" "$doubles/libcuda.so.1"
ln -sf "$target/debug/deps/libvgpu_cublaslt.so" "$doubles/libcublasLt.so.13"
ln -sf "$target/debug/deps/libvgpu_nccl.so" "$doubles/libnccl.so.2"
