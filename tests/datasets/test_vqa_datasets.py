"""The six question benchmarks read back from files like their own, whole and broken."""

import base64
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsvp.datasets import vqa
from rsvp.errors import BadInput
from rsvp.images import load_image


def picture(shade=0, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def put(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture() if data is None else data)
    return path


def write_tsv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def lines(*objects):
    return "\n".join(json.dumps(one) for one in objects).encode()


def letter_of(question, text):
    return vqa.LETTERS[question.options.index(text)]


# V*


def vstar_folder(tmp_path, n=24):
    for number in range(n):
        kind = "direct_attributes" if number % 2 else "relative_position"
        entry = {"question": f"Which {number}?", "options": [f"right {number}", "b", "c", "d"]}
        put(tmp_path / kind / f"sa_{number}.json", json.dumps(entry).encode())
        put(tmp_path / kind / f"sa_{number}.jpg")
    return tmp_path


def test_vstar_shuffles_because_the_first_option_is_the_right_one(tmp_path):
    dataset = vqa.vstar(vstar_folder(tmp_path))
    again = vqa.vstar(tmp_path)
    assert len(dataset) == 24
    for one, other in zip(dataset.questions, again.questions, strict=True):
        assert one == other
        number = one.id.rpartition("_")[2]
        assert one.answer == letter_of(one, f"right {number}")
        assert one.id.startswith(one.kind)
    assert {one.answer for one in dataset.questions} == set("ABCD")
    assert dataset.sample_id(0) == "direct_attributes/sa_1"
    assert load_image(dataset[0].image).width == 8


def test_vstar_reads_the_list_with_letters(tmp_path):
    text = "What is it?\n(A) a (red) cup\n(B) a pen\nAnswer with the option's letter."
    entry = {"image": "direct_attributes/sa_7.jpg", "text": text, "label": "B"}
    put(tmp_path / "direct_attributes/sa_7.jpg")
    data = lines({**entry, "category": "direct_attributes", "question_id": 3})
    put(tmp_path / "test_questions.jsonl", data + b"\n\n")
    (one,) = vqa.vstar(tmp_path).questions
    assert (one.question, one.answer) == ("What is it?", "B")
    assert one.options == ("a (red) cup", "a pen")
    assert (one.id, one.kind) == ("direct_attributes/sa_7", "direct_attributes")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "C"}, "the answer is one of .* found 'C'"),
        ({"text": "No options"}, r"the options are not \(A\)"),
        ({"image": "../x.jpg"}, "leads out of the folder"),
        ({"image": ""}, "line 1: '' is no file name"),
        ({"image": "x/none.jpg"}, "no such image file"),
        ({"category": 3}, "'category' should be str"),
    ],
)
def test_a_broken_list_is_refused_by_its_line(tmp_path, change, said):
    entry = {"image": "x/a.jpg", "text": "Q\n(A) a\n(B) b", "label": "A", "category": "x"}
    put(tmp_path / "x/a.jpg")
    put(tmp_path / "test_questions.jsonl", lines({**entry, **change}))
    with pytest.raises(BadInput, match=rf"test_questions\.jsonl.*{said}"):
        vqa.vstar(tmp_path).check_images()


# HR-Bench and MMBench


def choice(index, answer="A", **more):
    row = {"index": index, "question": "Where?", "A": "left", "B": "right", "C": "up", "D": ""}
    return {**row, "answer": answer, "category": "single", "cycle_category": "0", **more}


def with_image(row, shade=0):
    return {**row, "image": base64.b64encode(picture(shade)).decode()}


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_hrbench_rows_carry_their_rotation_and_their_picture(tmp_path, suffix):
    rows = [
        with_image(choice(i, "ABC"[i % 3], cycle_category=str(i % 4), question=q), i)
        for i, q in enumerate(["Where?", 'A "quoted"\nquestion\twith\u2028ends', "c", "d"])
    ]
    file = tmp_path / f"hr_bench_4k.{suffix}"
    if suffix == "tsv":
        write_tsv(file, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    dataset = vqa.hrbench(tmp_path)
    assert [one.id for one in dataset.questions] == ["0", "1", "2", "3"]
    assert [one.answer for one in dataset.questions] == list("ABCA")
    assert [one.group for one in dataset.questions] == [("0",), ("1",), ("2",), ("3",)]
    assert dataset.questions[1].question == rows[1]["question"]
    assert dataset.questions[0].options == ("left", "right", "up")
    assert [load_image(dataset[i].image).rgb[0, 0, 0] for i in (3, 0, 1, 2)] == [3, 0, 1, 2]
    assert vqa.hrbench(file).digest == dataset.digest


def test_mmbench_without_rotations_gets_them_and_the_answer_moves_along(tmp_path):
    write_tsv(tmp_path / "dev.tsv", [with_image(choice(7, "B", hint="A map."))])
    dataset = vqa.mmbench(tmp_path)
    assert [one.id for one in dataset.questions] == ["7", "1000007", "2000007"]
    assert dataset.questions[0].question == "A map.\nWhere?"
    for one in dataset.questions:
        assert one.answer == letter_of(one, "right")
        assert one.group == ("7",)
    assert {one.options[0] for one in dataset.questions} == {"left", "right", "up"}
    assert load_image(dataset[2].image).height == 6


def test_mmbench_with_rotations_keeps_them_and_finds_the_shared_picture(tmp_path):
    rows = [with_image(choice(7, "B"), 50), {**choice(1000007, "A"), "image": "7"}]
    dataset = vqa.mmbench(write_tsv(tmp_path / "dev.tsv", rows))
    assert [(one.id, one.group) for one in dataset.questions] == [
        ("7", ("7",)),
        ("1000007", ("7",)),
    ]
    assert load_image(dataset[1].image).rgb[0, 0, 0] == 50


def test_mmbench_takes_the_text_nan_for_an_empty_cell(tmp_path):
    row = with_image({**choice(7, "B"), "C": "nan", "D": "nan", "hint": "nan"})
    write_tsv(tmp_path / "dev.tsv", [row])
    assert [(q.question, q.options) for q in vqa.mmbench(tmp_path).questions] == [
        ("Where?", ("left", "right")), ("Where?", ("right", "left")),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_one_of_several_tables_is_chosen_by_its_split(tmp_path, suffix):
    for size in ("4k", "8k"):
        file = tmp_path / f"hr_bench_{size}.{suffix}"
        row = with_image(choice(int(size[0])))
        if suffix == "tsv":
            write_tsv(file, [row])
        else:
            pq.write_table(pa.Table.from_pylist([row]), file)
    assert vqa.hrbench(tmp_path, "8k").sample_id(0) == "8"
    assert vqa.hrbench(tmp_path, "hr_bench_4k").sample_id(0) == "4"
    for split in (None, "2k", "k"):
        with pytest.raises(BadInput, match="hr_bench_8k"):
            vqa.hrbench(tmp_path, split)


def test_visulogic_reads_its_lines(tmp_path):
    put(tmp_path / "images/00000.png")
    line = {"image_path": "images/00000.png", "question": "Which?", "label": "C", "id": "a1"}
    put(tmp_path / "data.jsonl", lines({**line, "tag": "Spatial Reasoning"}))
    dataset = vqa.visulogic(tmp_path)
    dataset.check_images()
    (one,) = dataset.questions
    found = (one.id, one.question, one.answer, one.kind)
    assert found == ("a1", "Which?", "C", "Spatial Reasoning")
    assert one.options == ("A", "B", "C", "D")
    put(tmp_path / "data.jsonl", lines({**line, "label": "E"}))
    with pytest.raises(BadInput, match=r"line 1: a1: the answer is one of"):
        vqa.visulogic(tmp_path)


def test_secret_answers_are_none(tmp_path):
    write_tsv(tmp_path / "test.tsv", [with_image(choice(7, ""))])
    assert {one.answer for one in vqa.mmbench(tmp_path).questions} == {None}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([choice(1, "D")], "dev.tsv: 1: the answer is one of .* found 'D'"),
        ([choice("x")], "dev.tsv: the index 'x' is not a whole number"),
        ([choice(1), choice(1)], "two samples have the id '1'"),
        ([choice(1, B="", C="")], "dev.tsv: 1: fewer than two options"),
        ([{"index": 1, "question": "?", "A": "a", "B": "b"}], "dev.tsv: no column 'category'"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, rows, said):
    write_tsv(tmp_path / "dev.tsv", rows)
    with pytest.raises(BadInput, match=said):
        vqa.mmbench(tmp_path)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("*" * 100, "row 0: the image is not base64 text"),
        ("9", "row 0: no row has the image '9'"),
        ("7", "row 0: no row has the image '7'"),
    ],
)
def test_a_broken_picture_is_refused_when_it_is_asked_for(tmp_path, image, said):
    write_tsv(tmp_path / "dev.tsv", [{**choice(7), "image": image}])
    with pytest.raises(BadInput, match=said):
        vqa.mmbench(tmp_path)[0]


def test_torn_and_foreign_tables_are_refused(tmp_path):
    file = tmp_path / "x.tsv"
    for data, said in [
        (b"", "no column"),
        (b"index\tquestion\n1\n", "row 0: 1 fields, the header has 2"),
        (b"index\n\xff\n", "broken table"),
    ]:
        file.write_bytes(data)
        with pytest.raises(BadInput, match=said):
            vqa.hrbench(file)
    (tmp_path / "y.tsv").touch()
    with pytest.raises(BadInput, match=r"several tables, name one: x\.tsv, y\.tsv"):
        vqa.hrbench(tmp_path)
    with pytest.raises(BadInput, match="neither a TSV nor a Parquet file"):
        vqa.hrbench(tmp_path / "nowhere")


# POPE


def pope_line(number, label="yes", image="a.jpg"):
    return {"question_id": number, "image": image, "text": "Is there a cup?", "label": label}


def test_pope_files_are_kinds_and_share_their_numbers(tmp_path):
    put(tmp_path / "val2014" / "a.jpg")
    for kind in ("random", "popular"):
        put(tmp_path / f"coco_pope_{kind}.json", lines(pope_line(1), pope_line(2, "no")))
    dataset = vqa.pope(tmp_path)
    assert [one.id for one in dataset.questions] == [
        f"coco_pope_{kind}/{n}" for kind in ("popular", "random") for n in (1, 2)
    ]
    assert [one.answer for one in dataset.questions] == ["yes", "no"] * 2
    assert dataset.questions[0].kind == "popular"
    assert dataset[0].image == tmp_path / "val2014" / "a.jpg"
    one = vqa.pope(tmp_path / "coco_pope_random.json")
    assert [question.id for question in one.questions] == ["1", "2"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lines(pope_line(1, "maybe")), "line 1: 1: the answer is one of"),
        (lines(pope_line(1), pope_line(1)), "two samples have the id '1'"),
        (lines(pope_line(1), pope_line(2, image="b.jpg")), "2: no such image file"),
        (b"\n{", "line 2: broken JSON"),
        (b"5", "line 1: expected an object"),
        (b"", "no samples"),
    ],
)
def test_a_broken_pope_file_is_refused(tmp_path, data, said):
    put(tmp_path / "a.jpg")
    put(tmp_path / "coco_pope_random.json", data)
    with pytest.raises(BadInput, match=said):
        vqa.pope(tmp_path).check_images()


# MMVP


def mmvp_folder(tmp_path, rows):
    text = "Index,Question,Options,Correct Answer\n" + "\n".join(rows)
    put(tmp_path / "Questions.csv", text.encode())
    for number in range(1, 5):
        put(tmp_path / "MMVP Images" / f"{number}.jpg")
    return tmp_path


def test_mmvp_questions_come_in_pairs(tmp_path):
    rows = [
        '1,Is it open?,"(a) Open (b) Closed, or so",(a)',
        '2,Is it open?,"(a) Open (b) Closed, or so",(b)',
        "3,How many?,(a) One (b) Two,(b)",
        "4,How many?,(a) One (b) Two,(a)",
    ]
    questions = vqa.mmvp(mmvp_folder(tmp_path, rows)).questions
    assert [one.group for one in questions] == [("1",), ("1",), ("2",), ("2",)]
    assert [one.answer for one in questions] == list("ABBA")
    assert questions[0].options == ("Open", "Closed, or so")


def test_mmvp_is_read_with_the_header_of_public_copies_and_without_pictures(tmp_path):
    header = "lndex,Question,Options,Correct Answer"
    put(tmp_path / "Questions.csv", f"{header}\n1,Q,(a) One (b) Two,(b)\n".encode())
    (one,) = vqa.mmvp(tmp_path).questions
    assert (one.id, one.answer) == ("1", "B")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,Q,(a) One (b) Two,(a)", "row 0: 'Index' should match"),
        ("1,Q,One or two,(a)", r"row 0: the options are not \(a\)"),
        ("1,Q,(a) One (b) Two,(c)", "row 0: 1: the answer is one of"),
        ("1,Q", "row 0: 'Options' should be str"),
        ("9,Q,(a) One (b) Two,(a)", "9: no such image file"),
    ],
)
def test_a_broken_mmvp_row_is_refused(tmp_path, row, said):
    with pytest.raises(BadInput, match=said):
        vqa.mmvp(mmvp_folder(tmp_path, [row])).check_images()


# HallusionBench


def entry(category, figure, number, answer="1", seen="1", **more):
    return {
        "category": category, "subcategory": "chart", "visual_input": seen, "set_id": "4",
        "figure_id": str(figure), "question_id": str(number), "question": "Is it so?",
        "gt_answer": answer, "gt_answer_details": "It is.", **more,
    }  # fmt: skip


def test_hallusionbench_groups_by_figure_and_by_question(tmp_path):
    document = [entry("VS", 0, 0, seen="0"), entry("VS", 1, 0, "0"), entry("VD", 0, 1)]
    put(tmp_path / "HallusionBench.json", json.dumps(document).encode())
    put(tmp_path / "hallusion_bench/VS/chart/4_1.png")
    put(tmp_path / "VD/chart/4_0.png")
    dataset = vqa.hallusionbench(tmp_path)
    assert [one.id for one in dataset.questions] == [
        "VS_chart_4_0_0", "VS_chart_4_1_0", "VD_chart_4_0_1",
    ]  # fmt: skip
    assert [one.group for one in dataset.questions] == [
        ("", "VS_chart_4_0"), ("VS_chart_4_1", "VS_chart_4_0"), ("VD_chart_4_0", "VD_chart_4_1"),
    ]  # fmt: skip
    assert [one.answer for one in dataset.questions] == ["yes", "no", "yes"]
    assert dataset[0].image is None
    assert load_image(dataset[1].image).width == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gt_answer": "2"}, "entry 0: 'gt_answer' should be '0' or '1'"),
        ({"category": None}, "entry 0: 'category' should be str"),
        ({"question": 5}, "entry 0: 'question' should be str"),
        ({"subcategory": "../.."}, "entry 0: .* leads out of the folder"),
        ({}, "VD_chart_4_0_0: no such image file"),
    ],
)
def test_a_broken_hallusionbench_is_refused(tmp_path, change, said):
    document = [{**entry("VD", 0, 0), **change}]
    put(tmp_path / "HallusionBench.json", json.dumps(document).encode())
    with pytest.raises(BadInput, match=said):
        vqa.hallusionbench(tmp_path).check_images()


@pytest.mark.parametrize(
    "reader", [vqa.vstar, vqa.hrbench, vqa.pope, vqa.mmvp, vqa.hallusionbench, vqa.mmbench]
)
def test_an_empty_folder_is_refused(tmp_path, reader):
    with pytest.raises(BadInput):
        reader(tmp_path)
