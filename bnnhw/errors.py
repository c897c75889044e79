"""The one exception a user is meant to see."""


class UserError(ValueError):
    """A fault in what the user gave: one line that says what, where, the rule and what to do.

    Command lines print it as it is and end with exit code 2.
    """
