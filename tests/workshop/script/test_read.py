"""Model scripts: the grammar row by row, what the emulator reads, and the lines that hefkit adds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.errors import ModelError
from hefkit.workshop.script.commands import Command, Script
from hefkit.workshop.script.grammar import canonical, parse
from hefkit.workshop.script.read import MAX_SCRIPT_BYTES, parse_script, read_script
from tests.conftest import ROOT

NORMALIZATION = "normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])\n"

# text -> (command, targets, positional, keywords, first line) of every statement
GRAMMAR: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    "nothing": ("", []),
    "a command of a context": ("context_0.place(0, [a-b, c])", [("context_0.place", (), ("0", "[a-b, c]"), (), 1)]),
    "numbers": ("f(-1, 0., 1e-05, 25m)", [("f", (), ("-1", "0.", "1e-05", "25m"), (), 1)]),
    "patterns": ("f({*}, { net/conv[0-9]* })", [("f", (), ("{*}", "{net/conv[0-9]*}"), (), 1)]),
    "an empty list": ("f([], a=[ ])", [("f", (), ("[]",), (("a", "[]"),), 1)]),
    "a quote in other quotes": ("f('a\"b')", [("f", (), ("'a\"b'",), (), 1)]),
    "blank lines and comments": ("\n  # only words (with brackets\n\n", []),
    "no arguments": ("allocate()", [("allocate", (), (), (), 1)]),
    "keywords": (
        "model_optimization_flavor(optimization_level=2, compression_level=0)",
        [("model_optimization_flavor", (), (), (("optimization_level", "2"), ("compression_level", "0")), 1)],
    ),
    "a name on the left": (
        "norm = normalization([1, 2, 3], [4, 5, 6])",
        [("normalization", ("norm",), ("[1, 2, 3]", "[4, 5, 6]"), (), 1)],
    ),
    "several names on the left": (
        "a, net/b = shortcut(conv1, conv2)",
        [("shortcut", ("a", "net/b"), ("conv1", "conv2"), (), 1)],
    ),
    "nothing on the left": (
        "{ } = defuse_block(a, defuse_count=4)",
        [("defuse_block", ("{}",), ("a",), (("defuse_count", "4"),), 1)],
    ),
    "a mapping on the left": (
        "{ net/a: [net/a_0,\n  net/a_1 ] , b:c} = defuse_block(net/a, b)",
        [("defuse_block", ("{net/a: [net/a_0, net/a_1], b: c}",), ("net/a", "b"), (), 1)],
    ),
    "comment at the end": ("f(x) # and (this, is, none", [("f", (), ("x",), (), 1)]),
    "a hash in quotes": ("f('a#b', \"c # d\")", [("f", (), ('"a#b"', '"c # d"'), (), 1)]),
    "commas in quotes and brackets": (
        "f('a,b', [c,d ], { e* }, g = [h, i])",
        [("f", (), ('"a,b"', "[c, d]", "{e*}"), (("g", "[h, i]"),), 1)],
    ),
    "over several lines": (
        "# first\n\nf(\n  a,  # why a\n  b=1\n)\ng()",
        [("f", (), ("a",), (("b", "1"),), 3), ("g", (), (), (), 7)],
    ),
    "a nested list over lines": ("f([[1,\n2],\n[3, 4]])", [("f", (), ("[[1, 2], [3, 4]]",), (), 1)]),
    "windows line ends": ("f(a)\r\ng(b)\r\n", [("f", (), ("a",), (), 1), ("g", (), ("b",), (), 2)]),
    "a path as value": (
        'nms_postprocess("config/nms.json", yolov8, engine=cpu)',
        [("nms_postprocess", (), ('"config/nms.json"', "yolov8"), (("engine", "cpu"),), 1)],
    ),
    "a glob": (
        "quantization_param({conv*}, precision_mode=a16_w16)",
        [("quantization_param", (), ("{conv*}",), (("precision_mode", "a16_w16"),), 1)],
    ),
}


@pytest.mark.parametrize("text, expected", GRAMMAR.values(), ids=GRAMMAR.keys())
def test_grammar(text: str, expected: list[tuple[object, ...]]) -> None:
    """Statements, with their names, arguments and first line."""
    found = parse_script(text).commands

    assert [(c.name, c.targets, c.args, c.keywords, c.line) for c in found] == expected


# what is not a statement, and the line that the message names
ERRORS = {
    "words": ("f(a)\nthis is none\n", "line 2"),
    "a bracket never closed": ("f(a)\n\ng(b,\nc", "line 3: an opening bracket without a closing one"),
    "a bracket never opened": ("f(a))", "line 1: a closing bracket without an opening one"),
    "two commands on a line": ("f(a) g(b)\nh() i", "line 2"),
    "an assignment without a command": ("a = 3", "line 1"),
    "a command without brackets": ("allocate", "line 1"),
    "a comma too many": ("f(a, b,)", "line 1: a comma before the closing bracket"),
    "a comma too few": ("f(a b)", "line 1: 'b' after an argument; expected a comma"),
    "a comma too few between lists": ("f([a] [b])", "line 1: '\\[' after an argument; expected a comma"),
    "a positional argument after a keyword": ("f(a=1, b)", "line 1: 'b' after keyword=value"),
    "a keyword without a value": ("f(a=)", "line 1"),
    "a pattern without braces": ("f(conv*)", "line 1: '\\*\\)' cannot be read; write patterns in braces"),
    "a quote never closed": ("f(a)\ng('b)", "line 2: .* the closing quote is missing"),
    "brackets of two kinds": ("f([a)]", "line 1: '\\)' in a list; expected a comma or \\]"),
    "a list in a pattern": ("f({a, b})", "line 1"),
    "a mapping as a value": ("f({a: [b]})", "line 1: '{a: \\[b\\]}' found; expected a value"),
    "a mapping left of another command": ("{a: b} = f(a)", "line 1: {a: b} on the left of f"),
    "a mapping of two on the left": ("{a: b}, c = defuse_block(a)", "line 1"),
    "a mapping with a comma too many": ("{a: [b],} = defuse_block(a)", "line 1"),
    "an empty list member": ("f([a,,b])", "line 1"),
    "a number as command": ("3(a)", "line 1: '3' is not a command"),
    "lists without end": (f"f({'[' * 3000}{']' * 3000})", "line 1: lists are nested too deep"),
    "brackets that open for ever": ("f(\n" * 3000, "line 1: an opening bracket without a closing one"),
    "letters of another script": ("f(\u00e4)", "line 1"),
    "a known command without brackets": ("set_seed", "line 1: set_seed without brackets; expected set_seed"),
}


@pytest.mark.parametrize("text, where", ERRORS.values(), ids=ERRORS.keys())
def test_errors_name_the_line(text: str, where: str) -> None:
    """The source and the line of every statement that is none."""
    with pytest.raises(ModelError, match=rf"my.mscript.* {where}"):
        parse_script(text, "my.mscript")


def test_reading_goes_on_after_a_fault() -> None:
    """Faults and statements of one text, in line order; a bracket left open is the last fault."""
    script, faults = parse("f(a)\nwords\ni(e))\nh(d)\ng(b\n  c,\nj(k)", "s")

    assert [(c.name, c.line) for c in script.commands] == [("f", 1), ("h", 4)]
    assert [f.line for f in faults] == [2, 3, 5]


def test_a_normalization_after_an_open_bracket_is_not_missing() -> None:
    """The rest of the file is not read, so nothing is claimed of it."""
    with pytest.raises(ModelError, match=r"^s line 1: an opening bracket without a closing one; add it$"):
        parse_script(f"f(a\n{NORMALIZATION}", "s")
    with pytest.raises(ModelError, match=r"^s: 0 normalization commands.*; line 1: an opening bracket"):
        parse_script("f(a\ng(b)", "s")


def test_a_bracket_in_quotes_is_no_bracket() -> None:
    """A quoted bracket neither opens nor closes anything."""
    found = parse_script("f('a(b')\ng(')')\n").commands

    assert [(c.name, c.args) for c in found] == [("f", ('"a(b"',)), ("g", ('")"',))]


NORMALIZATIONS = {
    "none": ("", "0 normalization commands"),
    "two": (NORMALIZATION * 2, "2 normalization commands"),
    "commented out": ("# " + NORMALIZATION, "0 normalization commands"),
    "without a name": ("f(x)\nnormalization([0, 0, 0], [1, 1, 1])", "line 2: normalization needs a name"),
    "one list": ("n = normalization([0, 0, 0])", "two lists of three"),
    "two numbers": ("n = normalization([0, 0], [1, 1])", "two lists of three"),
    "words": ("n = normalization([a, b, c], [1, 1, 1])", "two lists of three"),
    "a deviation of zero": ("n = normalization([0, 0, 0], [1, 0, 1])", "two lists of three"),
    "not a number": ("n = normalization([0, 0, nan], [1, 1, 1])", "two lists of three"),
    "endless": ("n = normalization([0, 0, 0], [1, 1, inf])", "two lists of three"),
}


@pytest.mark.parametrize("text, words", NORMALIZATIONS.values(), ids=NORMALIZATIONS.keys())
def test_a_normalization_that_cannot_be_used(text: str, words: str) -> None:
    """Exactly one, with a name and two lists of three usable numbers: anything else would ruin every range."""
    with pytest.raises(ModelError, match=words):
        parse_script(text).normalization()


def test_a_normalization_of_its_own() -> None:
    """Means and deviations in 0..255; a fourth argument (the layer) may follow."""
    found = parse_script("n = normalization([123.5, 116, 103], [58, 57.25, 57], input_layer1)").normalization()

    assert found == ((123.5, 116.0, 103.0), (58.0, 57.25, 57.0))


WIDE = {
    "none": ("", set(), []),
    "one": ("quantization_param(output_layer3, precision_mode=a16_w16)", {2}, []),
    "a list": ("quantization_param([output_layer1, output_layer6], precision_mode=a16_w16)", {0, 5}, []),
    "all by glob": ("quantization_param({output_layer*}, precision_mode=a16_w16)", set(range(6)), []),
    "with the network's name": ("quantization_param(net/output_layer2, precision_mode=a16_w16)", {1}, []),
    "8 bit": ("quantization_param(output_layer3, precision_mode=a8_w8)", set(), []),
    "another parameter": ("quantization_param(output_layer3, force_range_out=[0, 1])", set(), []),
    "an inner layer": ("quantization_param([conv4, output_layer1], precision_mode=a16_w16)", {0}, ["conv4"]),
    "an output too many": ("quantization_param(output_layer7, precision_mode=a16_w16)", set(), ["output_layer7"]),
}


@pytest.mark.parametrize("text, wide, others", WIDE.values(), ids=WIDE.keys())
def test_sixteen_bit_outputs_of_a_script(text: str, wide: set[int], others: list[str]) -> None:
    """Which of six outputs the script stores in 16 bit, and what it names besides."""
    assert parse_script(text).wide_outputs(6) == (wide, others)


GROUPS = {
    "none": ("", {}, []),
    "ordinary": ("quantization_param({conv*}, quantization_groups=4)", {"conv*": 4}, []),
    "depthwise": ("quantization_param({dw*}, quantization_groups=2)", {"dw*": 2}, []),
    "all": ("quantization_param({*}, quantization_groups=8)", {"*": 8}, []),
    "with the network's name": ("quantization_param({net/conv*}, quantization_groups=4)", {"conv*": 4}, []),
    "a list": ("quantization_param([{conv*}, {dw*}], quantization_groups=4)", {"conv*": 4, "dw*": 4}, []),
    "one layer": ("quantization_param(conv12, quantization_groups=4)", {}, ["conv12"]),
    "a narrower pattern": ("quantization_param({conv1*}, quantization_groups=4)", {}, ["{conv1*}"]),
    "a name like a pattern": ("quantization_param([conv1, {dw*}], quantization_groups=4)", {"dw*": 4}, ["conv1"]),
    "the later line": (
        "quantization_param({conv*}, quantization_groups=4)\nquantization_param({conv*}, quantization_groups=2)",
        {"conv*": 2},
        [],
    ),
    "another parameter": ("quantization_param({conv*}, precision_mode=a16_w16)", {}, []),
    "beside another": ("quantization_param({conv*}, precision_mode=a8_w8, quantization_groups=4)", {"conv*": 4}, []),
}


@pytest.mark.parametrize("text, patterns, others", GROUPS.values(), ids=GROUPS.keys())
def test_groups_of_a_script(text: str, patterns: dict[str, int], others: list[str]) -> None:
    """`quantization_groups` by pattern, and the layers that only the compiler can name."""
    assert parse_script(text).weight_groups() == (patterns, others)


def test_the_shipped_script() -> None:
    """hailo_optimization.mscript: 0..255 to 0..1, an explicit level, and it reads back as it is."""
    script = read_script(ROOT / "hailo_optimization.mscript")

    assert script.normalization() == ((0.0,) * 3, (255.0,) * 3)
    assert [c.name for c in script.commands] == ["normalization", "model_optimization_flavor"]
    assert script.commands[1].keyword("optimization_level") == "0"
    assert script.text == (ROOT / "hailo_optimization.mscript").read_text()
    assert parse_script(script.text, script.source) == script


FILES: dict[str, tuple[bytes, str]] = {
    "binary": (b"\xff\xfe\x00\x81", "is not a text file"),
    "too large": (b"#" * (MAX_SCRIPT_BYTES + 1), "larger than 1 MiB"),
}


@pytest.mark.parametrize("data, words", FILES.values(), ids=FILES.keys())
def test_files_that_are_no_script(tmp_path: Path, data: bytes, words: str) -> None:
    """Refused with the path; so are a folder and nothing at all."""
    (tmp_path / "a.mscript").write_bytes(data)

    with pytest.raises(ModelError, match=words):
        read_script(tmp_path / "a.mscript")
    for path in (tmp_path, tmp_path / "gone.mscript"):
        with pytest.raises(ModelError, match="cannot read the model script"):
            read_script(path)


def test_a_byte_order_mark_is_no_command(tmp_path: Path) -> None:
    """Editors on Windows put one before the first line."""
    (tmp_path / "a.mscript").write_bytes(b"\xef\xbb\xbf" + NORMALIZATION.encode())

    assert read_script(tmp_path / "a.mscript").normalization()[1] == (255.0,) * 3


# --- printing back ---------------------------------------------------------------------------------------------------

words = st.text("abcXYZ019_./$+-", min_size=1, max_size=6)
identifiers = st.builds(str.__add__, st.text("aZ_", min_size=1, max_size=2), st.text("bY_07", max_size=4)) | st.builds(
    "{}.{}".format, st.text("aZ_", min_size=1, max_size=2), st.text("b_", min_size=1, max_size=2)
)
quotable = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\"'"), max_size=6)
pieces = st.sampled_from(["a", "z9", "*", "?", "/", "_", ".", "-", "[0-9]", "[!a]", "[a9-]"])
patterns = st.lists(pieces, min_size=1, max_size=6).map(lambda found: "{" + "".join(found) + "}")
atoms = words | patterns | quotable.map(lambda text: f'"{text}"') | quotable.map(lambda text: f"'{text}\"'")
values = st.recursive(atoms, lambda inner: st.lists(inner, max_size=4).map(lambda v: f"[{', '.join(v)}]"), max_leaves=8)
commands = st.builds(
    Command,
    name=identifiers,
    args=st.lists(values, max_size=4).map(tuple),
    keywords=st.lists(st.tuples(words, values), max_size=4).map(tuple),
    targets=st.lists(words, max_size=3).map(tuple),
)
scripts = st.lists(commands, max_size=6).map(lambda found: Script("", tuple(found), "s"))


@settings(max_examples=60)
@given(scripts)
def test_printed_and_read_again(script: Script) -> None:
    """Whatever the grammar can say comes back from its canonical spelling, which is then its own."""
    text = canonical(script)

    assert parse_script(text) == script
    assert canonical(parse_script(text)) == text
    assert [c.line for c in parse_script(text).commands] == list(range(1, len(script.commands) + 1))


@settings(max_examples=60)
@given(scripts, st.integers(0, 2**32))
def test_spacing_says_nothing(script: Script, seed: int) -> None:
    """Blanks, line ends in brackets, and comments, brackets in them included, change no command."""
    rng, outside = random.Random(seed), ["", "\n", "# a comment [\n", "\n   \n"]

    def gap() -> str:
        return rng.choice(["", " ", "\n\t", "  # why (not\n", "\r\n "])

    def argument(key: str, value: str) -> str:
        return f"{gap()}{key}{gap()}={gap()}{value}{gap()}" if key else f"{gap()}{value}{gap()}"

    text = ""
    for command in script.commands:
        given = [("", a) for a in command.args] + list(command.keywords)
        left = f"{' , '.join(command.targets)}= " if command.targets else ""
        text += f"{rng.choice(outside)}{left}{command.name} ({','.join(argument(*g) for g in given)})\n"

    assert parse_script(text) == script


def test_the_canonical_spelling() -> None:
    """One line a command, names left, keywords last, lists with blanks, quotes double, no comments."""
    text = "# x\na ,net/b=f( [1,2 ],{ c* }, 'd.json' ,  e = True)  # y\n\ng(\n)\n"

    assert canonical(parse_script(text)) == 'a, net/b = f([1, 2], {c*}, "d.json", e=True)\ng()\n'
