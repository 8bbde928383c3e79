"""A lab's README.md, written from its lab.toml, so that what a learner reads and what is solved and checked are the same text.

`python -m netplug.labs --write` writes those of all labs anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from netplug.labs.course import Commands, Lab, Look, Mistake, Question, Step

PICTURE = "lab.svg"


def render(lab: Lab) -> str:
    """The whole page."""
    return "\n\n".join(part.strip() for part in _page(lab) if part.strip()) + "\n"


def _page(lab: Lab) -> Iterator[str]:
    yield f"<!-- Written from lab.toml by `make docs`: change it there. -->\n# Lab {lab.number}: {lab.title}"
    yield lab.goal
    yield f"About {lab.minutes} minutes."
    yield f"![The lab at its end, drawn by netplug lab diagram]({PICTURE})"
    yield lab.text
    yield _block(f"netplug lab start {lab.number}", *(f"netplug lab shell {host.name}" for host in lab.hosts))
    yield "Each host has a shell of its own: open one terminal per host.\n" if len(lab.hosts) > 1 else ""
    yield "\n".join(f"- `{host.name}`: {host.about}" for host in lab.hosts if host.about)
    yield from _machines(lab)
    if lab.prepare:
        yield "**Prepared for you**, by these commands:"
        for commands in lab.prepare:
            yield from _commands(lab, commands)
    for number, step in enumerate(lab.steps, 1):
        yield from _step(lab, number, step)
    if lab.questions:
        yield "## Questions"
        yield "Think before you unfold an answer: what you have seen and tried is enough for it."
    for number, question in enumerate(lab.questions, 1):
        yield from _question(lab, number, question)
    yield "## The end"
    yield lab.end
    yield _block("netplug lab diagram", "netplug lab stop")


def _machines(lab: Lab) -> Iterator[str]:
    if not lab.machines:
        return
    nodes = {f"node{number}": host.name for number, host in enumerate(lab.hosts, 1)}
    yield (
        "**On machines of their own.** Instead, the hosts can be the virtual machines of the [Vagrantfile](../../Vagrantfile); the text is "
        "the same:\n"
    )
    prepared = (f"vagrant ssh {node} -c 'sudo sh /vagrant/packaging/lab-machine.sh {lab.number} {host}'" for node, host in nodes.items())
    yield _block(f"NODES={len(nodes)} vagrant up", *prepared)
    node, host = next(iter(nodes.items()))
    yield f"`vagrant ssh {node}`, then `sudo -i`, is your shell on `{host}`. There, this looks at what of step 1 can be seen from {host}:"
    yield _block(f"netplug lab check 1 --lab {lab.number} --on {host}")
    yield "`vagrant reload` takes everything away again."


def _step(lab: Lab, number: int, step: Step) -> Iterator[str]:
    yield f"## Step {number}: {step.title}"
    yield step.text
    for look in step.looks:
        if look.before:
            yield from _look(lab, look)
    yield "**Do it.**"
    for commands in step.solution:
        yield from _commands(lab, commands)
    yield "Then `netplug lab check`."
    for look in step.looks:
        if not look.before:
            yield from _look(lab, look)
    if step.notice:
        yield "**Notice.**"
        yield step.notice
    for mistake in step.mistakes:
        yield from _mistake(lab, mistake)


def _look(lab: Lab, look: Look) -> Iterator[str]:
    yield f"**{'Try it first' if look.before else 'Look'}.** {look.text}"
    yield from _commands(lab, look)
    if look.shown:
        yield f"It {'fails, and ' if look.fails else ''}says {' and '.join(f'`{words}`' for words in look.shown)}."
    elif look.fails:
        yield "It fails without a word."


def _mistake(lab: Lab, mistake: Mistake) -> Iterator[str]:
    yield f"<details><summary>If it does not work: {mistake.text}</summary>"
    for commands in (mistake, *mistake.also):
        yield from _commands(lab, commands)
    yield f"`netplug lab check` finds it: *{mistake.says}*"
    if mistake.undo:
        yield "To come back from it:"
    for commands in mistake.undo:
        yield from _commands(lab, commands)
    yield "</details>"


def _question(lab: Lab, number: int, question: Question) -> Iterator[str]:
    yield f"**Question {number}.** {question.asks.strip()}"
    yield "<details><summary>Answer</summary>"
    yield question.answer
    for look in question.looks:
        yield from _look(lab, look)
    yield "</details>"


def _commands(lab: Lab, commands: Commands) -> Iterator[str]:
    if len(lab.hosts) > 1:
        yield f"On `{lab.host(commands.on)}`:"
    yield _block(*commands.run.strip().splitlines())


def _block(*lines: str) -> str:
    return "\n".join(("```sh", *lines, "```"))
