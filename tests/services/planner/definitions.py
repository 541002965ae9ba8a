"""Definition files for tests: a sound one, and strategies for any number of others."""

from typing import Any

from hypothesis import strategies as st

from agentflow_planner.definition import Definition, StateDef, TransitionDef

SUPPORT = """\
name: support
version: 1.2.0
planner: fsm
description: Answers tickets.
max_steps: 25
timeout: 2d
context: {threshold: 0.55, channels: [mail, chat], limits: {words: 120}}
input_schema:
  type: object
  required: [text]
  properties: {text: {type: string, maxLength: 4000}}
initial_state: classify
final_states: [answered, escalated]
output: "${outputs.generate_response}"
states:
  classify:
    agent: classifier
    input: {text: "${input.text}"}
    timeout: 10s
    retry: {max_attempts: 3, backoff: 500ms}
    transitions:
      - {to: knowledge_search, condition: "output.confidence >= context.threshold"}
      - {to: approve}
    on_error: fallback_response
  knowledge_search:
    tool: kb_search
    input:
      query: "${input.text}"
      intent: "${outputs.classify.intent}"
      limit: 3
    transitions:
      - to: generate_response
        condition: size(output.articles) > 0
    on_success: approve
    on_error: fallback_response
  generate_response:
    agent: writer
    input:
      articles: "${outputs.knowledge_search.articles}"
      title: "Ticket ${input.id}: ${outputs.classify.intent}"
    on_success: answered
    on_error: fallback_response
  fallback_response:
    agent: apologiser
    input: {error: "${error}"}
    on_success: escalated
  approve:
    signal: approve
    timeout: 1d
    on_success: generate_response
    on_error: fallback_response
  answered:
  escalated: {}
"""

GREET = """\
name: greet
version: 1.0.0
initial_state: hello
final_states: [done]
states:
  hello:
    agent: greeter
    on_success: done
"""

SLIPS: dict[str, tuple[str, str, int]] = {
    "a YAML error: two colons": ("yaml", "name: greet\nversion: 1.0.0\ndescription: so: what\n", 3),
    "a YAML error: no end": ("yaml", GREET + "output: [done\n", 10),
    "a YAML error: a brace": ("yaml", GREET + "output: {text: ${input.text}}\n", 9),
    "a YAML error: a quote": ("yaml", GREET + 'output: "done\n', 10),
    "a YAML error: a tab": ("yaml", GREET + "\toutput: done\n", 9),
    "a YAML error: a control character": ("yaml", GREET + "output: \x01\n", 9),
    "a YAML error: an escape": ("yaml", GREET + 'output: "\\q"\n', 9),
    "a YAML error: an indentation": ("yaml", GREET + "   output: done\n", 9),
    "a YAML error: a bang": ("yaml", GREET + "output: !a && b\n", 9),
    "a YAML error: a tag": ("yaml", GREET + "output: !!str done\n", 9),
    "a YAML error: an alias": ("yaml", GREET + "output: *nothing\n", 9),
    "a YAML error: a merge key": ("yaml", GREET + "context: {<<: {}}\n", 9),
    "a YAML error: a key": ("yaml", GREET + "context: {[a]: 1}\n", 9),
    "a YAML error: two documents": ("yaml", GREET + "---\n", 9),
    "a YAML error: too deep": ("yaml", GREET + f"output: {'[' * 40}{']' * 40}\n", 9),
    "an unknown key": ("unknown_key", GREET.replace("on_success", "on_sucess"), 8),
    "an unknown state": ("unknown_state", GREET.replace("on_success: done", "on_success: dome"), 8),
    "an unknown state, where there is none": ("unknown_state", "initial_state: a\nfinal_states: []\nstates: {}\n", 1),
    "a state nothing reaches": ("unreachable_state", GREET + "  idle: {agent: greeter, on_success: done}\n", 9),
    "a final state nothing reaches": ("unreachable_state", GREET.replace("[done]", "[done, never]"), 4),
    "a state without an end": ("no_path_to_end", GREET.replace("on_success: done", "on_success: hello"), 6),
    "a state without an end, as there is none": (
        "no_path_to_end",
        GREET.replace("[done]", "[]").replace("on_success: done", "on_success: hello"),
        6,
    ),
    "an undeclared agent": ("undeclared_agent", GREET.replace("agent: greeter", "agent: greter"), 7),
}
"""What `agentflow apply` has to refuse: the code, the file and the line; agents other than `greeter` are undeclared."""

NO_CEL = (
    "input.x >=",
    "input.x = 1",
    "input.x & true",
    "input.x | true",
    "input.`x`",
    "input.",
    "input.x input",
    "(input.x",
    "input.x]",
    "[1, 2",
    "size(input.x,)",
    "has(input)",
    "input.all(x)",
    "input.all(1, true)",
    "'text",
    "'\\q'",
    "'\\ud800'",
    "b'\\u0041'",
    "1x",
    "99999999999999999999",
    "99999999999999999999u",
    "1e999",
    "while",
    ". ",
    "Message{}",
    "input.x ? 1",
    "{'a' 1}",
    "#",
    "${input.x}",
)
"""Conditions with a syntax error, one for each thing the parser can say."""

SLIPS |= {
    f"a CEL syntax error: {condition}": (
        "cel_syntax",
        f"{GREET}    transitions:\n      - to: done\n        condition: |-\n          {condition}\n",
        12,
    )
    for condition in NO_CEL
}


def changed(old: str, new: str, source: str = SUPPORT) -> bytes:
    """The sound file with one thing changed."""
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times"
    return source.replace(old, new).encode()


def chain_of(states: int) -> bytes:
    """A sound file with that many states, each with an input, a condition and a way out of trouble."""
    lines = ["name: long", "version: 1.0.0", "initial_state: s0", "final_states: [done]", "states:"]
    for n in range(states):
        to = f"s{n + 1}" if n + 1 < states else "done"
        lines += [
            f"  s{n}:",
            "    agent: worker",
            f'    input: {{text: "${{input.text}}", note: "step {n} of ${{input.id}}", n: {n}}}',
            "    retry: {max_attempts: 3, backoff: 250ms}",
            "    transitions:",
            f'      - {{to: {to}, condition: "output.score + {n}.5 > 0.5 && size(output.items) >= {n}"}}',
            f"      - {{to: done, condition: \"output.kind in ['a', 'b', 'k{n}']\"}}",
            f"    on_success: {to}",
            "    on_error: done",
        ]
    return "\n".join([*lines, ""]).encode()


NAMES = tuple("abcdefgh")


@st.composite
def graphs(draw: st.DrawFn) -> Definition:
    """Definitions of any shape: states that lead anywhere or nowhere, several final states, an unknown name at times."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=8, unique=True))
    finals = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
    known = st.sampled_from([*names, *finals])
    target = st.one_of(known, known, known, st.sampled_from([*NAMES, "nowhere"]))
    states: dict[str, StateDef] = {}
    for name in names:
        if name in finals and draw(st.booleans()):
            states[name] = StateDef(name)
            continue
        ways = draw(st.lists(st.tuples(target, st.sampled_from([None, "output.ok"])), max_size=3))
        states[name] = StateDef(
            name,
            agent="worker",
            transitions=tuple(TransitionDef(to, condition) for to, condition in ways),
            on_success=draw(st.one_of(st.just(""), target)),
            on_error=draw(st.one_of(st.just(""), target)),
        )
    initial = draw(st.one_of(st.just(names[0]), target))
    return Definition(name="any", version="1.0.0", initial_state=initial, final_states=tuple(finals), states=states)


def as_yaml(definition: Definition) -> bytes:
    """A graph of `graphs` as a file, for the way through the parser."""
    lines = [
        f"name: {definition.name}",
        f"version: {definition.version}",
        f"initial_state: {definition.initial_state}",
        f"final_states: [{', '.join(definition.final_states)}]",
        "states:",
    ]
    for state in definition.states.values():
        members: list[Any] = [f"agent: {state.agent}"] if state.agent else []
        ways = (_way(transition) for transition in state.transitions)
        members += [f"transitions: [{', '.join(ways)}]"] if state.transitions else []
        members += [f"on_success: {state.on_success}"] if state.on_success else []
        members += [f"on_error: {state.on_error}"] if state.on_error else []
        lines.append(f"  {state.name}: {{{', '.join(members)}}}")
    return "\n".join([*lines, ""]).encode()


def _way(transition: TransitionDef) -> str:
    condition = f", condition: {transition.condition}" if transition.condition else ""
    return f"{{to: {transition.to}{condition}}}"
