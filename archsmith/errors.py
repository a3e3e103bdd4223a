"""What archsmith raises when the fault is not its own: a message has the law, the value, the place, the way out."""


class ArchsmithError(Exception):
    """The one base of every error raised on purpose; the command line prints it on one line.

    >>> ArchsmithError.exit_code
    2
    """

    exit_code = 2


class BadInput(ArchsmithError):
    """The user's model, data, target or path cannot be used as it is.

    `law` is what must hold, `value` what was found, `place` where (file and line, module path), `remedy` the way out.

    >>> print(BadInput("a label must be 0 or 1", "'2'", "train.tsv:17", "name the column with --label"))
    a label must be 0 or 1; found '2' at train.tsv:17. Name the column with --label.
    """

    def __init__(self, law: str, value: str = "", place: str = "", remedy: str = "") -> None:
        self.told = (law, value, place, remedy)
        found = f"; found {value}" if value else ""
        where = (f" at {place}" if found else f"; at {place}") if place else ""
        way_out = f" {remedy[:1].upper()}{remedy[1:]}." if remedy else ""
        super().__init__(f"{law}{found}{where}.{way_out}".replace("\n", " "))

    def within(self, place: str) -> "BadInput":
        """The same, found within a file or a part of it.

        >>> print(BadInput("widths differ", "8, 8", "layer").within("space.json"))
        widths differ; found 8, 8 at space.json, layer.
        """
        law, value, inner, remedy = self.told
        return BadInput(law, value, f"{place}, {inner}" if inner else place, remedy)


class BudgetNotReachable(ArchsmithError):
    """A target cannot be met; the best front so far has been written."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """What an error of another library says, on one line; its kind where it says nothing.

    >>> first_line(ValueError("no such key\\n  at line 3")), first_line(EOFError())
    ('no such key', 'EOFError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
