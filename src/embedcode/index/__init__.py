"""From a checkout to a searchable index of it. Kept light: every module in here imports this one."""


def words(text: str) -> frozenset[str]:
    """A set of names as a table in the source spells it, separated by white space."""
    return frozenset(text.split())
