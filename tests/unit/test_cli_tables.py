"""Tables, lists by template, and inspected objects."""

from __future__ import annotations

import pytest

from netplug.cli.command import Failure
from netplug.cli.tables import Inspection, columns, label_method, print_list

HEADINGS = {"ID": "NETWORK ID", "Name": "NAME", "Labels": "LABELS"}
ROWS = [
    {"ID": "3a12f7bd7615", "Label": label_method({"com.x.stage-name": "test"}), "Labels": "com.x.stage-name=test", "Name": "demo"},
    {"ID": "7dbfec312b40", "Label": label_method({}), "Labels": "", "Name": "a-very-long-name"},
]


def test_columns_are_three_apart_and_ten_wide_at_least() -> None:
    assert columns([("A", "LONGER HEADING", "LAST"), ("x", "y", "")]) == "A         LONGER HEADING   LAST\nx         y                \n"


@pytest.mark.parametrize(
    ("template", "quiet", "expected"),
    [
        ("", False, "NETWORK ID     NAME\n3a12f7bd7615   demo\n7dbfec312b40   a-very-long-name\n"),
        ("table", False, "NETWORK ID     NAME\n3a12f7bd7615   demo\n7dbfec312b40   a-very-long-name\n"),
        ("", True, "3a12f7bd7615\n7dbfec312b40\n"),
        ("{{.Name}}", True, "demo\na-very-long-name\n"),
        ("{{.Name}}\\t{{.ID}}", False, "demo\t3a12f7bd7615\na-very-long-name\t7dbfec312b40\n"),
        ("table {{.Name}}", False, "NAME\ndemo\na-very-long-name\n"),
        (
            "table {{upper .Name}}\\t{{json .ID}}",
            False,
            'NAME               NETWORK ID\nDEMO               "3a12f7bd7615"\nA-VERY-LONG-NAME   "7dbfec312b40"\n',
        ),
        ('table {{.Name}}: {{.Label "com.x.stage-name"}}', False, "NAME: stage name\ndemo: test\na-very-long-name: \n"),
        (
            "json",
            False,
            '{"ID":"3a12f7bd7615","Labels":"com.x.stage-name=test","Name":"demo"}\n'
            '{"ID":"7dbfec312b40","Labels":"","Name":"a-very-long-name"}\n',
        ),
    ],
)
def test_lists(capsys: pytest.CaptureFixture[str], template: str, quiet: bool, expected: str) -> None:
    print_list(ROWS, HEADINGS, ("ID", "Name"), template, quiet)

    assert capsys.readouterr().out == expected


def test_a_table_of_nothing_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_list([], HEADINGS, ("ID", "Name"), "")

    assert capsys.readouterr().out == "NETWORK ID   NAME\n"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{", "failed to parse template: template: :1: unclosed action"),
        ("{{.Foo}}", 'failed to execute template: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
    ],
)
def test_a_bad_template_of_a_list(template: str, sentence: str) -> None:
    with pytest.raises(Failure) as caught:
        print_list(ROWS, HEADINGS, ("ID",), template)

    assert (caught.value.message, caught.value.code) == (sentence, 1)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", '[\n    {\n        "Name": "é",\n        "Empty": {}\n    }\n]\n'),
        ("json", '[{"Name":"é","Empty":{}}]\n'),
        ("{{.Name}}\\n", "é\\n\n"),
    ],
)
def test_inspected(capsys: pytest.CaptureFixture[str], template: str, expected: str) -> None:
    Inspection(template).show([{"Name": "é", "Empty": {}}])

    assert capsys.readouterr().out == expected


def test_a_bad_template_is_noticed_before_anything_is_asked() -> None:
    with pytest.raises(Failure) as caught:
        Inspection("{{")

    assert (caught.value.message, caught.value.code) == ("template parsing error: template: :1: unclosed action", 64)


def test_a_template_that_does_not_fit_ends_with_1() -> None:
    with pytest.raises(Failure) as caught:
        Inspection("{{.Foo}}").show([{"Name": "x"}])

    assert caught.value.code == 1
