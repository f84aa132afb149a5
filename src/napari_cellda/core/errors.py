"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one plain sentence that names the file or layer, the value found and what is
    expected. The panels show it as it is; the command line prints it and exits with code 2.
    """
