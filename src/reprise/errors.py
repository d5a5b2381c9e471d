"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """Bad input: a key, type, path, file, column or pair that cannot work.

    The message is a single sentence that names the culprit and the remedy. The command line prints it without a
    traceback and exits with code 2; anything else that is raised counts as a defect of the suite or a failed run.
    """
