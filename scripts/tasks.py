"""Make .venv/ with all that is needed, then run the demo, the tests or the checks in it.

The Makefile calls this file with whatever Python it finds, so it uses the standard library alone
and the syntax of Python 3.8.
"""

import argparse
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
PYTHONS = ("3.13", "3.12", "3.11")
LIBRARIES = {  # what Qt and OpenGL load at run time on Linux, and the Debian package of each
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libfontconfig.so.1": "libfontconfig1",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
}
PROGRAMS = {"git": "git", "xvfb-run": "xvfb", "xauth": "xauth"}
EXTRAS = {
    "demo": {"all"},
    "pictures": {"all"},
    "test": {"all", "test"},
    "check": {"all", "test", "docs", "dev"},
    "docs": {"docs"},
}


def main():
    """Parse the command line, prepare the environment, run what was asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=EXTRAS)
    parser.add_argument("--torch", default="torch", help="what pip installs as torch")
    options, rest = parser.parse_known_args()
    os.chdir(str(ROOT))
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # an advertisement in the middle of the log
    install_system_packages(needs_display=options.task in ("demo", "pictures", "test"))
    make_environment(options.torch, EXTRAS[options.task])
    tasks = {"demo": demo, "pictures": pictures, "test": test, "check": check, "docs": docs}
    tasks[options.task](rest)


def demo(rest):
    """Open the window and leave it to the user, or take its picture where there is no display."""
    show = [BIN / "napari-cellda", "demo"]
    take_picture = [PYTHON, "-m", "napari_cellda.ui.demo"]
    run([*(show if has_display() else take_picture), "-o", "demo_output", *rest], screen=True)


def pictures(rest):
    """Make the pictures of the documentation in a real window."""
    run([PYTHON, "docs/screenshots.py", *rest], screen=True)


def test(rest):
    """Run pytest in a few processes, with a virtual display where there is none."""
    # Neighbours stay together, so that what a file prepares for its tests is prepared once.
    several = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    run([PYTHON, "-m", "pytest", *several, *rest], screen=True)


def check(rest):
    """Run all checks besides the tests; every one of them, even when one fails."""
    commands = (
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["npe2", "validate", "napari-cellda", "--imports"],
        ["mkdocs", "build", "--strict", "--quiet"],
    )
    failed = [" ".join(words) for words in commands if call([BIN / words[0], *words[1:], *rest])]
    if failed:
        sys.exit("Failed: " + ", ".join(failed))


def docs(rest):
    """Build the documentation site."""
    run([BIN / "mkdocs", "build", "--strict", *rest])


def run(command, screen=False):
    """Run a command under a virtual display if it needs a screen; leave with its exit code."""
    if screen and not has_display():
        os.environ["QT_QPA_PLATFORM"] = "xcb"
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
    sys.exit(call(command))


def call(command):
    """Run a command, shown first, and return its exit code."""
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    return subprocess.call(words)


def has_display():
    """Tell whether a window can be opened; only Linux may be without a display."""
    on_linux = sys.platform.startswith("linux")
    return not on_linux or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def install_system_packages(needs_display):
    """Install the libraries and programs that pip cannot bring, or name them in one sentence."""
    missing = missing_packages(needs_display)
    if missing and not apt_install(missing):
        sys.exit(
            "These system packages are missing and could not be installed without a password: "
            + f"{' '.join(missing)}; install them and run make again."
        )


def missing_packages(needs_display):
    """List the Debian packages of what is missing here, on any Linux."""
    programs = dict(PROGRAMS) if needs_display and not has_display() else {"git": "git"}
    missing = [package for name, package in programs.items() if not shutil.which(name)]
    if sys.platform.startswith("linux") and needs_display:
        missing += [package for name, package in LIBRARIES.items() if not can_load(name)]
    return missing


def can_load(library):
    """Tell whether the dynamic loader finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def apt_install(packages):
    """Install Debian packages without asking anything; tell whether that worked."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not shutil.which("apt-get") or not (root or may_sudo()):
        return False
    apt = ([] if root else ["sudo", "-n"]) + ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    print("Installing system packages:", " ".join(packages), flush=True)
    call([*apt, "update", "-q"])
    return call([*apt, "install", "-qy", "--no-install-recommends", *packages]) == 0


def may_sudo():
    """Tell whether sudo works without a password."""
    return bool(shutil.which("sudo")) and not subprocess.call(
        ["sudo", "-n", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def make_environment(torch, extras):
    """Create .venv/ and install the project; skip what an earlier call has done."""
    stamp = VENV / ".installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + torch.encode()).hexdigest()
    installed, *there = stamp.read_text().split() if stamp.exists() else [""]
    if installed == wanted:
        if extras <= set(there):
            return
        extras = extras | set(there)
    if not PYTHON.exists() or call([PYTHON, "-m", "pip", "--version"]):
        create_environment(find_python())
    # torch goes first: its own choice of build must not be made again by the resolver.
    for what in ([torch], ["-e", ".[" + ",".join(sorted(extras)) + "]"]):
        if call([PYTHON, "-m", "pip", "install", "--quiet", *what]):
            sys.exit("pip could not install what the project needs; its message is above.")
    stamp.write_text("\n".join([wanted, *sorted(extras)]))


def create_environment(python):
    """Make the virtual environment; Debian keeps the module for that in a package of its own."""
    print("Making the environment in .venv/, some minutes on the first call", flush=True)
    if call([*python, "-m", "venv", "--clear", VENV]) and not (
        apt_install([f"python{version_of(python)}-venv"])
        and call([*python, "-m", "venv", "--clear", VENV]) == 0
    ):
        shutil.rmtree(str(VENV), ignore_errors=True)
        sys.exit("Python's venv module does not work; on Debian and Ubuntu install python3-venv.")


def find_python():
    """Find a Python that the project runs on, installing one on Debian and Ubuntu if need be."""
    for python in candidates():
        if version_of(python) in PYTHONS:
            return python
    for version in reversed(PYTHONS):
        if apt_install([f"python{version}", f"python{version}-venv"]):
            return [f"python{version}"]
    sys.exit(
        f"Python 3.11, 3.12 or 3.13 is needed and only {platform.python_version()} was found; "
        "install one of them (python.org has them for every system) and run make again."
    )


def candidates():
    """Yield the commands that may start a fitting Python, the one running this first."""
    yield [sys.executable]
    for version in PYTHONS:
        yield ["py", f"-{version}"] if os.name == "nt" else [f"python{version}"]


def version_of(python):
    """Tell the `major.minor` of a Python command, or an empty string if there is none."""
    if not shutil.which(python[0]):
        return ""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
