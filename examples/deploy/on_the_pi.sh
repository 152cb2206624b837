#!/bin/sh
# Runs on the Raspberry Pi, in the folder of hefkit, when everything has arrived in .arriving; deploy.sh starts it.
# Puts the new files in place and says what the Pi lacks. The argument is the name of the model, if one was sent.
set -eu
MODEL=${1:-}

stop() {
    rm -rf .arriving
    echo "error: $1" >&2
    exit 1
}

[ ! -e .git ] || stop "$PWD is a git checkout, which would lose files; choose another folder: make deploy FOLDER=..."
if [ -e hefkit ] && ! grep -q '^__version__' hefkit/__init__.py 2>/dev/null; then
    stop "$PWD/hefkit is not the package hefkit and would be replaced; choose another folder: make deploy FOLDER=..."
fi

# --- files: the package is replaced as a whole, so modules that are gone do not stay --------------------------------

rm -f .arriving/on_the_pi.sh
changed=0
for name in $(cd .arriving && ls); do
    [ "$name" != hefkit.service ] || continue
    if diff -rq -x __pycache__ ".arriving/$name" "$name" >/dev/null 2>&1; then
        continue
    fi
    changed=$((changed + 1))
    rm -rf .leaving
    [ ! -e "$name" ] || mv "$name" .leaving
    mv ".arriving/$name" "$name"
    rm -rf .leaving
    echo "new: $PWD/$name"
done
[ "$changed" -gt 0 ] || echo "nothing changed in $PWD"

sed -e "s|^User=.*|User=$(id -un)|" -e "s|^WorkingDirectory=.*|WorkingDirectory=$PWD|" \
    -e "s|drone\.hef|${MODEL:-drone.hef}|" .arriving/hefkit.service >.arriving/filled
if [ ! -e hefkit.service ]; then
    mv .arriving/filled hefkit.service
    echo "new: $PWD/hefkit.service; put your camera into it, then: sudo cp hefkit.service /etc/systemd/system/"
elif ! cmp -s .arriving/filled hefkit.service; then
    echo "kept: $PWD/hefkit.service, which differs from the new one"
fi
rm -rf .arriving
if [ "$changed" -gt 0 ] && systemctl is-active --quiet hefkit 2>/dev/null; then
    echo "the service still runs the old files: sudo systemctl restart hefkit"
fi

# --- what is missing ------------------------------------------------------------------------------------------------

missing=
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "missing: Python 3.10 or newer: use Raspberry Pi OS Bookworm or Trixie"
    exit 0
fi
python3 - <<'END' || missing=yes
from importlib.util import find_spec

NEEDED = {"numpy": "python3-numpy", "cv2": "python3-opencv"}
OPTIONAL = {"aiohttp": ("--web", "python3-aiohttp"), "paho": ("--mqtt", "python3-paho-mqtt"),
            "av": ("recordings that survive a power cut", "python3-av"), "picamera2": ("the source csi", "python3-picamera2")}
missing = [module for module in NEEDED if find_spec(module) is None]
for module in missing:
    print(f"missing: {module}: sudo apt install {NEEDED[module]}")
for module, (use, package) in OPTIONAL.items():
    if find_spec(module) is None:
        print(f"optional: for {use}: sudo apt install {package}")
raise SystemExit(bool(missing))
END
if [ -z "$missing" ] && [ -n "$MODEL" ]; then
    found=$(python3 validate_hef.py "$MODEL" --device --quiet 2>&1) || missing=yes
    echo "$found" | grep -E '^(ok|--|warning:|error:)' || true
fi
if [ -n "$missing" ]; then
    echo "the files are in place; the lines above say what the Pi still lacks; docs/raspberry-pi.md has all commands"
else
    echo "the Pi has what it needs"
fi
