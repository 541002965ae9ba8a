"""Hypothesis strategies for recorded histories and for the ways in which they get damaged."""

from typing import get_args

from hypothesis import strategies as st

from tests.streams.histories import Ending, Mesh, Recording, StepKind, Story, record

STEPS = st.sampled_from(get_args(StepKind))
ENDINGS = st.sampled_from(get_args(Ending))


@st.composite
def stories(draw: st.DrawFn, workflow: str) -> Story:
    """One run."""
    return Story(
        workflow,
        steps=tuple(draw(st.lists(STEPS, min_size=1, max_size=4))),
        ending=draw(ENDINGS),
        plain=draw(st.booleans()),
        junk=draw(st.booleans()),
        tools=draw(st.integers(0, 2)),
    )


@st.composite
def recordings(draw: st.DrawFn, runs: int = 3) -> Recording:
    """Several runs, interleaved in any way."""
    told = [draw(stories(f"run-{index}")) for index in range(draw(st.integers(1, runs)))]
    return record(told, draw(st.lists(st.integers(0, 5), max_size=40)))


@st.composite
def busy_recordings(draw: st.DrawFn) -> Recording:
    """Several runs, with what else happens on a mesh: events, refused goals, dead letters."""
    mesh = Mesh()
    told = [draw(stories(f"run-{index}")) for index in range(draw(st.integers(1, 2)))]
    playing = [*(mesh.run(story) for story in told), mesh.lifecycle("helper", 3), mesh.rejected("nothing")]
    for turn in draw(st.lists(st.integers(0, 5), max_size=40)):
        next(playing[turn % len(playing)], None)
    for each in playing:
        for _ in each:
            pass
    if draw(st.booleans()):
        mesh.dead_letter(mesh.put_plain("agents.helper.in", b"hello?"))
    return mesh.recording
