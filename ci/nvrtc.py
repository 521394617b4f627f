"""Compiles one CUDA file to PTX with NVRTC: nvrtc.py FOLDER_OF_NVIDIA_PACKAGES SOURCE.cu OUT.ptx"""

import ctypes
import hashlib
import pathlib
import sys


def sources(path):
    """The bytes that the PTX follows from: the headers of the folder in order of their names, then the file."""
    headers = sorted(path.parent.glob("*.h"))
    return b"".join(file.read_bytes() for file in [*headers, path])


def compile_ptx(packages, path):
    library = ctypes.CDLL(str(next((packages / "cuda_nvrtc" / "lib").glob("libnvrtc.so.*"))))
    architecture = path.read_text().splitlines()[0].removeprefix("//").strip()
    options = [
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        "-default-device",
        f"-I{packages / 'cuda_runtime' / 'include'}",
        f"-I{path.parent}",
    ]
    program = ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
    assert created == 0, "nvrtcCreateProgram failed"
    arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = library.nvrtcCompileProgram(program, len(options), arguments)

    def text(kind):
        size = ctypes.c_size_t()
        assert getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert getattr(library, f"nvrtcGet{kind}")(program, buffer) == 0
        return buffer.value.decode()

    if failed:
        sys.exit(f"{path}: {text('ProgramLog')}")
    return text("PTX")


def main():
    packages, path, out = (pathlib.Path(argument) for argument in sys.argv[1:])
    digest = hashlib.sha256(sources(path)).hexdigest()
    out.write_text(f"// sources: sha256 {digest}\n{compile_ptx(packages, path).lstrip(chr(10))}")


if __name__ == "__main__":
    main()
