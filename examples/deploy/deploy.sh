#!/bin/sh
# Copies hefkit and a model to a Raspberry Pi, and says what the Pi still lacks:
#
#     make deploy PI=user@raspberrypi.local MODEL=best.hef
#
# PI      user@host, or a name from ~/.ssh/config
# MODEL   the .hef; the .json beside it goes along. Without it only hefkit is copied
# FOLDER  on the Pi, below the user's home (hefkit)
# SSH     the command, such as: ssh -p 2222
#
# It copies the three scripts for the Pi, the package hefkit without workshop/, and hefkit.service, through one
# connection. Nothing is replaced on the Pi before everything has arrived, so run it again after any failure.
set -eu

fail() { # exit code, message
    echo "error: $2" >&2
    exit "$1"
}

PI=${PI:-} MODEL=${MODEL:-} FOLDER=${FOLDER:-hefkit} SSH=${SSH:-ssh}
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)

case $PI in
    "" | -* | *[!A-Za-z0-9@._:%-]*)
        fail 2 "PI is '$PI'; expected user@host; type: make deploy PI=user@raspberrypi.local MODEL=best.hef" ;;
esac
case $FOLDER in
    "" | /* | -* | .* | *..* | *[!A-Za-z0-9._/-]*)
        fail 2 "FOLDER is '$FOLDER'; expected a folder below the home on the Pi: letters, digits, . _ - and /" ;;
esac

set -- -C "$ROOT" hailo_inference.py working_hailo_detector.py validate_hef.py hefkit
NAME=
if [ -n "$MODEL" ]; then
    [ -f "$MODEL" ] || fail 4 "the model $MODEL does not exist; expected a .hef; check the path"
    NAME=$(basename "$MODEL")
    case $NAME in
        -* | *[!A-Za-z0-9._+-]*)
            fail 2 "the model is called '$NAME'; expected letters, digits, . _ + and -; rename it with its .json" ;;
        *.hef) ;;
        *) fail 4 "$MODEL is not a .hef, and the chip runs nothing else; make one with compile_to_hef.py" ;;
    esac
    FROM=$(cd "$(dirname "$MODEL")" && pwd)
    set -- "$@" -C "$FROM" "$NAME"
    if [ -f "$FROM/${NAME%.hef}.json" ]; then
        set -- "$@" "${NAME%.hef}.json"
    else
        echo "warning: no ${NAME%.hef}.json beside the model; class names are numbers, the letterbox is assumed" >&2
    fi
fi
# the Pi runs the last file: if the connection breaks before, it is not there, and nothing is replaced
set -- "$@" -C "$ROOT/examples" hefkit.service -C "$HERE" on_the_pi.sh

# COPYFILE_DISABLE: a Mac's tar adds files of its own without it
COPYFILE_DISABLE=1 tar --exclude=__pycache__ --exclude=hefkit/workshop -cf - "$@" |
    $SSH "$PI" "sh -c 'mkdir -p $FOLDER && cd $FOLDER && rm -rf .arriving && mkdir .arriving &&
        tar -xof - -C .arriving && exec sh .arriving/on_the_pi.sh $NAME'" ||
    fail 6 "$PI was not updated; see the lines above; its old files are still there"
