# For scripts that build with MPI or start processes by mpirun:
#     source ci/mpi-setup.sh
#     build_with MPI PROGRAM…        MPI is openmpi or mpich; the programs are in $built then
# Installs what is missing (Debian, Ubuntu). Where it cannot, it says so in a line, $mpi_features is empty, and build_with fails.
missing=()
for program in {mpicc,mpirun}.{openmpi,mpich} ip python3; do
    command -v "$program" >/dev/null || missing+=("$program")
done
# The PATH of those who are not root may be without ldconfig. `grep -q` would end before ldconfig has said all, which is an error then.
{ PATH=$PATH:/sbin ldconfig -p || true; } | grep 'libclang.*\.so' >/dev/null || missing+=(libclang)
mpi_features=xdit-cli/mpi,mpi-ranks/mpi
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
            libopenmpi-dev openmpi-bin libmpich-dev mpich libclang1 iproute2 python3
    else
        mpi_features=
        echo "MPI: left out, this machine is without ${missing[*]}: install them, or be root where there is apt-get" >&2
    fi
fi
built=$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug
# libclang alone, without clang, has no <stddef.h>: the C compiler's serves as well.
export BINDGEN_EXTRA_CLANG_ARGS="-I$(cc -print-file-name=include)"
export MPICC=mpicc.openmpi
# There may be fewer cores than processes, and CI may be root. Open MPI 5 has other names (PRTE) for what 4 calls rmaps and hwloc.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

build_with() {
    local mpi=$1 last=$built/.mpi
    shift
    [ -n "$mpi_features" ] || return
    # The build script of mpi-sys does not look at MPICC again.
    [ "$(cat "$last" 2>/dev/null)" = "$mpi" ] || cargo clean -q -p mpi-sys
    # A build that fails may be of either.
    rm -f "$last"
    # Together with a test, dependencies have the features with which `cargo test --workspace` has built them. What computes is
    # elsewhere than in these two crates, which compile faster so.
    MPICC=mpicc.$mpi cargo build -q --locked --workspace "${@/#/--bin=}" --test extreme --features "$mpi_features" \
        --config 'profile.dev.package.xdit-models.opt-level=0' --config 'profile.dev.package.xdit-cli.opt-level=0'
    echo "$mpi" >"$last"
}
