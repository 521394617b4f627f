"""Compiles one CUDA file to PTX with NVRTC: nvrtc.py FOLDER_OF_NVIDIA_PACKAGES ARCHITECTURE SOURCE.cu OUT.ptx"""

import ctypes
import hashlib
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def sources(path, seen):
    """The file and all that it includes in quotes, each once, in order of inclusion; includes lie relative to the file."""
    path = path.resolve()
    if path not in seen:
        seen.append(path)
        for name in INCLUDE.findall(path.read_text()):
            sources(path.parent / name, seen)
    return seen


def compile_ptx(packages, architecture, path):
    library = ctypes.CDLL(str(next((packages / "cuda_nvrtc" / "lib").glob("libnvrtc.so.*"))))
    options = [
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        "-default-device",
        f"-I{packages / 'cuda_runtime' / 'include'}",
        f"-I{path.parent}",
    ]
    # NVRTC finds a header by the folder of the file that includes it only if the program has the path of its own.
    name = str(path.resolve())
    program = ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), name.encode(), 0, None, None)
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
    packages, architecture, path, out = sys.argv[1:]
    path = pathlib.Path(path)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources(path, []))).hexdigest()
    ptx = compile_ptx(pathlib.Path(packages), architecture, path)
    pathlib.Path(out).write_text(f"// sources: sha256 {digest}\n{ptx.lstrip(chr(10))}")


if __name__ == "__main__":
    main()
