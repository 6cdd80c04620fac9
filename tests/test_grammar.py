from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import grammar
from harness.errors import PlanError
from harness.types import Step

NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
VALUES = st.text(max_size=12) | st.sampled_from(
    ["", "a,b", 'say "so"', "back\\slash", "x+y:z=1", "two words", "0.5", "line\nbreak"]
)
STEPS = st.builds(Step, NAMES, st.dictionaries(NAMES, VALUES, max_size=3))
PIPELINES = st.lists(STEPS, min_size=1, max_size=4).map(tuple)


@given(PIPELINES)
def test_parse_undoes_format(steps: tuple[Step, ...]) -> None:
    assert grammar.parse_pipeline(grammar.format_pipeline(steps)) == steps


@given(PIPELINES)
def test_format_is_canonical(steps: tuple[Step, ...]) -> None:
    text = grammar.format_pipeline(steps)
    assert grammar.format_pipeline(grammar.parse_pipeline(text)) == text


@given(st.lists(PIPELINES, min_size=1, max_size=4), st.sampled_from([",", " ", " , ", "  "]))
def test_a_list_of_pipelines_comes_apart_again(pipelines: list[tuple[Step, ...]], separator: str) -> None:
    texts = tuple(grammar.format_pipeline(steps) for steps in pipelines)
    known = {steps[0].name for steps in pipelines}
    assert grammar.split_list(separator.join(texts), known) == texts


@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(VALUES, min_size=1, max_size=3))
def test_a_sweep_is_the_product(first: list[str], second: list[str]) -> None:
    def written(values: list[str]) -> str:
        return ",".join(grammar.format_step(Step("n", {"k": value})).partition("=")[2] for value in values)

    found = grammar.expand(f"a:x={written(first)}+b:y={written(second)}")
    assert found == tuple((Step("a", {"x": x}), Step("b", {"y": y})) for x in first for y in second)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused_in_words(text: str) -> None:
    for function in (grammar.expand, grammar.split_list):
        with contextlib.suppress(PlanError):
            function(text)


def test_a_sweep_reaches_every_value() -> None:
    assert [grammar.format_pipeline(steps) for steps in grammar.expand("prune:ratio=0.3,0.5:epochs=1+int8")] == [
        "prune:epochs=1:ratio=0.3+int8",
        "prune:epochs=1:ratio=0.5+int8",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (1e-5, "1e-05"),
        (1e20, '"1e+20"'),
        (3, "3"),
        (True, "true"),
        (None, "none"),
        ("", '""'),
        ("a b", '"a b"'),
    ],
)
def test_values_are_written_as_parameters_read_them(value: object, text: str) -> None:
    assert grammar.format_step(Step("a", {"k": value})) == f"a:k={text}"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("baseline,int8", ("baseline", "int8")),
        ("baseline int8", ("baseline", "int8")),
        ("prune:ratio=0.3,0.5", ("prune:ratio=0.3,0.5",)),
        ("prune:ratio=0.3, 0.5", ("prune:ratio=0.3,0.5",)),
        ("prune:ratio=0.3,0.5+int8,baseline", ("prune:ratio=0.3,0.5+int8", "baseline")),
        ("prune:ratio=0.3,int8+fp16,0.5", ("prune:ratio=0.3", "int8+fp16", "0.5")),
        ("weights:dtype=int4,int8", ("weights:dtype=int4", "int8")),
        ('weights:dtype=int4,"int8"', ('weights:dtype=int4,"int8"',)),
        ('file:path="a, b.onnx",baseline', ('file:path="a, b.onnx"', "baseline")),
        ("prune:ratio=0.3,prune:ratio=0.5", ("prune:ratio=0.3", "prune:ratio=0.5")),
    ],
)
def test_a_comma_sweeps_or_separates(text: str, items: tuple[str, ...]) -> None:
    assert grammar.split_list(text, {"baseline", "int8", "fp16", "prune", "weights", "file"}) == items


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a name is due at character 1"),
        ("a+", "a name is due at character 3"),
        ("a:", "a parameter of 'a' is due at character 3"),
        ("a:x", "'=' after parameter 'x' is due"),
        ("a:x=", "a value for 'x' is due"),
        ("a:x=1,", "a value for 'x' is due"),
        ("a:x=1:x=2", "'x' is given twice"),
        ('a:x="1', "quote at character 5"),
        ("a:x=1=2", "':', '+' or the end is due at character 6"),
        ("a,b", "due at character 2"),
        ("a b", "due at character 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        grammar.parse_pipeline(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_one_step_is_one() -> None:
    with pytest.raises(PlanError, match="chains"):
        grammar.parse_step("a+b")
    with pytest.raises(PlanError, match="sweeps"):
        grammar.parse_step("a:x=1,2")
    with pytest.raises(PlanError, match="chains"):
        grammar.expand_steps("a+b")


@pytest.mark.parametrize("text", ["a,,b", ",a", "a,", ""])
def test_an_empty_item_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="an item is due"):
        grammar.split_list(text)


def test_a_comma_between_parameters_is_explained() -> None:
    with pytest.raises(PlanError) as caught:
        grammar.split_list("prune:ratio=0.3,epochs=2", {"prune"})
    assert caught.value.hint == "write prune:ratio=0.3:epochs=2"
