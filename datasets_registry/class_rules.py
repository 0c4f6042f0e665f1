"""Which cleaning rules there are, and which of them a run uses: `all,-holes,-largest_component:liver`."""

from __future__ import annotations

from dataclasses import dataclass

from datasets_registry.nearest import nearest_text
from datasets_registry.taxonomy import class_info

RULES = ("min_size", "sides", "largest_component", "holes", "inside_organ", "includes_lesions")
"""The rules in the order in which they are applied; what each does: `docs/design/0021-cleaning.md`."""


@dataclass(frozen=True)
class RuleSwitches:
    """The rules that a run uses.

    on: those in use, in the order of `RULES`. off: (rule, class name) pairs for which a rule in use is not applied.
    """

    on: tuple[str, ...] = RULES
    off: frozenset[tuple[str, str]] = frozenset()

    def applies(self, rule: str, class_name: str) -> bool:
        """Tell whether `rule` is used for that class."""
        return rule in self.on and (rule, class_name) not in self.off

    def text(self) -> str:
        """Return the switches in one way of writing them: equal switches give equal text."""
        named = ["all"] if self.on == RULES else list(self.on) or ["none"]
        return ",".join(named + sorted(f"-{rule}:{name}" for rule, name in self.off))


def rule_switches(text: str) -> RuleSwitches:
    """Return the switches that `text` writes: `all`, `none`, or names of rules, separated by commas.

    A minus takes a rule away again, `-holes`, or takes it away for one class, `-largest_component:colon`. A text that
    begins with a minus begins with all rules. Raises ValueError for an unknown rule, KeyError for an unknown class;
    both name the nearest.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"cleaning rules {text!r}: expected all, none, or some of {', '.join(RULES)}")
    on = set(RULES) if words[0].startswith("-") else set()
    off: set[tuple[str, str]] = set()
    for word in words:
        rule, _, name = word.removeprefix("-").partition(":")
        if word in ("all", "none"):
            on = set(RULES) if word == "all" else set()
        elif rule not in RULES or (name and not word.startswith("-")):
            raise ValueError(
                f"cleaning rules: {word!r} is no rule ({nearest_text(rule, RULES)}); expected all, none, or some of "
                f"{', '.join(RULES)}, with -RULE or -RULE:CLASS to leave one out"
            )
        elif name:
            off.add((rule, class_info(name).name))
        elif word.startswith("-"):
            on.discard(rule)
        else:
            on.add(rule)
    return RuleSwitches(tuple(rule for rule in RULES if rule in on), frozenset(pair for pair in off if pair[0] in on))
