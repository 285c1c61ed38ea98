"""The command line of the recipe: what it refuses, and the table of a learning curve."""

from __future__ import annotations

import pytest

from recipes.embedded.__main__ import main, parser


@pytest.mark.parametrize("text", ["marks", "marks=x", "marks=-1", "marks=0", "clicks=1", ""])
def test_meaningless_shares_are_refused(text: str, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["reasoner", "--out", str(tmp_path), "--shares", text])
    assert "STRATEGY=SHARE" in capsys.readouterr().err


def test_former_names_of_options_are_accepted() -> None:
    former = ["--perceive", "5", "--asks", "2", "--settle", "7"]
    args = parser().parse_args(["reasoner", "--out", "R", *former])
    assert (args.perception_steps, args.turns, args.freeze_warmup) == (5, 2, 7)
    assert parser().parse_args(["install", "--strength", "0.6"]).residual_scale == 0.6


@pytest.mark.parametrize(
    "arguments",
    [
        ["install", "--reasoner", "{}"],
        ["install", "--vlsm", "{}", "--residual-scale", "2"],
        ["curve", "{}/none.csv"],
        ["segmenter", "--out", "{}/o", "--photos", "{}"],
        ["reasoner", "--out", "{}/o", "--photos", "{}"],
        ["reasoner", "--out", "{}/o", "--grounds", "{}"],
    ],
)
def test_errors_are_one_line(arguments, tmp_path, capsys) -> None:
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")


def test_a_curve_is_a_table(tmp_path, capsys) -> None:
    log = tmp_path / "log.csv"
    log.write_text("time,step,loss\n" + "".join(f"{60 * i},{i},{1 / i:.3f}\n" for i in range(1, 9)))
    assert main(["curve", str(log), "--rows", "4"]) == 0
    table = capsys.readouterr().out.strip().splitlines()
    assert table[0] == "| minutes | step | loss |"
    assert table[-1] == "| 7 | 8 | 0.125 |"
    assert len(table) == 2 + 4
