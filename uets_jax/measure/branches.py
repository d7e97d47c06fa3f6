"""What a call of a program costs where it branches: arms are charged by their runs."""

import dataclasses
from collections.abc import Mapping

from uets_jax.errors import UserError
from uets_jax.measure.work import Cost, Costs


@dataclasses.dataclass(frozen=True)
class Branch:
    """A counted `cond`.

    times:  runs per run of what holds it: the program, or an arm of another branch.
    holder: (name, arm) of that other branch.
    arms:   costs of (predicate false, predicate true), once.
    """

    times: int
    holder: tuple[str, int] | None
    arms: tuple[Costs, Costs]


@dataclasses.dataclass(frozen=True)
class Count:
    """What one call of a program costs: `always`, and one arm of each branch."""

    always: Costs = dataclasses.field(default_factory=dict)
    branches: dict[str, Branch] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Count") -> "Count":
        branches = dict(self.branches)
        for name, new in other.branches.items():
            branches[name] = (
                _join(name, branches[name], new) if name in branches else new
            )
        return Count(_sum(self.always, other.always), branches)

    def __mul__(self, times: int) -> "Count":
        def repeat(b: Branch) -> Branch:
            return (
                dataclasses.replace(b, times=b.times * times) if b.holder is None else b
            )

        branches = {name: repeat(b) for name, b in self.branches.items()}
        return Count(_scaled(self.always, times), branches)

    __rmul__ = __mul__

    def total(self, taken: Mapping[str, int] | None = None, calls: int = 1) -> Costs:
        """Costs by category of `calls` calls of the program.

        A branch inside a scan runs as often as the scan's body does, one inside an arm
        as often as that arm is taken: what counts is the executed predicate.

        Args:
          taken: how often each branch's predicate was true, in all these calls; names
            of branches that are dead code, so not in `branches`, are passed over.

        Raises:
          UserError: for a branch without its number, or a number that exceeds the runs
            of the branch.
        """
        taken = dict(taken or {})
        if missing := ", ".join(sorted(self.branches.keys() - taken.keys())):
            raise UserError(f"taken: {missing}: say how often its predicate was true")
        costs = _scaled(self.always, calls)
        for name, branch in self.branches.items():
            runs = self._runs(name, taken, calls)
            if not 0 <= taken[name] <= runs:
                raise UserError(f"taken: {name}: {taken[name]} of {runs} runs")
            costs = _sum(costs, _scaled(branch.arms[0], runs - taken[name]))
            costs = _sum(costs, _scaled(branch.arms[1], taken[name]))
        return costs

    def most(self) -> Costs:
        """Costs by category of one call, of every branch the costlier arm.

        An upper bound, for where predicates are not counted.
        """
        costs = self.always
        for branch in self.branches.values():
            times, inside = branch.times, branch
            while inside.holder is not None:
                inside = self.branches[inside.holder[0]]
                times *= inside.times
            work = lambda arm: sum(cost.total for cost in arm.values())
            costs = _sum(costs, _scaled(max(branch.arms, key=work), times))
        return costs

    def _runs(self, name: str, taken: Mapping[str, int], calls: int) -> int:
        branch = self.branches[name]
        if branch.holder is None:
            return branch.times * calls
        outer, arm = branch.holder
        rest = self._runs(outer, taken, calls) - taken[outer]
        return branch.times * (taken[outer] if arm else rest)


def branched(name: str, false: Count, true: Count) -> Count:
    """One run of a counted branch; the branches inside its arms are held by it."""
    whole = Count({}, {name: Branch(1, None, (false.always, true.always))})
    for number, arm in enumerate((false, true)):
        held = {k: _hold(b, name, number) for k, b in arm.branches.items()}
        whole = whole + Count({}, held)
    return whole


def _sum(a: Costs, b: Costs) -> Costs:
    return {k: a.get(k, Cost()) + b.get(k, Cost()) for k in (*a, *b)}


def _scaled(costs: Costs, times: int) -> Costs:
    return {k: times * cost for k, cost in costs.items()} if times else {}


def _join(name: str, a: Branch, b: Branch) -> Branch:
    if (a.times, a.holder) != (b.times, b.holder):
        raise UserError(
            f"branch {name!r} runs in two places that are not taken equally often: "
            "give each scopes.branch a name of its own"
        )
    arms = _sum(a.arms[0], b.arms[0]), _sum(a.arms[1], b.arms[1])
    return Branch(a.times, a.holder, arms)


def _hold(branch: Branch, name: str, arm: int) -> Branch:
    if branch.holder is not None:
        return branch
    return dataclasses.replace(branch, holder=(name, arm))
