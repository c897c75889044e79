"""The one exception a user is meant to see, and its kinds."""


class UserError(ValueError):
    """A fault in what the user gave: one line that says what, where, the rule and what to do.

    Command lines print it as it is and end with its exit code: 2, but 1 for what did not work out.
    """

    exit_code = 2


class Diverged(UserError):
    """A training whose numbers are no longer finite."""

    exit_code = 1
